/**
 * Delivery over Redis pub/sub. At most once: a message reaches every subscriber that is connected when it is published, and
 * nothing is stored. What a subscriber missed while its connection was down is reported as a `Gap` before the next
 * message.
 *
 * Retries wait in the memory of the process and end with it. Dead letters are stored.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type { TopicOptions } from "../internal/Limits.ts"
import * as Pattern from "./internal/Pattern.ts"
import * as PubSub from "./internal/pubsub/PubSub.ts"
import { oneOf, settingsOf, type StoreOptions, wholeOf } from "./internal/Settings.ts"

/**
 * @category models
 */
export interface Options
  extends Pick<StoreOptions, "prefix" | "deadLetters">, TopicOptions<Pick<StoreOptions, "deadLetters">> {
  /**
   * `plain`, the default: every subscriber on the server, and on every node of a cluster, can listen. `sharded`: messages
   * stay on the topic's node, and patterns are not supported. Publishers and subscribers must agree.
   */
  readonly channels?: "plain" | "sharded"
  /** How many messages may wait in this process for a slow consumer: 1024 by default. */
  readonly buffer?: number
  /** How many bytes may wait: 64 MiB by default. A single message always may. */
  readonly bufferBytes?: number
  /**
   * What to do with a message when the buffer is full. `drop-oldest`, the default, makes room for it; `drop-newest` drops it;
   * both report a `Gap`. `fail` fails the consumer with `Overflow`.
   */
  readonly overflow?: "drop-oldest" | "drop-newest" | "fail"
  /** How long publishing waits for a connection before it fails: 5 seconds by default. */
  readonly publishTimeout?: Duration.Input
}

/**
 * The pub/sub pattern, on the connections of `IoRedis`. A topic must declare that at most once is enough for it.
 *
 * A consumer whose topic has `*`, `?` or `[...]` in its name receives every topic that matches; `Delivery.topic` tells which. Groups
 * do not share messages: every subscriber gets every message, and the name stands for dead letters, metrics and pauses.
 *
 * Throws on a prefix with white space, braces or a colon, or a buffer that is not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Console, Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisPubSub } from "waybill/redis"
 *
 * const Price = Topic.make("prices.*", { payload: Schema.Struct({ cents: Schema.Int }), guarantee: "at-most-once" })
 *
 * const Ticker = Consumer.make(Price, { group: "ticker" }).pipe(
 *   Consumer.process(({ cents }, { topic }) => Console.log(`${topic}: ${cents}`)),
 *   Consumer.onGap((gap) => Console.log(`${gap.missed ?? "some"} prices were missed`)),
 *   Consumer.layer
 * )
 *
 * const Main = Ticker.pipe(
 *   Layer.provide(RedisPubSub.layer({ prefix: "shop" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = Pattern.layer("at-most-once", (options: Options) => {
  const capacity = wholeOf("buffer", options.buffer ?? 1024)
  const capacityBytes = wholeOf("bufferBytes", options.bufferBytes ?? 64 * 1024 * 1024)
  const overflow = oneOf("overflow", options.overflow ?? "drop-oldest", ["drop-oldest", "drop-newest", "fail"])
  const sharded = oneOf("channels", options.channels ?? "plain", ["plain", "sharded"]) === "sharded"
  return [PubSub.make({ capacity, capacityBytes, overflow, sharded }), settingsOf(options)]
})
