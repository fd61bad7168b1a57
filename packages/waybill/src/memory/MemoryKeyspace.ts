/**
 * Messages with a lifetime, in the memory of this process. At least once within that time: a message is delivered to
 * every group until the group settles it or the message expires. A late group gets everything that has not expired,
 * in order; messages that expired before a group read them are counted and reported as a `Gap`. Unsettled messages
 * end with the process.
 *
 * Behaves like `RedisKeyspace`, without a server, and takes all time from the caller's `Clock`.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import { byTopic, type LimitOptions, type Limits, limitsOf, millisOf, type TopicOptions } from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { ExpiringLog } from "./internal/ExpiringLog.ts"
import * as Store from "./internal/Store.ts"

/**
 * @category models
 */
export interface Options extends LimitOptions, TopicOptions<LimitOptions> {
  /**
   * How long a message lives: 1 hour by default. For a delayed one this begins when it is due; one that comes back
   * from the dead letters lives until it is settled.
   */
  readonly ttl?: Duration.Input
}

const pattern = "keyspace"

/**
 * Every build is a store of its own: programs share messages by sharing the layer value, and a program that uses two
 * of them for one topic is warned. Throws on a duration of zero, or a count that is not an integer >= 1: those are
 * bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { MemoryKeyspace } from "waybill/memory"
 *
 * const Price = Topic.make("prices", { payload: Schema.Struct({ symbol: Schema.String, cents: Schema.Int }) })
 *
 * const Board = Consumer.make(Price, { group: "board" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer,
 *   Layer.provide(MemoryKeyspace.layer({ ttl: "10 minutes" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = layerOf("at-least-once", (options: Options, as) => {
  const ttlMillis = millisOf("ttl", options.ttl ?? "1 hour")
  return Store.make({
    name: pattern,
    as,
    unique: ["until-settled", "coalescing"],
    retention: () => "expiry",
    limits: byTopic<LimitOptions, Limits>(options, limitsOf),
    filters: true,
    source: () => new ExpiringLog(ttlMillis)
  })
})
