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
import { keptLimitsOf, type LimitOptions, limitsOf, millisOf, type RetentionLimits } from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { Log } from "./internal/Log.ts"
import * as Store from "./internal/Store.ts"

/**
 * What the store keeps, and how long.
 *
 * @category models
 */
export interface Options extends LimitOptions {
  /**
   * Which messages a topic keeps. `settled`, the default: those that some group has not settled, or everything while there is no
   * group. With limits on their number, age or bytes: the messages within all of them, settled or not, for late groups, replays and
   * `Log`. What exceeds a limit is dropped even if a slow group has not seen it, which is reported as `Truncated`; with
   * `keep: "unsettled"` it is dropped once every group has settled it.
   */
  readonly retention?: "settled" | RetentionLimits
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
  const kept = keptLimitsOf(options.retention ?? "settled")
  const markerMillis = millisOf("marker", options.marker ?? "31 days")
  return Store.make(
    {
      name: pattern,
      as,
      positions: true,
      unique: ["until-settled"],
      retention: kept === undefined ? "settled" : kept.keep === "newest" ? "length" : "history",
      limits: limitsOf(options),
      filters: true,
      source: (place) => new Log(place, kept)
    },
    markerMillis
  )
})
