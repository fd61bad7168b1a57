/**
 * A process that publishes the ticks of a hundred schedules: `node schedule-worker.ts <orders>`. With `naive` it does so as it is often
 * written by hand: a timer, a lock that the leader renews, and messages without an id.
 */
import { writeSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Clock, Effect, Layer, Schema } from "effect"
import { Redis } from "ioredis"
import { Schedules, Topic } from "waybill"
import type { Orders } from "./Orders.ts"
import * as Pattern from "./Pattern.ts"
import { ids, type TickOrders, topic } from "./Ticks.ts"

const orders: Orders & TickOrders = JSON.parse(process.argv[2] ?? "{}")
process.stdin.on("close", () => process.exit(1)).resume()

const say = (line: string) => void writeSync(1, `${line}\n`)

const now = Date.now.bind(Date)
Date.now = () => now() + orders.ahead

const Tick = Topic.make(topic, { payload: Schema.String })

const declared = Schedules.layer(
  ids.map((id) => Schedules.every(id, "1 second", { topic: Tick, payload: id, missed: "all" }))
)

/** The process that has the lock publishes the ticks that are due by its own clock. */
const naive = Effect.gen(function* () {
  const redis = new Redis(orders.url)
  redis.on("error", () => {})
  let next = Math.ceil((yield* Clock.currentTimeMillis) / 1000) * 1000
  say("ready")
  while (true) {
    yield* Effect.sleep(Math.max(0, next - (yield* Clock.currentTimeMillis)))
    const tick = next
    next += 1000
    yield* Effect.ignore(
      Effect.tryPromise(async () => {
        const got = await redis.set("leader", orders.name, "PX", 1500, "NX")
        if (got === null && (await redis.get("leader")) !== orders.name) return
        await redis.pexpire("leader", 1500)
        const at = new Date(tick).toISOString()
        await Promise.all(
          ids.map((id) => redis.xadd(`{waybill:${topic}}:stream`, "*", "id", `${id}@${at}`, "payload", `"${id}"`))
        )
      })
    )
  }
})

const waybill = Layer.launch(
  Layer.provide(
    Layer.tap(declared, () => Effect.sync(() => say("ready"))),
    Pattern.on("streams", orders.url, orders.name)
  )
)

NodeRuntime.runMain(orders.naive ? naive : waybill)
