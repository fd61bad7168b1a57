/**
 * Time for deadlines.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"

/** Something with deadlines. */
export interface Ticking {
  /** A command waits. */
  readonly busy: boolean
  /** Fails what has passed its deadline. */
  expire(): void
}

const defaultDeadline = Duration.seconds(5)
const defaultMillis = Duration.toMillis(defaultDeadline)

/**
 * Counts time for deadlines in steps of 50 ms, and only while a command waits: cheaper than a timer per command, and immune
 * to jumps of the wall clock and to a stalled event loop, after which the replies may already be there.
 */
export class Ticker {
  static readonly period = 50
  readonly #ticking = new Set<Ticking>()
  readonly #awake = Latch.makeUnsafe(false)
  now = 0

  /** The tick by which `deadline` has certainly passed. */
  after(deadline: Duration.Input | undefined): number {
    const millis = deadline === undefined ? defaultMillis : Duration.toMillis(Duration.fromInputUnsafe(deadline))
    return this.now + Math.ceil(millis / Ticker.period) + 1
  }

  wake(): void {
    this.#awake.openUnsafe()
  }

  add(one: Ticking): void {
    this.#ticking.add(one)
  }

  delete(one: Ticking): void {
    this.#ticking.delete(one)
  }

  /** Ticks forever; to be forked into the scope of the service. */
  readonly run: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    while (true) {
      yield* this.#awake.await
      while (this.#busy()) {
        yield* Effect.sleep(Ticker.period)
        this.now++
        for (const one of this.#ticking) one.expire()
      }
      this.#awake.closeUnsafe()
    }
  })

  #busy(): boolean {
    for (const one of this.#ticking) if (one.busy) return true
    return false
  }
}
