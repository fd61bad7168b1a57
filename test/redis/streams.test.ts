import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisStreams } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

TransportSuite.run("RedisStreams", {
  layer: RedisStreams.layer().pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
  time: "live",
  features: { transactional: true },
  freeze,
  conflict: (topic) =>
    Effect.flatMap(IoRedis.IoRedis, ({ commands }) =>
      commands.run("hset", (client) => client.hset(`{waybill:${topic}}:meta`, "pattern", "lists", "wire", "1"))
    )
})
