import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisKeyspace } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))

TransportSuite.run("RedisKeyspace", {
  layer: RedisKeyspace.layer({ notifications: "enable" }).pipe(
    Layer.provideMerge(redis),
    Layer.provideMerge(RedisServer.layer())
  ),
  time: "live",
  features: { trimming: false },
  freeze,
  conflict: (topic) =>
    Effect.flatMap(IoRedis.IoRedis, ({ commands }) =>
      commands.run("hset", (client) => client.hset(`{waybill:${topic}}:meta`, "pattern", "streams", "wire", "1"))
    )
})
