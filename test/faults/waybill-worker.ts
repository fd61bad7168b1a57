/**
 * The consumer under test as a process: `node waybill-worker.ts <orders>`.
 */
import { writeSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { History } from "@waybill/testing"
import { Effect, Layer, Logger, Scope } from "effect"
import { Redis } from "ioredis"
import { Consumer, type Lifecycle, Transport } from "waybill"
import { consumer, type Terms } from "./Jobs.ts"
import { block, type Orders } from "./Orders.ts"
import * as Pattern from "./Pattern.ts"

export interface WaybillOrders extends Terms {
  readonly url: string
  /** Streams by default. */
  readonly pattern?: Pattern.Name
  /** Where this process kills itself, the first time it gets there. */
  readonly failpoint?: "taken" | "beforeSettling" | "afterSettling"
  /** Once it has taken something it does not find out what became of its lease: not until it settles. */
  readonly deaf?: boolean
}

const orders: Orders & WaybillOrders = JSON.parse(process.argv[2] ?? "{}")

// With its parent this process ends too, however that went.
process.stdin.on("close", () => process.exit(1)).resume()

const say = (line: string) => void writeSync(1, `${line}\n`)
const inner = History.toFile(orders.name, orders.history)
let begun = 0
const recorder: History.Recorder = {
  writer: inner.writer,
  record: (fact) => {
    inner.record(fact)
    if (fact._tag === "Started" && ++begun % orders.every === 0) say(`handled ${begun}`)
  }
}
const die = () => process.kill(process.pid, "SIGKILL")
const dieAt = (point: WaybillOrders["failpoint"]) =>
  Effect.sync(() => {
    if (orders.failpoint !== point) return
    recorder.record({ _tag: "Fault", fault: "Killed", target: recorder.writer })
    die()
  })

/** Calls that were under way when it was frozen complete before it goes on. */
const stand = (receiver: Transport.Receiver, scope: Scope.Scope) =>
  // Imported when it is needed: older builds, which run this program too, do not have it.
  Effect.promise(() => import("@waybill/testing/freeze")).pipe(
    Effect.flatMap(({ freeze }) => Scope.provide(freeze(receiver), scope)),
    Effect.andThen(Effect.sleep("1 second"))
  )

/** The same transport, with points to die and to freeze at. */
const Failpoints = Layer.effect(
  Transport.AtLeastOnce,
  Effect.map(Transport.AtLeastOnce, (transport) => ({
    ...transport,
    receive: (subscription) =>
      Effect.zipWith(transport.receive(subscription), Effect.scope, (receiver, scope): Transport.Receiver => ({
        consumer: receiver.consumer,
        take: (max) =>
          receiver
            .take(max)
            .pipe(Effect.tap(dieAt("taken")), Effect.tap(orders.deaf === true ? stand(receiver, scope) : Effect.void)),
        settle: (settlements) =>
          dieAt("beforeSettling").pipe(
            Effect.andThen(receiver.settle(settlements)),
            Effect.tap(dieAt("afterSettling"))
          ),
        lost: receiver.lost
      }))
  }))
)

const store = new Redis(orders.url, { lazyConnect: true })
store.on("error", () => {})

const write = (id: string, fence: number) =>
  Effect.promise(() =>
    store.eval(
      `if tonumber(redis.call('GET', KEYS[1]) or '0') > tonumber(ARGV[1]) then return 0 end
       redis.call('SET', KEYS[1], ARGV[1])
       return redis.call('INCR', KEYS[2])`,
      2,
      `outside:${id}`,
      "outside",
      fence
    )
  ).pipe(Effect.map(Number))

const program = Effect.gen(function* () {
  const { lifecycle } = yield* Transport.AtLeastOnce
  yield* History.follow(recorder, lifecycle)
  yield* lifecycle.listen((event: Lifecycle.Event) => {
    if (event._tag === "LeaseLost") for (const { id } of event.deliveries) say(`lost ${id}`)
    else if (event._tag === "Settled") {
      if (event.stale) say(`stale ${event.delivery.id}`)
    } else if (event._tag === "ConsumerStarted") say("ready")
    else if (event._tag !== "Published") say(event._tag)
  })
  yield* Consumer.run(consumer({ recorder, say, block: () => block(orders), die, write }, orders))
})

const toStderr = Logger.make(({ logLevel, message }) => void writeSync(2, `${logLevel} ${JSON.stringify(message)}\n`))

program.pipe(
  Effect.scoped,
  Effect.provide(Failpoints.pipe(Layer.provideMerge(Pattern.on(orders.pattern ?? "streams", orders.url, orders.name)))),
  Effect.provide(Logger.layer([toStderr])),
  NodeRuntime.runMain({
    teardown: (exit, onExit) => {
      store.disconnect()
      // Asked to stop, it stopped: that is no failure.
      onExit(exit._tag === "Success" || exit.cause.reasons.every((reason) => reason._tag === "Interrupt") ? 0 : 1)
    }
  })
)
