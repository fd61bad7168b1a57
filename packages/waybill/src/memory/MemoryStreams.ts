/**
 * Streams with consumer groups in the memory of this process. At least once: a message is delivered to every group until
 * the group settles it. Unsettled messages end with the process.
 *
 * Behaves like `RedisStreams`, without a server, and takes all time from the caller's `Clock`: under `TestClock` a retry
 * that is due tomorrow is one `adjust` away.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import {
  byTopic,
  type KeptLimits,
  keptLimitsOf,
  type LimitOptions,
  type Limits,
  limitsOf,
  millisOf,
  type RetentionOptions,
  type TopicOptions
} from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { Log } from "./internal/Log.ts"
import * as Store from "./internal/Store.ts"

/**
 * What the store keeps, and how long.
 *
 * @category models
 */
export interface Options extends LimitOptions, RetentionOptions, TopicOptions<LimitOptions & RetentionOptions> {
  /**
   * How long to remember that a message's commit was applied: 31 days by default. Groups whose messages may come back after
   * that cannot join: `MarkerTooShort`.
   */
  readonly marker?: Duration.Input
}

const pattern = "streams"

/**
 * Every build is a store of its own: programs share messages by sharing the layer value, and a program that uses two
 * of them for one topic is warned. Throws on a duration of zero, or a count that is not an integer >= 1: those are
 * bugs.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const program = Producer.publish(Greeting, "hello").pipe(
 *   Effect.provide(MemoryStreams.layer({ deduplicationWindow: "1 hour" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = layerOf("transactional", (options: Options, as) => {
  const keptOf = byTopic<RetentionOptions, KeptLimits | undefined>(options, keptLimitsOf)
  const markerMillis = millisOf("marker", options.marker ?? "31 days")
  return Store.make(
    {
      name: pattern,
      as,
      positions: true,
      unique: ["until-settled", "coalescing"],
      retention: (topic) => {
        const kept = keptOf(topic)
        return kept === undefined ? "settled" : kept.keep === "newest" ? "length" : "history"
      },
      limits: byTopic<LimitOptions, Limits>(options, limitsOf),
      filters: true,
      source: (place) => new Log(place, keptOf(place.topic))
    },
    markerMillis
  )
})
