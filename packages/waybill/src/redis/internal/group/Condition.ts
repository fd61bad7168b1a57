/**
 * Where one fiber waits for something to come true, and others say that it may have. No signal is lost between the look
 * and the wait, as those who call `until` look again when they have begun to wait.
 *
 * @module
 */
import * as Effect from "effect/Effect"

export class Condition {
  #signalled: (() => void) | undefined

  /** All who wait look again. */
  signal(): void {
    this.#signalled?.()
  }

  /** Waits until it holds. */
  until(holds: () => boolean): Effect.Effect<void> {
    return Effect.callback((resume) => {
      // It may have come true since the fiber looked, and the signal have found no one waiting.
      if (holds()) return resume(Effect.void)
      return this.#listen(holds, resume)
    })
  }

  #listen(holds: () => boolean, resume: (effect: Effect.Effect<void>) => void): Effect.Effect<void> {
    this.#signalled = () => {
      if (!holds()) return
      this.#signalled = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.#signalled = undefined
    })
  }
}
