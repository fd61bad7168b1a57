/**
 * Handlers that read a record and commit what they make of it, several at a time: with a condition no update is lost.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Duration, Effect, Layer, Option, Random, Schedule, Schema, Stream } from "effect"
import { Commit, Consumer, type Delivery, Inspector, Producer, Records, Settlement, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisStreams } from "waybill/redis"
import { drawing } from "../faults/Verdict.ts"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url }))).pipe(
  Layer.provide(RedisServer.layer())
)

const layers: ReadonlyArray<[string, Layer.Layer<Transport.Transactional | Inspector.Inspector, unknown>]> = [
  ["streams", RedisStreams.layer().pipe(Layer.provide(redis))],
  ["exactly-once", RedisExactlyOnce.layer().pipe(Layer.provide(redis))],
  ["streams in memory", MemoryStreams.layer()],
  ["exactly-once in memory", MemoryExactlyOnce.layer()]
]

const Sale = Topic.make("shop/sales", { payload: Schema.Int, guarantee: "transactional" })
const Report = Topic.make("shop/reports", { payload: Schema.String, guarantee: "transactional" })
const stock = Commit.values("stock", Schema.Struct({ left: Schema.Int, sold: Schema.ReadonlySet(Schema.Int) }))
const count = 12
const together = 6

const join = Effect.fnUntraced(function* (topic: string, group: string) {
  const transport = yield* Transport.Transactional
  return yield* transport.receive({
    topic,
    group,
    start: "earliest",
    lease: Duration.minutes(1),
    maxDeliveries: 5,
    shutdown: Duration.seconds(1)
  })
})

const take = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
  const deliveries: Array<Delivery.Delivery> = []
  while (deliveries.length < count) deliveries.push(...(yield* receiver.take(count - deliveries.length)))
  return deliveries
})

/** Settles that many new messages in one call: how each ended, and the causes of dead letters. */
const settleTogether = Effect.fnUntraced(function* (commits: ReadonlyArray<Commit.Commit<Commit.Condition>>) {
  yield* Producer.publishAll(Sale, Array.from(commits.keys()))
  const receiver = yield* join(Sale.name, "together")
  const deliveries = yield* take(receiver, commits.length)
  const [first, ...rest] = deliveries.map((delivery, i) => [delivery, Settlement.commit(commits[i]!)] as const)
  const answers = yield* receiver.settle([first!, ...rest])
  const { deadLetters } = yield* Inspector.Inspector
  const letters = yield* deadLetters(Sale.name, "together", { after: Option.none(), limit: 10 })
  return {
    answers: answers.map((answer) =>
      typeof answer !== "object" ? answer : answer._tag === "DeadLetter" ? answer.reason : answer._tag
    ),
    causes: letters.map(({ cause }) => cause)
  }
})

/** What is left of the stock after every sale, and how many attempts that took. */
const sell = Effect.fnUntraced(function* (guarded: boolean) {
  const everyoneHasRead = yield* Deferred.make<void>()
  let attempts = 0
  yield* Producer.publishAll(
    Sale,
    Array.from({ length: count }, (_, i) => i)
  )
  yield* Consumer.make(Sale, { group: "sales", concurrency: together }).pipe(
    Consumer.transactional(function* (n) {
      const { unchanged, value } = yield* Records.observe(Sale, stock.get("tea"))
      attempts++
      if (attempts === together) yield* Deferred.succeed(everyoneHasRead, undefined)
      yield* Deferred.await(everyoneHasRead)
      const { left, sold } = value ?? { left: count, sold: new Set<number>() }
      const writes = [stock.set("tea", { left: left - 1, sold: new Set([...sold, n]) })]
      return Commit.make({ conditions: guarded ? [unchanged] : [], writes })
    }),
    Consumer.onFailure({
      ConditionFailed: Consumer.retry(Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 100 })))
    }),
    Consumer.orElse(Consumer.deadLetter()),
    Consumer.stream,
    Stream.filter(({ settlement }) => settlement._tag !== "Retry"),
    Stream.take(count),
    Stream.runDrain
  )
  const { left, sold } = (yield* Records.read(Sale, stock.get("tea")))!
  return { left, sold: sold.size, attempts }
})

/** A condition and whether the model says that it holds, or a write and what it does to the model. */
interface Part {
  readonly condition?: Commit.Condition
  readonly holds?: boolean
  readonly write?: Commit.Write
  readonly apply?: () => unknown
}

