import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisLists } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

for (const order of ["fifo", "lifo", "priority"] as const) {
  TransportSuite.run(`RedisLists, ${order}`, {
    layer: RedisLists.layer({ order }).pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
    time: "live",
    features: { groups: false, order: order !== "lifo" },
    freeze,
    conflict: (topic) =>
      Effect.flatMap(IoRedis.IoRedis, ({ commands }) =>
        commands.run("hset", (client) => client.hset(`{waybill:${topic}}:meta`, "pattern", "streams", "wire", "1"))
      )
  })
}
