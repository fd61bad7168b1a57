/** Options that make no sense are refused where they are given, and the message names the option and what it may be. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Schedule, Schema } from "effect"
import { Consumer, DeadLetters, Health, Inspector, Log, Producer, Topic } from "waybill"
import {
  MemoryExactlyOnce,
  MemoryHealth,
  MemoryKeyspace,
  MemoryLists,
  MemoryPubSub,
  MemoryStreams
} from "waybill/memory"
import {
  IoRedis,
  RedisExactlyOnce,
  RedisHealth,
  RedisInspector,
  RedisKeyspace,
  RedisLists,
  RedisPubSub,
  RedisStreams
} from "waybill/redis"

const Numbers = Topic.make("numbers", { payload: Schema.Int })

/** As a caller without types writes it. */
const untyped = (value: unknown) => value as never

const unprintable = Object.create(null) as unknown
const notWhole = [0, -1, NaN, 1.5, Infinity, "3", 2 ** 53, unprintable]
const noDuration = [NaN, -1, -Infinity, "soon", "NaN seconds", "-1 second", "", true, { seconds: NaN }, [NaN, 1]]
const noWindow = [...noDuration, 0, "0 seconds"]

const named = (value: unknown) => (value === unprintable ? "what is no text" : String(value))

const refuses = (name: string, option: RegExp, values: ReadonlyArray<unknown>, f: (value: never) => unknown) =>
  describe(name, () => {
    it.each(values.map((value) => [named(value), value] as const))("%s", (_, value) => {
      assert.throws(() => f(untyped(value)), option)
    })
  })

describe("case F7: of a consumer", () => {
  const make = (name: string) => (value: never) => Consumer.make(Numbers, { group: "g", [name]: value })
  refuses("concurrency", /^concurrency must be an integer >= 1, got /, notWhole, make("concurrency"))
  refuses(
    "concurrency",
    /^concurrency must be at most 100000, got /,
    [100_001, Number.MAX_SAFE_INTEGER],
    make("concurrency")
  )
  refuses("prefetch", /^prefetch must be an integer >= 0, got /, notWhole.slice(1), make("prefetch"))
  refuses("prefetchBytes", /^prefetchBytes must be an integer >= 1, got /, notWhole, make("prefetchBytes"))
  refuses("maxDeliveries", /^maxDeliveries must be/, notWhole, make("maxDeliveries"))
  refuses("lease", /^lease must/, [...noWindow, "Infinity", Infinity, 99], make("lease"))
  refuses("shutdown", /^shutdown must be a duration/, noDuration, make("shutdown"))
  refuses("start", /^start must be "earliest" or "latest", got /, ["newest", "", 1], make("start"))
  refuses("guarantee", /^guarantee must be/, ["exactly-once", 1], make("guarantee"))
  refuses("trace", /^trace must be/, ["child", true], make("trace"))
  refuses("leaseLost", /^leaseLost must be/, ["stop", true], make("leaseLost"))
  refuses("group", /^invalid group name/, ["", "a b", "x".repeat(201), 5, undefined, null, []], make("group"))
  const source = Consumer.make(Numbers, { group: "g" })
  refuses("size of a batch", /^size must be/, notWhole, (size) =>
    Consumer.processBatch(size, "1 second", () => Effect.succeed([]))(source)
  )
  refuses("time of a batch", /^within must be/, noDuration, (within) =>
    Consumer.processBatch(1, within, () => Effect.succeed([]))(source)
  )
  const consumer = Consumer.process(source, () => Effect.void)
  refuses("timeout", /^timeout must/, noWindow, (duration) => Consumer.timeout(consumer, duration))
  refuses("after", /^after must/, [...noDuration, Infinity], (after) => Consumer.retry(Schedule.recurs(1), { after }))
  it("what makes sense is taken", () => {
    Consumer.make(Numbers, {
      group: "g",
      concurrency: 1,
      prefetch: 0,
      lease: 100,
      shutdown: 0,
      start: "latest",
      trace: "parent"
    })
    Consumer.make(Numbers, { group: "g", shutdown: "Infinity", lease: "365 days" })
  })
})

