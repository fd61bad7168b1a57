/**
 * Which pattern carries what, on Redis or in the memory of this process. The rest of the chat does not know which.
 *
 * | transport | pattern |
 * |---|---|
 * | `Store` | streams |
 * | `Channels` | pub/sub |
 * | `Expiring` | keyspace, read as a log |
 */
import { Layer, type Redacted } from "effect"
import { RateLimiter } from "effect/persistence"
import { MemoryKeyspace, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisKeyspace, RedisPubSub, RedisStreams } from "waybill/redis"
import { ChatRooms } from "./ChatRooms.ts"
import * as Command from "./Command.ts"
import { Live } from "./Live.ts"
import { News } from "./News.ts"
import * as Notifications from "./Notifications.ts"
import { Presence, ttlMillis } from "./Presence.ts"
import { Channels, Expiring, Store } from "./Transports.ts"

/** How many messages a room keeps; the oldest go first. Commands and mentions wait in streams that are cut at the same length. */
const maxLength = 100_000

const streams = {
  retention: { maxLength },
  deduplicationWindow: Command.remembered,
  // As long as the id of a command is known, so that a client who asks again finds either its outcome or its remains.
  deadLetters: { maxAge: Command.remembered },
  // What comes back from there at the last moment, and is then tried for as long as it may be, is still not applied twice.
  marker: "2 days"
} as const

interface Patterns<E, R> {
  readonly transports: Layer.Layer<Store | Channels | Expiring, E, R>
  readonly limits: Layer.Layer<RateLimiter.RateLimiterStore, E, R>
}

/** The chat, over these patterns. */
export const domain = <E, R>({ limits, transports }: Patterns<E, R>) =>
  Live.layer.pipe(
    Layer.merge(Command.layer),
    Layer.merge(Notifications.layer),
    Layer.provideMerge(ChatRooms.layer),
    Layer.provideMerge(Presence.layer),
    Layer.provideMerge(News.layer),
    // For those who want to look at what is stored, such as at the dead letters.
    Layer.provideMerge(transports),
    Layer.provideMerge(Layer.provide(RateLimiter.layer, limits))
  )

export const memory = {
  transports: Layer.mergeAll(
    MemoryStreams.layer({ ...streams, as: Store }),
    MemoryPubSub.layer({ as: Channels }),
    MemoryKeyspace.layer({ ttl: ttlMillis, as: Expiring })
  ),
  limits: RateLimiter.layerStoreMemory
}

/** Everything in this process: what was said ends with it. */
export const layerMemory = domain(memory)

/** On Redis, with everyone who uses the same `prefix` there. */
export const layerRedis = (url: Redacted.Redacted, prefix: string) =>
  domain({
    transports: Layer.mergeAll(
      RedisStreams.layer({ prefix, ...streams, as: Store }),
      RedisPubSub.layer({ prefix, as: Channels }),
      RedisKeyspace.layer({ prefix, ttl: ttlMillis, as: Expiring })
    ),
    limits: RateLimiter.layerStoreRedis({ prefix: `${prefix}:limits:` }).pipe(Layer.provide(IoRedis.layerEffectRedis()))
  }).pipe(Layer.provide(IoRedis.layer({ url, connectionName: "chat" })))
