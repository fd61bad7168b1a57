/**
 * A work queue in the memory of this process. At least once: each message is delivered to one consumer at a time, until
 * one of them settles it. Unsettled messages end with the process.
 *
 * Behaves like `RedisLists`, without a server, and takes all time from the caller's `Clock`.
 *
 * @module
 */
import { byTopic, type LimitOptions, type Limits, limitsOf, oneOf, type TopicOptions } from "../internal/Limits.ts"
import { layer as layerOf } from "../Transport.ts"
import { type Order, Queue } from "./internal/Queue.ts"
import * as Store from "./internal/Store.ts"

/**
 * @category models
 */
export interface Options extends LimitOptions, TopicOptions<LimitOptions> {
  /**
   * Which message is next: the oldest (`fifo`, the default), the newest (`lifo`), or the oldest of the highest priority
   * (`priority`). Messages that come back from a consumer precede new ones of the same urgency.
   */
  readonly order?: Order
}

const pattern = "lists"

/**
 * Every build is a store of its own: programs share messages by sharing the layer value, and a program that uses two
 * of them for one topic is warned. A topic is one queue, owned by the first group that joins; another group fails
 * with `TopicConflict`. Throws on a duration of zero, or a count that is not an integer >= 1: those are bugs.
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
    unique: ["until-settled", "until-taken", "coalescing"],
    retention: () => "settled",
    priorities: order === "priority",
    limits: byTopic<LimitOptions, Limits>(options, limitsOf),
    source: (place) => new Queue(place, order)
  })
})
