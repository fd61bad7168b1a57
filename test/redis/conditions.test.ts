/**
 * Handlers that read a record and commit what they make of it, several at a time: with a condition no update is lost.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Duration, Effect, Layer, Random, Schedule, Schema, Stream } from "effect"
import { Commit, Consumer, type Delivery, Producer, Records, Settlement, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisStreams } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url }))).pipe(
  Layer.provide(RedisServer.layer())
)

const layers: ReadonlyArray<[string, Layer.Layer<Transport.Transactional, unknown>]> = [
  ["streams", RedisStreams.layer().pipe(Layer.provide(redis))],
  ["exactly-once", RedisExactlyOnce.layer().pipe(Layer.provide(redis))],
  ["streams in memory", MemoryStreams.layer()],
  ["exactly-once in memory", MemoryExactlyOnce.layer()]
]

const Sale = Topic.make("shop/sales", { payload: Schema.Int, guarantee: "transactional" })
const stock = Commit.values("stock", Schema.Struct({ left: Schema.Int, sold: Schema.ReadonlySet(Schema.Int) }))
const count = 12
const together = 6

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

/** Records as a model: of the same kinds and with the same answers, and no line of the library. */
const commits = (seed: number) => {
  let state = seed
  const below = (n: number) => {
    state = (state * 1103515245 + 12345) % 2147483648
    return Math.floor((state / 2147483648) * n)
  }
  const model = new Map<string, string>()
  const counter = () => {
    const key = `counter-${below(2)}`
    const value = below(3)
    return below(2) === 0
      ? { holds: Number(model.get(key) ?? 0) === value, condition: Commit.counter(key).is(value) }
      : { apply: () => model.set(key, String(value)), write: Commit.counter(key).set(value) }
  }
  const field = () => {
    const name = `f${below(2)}`
    const key = `hash ${name}`
    const value = below(3) === 0 ? undefined : `${below(2)}`
    if (below(2) === 0) return { holds: model.get(key) === value, condition: Commit.hash("hash").is(name, value) }
    return value === undefined
      ? { apply: () => model.delete(key), write: Commit.hash("hash").remove(name) }
      : { apply: () => model.set(key, value), write: Commit.hash("hash").set(name, value) }
  }
  const member = () => {
    const name = `m${below(2)}`
    const key = `set ${name}`
    const present = below(2) === 0
    if (below(2) === 0) return { holds: model.has(key) === present, condition: Commit.set("set").is(name, present) }
    return present
      ? { apply: () => model.set(key, "1"), write: Commit.set("set").add(name) }
      : { apply: () => model.delete(key), write: Commit.set("set").remove(name) }
  }
  /** The next commit, and whether the model applies it. */
  const next = () => {
    const parts = Array.from({ length: 1 + below(4) }, () => [counter, field, member][below(3)]!())
    const conditions = parts.flatMap(({ condition }) => condition ?? [])
    const applies = parts.every(({ holds }) => holds !== false)
    if (applies) for (const { apply } of parts) apply?.()
    return { applies, commit: Commit.make({ conditions, writes: parts.flatMap(({ write }) => write ?? []) }) }
  }
  return { next, model }
}

describe.each(layers)("commits with conditions on %s", (_, layer) => {
  it.live("are applied, or not, as a model says, many in one call", () =>
    Effect.gen(function* () {
      const transport = yield* Transport.Transactional
      const receiver = yield* transport.receive({
        topic: Sale.name,
        group: "model",
        start: "earliest",
        lease: Duration.minutes(1),
        maxDeliveries: 5,
        shutdown: Duration.seconds(1)
      })
      const seed = yield* Random.nextIntBetween(1, 2 ** 31)
      const { model, next } = commits(seed)
      let applied = 0
      let failed = 0
      for (let round = 0; round < 5; round++) {
        yield* Producer.publishAll(
          Sale,
          Array.from({ length: 40 }, () => 1)
        )
        const deliveries: Array<Delivery.Delivery> = []
        while (deliveries.length < 40) deliveries.push(...(yield* receiver.take(40 - deliveries.length)))
        const all = deliveries.map((delivery) => ({ delivery, ...next() }))
        const [first, ...rest] = all.map(({ commit, delivery }) => [delivery, Settlement.commit(commit)] as const)
        const answers = yield* receiver.settle([first!, ...rest])
        assert.deepStrictEqual(
          answers.map((answer) => (typeof answer === "object" ? answer._tag : answer)),
          all.map(({ applies }) => (applies ? "Settled" : "ConditionFailed")),
          `seed ${seed}`
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
      assert.deepStrictEqual([...found].sort(), [...model].sort(), `seed ${seed}`)
      assert.isAbove(Math.min(applied, failed), 10)
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
