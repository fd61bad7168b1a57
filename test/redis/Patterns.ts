/**
 * Every pattern on Redis, for promises that all of them keep.
 */
import { RedisServer } from "@waybill/testing"
import { type Duration, Effect, Layer } from "effect"
import type { Inspector, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"

export type Services = Transport.AtMostOnce | Inspector.Inspector

export interface Options {
  readonly prefix?: string
  readonly publishTimeout?: Duration.Input
  readonly pollInterval?: Duration.Input
}

/** Those that store messages. */
export const storing = {
  RedisStreams: (options: Options = {}) => RedisStreams.layer(options),
  RedisLists: (options: Options = {}) => RedisLists.layer(options),
  RedisExactlyOnce: (options: Options = {}) => RedisExactlyOnce.layer(options),
  RedisKeyspace: (options: Options = {}) => RedisKeyspace.layer({ notifications: "enable", ...options })
} satisfies Record<string, (options?: Options) => Layer.Layer<Services | Transport.AtLeastOnce, never, IoRedis.IoRedis>>

export const all = {
  ...storing,
  RedisPubSub: (options: Options = {}) => RedisPubSub.layer(options)
} satisfies Record<string, (options?: Options) => Layer.Layer<Services, never, IoRedis.IoRedis>>

/** A connection to the server of the test. */
export const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

/** Makes a topic look as if another pattern had opened it. */
export const openedAs = (pattern: string) => (topic: string) =>
  Effect.flatMap(IoRedis.IoRedis, ({ commands }) => {
    const key = `{waybill:${topic}}:meta`
    return commands.run("hset", key, (client) => client.hset(key, "pattern", pattern, "wire", "1"))
  })
