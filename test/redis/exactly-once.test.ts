import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisExactlyOnce } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

TransportSuite.run("RedisExactlyOnce", {
  layer: RedisExactlyOnce.layer().pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
  time: "live",
  features: { groups: false, transactional: true },
  freeze,
  conflict: (topic) =>
    Effect.flatMap(IoRedis.IoRedis, ({ commands }) =>
      commands.run("hset", (client) => client.hset(`{waybill:${topic}}:meta`, "pattern", "lists", "wire", "1"))
    )
})
