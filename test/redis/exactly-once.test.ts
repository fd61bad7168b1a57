import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Layer } from "effect"
import { RedisExactlyOnce } from "waybill/redis"
import { openedAs, redis } from "./Patterns.ts"

TransportSuite.run("RedisExactlyOnce", {
  layer: RedisExactlyOnce.layer().pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
  time: "live",
  features: { groups: false, transactional: true, untilSettled: true, coalescing: true, untilTaken: true },
  freeze,
  conflict: openedAs("lists")
})
