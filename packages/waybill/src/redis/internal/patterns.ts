/**
 * Every pattern, with options under which it can publish to and inspect any topic of its kind. A new pattern is one line here.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Keyspace from "./keyspace/Keyspace.ts"
import * as Queue from "./lists/Queue.ts"
import type { Pattern } from "./Pattern.ts"
import * as PubSub from "./pubsub/PubSub.ts"
import * as Streams from "./streams/Streams.ts"

/** The first one is assumed for a topic that does not record its pattern: it may be a stream that another program writes. */
export const patterns: readonly [Pattern, ...Array<Pattern>] = [
  Streams.make({ retentionOf: () => undefined, markerMillis: Infinity }),
  Queue.lists("any"),
  Queue.exactlyOnce("any", Infinity),
  Keyspace.make({ notifications: "poll", scan: false, ttlMillis: 3_600_000 }),
  PubSub.make({ sharded: false, capacity: 1024, capacityBytes: 64 * 1024 * 1024, overflow: "drop-oldest" })
]

/** The patterns that tools know. */
export const Patterns = Context.Reference("waybill/redis/Patterns", { defaultValue: () => patterns })
