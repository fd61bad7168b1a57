/**
 * A delivery is one message handed to one consumer once, with its attempt and its fence.
 *
 * @module
 */
import * as Context from "effect/Context"
import type { Gap } from "./Gap.ts"
import type { Message } from "./Message.ts"

/** How often one row of the routing table has retried a message, and when it first did, in milliseconds since the epoch. */
export interface Failures {
  readonly count: number
  readonly since: number
}

/** Identifies a delivery without its content. Enough to acknowledge it. */
export interface Handle {
  /** The message's id. */
  readonly id: string
  /**
   * The number of the attempt, from 1. Deliveries that a shutdown handed back unfinished do not count; those whose consumer
   * died do.
   */
  readonly attempt: number
  /**
   * Grows with every delivery of this message to this group. Pass it to another store and let that store refuse a
   * smaller one: this keeps a consumer that was paused for too long from overwriting its successor.
   */
  readonly fence: number
  /** The transport's own name for the delivery. Opaque to everyone else. */
  readonly receipt: string
}

export interface Delivery extends Message, Handle {
  readonly topic: string
  readonly group: string
  /** The part that the transport keeps until the delivery is settled; the delivery itself by default. */
  readonly handle?: Handle | undefined
  /**
   * How often each row of the routing table has retried the message so far, by the row's tag; `*` is the catch-all.
   * Undefined if the transport does not track it: then each row counts all attempts.
   */
  readonly failures?: ReadonlyMap<string, Failures> | undefined
  /** The messages missed just before this one, on patterns that can lose messages and know that they did. */
  readonly gap?: Gap | undefined
}

/**
 * The delivery being handled, for code that a handler calls without passing it on: its id, attempt and fence. Fibers
 * that a handler forks keep the delivery they were forked for. Undefined outside handlers, and in handlers of
 * `Consumer.processBatch`, which have many deliveries.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Delivery } from "waybill"
 *
 * const idempotencyKey = Effect.map(Delivery.Current, (delivery) => delivery?.id)
 * ```
 */
export const Current: Context.Reference<Delivery | undefined> = Context.Reference<Delivery | undefined>(
  "waybill/Delivery.Current",
  {
    defaultValue: () => undefined
  }
)
