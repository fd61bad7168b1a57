/**
 * Effectively once, for what a commit writes to the records of this layer and no further: the writes, messages and ack of
 * `Consumer.transactional` take effect together, once per message id while its marker lasts. All state ends with the
 * process.
 *
 * Behaves like `RedisExactlyOnce`, without a server, and takes all time from the caller's `Clock`.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import {
  byTopic,
  type LimitOptions,
  type Limits,
  limitsOf,
  millisOf,
  oneOf,
  type TopicOptions
} from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { type Order, Queue } from "./internal/Queue.ts"
import * as Store from "./internal/Store.ts"

/**
 * As for `MemoryLists`, but dead letters are kept for 7 days by default, because a redriven message still needs its marker.
 *
 * @category models
 */
export interface Options extends LimitOptions, TopicOptions<LimitOptions> {
  /** Which message is next, as for `MemoryLists`: `fifo` by default. */
  readonly order?: Order
  /**
   * How long to remember that a message's commit was applied: 8 days by default. Consumers whose messages may come
   * back after that cannot join: `MarkerTooShort`.
   */
  readonly marker?: Duration.Input
}

const pattern = "exactly-once"

/**
 * Every build is a store of its own: programs share messages and records by sharing the layer value, and a program
 * that uses two of them for one topic is warned. A topic is one queue, owned by the first group that joins; another
 * group fails with `TopicConflict`. Throws on a duration of zero, or a count that is not an integer >= 1: those are
 * bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Commit, Consumer, Topic } from "waybill"
 * import { MemoryExactlyOnce } from "waybill/memory"
 *
 * const Deposit = Topic.make("ledger/deposits", {
 *   payload: Schema.Struct({ account: Schema.String, cents: Schema.Int }),
 *   guarantee: "transactional"
 * })
 * const balances = Commit.hash("balances")
 *
 * const Ledger = Consumer.make(Deposit, { group: "ledger" }).pipe(
 *   Consumer.transactional(({ account, cents }) =>
 *     Effect.succeed(Commit.make({ writes: [balances.increment(account, cents)] }))
 *   ),
 *   Consumer.layer,
 *   Layer.provide(MemoryExactlyOnce.layer())
 * )
 * ```
 *
 * @category layers
 */
export const layer = layerOf("transactional", (options: Options, as) => {
  const order = oneOf("order", options.order ?? "fifo", ["fifo", "lifo", "priority"])
  const limits = byTopic<LimitOptions, Limits>(options, (own) => limitsOf(own, "7 days"))
  const markerMillis = millisOf("marker", options.marker ?? "8 days")
  return Store.make(
    {
      name: pattern,
      as,
      unique: ["until-settled", "until-taken", "coalescing"],
      retention: () => "settled",
      priorities: order === "priority",
      limits,
      source: (place) => new Queue(place, order)
    },
    markerMillis
  )
})