/** Records as a model: of the same kinds and with the same answers, and no line of the library. */
const modelled = () => {
  const model = new Map<string, string>()
  const below = (n: number) => Random.nextIntBetween(0, n - 1)
  const counter = Effect.gen(function* () {
    const key = `counter-${yield* below(2)}`
    const value = yield* below(3)
    return (yield* Random.nextBoolean)
      ? { holds: Number(model.get(key) ?? 0) === value, condition: Commit.counter(key).is(value) }
      : { apply: () => model.set(key, String(value)), write: Commit.counter(key).set(value) }
  })
  const field = Effect.gen(function* () {
    const name = `f${yield* below(2)}`
    const key = `hash ${name}`
    const value = (yield* below(3)) === 0 ? undefined : `${yield* below(2)}`
    if (yield* Random.nextBoolean) {
      return { holds: model.get(key) === value, condition: Commit.hash("hash").is(name, value) }
    }
    return value === undefined
      ? { apply: () => model.delete(key), write: Commit.hash("hash").remove(name) }
      : { apply: () => model.set(key, value), write: Commit.hash("hash").set(name, value) }
  })
  const member = Effect.gen(function* () {
    const name = `m${yield* below(2)}`
    const key = `set ${name}`
    const present = yield* Random.nextBoolean
    if (yield* Random.nextBoolean) {
      return { holds: model.has(key) === present, condition: Commit.set("set").is(name, present) }
    }
    return present
      ? { apply: () => model.set(key, "1"), write: Commit.set("set").add(name) }
      : { apply: () => model.delete(key), write: Commit.set("set").remove(name) }
  })
  const part = Effect.flatMap(below(3), (kind): Effect.Effect<Part> => [counter, field, member][kind]!)
  /** The next commit, and whether the model applies it. */
  const next = Effect.gen(function* () {
    const parts = yield* Effect.replicateEffect(part, 1 + (yield* below(4)))
    const conditions = parts.flatMap(({ condition }) => condition ?? [])
    const applies = parts.every(({ holds }) => holds !== false)
    if (applies) for (const { apply } of parts) apply?.()
    return { applies, commit: Commit.make({ conditions, writes: parts.flatMap(({ write }) => write ?? []) }) }
  })
  return { model, next }
}

