/**
 * Counts the messages a handler was given: a skipped message keeps the count from completing, a repeated one is counted
 * separately, and the clock runs from the first to the last.
 */
import { Effect } from "effect"
import type { Numbered } from "./Work.ts"

export class Tally {
  readonly #expected: number
  readonly #seen: Uint8Array
  #count = 0
  #repeated = 0
  #startedAt = 0
  #endedAt = 0
  #complete: (() => void) | undefined

  constructor(expected: number) {
    this.#expected = expected
    this.#seen = new Uint8Array(expected)
  }

  readonly handle = (message: Numbered): void => {
    if (this.#count === 0) this.#startedAt = performance.now()
    if (this.#seen[message.seq] !== 0) {
      // An index out of bounds reads undefined: not a message of ours.
      this.#repeated++
      return
    }
    this.#seen[message.seq] = 1
    if (++this.#count < this.#expected) return
    this.#endedAt = performance.now()
    this.#complete?.()
  }

  get count(): number {
    return this.#count
  }

  /** Deliveries of a message after its first. */
  get repeated(): number {
    return this.#repeated
  }

  /** Seconds between the first and the last call of `handle`. */
  get seconds(): number {
    return (this.#endedAt - this.#startedAt) / 1000
  }

  /** Waits until every message has been handled. */
  readonly complete: Effect.Effect<void> = Effect.callback<void>((resume) => {
    if (this.#count === this.#expected) return resume(Effect.void)
    this.#complete = () => resume(Effect.void)
  })
}
