import { NodeRuntime, NodeServices } from "@effect/platform-node"
/**
 * One consumer, five patterns: only the layer changes, and what arrives differs. In memory, or on the Redis of REDIS_URL.
 */
import { freeze } from "@waybill/testing/freeze"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Config, Console, Duration, Effect, Exit, Layer, Option, Random, References, Schema, Scope } from "effect"
import { CliError, Command } from "effect/cli"
import { Consumer, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"

const lease = Duration.millis(500)

const topicOf = (name: string) => Topic.make(name, { payload: Schema.Int, guarantee: "at-most-once" })
type Numbers = ReturnType<typeof topicOf>

/** The program. It asks for little, so that every pattern will do. */
const listener = (topic: Numbers, group: string, heard: Array<string>) =>
  Consumer.make(topic, { group, lease }).pipe(
    Consumer.process((number, { attempt }) =>
      Effect.sync(() => heard.push(attempt === 1 ? `${number}` : `${number} (attempt ${attempt})`))
    ),
    Consumer.layer
  )

/** Waits until the last number has arrived, and nothing that is stored is still on its way. */
const quiet = Effect.fnUntraced(function* (
  topic: Numbers,
  last: number,
  ...heard: ReadonlyArray<ReadonlyArray<string>>
) {
  const inspector = yield* Inspector.Inspector
  while (true) {
    const { groups } = yield* inspector.describe(topic.name)
    const left = groups.reduce((sum, { lag, pending, waiting }) => sum + lag + pending + waiting, 0)
    if (left === 0 && heard.every((numbers) => numbers.some((number) => number.startsWith(`${last}`)))) return
    yield* Effect.sleep("20 millis")
  }
}, Effect.timeout("30 seconds"))

/** Waits until the store has dropped what everybody has done, but not for ever: there are those that keep it. */
const dropped = Effect.fnUntraced(function* (topic: Numbers) {
  const inspector = yield* Inspector.Inspector
  while ((yield* inspector.describe(topic.name)).depth > 0) yield* Effect.sleep("20 millis")
}, Effect.timeoutOption("4 seconds"))

const publish = (topic: Numbers, ...numbers: ReadonlyArray<number>) => Producer.publishAll(topic, numbers)

/** How a process dies, as the others see it. */
type Die = (receiver: Transport.Receiver, leave: Effect.Effect<void>) => Effect.Effect<void, never, Scope.Scope>

const told = (heard: ReadonlyArray<string>) => (heard.length === 0 ? "nothing" : heard.join(", "))

/** What happens to a message, by name; each answers what arrived. */
const scenes = {
  "1 is sent, offline: 2, back: 3": Effect.fnUntraced(function* () {
    const topic = topicOf("offline")
    const heard: Array<string> = []
    const online = (number: number) =>
      Effect.andThen(publish(topic, number), quiet(topic, number, heard)).pipe(
        Effect.provide(listener(topic, "g", heard))
      )
    yield* online(1)
    yield* publish(topic, 2)
    yield* online(3)
    return told(heard)
  }),
  "a process dies holding 1": Effect.fnUntraced(function* (die: Die) {
    const topic = topicOf("crash")
    const heard: Array<string> = []
    const transport = yield* Transport.AtMostOnce
    const shutdown = Duration.seconds(1)
    const scope = yield* Scope.fork(yield* Effect.scope)
    const doomed = yield* transport
      .receive({ topic: topic.name, group: "g", start: "earliest", lease, maxDeliveries: 5, shutdown })
      .pipe(Scope.provide(scope))
    yield* publish(topic, 1)
    yield* doomed.take(1)
    yield* die(doomed, Scope.close(scope, Exit.void))
    yield* Effect.andThen(publish(topic, 2), quiet(topic, 2, heard)).pipe(Effect.provide(listener(topic, "g", heard)))
    return told(heard.toSorted())
  }),
  "1 is published twice, then 2": Effect.fnUntraced(function* () {
    const topic = topicOf("duplicate")
    const heard: Array<string> = []
    return yield* Effect.gen(function* () {
      for (const _ of ["once", "twice"]) yield* Producer.publish(topic, 1, { id: "one" })
      yield* publish(topic, 2)
      yield* quiet(topic, 2, heard)
      return told(heard)
    }).pipe(
      Effect.provide(listener(topic, "g", heard)),
      Effect.catchReason("TransportError", "NotOffered", () => Effect.succeed("refused"))
    )
  }),
  "two groups, and 1": Effect.fnUntraced(function* () {
    const topic = topicOf("groups")
    const heard: Record<"a" | "b", Array<string>> = { a: [], b: [] }
    return yield* Effect.andThen(publish(topic, 1), quiet(topic, 1, heard.a, heard.b)).pipe(
      Effect.provide(Layer.merge(listener(topic, "a", heard.a), Layer.fresh(listener(topic, "b", heard.b)))),
      Effect.map(() => (told(heard.a) === told(heard.b) ? `both: ${told(heard.a)}` : "one of them")),
      Effect.catchReason("TransportError", "TopicConflict", () => Effect.succeed("refused"))
    )
  }),
  "1 and 2 are done, a late group, 3": Effect.fnUntraced(function* () {
    const topic = topicOf("late")
    const early: Array<string> = []
    const heard: Array<string> = []
    return yield* Effect.gen(function* () {
      yield* publish(topic, 1, 2)
      yield* quiet(topic, 2, early)
      yield* dropped(topic)
      yield* Effect.andThen(publish(topic, 3), quiet(topic, 3, heard)).pipe(
        Effect.provide(listener(topic, "late", heard))
      )
      return told(heard)
    }).pipe(
      Effect.provide(listener(topic, "early", early)),
      Effect.catchReason("TransportError", "TopicConflict", () => Effect.succeed("refused"))
    )
  })
}

type Services = Transport.AtMostOnce | Inspector.Inspector

interface Pattern {
  readonly name: string
  readonly memory: Layer.Layer<Services>
  readonly redis: (prefix: string) => Layer.Layer<Services, never, IoRedis.IoRedis>
  readonly die: Die
}

const pollInterval = "200 millis"

const patterns: ReadonlyArray<Pattern> = [
  {
    name: "pub/sub",
    memory: MemoryPubSub.layer(),
    redis: (prefix) => RedisPubSub.layer({ prefix }),
    // Nobody takes over from a subscriber, so leaving is as good as dying.
    die: (_, leave) => leave
  },
  {
    name: "streams",
    memory: MemoryStreams.layer(),
    redis: (prefix) => RedisStreams.layer({ prefix, pollInterval }),
    die: freeze
  },
  {
    name: "lists",
    memory: MemoryLists.layer(),
    redis: (prefix) => RedisLists.layer({ prefix, pollInterval }),
    die: freeze
  },
  {
    name: "exactly once",
    memory: MemoryExactlyOnce.layer(),
    redis: (prefix) => RedisExactlyOnce.layer({ prefix, pollInterval }),
    die: freeze
  },
  {
    name: "keyspace",
    memory: MemoryKeyspace.layer(),
    redis: (prefix) => RedisKeyspace.layer({ prefix, pollInterval, notifications: "poll" }),
    die: freeze
  }
]

const run = Effect.gen(function* () {
  const url = yield* Config.option(Config.Redacted("REDIS_URL"))
  const instance = (yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)
  const where = Option.isNone(url) ? "memory" : "redis"
  yield* Console.log(`What arrives, in ${where === "memory" ? "memory" : "Redis"}:\n`)
  const answers = yield* Effect.forEach(
    patterns,
    ({ die, memory, name, redis }, i) => {
      const store = Option.isNone(url)
        ? memory
        : redis(`five-${instance}-${i}`).pipe(
            Layer.provide(temporaryKeys(`five-${instance}-${i}`)),
            Layer.provide(IoRedis.layerUrl(url.value))
          )
      return Effect.forEach(Object.values(scenes), (scene) => Effect.scoped(scene(die)), {
        concurrency: "unbounded"
      }).pipe(
        Effect.provide(store),
        Effect.map((row) => [name, row] as const)
      )
    },
    { concurrency: "unbounded" }
  )
  for (const [i, scene] of Object.keys(scenes).entries()) {
    yield* Console.log(scene)
    for (const [name, row] of answers) yield* Console.log(`  ${name.padEnd(14)}${row[i]}`)
  }
})

const program = Command.make("five-patterns", {}, () =>
  Effect.catchTag(run, "TransportError", (cause) =>
    Effect.fail(new CliError.UserError({ cause, userMessage: `REDIS_URL: ${cause.message}` }))
  )
).pipe(
  Command.withDescription(
    "Runs one consumer over all five patterns and prints what arrives. In memory, or on the Redis of REDIS_URL, under keys of this run."
  )
)

program.pipe(
  Command.run({ version: "0.0.0" }),
  Effect.provide(NodeServices.layer),
  // That somebody dies, and that a second group is refused, is what is shown.
  Effect.provideService(References.MinimumLogLevel, "None"),
  NodeRuntime.runMain
)
