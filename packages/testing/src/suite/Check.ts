/**
 * A check is one sentence about transports, and an effect that dies when the sentence is not true.
 *
 * @module
 */
import { Effect, type Scope } from "effect"
import { Fixture } from "./Fixture.ts"

/**
 * The possible promises of a transport. A check runs when everything it needs is promised.
 *
 * @category models
 */
export interface Features {
  /** Every group gets every message. */
  readonly groups: boolean
  /** Receivers of a group share its messages. */
  readonly sharing: boolean
  /** A late group can begin with what was stored before it joined. */
  readonly history: boolean
  /** One receiver gets messages in the order they were published. */
  readonly order: boolean
  /** A published id is remembered, and publishing it again stores nothing. */
  readonly deduplication: boolean
  /** A message can have its id to itself until it is settled, or until it is taken. Not expected by default. */
  readonly untilSettled: boolean
  readonly untilTaken: boolean
  /** Messages of an id become one while they are delayed and, with `untilTaken`, until one is taken. Not expected by default. */
  readonly coalescing: boolean
  /** A message can be published before it is due. */
  readonly delay: boolean
  /** Temporary failures come again to the receiver that had them: retries, releases, attempts and fences. */
  readonly retry: boolean
  /** Unsettled messages are delivered again, also to others and after their receiver is gone: leaving, leases. */
  readonly redelivery: boolean
  /** A late `Ack` of a delivery that has gone to another consumer is refused too. */
  readonly fencedAck: boolean
  readonly deadLetters: boolean
  /** Dead letters are handed to hooks: `Transport.claimDeadLetters` is there. */
  readonly deadLetterHooks: boolean
  readonly pause: boolean
  /** A group can be moved to another place among the stored messages, and begin at a time. */
  readonly positions: boolean
  /** Messages that every group has settled are dropped automatically. */
  readonly trimming: boolean
  /** Messages are found, removed and rescheduled by their ids. */
  readonly lookup: boolean
  /** The most urgent message is next, and how urgent one is can be changed. Not expected by default. */
  readonly priorities: boolean
  /** Messages are cancelled by their ids. */
  readonly cancel: boolean
  /**
   * A commit is applied together with the ack, all of it once or none of it. Not expected by default; a layer that
   * promises it provides `Records`.
   */
  readonly transactional: boolean
  /** Schedules are kept beside the messages, and their ticks are published. */
  readonly schedules: boolean
  /** A group may want only some messages of a topic. Not expected by default. */
  readonly filters: boolean
  /** `Options.freeze` is given. */
  readonly freeze: boolean
  /** `Options.conflict` is given. */
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
