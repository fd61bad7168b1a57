/**
 * A check is one sentence about transports, and an effect that dies when the sentence is not true.
 *
 * @module
 */
import { Effect, type Scope } from "effect"
import { Fixture } from "./Fixture.ts"

/**
 * What a transport may promise. A check runs when everything it needs is promised.
 *
 * @category models
 */
export interface Features {
  /** Every group gets every message. */
  readonly groups: boolean
  /** Receivers of a group share its messages. */
  readonly sharing: boolean
  /** A group that comes later can begin with what was stored before. */
  readonly history: boolean
  /** One receiver gets messages in the order in which they were published. */
  readonly order: boolean
  /** An id that was published is remembered, and publishing it again stores nothing. */
  readonly deduplication: boolean
  /** A message can be published before it is due. */
  readonly delay: boolean
  /** What failed for now comes again to the receiver that had it: retries, releases, attempts and fences. */
  readonly retry: boolean
  /** What is not settled is delivered again, also to others and after its receiver is gone: leaving, leases. */
  readonly redelivery: boolean
  /** A late `Ack` of a delivery that has gone to somebody else is refused as well. */
  readonly fencedAck: boolean
  readonly deadLetters: boolean
  readonly pause: boolean
  /** What every group has settled is dropped by itself. */
  readonly trimming: boolean
  /**
   * A commit is applied together with the ack, all of it once or none of it. Not expected unless it is promised: the layer
   * provides `Records` then.
   */
  readonly transactional: boolean
  /** `Options.freeze` is there. */
  readonly freeze: boolean
  /** `Options.conflict` is there. */
  readonly conflict: boolean
}

/**
 * @category models
 */
export interface Check {
  readonly name: string
  readonly needs: ReadonlyArray<keyof Features>
  readonly effect: Effect.Effect<void, unknown, Fixture | Scope.Scope>
}

export const check = (
  name: string,
  needs: ReadonlyArray<keyof Features>,
  body: (fixture: Fixture["Service"]) => Effect.Effect<unknown, unknown, Scope.Scope>
): Check => ({ name, needs, effect: Effect.asVoid(Effect.flatMap(Fixture, body)) })
