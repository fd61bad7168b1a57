import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisLists } from "waybill/redis"
import { sampled } from "../Sample.ts"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

const orders = ["fifo", "lifo", "priority"] as const

// Other servers are to run the scripts, which are nearly the same for every order.
for (const order of process.env.WAYBILL_SERVER === undefined ? orders : sampled("orders", orders, 1)) {
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
