import { NodeRuntime, NodeServices } from "@effect/platform-node"
/**
 * Pictures have to be shrunk, the ones that somebody waits for first. One worker dies with two of them in its hands; another
 * gets them when the lease of the dead one has passed. In memory, or on the Redis of REDIS_URL.
 */
import { freeze } from "@waybill/testing/freeze"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import {
  Config,
  Console,
  Duration,
  Effect,
  Layer,
  Option,
  Queue,
  Random,
  type Redacted,
  References,
  Schema
} from "effect"
import { CliError, Command } from "effect/cli"
import { Consumer, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryLists } from "waybill/memory"
import { IoRedis, RedisLists } from "waybill/redis"

const Picture = Topic.make("pictures", {
  payload: Schema.Struct({ file: Schema.String, wanted: Schema.Literals(["high", "normal", "low"]) })
})

const group = "shrinkers"
const lease = Duration.millis(600)

const pictures = (["low", "normal", "high"] as const).flatMap((wanted) =>
  [1, 2, 3].map((number) => ({ file: `${wanted}-${number}.png`, wanted }))
)

const story = Effect.gen(function* () {
  yield* Producer.publishAll(Picture, pictures, ({ file, wanted }) => ({ id: file, priority: wanted }))

  // A worker as a transport sees it: it takes two, and is not heard of again.
  const transport = yield* Transport.AtMostOnce
  const first = yield* transport.receive({
    topic: Picture.name,
    group,
    start: "earliest",
    lease,
    maxDeliveries: 5,
    shutdown: Duration.seconds(1)
  })
  const taken = yield* first.take(2)
  yield* Console.log(`worker 1 takes ${taken.map(({ id }) => id).join(" and ")}, and dies`)
  yield* freeze(first)

  const done = yield* Queue.unbounded<string>()
  const second = Consumer.make(Picture, { group, lease, concurrency: 1 }).pipe(
    Consumer.process(({ file }, { attempt }) =>
      Effect.andThen(
        Console.log(`worker 2 shrinks ${file}${attempt > 1 ? `, attempt ${attempt}` : ""}`),
        Queue.offer(done, file)
      )
    ),
    Consumer.layer
  )
  yield* Effect.gen(function* () {
    for (const _ of pictures) yield* Queue.take(done)
  }).pipe(Effect.provide(second), Effect.timeout("30 seconds"))

  const inspector = yield* Inspector.Inspector
  const { depth } = yield* inspector.describe(Picture.name)
  yield* Console.log(`${pictures.length} pictures are shrunk, ${depth} left in the queue`)
})

const onRedis = (url: Redacted.Redacted, prefix: string) =>
  RedisLists.layer({ prefix, order: "priority" }).pipe(
    Layer.provide(temporaryKeys(prefix)),
    Layer.provide(IoRedis.layerUrl(url))
  )

const run = Effect.gen(function* () {
  const url = yield* Config.option(Config.Redacted("REDIS_URL"))
  const prefix = `pictures-${(yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)}`
  yield* story.pipe(
    Effect.scoped,
    Effect.provide(Option.isNone(url) ? MemoryLists.layer({ order: "priority" }) : onRedis(url.value, prefix))
  )
})

const program = Command.make("lists", {}, () =>
  Effect.catchTag(run, "TransportError", (cause) =>
    Effect.fail(new CliError.UserError({ cause, userMessage: `REDIS_URL: ${cause.message}` }))
  )
).pipe(
  Command.withDescription(
    "Shrinks pictures, the urgent first, while a worker dies. In memory, or on the Redis of REDIS_URL, under keys of this run."
  )
)

program.pipe(
  Command.run({ version: "0.0.0" }),
  Effect.provide(NodeServices.layer),
  // That a worker dies is what is shown.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