describe.each(layers)("commits with conditions on %s", (name, layer) => {
  it.live("are applied, or not, as a model says, many in one call", () =>
    Effect.gen(function* () {
      const receiver = yield* join(Sale.name, "model")
      const draw = yield* drawing(`conditions, ${name}`)
      const { model, next } = modelled()
      let applied = 0
      let failed = 0
      for (let round = 0; round < 5; round++) {
        yield* Producer.publishAll(
          Sale,
          Array.from({ length: 40 }, () => 1)
        )
        const deliveries = yield* take(receiver, 40)
        const all = yield* draw(
          Effect.forEach(deliveries, (delivery) => Effect.map(next, (commit) => ({ delivery, ...commit })))
        )
        const [first, ...rest] = all.map(({ commit, delivery }) => [delivery, Settlement.commit(commit)] as const)
        const answers = yield* receiver.settle([first!, ...rest])
        assert.deepStrictEqual(
          answers.map((answer) => (typeof answer === "object" ? answer._tag : answer)),
          all.map(({ applies }) => (applies ? "Settled" : "ConditionFailed"))
        )
        const left = deliveries.filter((_, i) => answers[i] !== "Settled")
        const [one, ...others] = left.map((delivery) => [delivery, Settlement.ack] as const)
        if (one !== undefined) yield* receiver.settle([one, ...others])
        failed += left.length
        applied += 40 - left.length
      }
      const found = new Map<string, string>()
      for (const key of ["counter-0", "counter-1"]) {
        found.set(key, String(yield* Records.read(Sale, Commit.counter(key).value)))
        model.set(key, model.get(key) ?? "0")
      }
      for (const [field, value] of yield* Records.read(Sale, Commit.hash("hash").all)) found.set(`hash ${field}`, value)
      for (const member of yield* Records.read(Sale, Commit.set("set").all)) found.set(`set ${member}`, "1")
      assert.deepStrictEqual([...found].sort(), [...model].sort())
      assert.isAbove(Math.min(applied, failed), 10)
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})

describe.each(layers)("commits that are refused on %s", (_, layer) => {
  it.live("hold up none of the same call, though one has changed what a record is before it failed", () =>
    Effect.gen(function* () {
      const publishes = Commit.make({ messages: [yield* Producer.message(Report, "sold")] })
      const fails = Commit.make({
        conditions: [Commit.counter("count").is(0)],
        writes: [Commit.text("x").set("a text"), Commit.hash("x").remove("f")]
      })
      const asks = Commit.make({ conditions: [Commit.hash("x").is("f", undefined)] })
      const counts = Commit.make({ writes: [Commit.counter("count").add(1)] })
      const { answers, causes } = yield* settleTogether([publishes, fails, asks, counts])
      assert.deepStrictEqual(answers, ["Settled", "PartialCommit", "CommitRejected", "Settled"])
      assert.include(causes[0], "part 3 of 3, HDEL of x, was refused: WRONGTYPE")
      assert.include(causes[1], "the record is not a hash")
      assert.strictEqual(yield* Records.read(Sale, Commit.text("x").value), "a text")
      assert.strictEqual(yield* Records.read(Sale, Commit.counter("count").value), 1)
      const [report] = yield* take(yield* join(Report.name, "reports"), 1)
      assert.strictEqual(report!.body, '"sold"')
    }).pipe(Effect.scoped, Effect.provide(layer))
  )

  it.live("are refused for the topic of a message before their conditions are checked", () =>
    Effect.gen(function* () {
      const elsewhere = Topic.make("office/reports", { payload: Schema.String, guarantee: "transactional" })
      const commit = Commit.make({
        conditions: [Commit.counter("count").is(1)],
        messages: [yield* Producer.message(elsewhere, "sold")]
      })
      const { answers, causes } = yield* settleTogether([commit])
      assert.deepStrictEqual(answers, ["CommitRejected"])
      assert.include(causes[0], "cannot publish to office/reports")
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})

describe.each(layers.slice(0, 2))("commits made without Commit.make on %s", (_, layer) => {
  const record = { key: "x", args: [] } as const
  const write = { ...record, type: "string", command: "SET", args: ["1"] } as const
  const parts = { conditions: [], writes: [], messages: [] } as const
  // The types forbid it.
  const json = "json" as "hash"
  it.live.each<[string, Commit.Commit<Commit.Condition>, string]>([
    ["a write of an unknown type", { ...parts, writes: [{ ...write, type: json }] }, "unknown type json"],
    [
      "a condition of an unknown type",
      { ...parts, conditions: [{ ...record, type: json, command: "GET", expected: null }] },
      "unknown type json"
    ],
    [
      "a condition without its argument",
      { ...parts, conditions: [{ ...record, type: "hash", command: "HGET", expected: null }] },
      "number of arg"
    ],
    [
      "a condition whose command reads another type",
      {
        ...parts,
        conditions: [{ ...record, key: "hash", type: "hash", command: "GET", expected: null }]
      },
      "WRONGTYPE"
    ]
  ])("%s is refused, and no other of the same call", ([, commit, why]) =>
    Effect.gen(function* () {
      const first = Commit.make({ writes: [Commit.hash("hash").set("f", 1)] })
      const last = Commit.make({ writes: [Commit.counter("count").add(1)] })
      const { answers, causes } = yield* settleTogether([first, commit, last])
      assert.deepStrictEqual(answers, ["Settled", "CommitRejected", "Settled"])
      assert.include(causes[0], why)
      assert.strictEqual(yield* Records.read(Sale, Commit.counter("count").value), 1)
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})

describe.each(layers)("a record that handlers read and write on %s", (_, layer) => {
  it.live("loses no update where the commit requires what was read", () =>
    Effect.gen(function* () {
      const { attempts, left, sold } = yield* sell(true)
      assert.deepStrictEqual({ left, sold }, { left: 0, sold: count })
      assert.isAbove(attempts, count)
    }).pipe(Effect.provide(layer))
  )

  it.live("loses updates where it does not", () =>
    Effect.gen(function* () {
      const { attempts, left, sold } = yield* sell(false)
      assert.strictEqual(attempts, count)
      assert.isAbove(left, 0)
      assert.isBelow(sold, count)
    }).pipe(Effect.provide(layer))
  )
})
