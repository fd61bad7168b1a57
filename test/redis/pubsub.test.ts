import { RedisServer, TransportSuite } from "@waybill/testing"
import { Layer } from "effect"
import { RedisPubSub } from "waybill/redis"
import { openedAs, redis } from "./Patterns.ts"

for (const channels of ["plain", "sharded"] as const) {
  TransportSuite.run(`RedisPubSub, ${channels}`, {
    layer: RedisPubSub.layer({ channels }).pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
    time: "live",
    features: {
      sharing: false,
      history: false,
      deduplication: false,
      schedules: false,
      delay: false,
      redelivery: false,
      lookup: false,
      cancel: false,
      trimming: false
    },
    conflict: openedAs("streams")
  })
}
