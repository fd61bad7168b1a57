/**
 * Where the tasks are kept: on the Redis of `REDIS_URL`, until the scope closes and every key under `prefix` is deleted; or
 * in memory, with a clock that does not wait.
 */
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Effect, Layer, type Redacted } from "effect"
import { TestClock } from "effect/testing"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisStreams } from "waybill/redis"

export const layerRedis = (url: Redacted.Redacted, prefix: string) =>
  RedisStreams.layer({ prefix, pollInterval: "100 millis" }).pipe(Layer.provide(IoRedis.layerUrl(url)))

export const layerTemporary = (url: Redacted.Redacted, prefix: string) =>
  RedisStreams.layer({ prefix, pollInterval: "100 millis" }).pipe(
    Layer.provide(temporaryKeys(prefix)),
    Layer.provide(IoRedis.layerUrl(url))
  )

/** Time passes as fast as the machine can: 10 ms whenever nobody has anything to do at once. */
const impatience = Layer.effectDiscard(
  Effect.promise(() => new Promise((resolve) => setImmediate(resolve))).pipe(
    Effect.andThen(TestClock.adjust("10 millis")),
    Effect.forever,
    Effect.forkScoped
  )
)

export const layerMemory = MemoryStreams.layer().pipe(
  Layer.provideMerge(impatience),
  Layer.provideMerge(TestClock.layer({ warningDelay: "1 second" }))
)
