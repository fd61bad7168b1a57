/**
 * Retries an idempotent call until it succeeds, fails permanently, or the receiver closes.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Disconnected, type Reason, TransportError } from "../../../Transport.ts"

const firstPause = 50
const longestPause = 1000

export interface Retried<A> {
  readonly reply: A
  /** An earlier run may have succeeded: then "not yours" may also be the trace of our own success. */
  readonly ambiguous: boolean
}

export class RetryAmbiguous {
  readonly #topic: string
  #closed = false

  constructor(topic: string) {
    this.#topic = topic
  }

  /** From now on nothing is retried. */
  close(): void {
    this.#closed = true
  }

  /** `run` must be safe to repeat; `repeated`: it has run before. */
  try<A>(run: (repeated: boolean) => Effect.Effect<A, Reason>): Effect.Effect<Retried<A>, TransportError> {
    return Effect.matchEffect(run(false), {
      onFailure: (reason) => this.#again(run, reason, false, firstPause),
      onSuccess: (reply) => Effect.succeed({ reply, ambiguous: false })
    })
  }

  #again<A>(
    run: (repeated: boolean) => Effect.Effect<A, Reason>,
    reason: Reason,
    before: boolean,
    pause: number
  ): Effect.Effect<Retried<A>, TransportError> {
    if (reason.permanent) return this.#fail(reason)
    const ambiguous = before || (reason._tag === "Disconnected" && reason.ambiguous)
    if (this.#closed) return this.#fail(ambiguous ? new Disconnected({ ambiguous, cause: reason }) : reason)
    const next = Effect.delay(
      Effect.suspend(() => run(true)),
      pause
    )
    return Effect.flatMap(Effect.result(next), (result) =>
      Result.isSuccess(result)
        ? Effect.succeed({ reply: result.success, ambiguous })
        : this.#again(run, result.failure, ambiguous, Math.min(pause * 2, longestPause))
    )
  }

  #fail(reason: Reason): Effect.Effect<never, TransportError> {
    return Effect.fail(new TransportError({ operation: "settle", topic: this.#topic, reason }))
  }
}
