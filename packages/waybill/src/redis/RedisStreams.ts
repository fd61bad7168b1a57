/**
 * Delivery over Redis Streams with consumer groups. At least once: a published message is delivered to every group until the
 * group settles it, whatever crashes, as long as Redis keeps its data. A handler may see it again.
 *
 * Retries, delayed messages and dead letters live in Redis too, timed by its clock. Messages that every group has settled are
 * trimmed; nothing else is, unless you ask for it.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import {
  byTopic,
  type KeptLimits,
  keptLimitsOf,
  type LimitOptions,
  type RetentionOptions,
  type TopicOptions
} from "../internal/Limits.ts"
import * as Pattern from "./internal/Pattern.ts"
import { millisOf, settingsOf, type StoreOptions } from "./internal/Settings.ts"
import * as Streams from "./internal/streams/Streams.ts"

/**
 * @category models
 */
export interface Options
  extends Omit<StoreOptions, "topics">, RetentionOptions, TopicOptions<LimitOptions & RetentionOptions> {
  /**
   * How long to remember that a message's commit was applied: 31 days by default. Groups whose messages may come back after
   * that cannot join: `MarkerTooShort`. It costs about 150 bytes per message.
   */
  readonly marker?: Duration.Input
}

/**
 * The streams pattern, on the connections of `IoRedis`. Throws on a prefix with white space, braces or a colon, a duration of
 * zero, or a count that is not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisStreams } from "waybill/redis"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const Greeter = Consumer.make(Greeting, { group: "greeter" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer
 * )
 *
 * const Main = Greeter.pipe(
 *   Layer.provide(RedisStreams.layer({ prefix: "shop" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = Pattern.layer("transactional", (options: Options) => {
  const retentionOf = byTopic<RetentionOptions, KeptLimits | undefined>(options, keptLimitsOf)
  const markerMillis = millisOf("marker", options.marker ?? "31 days")
  return [Streams.make({ retentionOf, markerMillis }), settingsOf(options)]
})
