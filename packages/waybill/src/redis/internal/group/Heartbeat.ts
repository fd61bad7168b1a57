/**
 * The heartbeat of a receiver is sent until it is interrupted: it says that its consumer lives, brings in what is due, and looks for
 * work that no member does. What a beat does is the pattern's; when it is time for one is decided here. A beat that fails is
 * followed by the next.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import { Wakeup } from "../../../internal/Wakeup.ts"
import { type Reason, Rejected } from "../../../Transport.ts"

export interface HeartbeatOptions {
  readonly now: () => number
  readonly pollMillis: number
  readonly leaseMillis: number
  /** Answers whether there is more to do at once. */
  readonly beat: Effect.Effect<boolean, Reason>
  /** Makes good what a beat failed with, so that the next follows at once; or fails, with that or with something else. */
  readonly repair: (reason: Reason) => Effect.Effect<void, Reason>
  /** No beat is to begin: the receiver stands still. */
  readonly still: () => boolean
  /** A waiting take gets something from the next beat. */
  readonly eager: () => boolean
  readonly succeeded: () => void
  /** It will go on failing until somebody does something about it. */
  readonly failed: (reason: Reason) => void
}

/** How soon after a beat the next may bring in what is due: a busy group has something due at any moment. */
const leastMillis = 10
/** How soon a beat is repeated that somebody waits for, and anything else that failed. */
export const hurryMillis = 50
/** Who pauses a group does not wait longer for a receiver of its process. */
const longestLook = 1000

export class Heartbeat {
  readonly #options: HeartbeatOptions
  readonly #woken = new Wakeup(() => this.#called || this.#dueAt < this.#waitsFor)
  /** How many beats have begun, and who waits for the end of one that begins after theirs. */
  #beats = 0
  readonly #looks = new Set<{ readonly after: number; readonly done: () => void }>()
  #dueAt = Infinity
  /** What was due next when it began to wait. */
  #waitsFor = Infinity
  #called = false
  /** The next beat has to ask whose the deliveries are before anything else. */
  verify = false

  constructor(options: HeartbeatOptions) {
    this.#options = options
  }

  /** Beats again without waiting, if it waits. */
  wake(): void {
    this.#called = true
    this.#woken.notify()
  }

  /** A message of the topic will be due in so many milliseconds. */
  expect(millis: number): void {
    const dueAt = this.#options.now() + Math.max(0, millis)
    if (dueAt >= this.#dueAt) return
    this.#dueAt = dueAt
    this.#woken.notify()
  }

  /** Beats at once; returns when a beat that begins from now on is over, or soon. */
  readonly look: Effect.Effect<void> = Effect.asVoid(
    Effect.timeoutOption(
      Effect.callback<void>((resume) => {
        const look = { after: this.#beats, done: () => resume(Effect.void) }
        this.#looks.add(look)
        this.expect(0)
        return Effect.sync(() => this.#looks.delete(look))
      }),
      longestLook
    )
  )

  readonly run: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const { beat, failed, repair, still, succeeded } = this.#options
    while (true) {
      if (!still()) {
        const begun = ++this.#beats
        // What is due later, the beat tells.
        this.#dueAt = Infinity
        const result = yield* Effect.result(survivable(beat))
        for (const look of this.#looks) {
          if (look.after < begun && this.#looks.delete(look)) look.done()
        }
        if (Result.isSuccess(result)) {
          succeeded()
          if (result.success) continue
        } else {
          const repaired = yield* Effect.result(repair(result.failure))
          if (Result.isSuccess(repaired)) continue
          if (repaired.failure.permanent) failed(repaired.failure)
        }
      }
      yield* this.#pause()
    }
  })

  /** Until something is due, but at most for the poll interval: others may have brought what we do not know of. */
  #pause(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { eager, leaseMillis, now, pollMillis } = this.#options
      const began = now()
      const latest = began + Math.min(pollMillis * (yield* Random.nextBetween(0.75, 1)), leaseMillis / 3)
      this.#called = false
      while (true) {
        // A take waits, or was asked for between two rounds.
        const hurry = began + (this.verify ? hurryMillis : eager() ? 1 : Infinity)
        const dueAt = this.#dueAt
        const wait = Math.min(latest, hurry, Math.max(dueAt, began + leastMillis)) - now()
        if (this.#called || wait <= 0) return
        this.#waitsFor = dueAt
        yield* Effect.timeoutOption(this.#woken.wait, wait)
      }
    })
  }
}

/** A bug of ours must be heard by those who wait, and must not end the fiber that everything hangs on. */
export const survivable = <A>(self: Effect.Effect<A, Reason>): Effect.Effect<A, Reason> =>
  Effect.catchDefect(self, (defect) => Effect.fail(new Rejected({ command: "waybill", detail: String(defect) })))
