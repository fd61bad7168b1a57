/**
 * A work queue in the memory of this process. At least once: each message is delivered to one consumer at a time, until
 * one of them settles it. Unsettled messages die with the process.
 *
 * It answers like `RedisLists`, without a server, and all its time is the caller's `Clock`.
 *
 * @module
 */
import { type LimitOptions, limitsOf, oneOf } from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { type Order, Queue } from "./internal/Queue.ts"
import * as Store from "./internal/Store.ts"

/**
 * @category models
 */
export interface Options extends LimitOptions {
  /**
   * Which message is next: the oldest (`fifo`, the default), the newest (`lifo`), or the oldest of the highest priority
   * (`priority`). Messages that come back from a consumer go before new ones that are as urgent.
   */
  readonly order?: Order
}

const pattern = "lists"

/**
 * A store of its own with every build: two programs share messages by sharing the layer, and one that uses
 * two of them for a topic is warned. A topic is one queue, and the
 * first group that joins owns it; another one fails with `TopicConflict`. Throws on a duration of nothing, or a count that is
 * not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { MemoryLists } from "waybill/memory"
 *
 * const Resize = Topic.make("resize", { payload: Schema.Struct({ image: Schema.String }) })
 *
 * const Resizer = Consumer.make(Resize, { group: "resizer" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer,
 *   Layer.provide(MemoryLists.layer({ order: "priority" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = layerOf("at-least-once", (options: Options, as) => {
  const order = oneOf("order", options.order ?? "fifo", ["fifo", "lifo", "priority"])
  return Store.make({
    name: pattern,
    as,
    retention: "settled",
    priorities: order === "priority",
    limits: limitsOf(options),
    source: (place) => new Queue(place, order)
  })
})
