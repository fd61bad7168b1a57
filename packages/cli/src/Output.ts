/**
 * The only way out of the command. Everything it prints, including errors, log lines and help, reaches the terminal as
 * text, never as a control sequence. The process ends once its output has been read, with the exit code of the outcome.
 *
 * @module
 */
import { Cause, Console, Effect, type Exit, Option, Runtime } from "effect"
import { CliError, CliOutput } from "effect/cli"
import { safeLines } from "./SafeText.ts"

/**
 * Prints through the given console. In JSON, only strings contain the characters that are escaped, and there the escape
 * means the same.
 */
const text = (console: Console.Console): Console.Console => ({
  ...console,
  log: (...words: ReadonlyArray<unknown>) => console.log(safeLines(words.map(String).join(" "))),
  error: (...words: ReadonlyArray<unknown>) => console.error(safeLines(words.map(String).join(" ")))
})

/** An error in the arguments must not disappear under a screen of help. */
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Console.error(
          `waybill: ${event.errors.map(({ message }) => message).join("\n         ")}\n` +
            `\`${event.commandPath.join(" ")} --help\` shows the arguments and examples`
        )
      : CliOutput.defaultPresenter.present(event)
}

/** An error that the user can fix is one line: a stack trace would suggest a bug. */
const report = (cause: Cause.Cause<{ readonly message: string }>): Effect.Effect<void> =>
  Cause.hasInterruptsOnly(cause)
    ? Effect.void
    : Option.match(Cause.findErrorOption(cause), {
        onNone: () => Console.error(`waybill: this is a bug: ${Cause.pretty(cause)}`),
        // The presenter has printed these.
        onSome: (error) =>
          CliError.isCliError(error) && error._tag === "ShowHelp"
            ? Effect.void
            : Console.error(`waybill: ${error.message}`)
      })

/** Prints nothing but text, and reports why the command failed. */
export const guarded = <A, E extends { readonly message: string }, R>(
  command: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> =>
  command.pipe(
    Effect.tapCause(report),
    Effect.provideService(CliOutput.Presenter, presenter),
    Effect.provideService(CliOutput.Formatter, CliOutput.defaultFormatter({ colors: false })),
    Effect.updateService(Console.Console, text)
  )

/** Waits until the reader of standard output has caught up: unread output would pile up in memory. */
export const drained: Effect.Effect<void> = Effect.suspend(() =>
  process.stdout.writableNeedDrain ? Effect.promise(() => written(process.stdout)) : Effect.void
)

/** How long an interrupted command waits for a reader that has stopped reading. */
const interruptedMillis = 1000

/** Ends the process with the code of `exit` once all output has been read. */
export const leave: Runtime.Teardown = (exit, onExit) =>
  Runtime.defaultTeardown(exit, (told) => {
    const leaving = () => {
      const code = told === 0 && unwritten ? 1 : told
      process.exitCode = code
      onExit(code)
    }
    void Promise.all([written(process.stdout), written(process.stderr)]).then(leaving)
    if (isInterrupted(exit)) setTimeout(leaving, interruptedMillis).unref()
  })

const isInterrupted = (exit: Exit.Exit<unknown, unknown>): boolean =>
  exit._tag === "Failure" && Cause.hasInterruptsOnly(exit.cause)

const written = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => stream.write("", () => resolve()))

/** Some output could not be written, for example to a full disk. */
let unwritten = false

/**
 * A reader that closes early, such as `head`, is not an error, and ends only commands that would keep printing: others
 * finish their work and exit with their own code.
 */
export const outliveReader = (): void => {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE" || unwritten) return
      unwritten = true
      if (stream === process.stdout) process.stderr.write(`waybill: cannot print: ${error.message}\n`)
    })
  }
}

/** Ends a command that keeps printing once its reader is gone. */
export const whileRead = <A, E, R>(printing: Effect.Effect<A, E, R>): Effect.Effect<A | void, E, R> =>
  Effect.raceFirst(
    printing,
    Effect.callback<void>((resume) => {
      const left = () => resume(Effect.void)
      process.stdout.once("error", left)
      return Effect.sync(() => process.stdout.off("error", left))
    })
  )
