import { freeze, RedisServer, TransportSuite } from "@waybill/testing"
import { Layer } from "effect"
import { RedisLists } from "waybill/redis"
import { sampled } from "../Sample.ts"
import { openedAs, redis } from "./Patterns.ts"

const orders = ["fifo", "lifo", "priority"] as const

// Other servers are to run the scripts, which are nearly the same for every order.
for (const order of process.env.WAYBILL_SERVER === undefined ? orders : sampled("orders", orders, 1)) {
  TransportSuite.run(`RedisLists, ${order}`, {
    layer: RedisLists.layer({ order }).pipe(Layer.provideMerge(redis), Layer.provideMerge(RedisServer.layer())),
    time: "live",
    features: {
      groups: false,
      order: order !== "lifo",
      priorities: order === "priority",
      untilSettled: true,
      coalescing: true,
      untilTaken: true
    },
    freeze,
    conflict: openedAs("streams")
  })
}
