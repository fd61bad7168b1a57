/**
 * Effectively once, for what a commit writes to the records of this layer and no further: the writes, messages and ack of
 * `Consumer.transactional` become true together, once for each message id while its marker lasts. All of it dies with the
 * process.
 *
 * It answers like `RedisExactlyOnce`, without a server, and all its time is the caller's `Clock`.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import { type LimitOptions, limitsOf, millisOf, oneOf } from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { type Order, Queue } from "./internal/Queue.ts"
import * as Store from "./internal/Store.ts"

/**
 * As with `MemoryLists`, but dead letters are kept for 7 days by default: a redriven message needs its marker still.
 *
 * @category models
 */
export interface Options extends LimitOptions {
  /** Which message is next, as with `MemoryLists`: `fifo` by default. */
  readonly order?: Order
  /**
   * For how long it is remembered that the commit of a message was applied, 8 days by default. A queue whose messages may
   * come again after that is not joined: `MarkerTooShort`.
   */
  readonly marker?: Duration.Input
}

const pattern = "exactly-once"

/**
 * A store of its own with every build: two programs share messages and records by sharing the layer, and one that uses
 * two of them for a topic is warned. A topic is one queue,
 * and the first group that joins owns it; another one fails with `TopicConflict`. Throws on a duration of nothing, or a count
 * that is not an integer >= 1: those are bugs.
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
  const limits = limitsOf({ ...options, deadLetters: { maxAge: "7 days", ...options.deadLetters } })
  const markerMillis = millisOf("marker", options.marker ?? "8 days")
  return Store.make(
    {
      name: pattern,
      as,
      retention: "settled",
      priorities: order === "priority",
      limits,
      source: (place) => new Queue(place, order)
    },
    markerMillis
  )
})
