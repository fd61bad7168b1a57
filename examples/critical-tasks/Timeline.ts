/**
 * What was told of the tasks, in the order in which it happened, whoever told it.
 */
import { Clock, Deferred, Effect, Schema } from "effect"

export const Fact = Schema.Struct({
  state: Schema.Literals([
    "published",
    "delivered",
    "waiting",
    "claimed",
    "lease lost",
    "released",
    "dead",
    "redriven",
    "done",
    "started",
    "stopped",
    "stands still",
    "wakes up"
  ]),
  /** The id of the message, where the fact is about a single one. */
  task: Schema.optional(Schema.String),
  detail: Schema.String
})
export type Fact = typeof Fact.Type

export const Entry = Schema.Struct({
  ...Fact.fields,
  /** Milliseconds since the epoch. */
  at: Schema.Number,
  who: Schema.String
})
export type Entry = typeof Entry.Type

interface Waiter {
  readonly fits: (entry: Entry) => boolean
  readonly found: Deferred.Deferred<Entry>
}

export class Timeline {
  readonly #entries: Array<Entry> = []
  readonly #waiters = new Set<Waiter>()

  add(entry: Entry): void {
    this.#entries.push(entry)
    for (const waiter of this.#waiters) {
      if (waiter.fits(entry)) Deferred.doneUnsafe(waiter.found, Effect.succeed(entry))
    }
  }

  /** Adds what happens now. */
  tell(who: string, fact: Fact): Effect.Effect<void> {
    return Effect.map(Clock.currentTimeMillis, (at) => this.add({ ...fact, who, at }))
  }

  /** Waits for something that has happened or will. */
  until(fits: (entry: Entry) => boolean): Effect.Effect<Entry> {
    return Effect.suspend(() => {
      const already = this.#entries.find(fits)
      if (already !== undefined) return Effect.succeed(already)
      const waiter = { fits, found: Deferred.makeUnsafe<Entry>() }
      this.#waiters.add(waiter)
      return Effect.ensuring(
        Deferred.await(waiter.found),
        Effect.sync(() => this.#waiters.delete(waiter))
      )
    })
  }

  /** The ids of the tasks that are done. */
  get done(): ReadonlySet<string> {
    return new Set(this.#entries.flatMap(({ state, task }) => (state === "done" && task !== undefined ? [task] : [])))
  }

  /** Everything about one task, a line each. */
  render(task: string): string {
    const entries = this.#entries
      .filter((entry) => entry.task === task || entry.task === undefined)
      .toSorted((a, b) => a.at - b.at)
    const start = entries[0]?.at ?? 0
    return entries
      .map(({ at, detail, state, who }) => {
        const seconds = ((at - start) / 1000).toFixed(3).padStart(8)
        return `${seconds} s  ${who.padEnd(9)}  ${state.padEnd(12)}  ${detail}`.trimEnd()
      })
      .join("\n")
  }
}
