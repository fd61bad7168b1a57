/**
 * Places orders and shows what Prometheus would see of them. With `--serve` it goes on until it is stopped.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, Layer, Metric, Schedule } from "effect"
import { Command, Flag } from "effect/cli"
import { HttpServer } from "effect/http"
import { PrometheusMetrics } from "effect/observability"
import { Billing, place } from "./Orders.ts"
import { Counting, Endpoints, Exporting, Store } from "./Telemetry.ts"

const orders = 40

/** Until as many orders have ended, one way or the other, as were placed. */
const ended = Effect.gen(function* () {
  const metrics = yield* Metric.snapshot
  const settled = metrics.filter(
    ({ attributes, id }) =>
      id === "waybill_messages_settled_total" && /^(ack|dead_letter)$/.test(attributes?.["outcome"] ?? "")
  )
  return settled.reduce((sum, { state }) => sum + ("count" in state ? Number(state.count) : 0), 0) >= orders
}).pipe(Effect.repeat({ until: (all) => all, schedule: Schedule.spaced("50 millis") }))

const once = Effect.gen(function* () {
  yield* place(orders, 5)
  yield* ended
  const text = yield* PrometheusMetrics.format()
  const counters = text.split("\n").filter((line) => /^waybill_messages_\w+_total/.test(line))
  yield* Console.log(counters.join("\n"))
})

const serving = HttpServer.addressFormattedWith((address) =>
  Effect.andThen(
    Console.log(`metrics on ${address}/metrics, health on ${address}/health`),
    Effect.forever(place(1000, 200))
  )
)

const telemetry = Command.make(
  "telemetry",
  {
    serve: Flag.Boolean("serve").pipe(
      Flag.withDescription("Go on until stopped, on the port that PORT names (0: a free one), 9464 by default"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ serve }) {
    const port = serve ? yield* Config.Int("PORT").pipe(Config.withDefault(9464)) : 0
    const App = Layer.mergeAll(Billing, Counting, Endpoints(port)).pipe(
      Layer.provideMerge(Store),
      Layer.provideMerge(Exporting)
    )
    yield* Effect.provide(serve ? serving : once, App)
  })
).pipe(Command.withDescription("Orders are charged, retried and refused, and all of it shows."))

telemetry.pipe(Command.run({ version: "0.0.0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
