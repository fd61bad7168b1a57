/**
 * How a receiver asks for deliveries back before their handlers begin, and learns that it has them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Delivery } from "../Delivery.ts"
import type { Recall } from "../Transport.ts"

export class Recalls {
  #asked: Array<Recall> = []
  readonly #open = new Map<Recall, () => void>()
  #listening = false
  #stirring = false
  /** The most urgent one reported meanwhile. */
  #urgency = Infinity
  #tell: (() => void) | undefined

  /** See `Receiver.recalled`. */
  readonly next: Effect.Effect<Recall> = Effect.suspend(() => {
    this.#listening = true
    const recall = this.#asked.shift()
    return recall === undefined ? Effect.flatMap(this.#some, () => this.next) : Effect.succeed(recall)
  })

  /**
   * Asks for the deliveries it concerns. `done` is called once the consumer will begin none of them: at once if it
   * does not listen.
   */
  request(concerns: (delivery: Delivery) => boolean, done: () => void): void {
    if (!this.#listening) return done()
    const recall: Recall = {
      concerns,
      done: Effect.sync(() => {
        this.#open.delete(recall)
        done()
      })
    }
    this.#open.set(recall, done)
    this.#asked.push(recall)
    this.#tell?.()
  }

  /** The same as an effect, which returns at that point. */
  ask(concerns: (delivery: Delivery) => boolean): Effect.Effect<void> {
    return Effect.callback((resume) => this.request(concerns, () => resume(Effect.void)))
  }

  /** Something this urgent waits: asks for less urgent deliveries, one request at a time however often it is called. */
  stir(urgency: number, urgencyOf: (delivery: Delivery) => number): void {
    if (this.#stirring) {
      this.#urgency = Math.min(this.#urgency, urgency)
      return
    }
    this.#stirring = true
    this.request(
      (delivery) => urgencyOf(delivery) > urgency,
      () => {
        this.#stirring = false
        const next = this.#urgency
        this.#urgency = Infinity
        if (next < Infinity) this.stir(next, urgencyOf)
      }
    )
  }

  /** The consumer has left: it begins nothing more, so every request is fulfilled. */
  close(): void {
    this.#listening = false
    this.#asked = []
    const open = [...this.#open.values()]
    this.#open.clear()
    for (const done of open) done()
  }

  readonly #some: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.#asked.length > 0) return resume(Effect.void)
    this.#tell = () => {
      this.#tell = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.#tell = undefined
    })
  })
}

/** Selects everything that was taken and has not begun. */
export const everything = (): boolean => true
