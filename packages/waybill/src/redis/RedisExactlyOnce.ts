/**
 * Effectively once, for what a commit writes to Redis and no further: the writes, messages and ack of `Consumer.transactional`
 * take effect together, once per message id while its marker lasts, whatever crashes, as long as Redis keeps its data.
 * Other side effects of the handler happen at least once.
 *
 * It is the work queue of `RedisLists` with a marker for each completed message. A queue has one group.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Queue from "./internal/lists/Queue.ts"
import * as Pattern from "./internal/Pattern.ts"
import { millisOf, oneOf, settingsOf, type StoreOptions } from "./internal/Settings.ts"

/**
 * As for `RedisLists`, but dead letters are kept for 7 days by default, because a redriven message still needs its marker.
 *
 * @category models
 */
export interface Options extends StoreOptions {
  /** Which message is next, as for `RedisLists`: `fifo` by default. */
  readonly order?: Queue.Order
  /**
   * How long to remember that a message's commit was applied: 8 days by default. Consumers whose messages may come back after
   * that cannot join: `MarkerTooShort`. It costs about 150 bytes per message.
   */
  readonly marker?: Duration.Input
}

/**
 * The exactly-once pattern, on the connections of `IoRedis`. Throws on a prefix with white space, braces or a colon, a duration
 * of zero, or a count that is not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Commit, Consumer, Topic } from "waybill"
 * import { IoRedis, RedisExactlyOnce } from "waybill/redis"
 *
 * const Deposit = Topic.make("ledger/deposits", {
 *   payload: Schema.Struct({ account: Schema.String, cents: Schema.Int }),
 *   guarantee: "transactional"
 * })
 * const balances = Commit.hash("balances")
 *
 * const Ledger = Consumer.make(Deposit, { group: "ledger", concurrency: 64 }).pipe(
 *   Consumer.transactional(({ account, cents }) =>
 *     Effect.succeed(Commit.make({ writes: [balances.increment(account, cents)] }))
 *   ),
 *   Consumer.layer
 * )
 *
 * const Main = Ledger.pipe(
 *   Layer.provide(RedisExactlyOnce.layer({ prefix: "bank" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = Pattern.layer("transactional", (options: Options) => {
  const settings = settingsOf(options, "7 days")
  const markerMillis = millisOf("marker", options.marker ?? "8 days")
  const order = oneOf("order", options.order ?? "fifo", ["fifo", "lifo", "priority", "any"])
  return [Queue.exactlyOnce(order, markerMillis), settings]
})
