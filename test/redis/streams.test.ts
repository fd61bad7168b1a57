import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Layer } from "effect"
import { RedisStreams } from "waybill/redis"
import { openedAs, redis } from "./Patterns.ts"

TransportSuite.run("RedisStreams", {
  layer: RedisStreams.layer().pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
  time: "live",
  features: { transactional: true, filters: true, untilSettled: true, coalescing: true },
  freeze,
  conflict: openedAs("lists")
})
