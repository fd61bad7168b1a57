/**
 * An operator of a server: an inspector, and a plain client beside it. It is closed with the scope.
 */
import { Effect, Layer } from "effect"
import type { Redis } from "ioredis"
import { Inspector } from "waybill"
import { IoRedis, RedisInspector } from "waybill/redis"
import { client } from "../Client.ts"

export interface Operator {
  readonly port: number
  readonly redis: Redis
  readonly inspector: Effect.Success<typeof Inspector.Inspector>
}

/** Of all keys that an operator sees. */
export const prefix = "bench"

export const make = Effect.fnUntraced(function* (port: number) {
  const redis = yield* client(port)
  const context = yield* Layer.build(RedisInspector.layer({ prefix }).pipe(Layer.provide(IoRedis.layer({ port }))))
  const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
  return { port, redis, inspector } satisfies Operator
})
