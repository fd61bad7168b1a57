import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Layer } from "effect"
import { RedisKeyspace } from "waybill/redis"
import { openedAs, redis } from "./Patterns.ts"

TransportSuite.run("RedisKeyspace", {
  layer: RedisKeyspace.layer({ notifications: "enable" }).pipe(
    Layer.provideMerge(redis),
    Layer.provideMerge(RedisServer.layer())
  ),
  time: "live",
  features: { filters: true, positions: false, trimming: false, untilSettled: true, coalescing: true },
  freeze,
  conflict: openedAs("streams")
})