describe("case F7: of a topic", () => {
  const make = (name: string) => (value: never) => Topic.make("t", { payload: Schema.Int, [name]: value })
  refuses("version", /^version must be/, notWhole, make("version"))
  refuses("maxBytes", /^maxBytes must be/, notWhole, make("maxBytes"))
})

describe("case F7: of a layer", () => {
  const stores: ReadonlyArray<readonly [string, (options: never) => unknown, boolean]> = [
    ["MemoryStreams", MemoryStreams.layer, false],
    ["MemoryLists", MemoryLists.layer, false],
    ["MemoryExactlyOnce", MemoryExactlyOnce.layer, false],
    ["MemoryKeyspace", MemoryKeyspace.layer, false],
    ["RedisStreams", RedisStreams.layer, true],
    ["RedisLists", RedisLists.layer, true],
    ["RedisExactlyOnce", RedisExactlyOnce.layer, true],
    ["RedisKeyspace", RedisKeyspace.layer, true]
  ]
  const pubsub = [
    ["MemoryPubSub", MemoryPubSub.layer],
    ["RedisPubSub", RedisPubSub.layer]
  ] as const
  const given = (layer: (options: never) => unknown, name: string) => (value: never) =>
    layer(untyped({ [name]: value }))
  for (const [name, layer, redis] of stores) {
    refuses(`${name} deduplicationWindow`, /^deduplicationWindow must/, noWindow, given(layer, "deduplicationWindow"))
    if (redis) refuses(`${name} pollInterval`, /^pollInterval must/, noWindow, given(layer, "pollInterval"))
  }
  for (const [name, layer] of [...stores, ...pubsub]) {
    const capped = (option: string) => (value: never) => layer(untyped({ deadLetters: { [option]: value } }))
    refuses(`${name} maxCount`, /^deadLetters.maxCount must/, notWhole, capped("maxCount"))
    refuses(`${name} maxAge`, /^deadLetters.maxAge must/, noWindow, capped("maxAge"))
  }
  for (const [name, layer] of pubsub) {
    refuses(`${name} buffer`, /^buffer must/, notWhole, given(layer, "buffer"))
    refuses(`${name} bufferBytes`, /^bufferBytes must/, notWhole, given(layer, "bufferBytes"))
    refuses(`${name} overflow`, /^overflow must be "drop-oldest" or/, ["drop", 1], given(layer, "overflow"))
  }
  for (const [name, layer] of stores.filter(([name]) => /Lists|ExactlyOnce/.test(name))) {
    refuses(`${name} order`, /^order must be "fifo" or "lifo" or "priority"/, ["newest", 1], given(layer, "order"))
  }
  for (const [name, layer] of stores.filter(([name]) => /Streams|ExactlyOnce/.test(name))) {
    refuses(`${name} marker`, /^marker must/, noWindow, given(layer, "marker"))
  }
  for (const [name, layer] of stores.filter(([name]) => name.includes("Streams"))) {
    refuses(`${name} retention`, /^retention must be "settled"/, ["forever", 3], given(layer, "retention"))
    refuses(`${name} maxLength`, /^retention.maxLength must/, notWhole, (maxLength) =>
      layer(untyped({ retention: { maxLength } }))
    )
  }
  for (const [name, layer] of stores) {
    refuses(`${name} topics`, /^topics has an invalid topic name "a b"/, [{}], (own) =>
      layer(untyped({ topics: { "a b": own } }))
    )
    refuses(`${name} topics' options`, /^deadLetters.maxCount must/, notWhole, (maxCount) =>
      layer(untyped({ topics: { t: { deadLetters: { maxCount } } } }))
    )
  }
  for (const [name, layer] of stores.filter(([name]) => name.includes("Keyspace"))) {
    refuses(`${name} ttl`, /^ttl must/, noWindow, given(layer, "ttl"))
  }
  refuses("notifications", /^notifications must be/, ["on", true], given(RedisKeyspace.layer, "notifications"))
  refuses("channels", /^channels must be/, ["shards"], given(RedisPubSub.layer, "channels"))
  refuses("publishTimeout", /^publishTimeout must/, noWindow, given(RedisPubSub.layer, "publishTimeout"))
  refuses("replicas", /^replicas must/, [-1, NaN, 1.5], given(RedisHealth.layer, "replicas"))
  for (const layer of [RedisInspector.layer, RedisStreams.layer, RedisPubSub.layer]) {
    refuses("prefix", /prefix/, ["", "a b", "a:b", "{a}"], given(layer, "prefix"))
  }
  refuses("port", /^port must/, [...notWhole, 65_536], given(IoRedis.layer, "port"))
  refuses("db", /^db must/, notWhole.slice(1), given(IoRedis.layer, "db"))
  refuses("startTimeout", /^startTimeout must/, noDuration, given(IoRedis.layer, "startTimeout"))
})

