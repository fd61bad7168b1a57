/**
 * Lets one fiber wait until a condition holds. A callback instead of a queue: resuming a fiber directly costs no allocation
 * and no turn of the event loop, and the resumed fiber runs at once, as far as it can.
 *
 * @module
 */
import * as Effect from "effect/Effect"

export class Wakeup {
  readonly #holds: () => boolean
  #wake: (() => void) | undefined

  constructor(holds: () => boolean) {
    this.#holds = holds
  }

  readonly wait: Effect.Effect<void> = Effect.callback((resume) => {
    // The condition is checked again at the last moment: between check and wait the fiber may have been made to
    // yield, and a notification at that moment would have reached no one.
    if (this.#holds()) return resume(Effect.void)
    this.#wake = () => resume(Effect.void)
  })

  /** To be called after each change that may have made the condition true. */
  notify(): void {
    const wake = this.#wake
    if (wake === undefined || !this.#holds()) return
    this.#wake = undefined
    wake()
  }
}
