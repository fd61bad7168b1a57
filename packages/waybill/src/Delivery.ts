/**
 * A delivery is one message, handed to one consumer, once: the attempt it is and the fence that goes with it.
 *
 * @module
 */
import * as Context from "effect/Context"
import type { Gap } from "./Gap.ts"
import type { Message } from "./Message.ts"

/** How often one row of the routing table has retried a message, and when it did so first, in milliseconds since the epoch. */
export interface Failures {
  readonly count: number
  readonly since: number
}

/** Identifies a delivery without its content, which is enough to acknowledge it. */
export interface Handle {
  /** Of the message. */
  readonly id: string
  /**
   * Which attempt this is, from 1. Deliveries that were handed back unfinished by a shutdown are not counted; those whose
   * consumer died are.
   */
  readonly attempt: number
  /**
   * Grows with every delivery of this message to this group, for whatever reason. Pass it to another store and let that
   * store refuse a smaller one: this is how a consumer that was paused for too long is kept from overwriting its successor.
   */
  readonly fence: number
  /** The transport's own name for it. Opaque to everyone else. */
  readonly receipt: string
}

export interface Delivery extends Message, Handle {
  readonly topic: string
  readonly group: string
  /** The part that its transport keeps until it is settled; the delivery itself by default. */
  readonly handle?: Handle | undefined
  /**
   * How often each row of the routing table has retried the message so far, by the tag of the row; `*` is the catch-all. None
   * where the transport does not know it: then each row counts all attempts.
   */
  readonly failures?: ReadonlyMap<string, Failures> | undefined
  /** The messages missed just before this one, from a pattern that can lose messages and knows that it did. */
  readonly gap?: Gap | undefined
}

/**
 * The delivery that is being handled, for code that is called by a handler and given none: its id, its attempt, its fence. Fibers
 * that a handler forks keep the one they were forked for. None outside of handlers, and in those of `Consumer.processBatch`,
 * which have many.
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
