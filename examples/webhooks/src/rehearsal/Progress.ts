/**
 * Says how far things are: one line that is written over on a terminal, a line every second everywhere else.
 */
import { Clock, Effect, Stdio, Terminal } from "effect"

export interface Progress {
  /** The state of things. May be dropped, when there was one less than a second ago. */
  readonly show: (state: string) => Effect.Effect<void>
  /** Something that happened; never dropped. */
  readonly say: (line: string) => Effect.Effect<void>
  /** Ends the line that is written over. */
  readonly end: Effect.Effect<void>
}

const quietMillis = 1000

const clear = "\r\x1b[2K"

export const make = Effect.fn("Progress.make")(function* () {
  const terminal = yield* Terminal.Terminal
  const onTerminal = yield* (yield* Stdio.Stdio).stdoutIsTerminal
  // Whoever reads our output may be gone: that is no reason to stop working.
  const write = (text: string) => Effect.ignore(terminal.display(text))
  let shownAt = -Infinity
  const progress: Progress = {
    show: Effect.fnUntraced(function* (state) {
      if (onTerminal) return yield* write(`${clear}${state.slice(0, (yield* terminal.columns) - 1)}`)
      const now = yield* Clock.currentTimeMillis
      if (now - shownAt < quietMillis) return
      shownAt = now
      yield* write(`${state}\n`)
    }),
    say: (line) => write(`${onTerminal ? clear : ""}${line}\n`),
    end: onTerminal ? write(clear) : Effect.void
  }
  return progress
})
