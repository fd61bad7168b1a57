/**
 * Tells a consumer's hooks, by its heartbeats, that the group has dead letters for them to claim.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { Wakeup } from "../../../internal/Wakeup.ts"

export class Unclaimed {
  #isAsked = false
  #some = false
  readonly #wakeup = new Wakeup(() => this.#some)

  /** Whether the consumer has hooks: others need not know. */
  get asked(): 0 | 1 {
    return this.#isAsked ? 1 : 0
  }

  tell(some: boolean): void {
    this.#some = some
    this.#wakeup.notify()
  }

  /** Waits until there may be some. */
  readonly wait: Effect.Effect<void> = Effect.suspend(() => {
    this.#isAsked = true
    return Effect.map(this.#wakeup.wait, () => {
      this.#some = false
    })
  })
}
