/**
 * Streams with consumer groups in the memory of this process. At least once: a message is delivered to every group until
 * the group settles it. Unsettled messages die with the process.
 *
 * It answers like `RedisStreams`, without a server, and all its time is the caller's `Clock`: under `TestClock` a retry
 * that is due tomorrow is one `adjust` away.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import { type LimitOptions, limitsOf, millisOf, oneOf, wholeOf } from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { Log } from "./internal/Log.ts"
import * as Store from "./internal/Store.ts"

/**
 * When the store forgets messages and ids.
 *
 * @category models
 */
export interface Options extends LimitOptions {
  /**
   * Which messages a topic's log keeps. `settled`, the default: those that some group has not settled; while no group exists, everything.
   * `{ maxLength }`: so many of the newest messages, settled or not. Lossy: what a slow group had not seen is gone, and
   * `Truncated` says so.
   */
  readonly retention?: "settled" | { readonly maxLength: number }
  /**
   * For how long it is remembered that the commit of a message was applied, 31 days by default. A group whose messages may
   * come again after that is not joined: `MarkerTooShort`.
   */
  readonly marker?: Duration.Input
}

const pattern = "streams"

/**
 * A store of its own with every build: two programs share messages by sharing the layer, and one that uses
 * two of them for a topic is warned. Throws on a duration of nothing,
 * or a count that is not an integer >= 1: those are bugs.
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
  const { retention = "settled" } = options
  if (typeof retention !== "object") oneOf("retention", retention, ["settled"])
  const maxLength = typeof retention === "object" ? wholeOf("retention.maxLength", retention.maxLength) : Infinity
  const markerMillis = millisOf("marker", options.marker ?? "31 days")
  return Store.make(
    {
      name: pattern,
      as,
      retention: "settled",
      limits: limitsOf(options),
      source: (place) => new Log(place, maxLength)
    },
    markerMillis
  )
})
