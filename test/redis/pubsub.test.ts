import { RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisPubSub } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

for (const channels of ["plain", "sharded"] as const) {
  TransportSuite.run(`RedisPubSub, ${channels}`, {
    layer: RedisPubSub.layer({ channels }).pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
    time: "live",
    features: {
      sharing: false,
      history: false,
      deduplication: false,
      delay: false,
      redelivery: false,
      trimming: false
    },
    conflict: (topic) =>
      Effect.flatMap(IoRedis.IoRedis, ({ commands }) =>
        commands.run("hset", (client) => client.hset(`{waybill:${topic}}:meta`, "pattern", "streams", "wire", "1"))
      )
  })
}
