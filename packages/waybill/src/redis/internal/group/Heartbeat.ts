/**
 * A receiver's heartbeat, sent until it is interrupted: it tells that the consumer lives, brings in what is due, and finds work that
 * belongs to no member. The pattern defines what a beat does; this module decides when one is sent. A failed beat is followed by
 * the next.
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
  /** Returns whether there is more to do at once. */
  readonly beat: Effect.Effect<boolean, Reason>
  /** Repairs the cause of a failed beat, so that the next follows at once; or fails, with that or another reason. */
  readonly repair: (reason: Reason) => Effect.Effect<void, Reason>
  /** No beat may begin: the receiver is frozen. */
  readonly still: () => boolean
  /** The next beat may serve a waiting take. */
  readonly eager: () => boolean
  readonly succeeded: () => void
  /** It will keep failing until an operator intervenes. */
  readonly failed: (reason: Reason) => void
}

/** The shortest interval between beats that bring in what is due: in a busy group something is due at any moment. */
const leastMillis = 10
/** How much later than others a consumer brings in what is due, while something that it has set aside may be among it. */
const courtesyMillis = 25
/** The delay of a repair that something waits for, and after any other failure. */
export const hurryMillis = 50
/** Pausing waits no longer for a receiver of its process. */
const longestRefresh = 1000

export class Heartbeat {
  readonly #options: HeartbeatOptions
  readonly #woken = new Wakeup(() => this.#called || this.#dueAt < this.#waitsFor)
  /** How many beats have begun, and waiters for the end of a later one. */
  #beats = 0
  readonly #waiting = new Set<{ readonly after: number; readonly done: () => void }>()
  #dueAt = Infinity
  /** What was due next when it began to wait. */
  #waitsFor = Infinity
  #called = false
  /** Until then others go first: they may read what this consumer has set aside. */
  #lastUntil = -Infinity
  /** The next beat has to check the ownership of deliveries before anything else. */
  verify = false

  constructor(options: HeartbeatOptions) {
    this.#options = options
  }

  /** Ends a wait between beats. */
  wake(): void {
    this.#called = true
    this.#woken.notify()
  }

  /** A message of the topic will be due in that many milliseconds. */
  expect(millis: number): void {
    const now = this.#options.now()
    const dueAt = now + Math.max(0, millis) + (now < this.#lastUntil ? courtesyMillis : 0)
    if (dueAt >= this.#dueAt) return
    this.#dueAt = dueAt
    this.#woken.notify()
  }

  /** Lets others go first when something is due in that many milliseconds. */
  goLast(millis: number): void {
    this.#lastUntil = Math.max(this.#lastUntil, this.#options.now() + millis + courtesyMillis)
  }

  /** Beats at once; returns when a beat that begins from now on is over, or soon. */
  readonly refresh: Effect.Effect<void> = Effect.asVoid(
    Effect.timeoutOption(
      Effect.callback<void>((resume) => {
        const waiter = { after: this.#beats, done: () => resume(Effect.void) }
        this.#waiting.add(waiter)
        this.expect(0)
        return Effect.sync(() => this.#waiting.delete(waiter))
      }),
      longestRefresh
    )
  )

  readonly run: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const { beat, failed, repair, still, succeeded } = this.#options
    while (true) {
      if (!still()) {
        const begun = ++this.#beats
        // The beat reports what is due later.
        this.#dueAt = Infinity
        const result = yield* Effect.result(survivable(beat))
        for (const waiter of this.#waiting) {
          if (waiter.after < begun && this.#waiting.delete(waiter)) waiter.done()
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

  /** Waits until something is due, but at most for the poll interval: others may have brought what we do not know of. */
  #pause(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { eager, leaseMillis, now, pollMillis } = this.#options
      const began = now()
      const latest = began + Math.min(pollMillis * (yield* Random.nextBetween(0.75, 1)), leaseMillis / 3)
      this.#called = false
      while (true) {
        // A take waits, or was requested between two rounds.
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

/** A bug of ours must reach the waiting takes, and must not end the fiber that everything depends on. */
export const survivable = <A>(self: Effect.Effect<A, Reason>): Effect.Effect<A, Reason> =>
  Effect.catchDefect(self, (defect) => Effect.fail(new Rejected({ command: "waybill", detail: String(defect) })))