describe("case F7: of a call", () => {
  const dies = (
    name: string,
    option: RegExp,
    values: ReadonlyArray<unknown>,
    f: (value: never) => Effect.Effect<unknown, unknown, never>
  ) =>
    it.effect.each(values.map((value) => [named(value), value] as const))(`${name}: %s`, ([, value]) =>
      Effect.gen(function* () {
        const cause = yield* Effect.flip(Effect.sandbox(Effect.suspend(() => f(untyped(value)))))
        const [reason] = cause.reasons
        assert.match(
          String(reason?._tag === "Die" ? reason.defect : reason?._tag === "Fail" ? reason.error : ""),
          option
        )
      })
    )
  const onMemory = Effect.provide(MemoryStreams.layer())
  for (const move of [DeadLetters.redrive, DeadLetters.discard]) {
    dies(
      "ratePerSecond",
      /ratePerSecond must be a number greater than 0/,
      [0, -1, NaN, Infinity, "5"],
      (ratePerSecond) => onMemory(move(Numbers, "g", { ratePerSecond }))
    )
    dies(
      "limit",
      /limit must be an integer >= 1/,
      notWhole.filter((n) => n !== Infinity),
      (limit) => onMemory(move(Numbers, "g", { limit }))
    )
  }
  dies("delay", /delay must/, [...noDuration, "Infinity"], (delay) => onMemory(Producer.publish(Numbers, 1, { delay })))
  dies("at", /at must/, [Number.NaN, Number.POSITIVE_INFINITY], (epochMilliseconds) =>
    onMemory(Producer.publish(Numbers, 1, { at: { epochMilliseconds } as never }))
  )
  dies("priority", /priority must be "high" or/, ["urgent", 1], (priority) =>
    onMemory(Producer.publishAll(Numbers, [1], () => ({ priority })))
  )
  dies("lag", /limits.lag must/, [-1, NaN, 1.5], (lag) => onHealth(Health.check({ limits: { lag } })))
  dies("dead letters", /limits.deadLetters must/, [-1, NaN], (deadLetters) =>
    onHealth(Health.check({ limits: { deadLetters } }))
  )
  dies("oldest", /limits.oldestPending must/, noDuration, (oldestPending) =>
    onHealth(Health.check({ limits: { oldestPending } }))
  )
  for (const read of [Log.first, Log.last]) {
    dies("limit", /limit must be an integer >= 1/, [0, -1, NaN, 1.5], (limit) => onMemory(read(Numbers, { limit })))
  }
  it.effect("what makes sense is taken", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Numbers, 1, { delay: 0 })
      yield* Producer.publish(Numbers, 1, { at: DateTime.makeUnsafe(0) })
      yield* DeadLetters.redrive(Numbers, "g", { ratePerSecond: 0.5, limit: 1 })
      Consumer.timeout(
        Consumer.process(Consumer.make(Numbers, { group: "g" }), () => Effect.void),
        "Infinity"
      )
      yield* DeadLetters.redrive(Numbers, "g", { limit: Infinity })
      assert.deepStrictEqual(yield* (yield* Inspector.Inspector).topics, ["numbers"])
      yield* Effect.provide(
        Producer.publish(Numbers, 1, { priority: "high" }),
        MemoryLists.layer({ order: "priority" })
      )
    }).pipe(onMemory)
  )

  function onHealth<A, E>(effect: Effect.Effect<A, E, Health.Store | Inspector.Inspector>) {
    return effect.pipe(Effect.provide(MemoryHealth.layer), onMemory)
  }
})
