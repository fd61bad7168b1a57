/**
 * A work queue over Redis lists. At least once: a published message is delivered to one consumer of the queue's group at a time
 * until one of them settles it, whatever crashes, as long as Redis keeps its data. A handler may see it again.
 *
 * A consumer takes a batch in one step that also records who holds it. New messages are announced by a notification; a lost one
 * costs at most `pollInterval`. A queue has one group, the first that joins; for several, use RedisStreams.
 *
 * @module
 */
import * as Queue from "./internal/lists/Queue.ts"
import * as Pattern from "./internal/Pattern.ts"
import { oneOf, settingsOf, type StoreOptions } from "./internal/Settings.ts"

/**
 * @category models
 */
export interface Options extends StoreOptions {
  /**
   * Which message is next. `fifo`, the default: the oldest. `lifo`: the newest. `priority`: those published with priority
   * `high`, then `normal`, then `low`, the oldest first. Messages that come back precede new ones of the same urgency. The order
   * belongs to the topic once a program with one has published or received: a program that asks for another then fails with
   * `TopicConflict`. `any`, for programs that only publish: the order the topic has, or sorted by urgency while it has none.
   */
  readonly order?: "fifo" | "lifo" | "priority" | "any"
}

/**
 * The lists pattern, on the connections of `IoRedis`. Throws on a prefix with white space, braces or a colon, a duration of
 * zero, or a count that is not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisLists } from "waybill/redis"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.String })
 *
 * const Worker = Consumer.make(Thumbnail, { group: "workers" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer
 * )
 *
 * const Main = Worker.pipe(
 *   Layer.provide(RedisLists.layer({ prefix: "shop", order: "priority" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = Pattern.layer("at-least-once", (options: Options) => {
  const order = oneOf("order", options.order ?? "fifo", ["fifo", "lifo", "priority", "any"])
  return [Queue.lists(order), settingsOf(options)]
})
