/**
 * Which pattern carries what, on Redis or in the memory of this process. The rest of the chat does not know which.
 *
 * | what | pattern | why |
 * |---|---|---|
 * | commands, rooms, mentions, records | streams | stored, in order, and applied in one step |
 * | news and typing | pub/sub | only wakes; what is lost is found again by looking |
 * | presence | keyspace, read as a log | a sign of life that expires by itself |
 */
import { Layer, type Redacted } from "effect"
import { RateLimiter } from "effect/persistence"
import type { Inspector, Records, Transport } from "waybill"
import { MemoryKeyspace, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisKeyspace, RedisPubSub, RedisStreams } from "waybill/redis"
import { ChatRooms } from "./ChatRooms.ts"
import * as Command from "./Command.ts"
import { Live } from "./Live.ts"
import { News } from "./News.ts"
import * as Notifications from "./Notifications.ts"
import { Presence, ttlMillis } from "./Presence.ts"

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
  readonly streams: Layer.Layer<
    | Transport.Transport
    | Inspector.Inspector
    | Records.Records
    | Transport.AtLeastOnce
    | Transport.AtMostOnce
    | Transport.Transactional,
    E,
    R
  >
  readonly pubsub: Layer.Layer<Transport.Transport | Transport.AtMostOnce, E, R>
  readonly keyspace: Layer.Layer<Transport.Transport | Inspector.Inspector, E, R>
  readonly limits: Layer.Layer<RateLimiter.RateLimiterStore, E, R>
}

/** The chat, over these patterns. */
export const domain = <E, R>({ keyspace, limits, pubsub, streams }: Patterns<E, R>) =>
  Live.layer.pipe(
    Layer.merge(Command.layer),
    Layer.merge(Notifications.layer),
    Layer.provideMerge(ChatRooms.layer),
    // For those who want to look at what is stored, such as at the dead letters.
    Layer.provideMerge(streams),
    Layer.provideMerge(Layer.provide(Presence.layer, keyspace)),
    Layer.provideMerge(Layer.provide(News.layer, pubsub)),
    Layer.provideMerge(Layer.provide(RateLimiter.layer, limits))
  )

export const memory = {
  streams: MemoryStreams.layer(streams),
  pubsub: MemoryPubSub.layer(),
  keyspace: MemoryKeyspace.layer({ ttl: ttlMillis }),
  limits: RateLimiter.layerStoreMemory
}

/** Everything in this process: what was said ends with it. */
export const layerMemory = domain(memory)

/** On Redis, with everyone who uses the same `prefix` there. */
export const layerRedis = (url: Redacted.Redacted, prefix: string) =>
  domain({
    streams: RedisStreams.layer({ prefix, ...streams }),
    pubsub: RedisPubSub.layer({ prefix }),
    keyspace: RedisKeyspace.layer({ prefix, ttl: ttlMillis }),
    limits: RateLimiter.layerStoreRedis({ prefix: `${prefix}:limits:` }).pipe(Layer.provide(IoRedis.layerEffectRedis()))
  }).pipe(Layer.provide(IoRedis.layer({ url, connectionName: "chat" })))
