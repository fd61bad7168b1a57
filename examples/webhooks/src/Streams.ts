/**
 * Where the webhooks are kept: on the Redis that `REDIS_URL` names, or, without it, in the memory of this process and no
 * longer than it lives. The rest of the program does not know which.
 */
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Config, Effect, Layer, Option, type Redacted } from "effect"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisStreams } from "waybill/redis"

export const redisUrl = Config.option(Config.Redacted("REDIS_URL"))

/** `prefix` keeps the keys of this program apart from others on the same Redis. */
export const layer = (prefix: string) =>
  Layer.unwrap(
    Effect.map(
      redisUrl,
      Option.match({ onNone: () => MemoryStreams.layer(), onSome: (url) => layerRedis(url, prefix) })
    )
  )

export const layerRedis = (url: Redacted.Redacted, prefix: string) =>
  RedisStreams.layer({ prefix }).pipe(Layer.provide(IoRedis.layerUrl(url)))

/** The same as `layer`; as it closes it deletes every key under `prefix`. */
export const layerTemporary = (prefix: string) =>
  Layer.unwrap(
    Effect.map(
      redisUrl,
      Option.match({
        onNone: () => MemoryStreams.layer(),
        onSome: (url) =>
          RedisStreams.layer({ prefix }).pipe(
            Layer.provide(temporaryKeys(prefix)),
            Layer.provide(IoRedis.layerUrl(url))
          )
      })
    )
  )
