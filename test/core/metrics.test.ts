import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { freeze } from "@waybill/testing"
import { Context, Duration, Effect, Layer, Logger, Metric, Schedule, Schema, Stream } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { TestClock } from "effect/testing"
import { Consumer, Inspector, type Lifecycle, Metrics, Producer, Settlement, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import * as Instruments from "../../packages/waybill/src/internal/Instruments.ts"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, until } from "./Running.ts"

const page = readFileSync(join(import.meta.dirname, "../../docs/telemetry.md"), "utf8")

interface Row {
  readonly name: string
  readonly kind: string
  readonly attributes: ReadonlyArray<string>
}

const byName = (rows: Iterable<Row>) => [...rows].sort((a, b) => (a.name < b.name ? -1 : 1))

const table = byName(
  [...page.matchAll(/^\| `(waybill_\w+)` \| (\w+) \| ([^|]*)\|/gm)].map(
    ([, name = "", kind = "", attributes = ""]) => ({
      name,
      kind,
      attributes: [...attributes.matchAll(/`(\w+)`/g)].map(([, attribute = ""]) => attribute).sort()
    })
  )
)

/** What is in the registry, one row a name. */
const exported = Effect.map(Metric.snapshot, (snapshot) => {
  const rows = new Map<string, { name: string; kind: string; attributes: Array<string> }>()
  for (const { attributes = {}, id, type } of snapshot) {
    const row = rows.get(id) ?? { name: id, kind: type.toLowerCase(), attributes: [] }
    for (const key of Object.keys(attributes)) {
      if (key !== "unit" && !row.attributes.includes(key)) row.attributes.push(key)
    }
    row.attributes.sort()
    rows.set(id, row)
  }
  return byName(rows.values())
})

const gauge = (name: string, attributes: Record<string, string> = {}) =>
  Effect.map(Metric.snapshot, (snapshot) => {
    const found = snapshot.find(
      (metric) => metric.id === name && JSON.stringify(metric.attributes ?? {}) === JSON.stringify(attributes)
    )
    return found?.type === "Gauge" ? Number(found.state.value) : undefined
  })

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}
class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}

const Numbers = Topic.make("t", { payload: Schema.Finite })

/** A registry for each test. */
const alone = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => Effect.provideService(effect, Metric.MetricRegistry, new Map()))

const silently = Effect.provide(Logger.layer([]))

const group = { topic: "t", group: "g" }

/** One of each that `Metrics.layer` counts. */
const events = (transport: FakeTransport): ReadonlyArray<Lifecycle.Event> => [
  {
    _tag: "Settled",
    ...group,
    delivery: transport.delivery(1),
    settlement: Settlement.deadLetter("CrashLoop", "died"),
    stale: false
  },
  { _tag: "ConsumerFailing", ...group, permanent: false, error: "down" },
  { _tag: "Claimed", ...group, from: ["a"], count: 2 },
  { _tag: "Truncated", ...group, count: 3 },
  { _tag: "DeadLettersDropped", ...group, count: 4 },
  { _tag: "DeadLetterUnhandled", ...group, id: "m-1", entry: "1-0", error: "down" },
  { _tag: "GroupRecreated", ...group, from: "0" },
  {
    _tag: "Gap",
    ...group,
    consumer: "c",
    gap: { missed: 5, after: undefined, before: "m-6", reason: "overflow" }
  },
  {
    _tag: "Gap",
    ...group,
    consumer: "c",
    gap: { missed: undefined, after: undefined, before: "m-7", reason: "overflow" }
  },
  { _tag: "Disconnected", role: "reader:t:g", cause: "reset" },
  { _tag: "Reconnected", role: "reader:t:g", afterMillis: 7 },
  { _tag: "FailedOver", role: "commands", server: "127.0.0.1:6379", mayBeLost: true, since: undefined }
]

const handling = (options?: Partial<Consumer.Options>) =>
  Consumer.make(Numbers, { group: "g", ...options }).pipe(
    Consumer.process((n) =>
      n === 1 ? Effect.fail(new Busy({})) : n === 2 ? Effect.fail(new Declined({ code: "limit" })) : Effect.void
    ),
    Consumer.onFailure({
      Busy: Consumer.retry(Schedule.spaced("1 minute")),
      Declined: (error) => Consumer.deadLetter(error.code)
    })
  )

describe("the table in docs/telemetry.md", () => {
  it.effect("names what is exported, kind and attributes, and nothing else", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(
        Metrics.layerInspector().pipe(Layer.provideMerge(Metrics.layer), Layer.provideMerge(MemoryStreams.layer()))
      )
      const layer = Layer.succeedContext(context)
      const fake = yield* FakeTransport.make
      for (const event of events(fake)) Context.get(context, Transport.AtMostOnce).lifecycle.emit(event)
      yield* run(handling(), layer)
      yield* Effect.provide(Producer.publishAll(Numbers, [0, 1, 2]), layer)
      yield* quiet()
      const stuck = Consumer.make(Numbers, { group: "g" }).pipe(Consumer.process(() => Effect.never))
      yield* run(stuck, fake.layer)
      fake.deliver(0)
      yield* until("held", () => fake.held.size === 1)
      fake.lose(...fake.held.values())
      yield* quiet()
      yield* TestClock.adjust("15 seconds")
      yield* quiet()
      assert.deepStrictEqual(yield* exported, table)
    }).pipe(silently, alone)
  )

  it.effect("gives names that Prometheus takes as they are, with base units", () =>
    Effect.gen(function* () {
      for (const { kind, name } of table) {
        assert.match(name, /^waybill_[a-z]+(_[a-z]+)*$/)
        assert.strictEqual(name.endsWith("_total"), kind === "counter", name)
        if (kind === "histogram") assert.match(name, /_seconds$/)
      }
      yield* Metric.update(Instruments.handlerDuration("t", "g"), 0.003)
      const text = yield* PrometheusMetrics.format()
      assert.include(text, 'waybill_handler_duration_seconds_bucket{topic="t",group="g",le="0.005"} 1')
      assert.include(text, 'waybill_handler_duration_seconds_bucket{topic="t",group="g",le="0.0025"} 0')
    }).pipe(alone)
  )
})

describe("docs/grafana.json", () => {
  const text = readFileSync(join(import.meta.dirname, "../../docs/grafana.json"), "utf8")
  const names = new Map(table.map(({ kind, name }) => [name, kind]))
  const expressions = [...text.matchAll(/"(?:expr|query)": "(.*)"/g)].map(([, expression = ""]) => expression)
  const used = expressions.flatMap((expression) => [...expression.matchAll(/waybill_\w+/g)].map(([name]) => name))

  it("uses metrics of the table only, and all of them", () => {
    assert.isAbove(used.length, 30)
    const found = used.map((name) => (names.has(name) ? name : name.replace(/_(?:bucket|sum|count)$/, "")))
    assert.deepStrictEqual([...new Set(found)].sort(), [...names.keys()].sort())
  })

  it("asks for the buckets of histograms, the rates of counters, and labels that there are", () => {
    const attributes = new Map(table.map((row) => [row.name, row.attributes]))
    for (const expression of expressions) {
      for (const [, before = "", name = "", selector = ""] of expression.matchAll(
        /(\w+\(|^|[ (])(waybill_\w+)(?:\{([^}]*)\})?/g
      )) {
        const base = name.replace(/_bucket$/, "")
        if (names.get(base) === "histogram") assert.match(name, /_bucket$/)
        if (names.get(base) === "counter" && !expression.startsWith("label_values"))
          assert.match(before, /rate\(|increase\(/)
        for (const [, label = ""] of selector.matchAll(/(\w+)=/g))
          assert.include(attributes.get(base) ?? [], label, expression)
      }
    }
  })

  it("has panels with titles and ids of their own", () => {
    const { panels } = JSON.parse(text) as { panels: ReadonlyArray<{ id: number; title: string }> } // just written so
    assert.strictEqual(new Set(panels.map(({ id }) => id)).size, panels.length)
    for (const { title } of panels) assert.isNotEmpty(title)
  })
})

describe("Metrics of a consumer", () => {
  it.effect("waiting time: the first handler only, from the store's time of publishing", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* TestClock.adjust("10 seconds")
      transport.offer(
        transport.delivery(0, { publishedAt: 3_000 }),
        transport.delivery(0, { publishedAt: 1_000, attempt: 2, fence: 2 }),
        // The store's clock may be ahead of ours.
        transport.delivery(0, { publishedAt: 11_000 })
      )
      yield* run(handling(), transport.layer)
      yield* until("settled", () => transport.settled.length === 3)
      const { count, max, min } = yield* Metric.value(Instruments.waitingTime("t", "g"))
      assert.deepStrictEqual({ count, max, min }, { count: 2, max: 7, min: 0 })
    }).pipe(alone)
  )

  it.effect("settle time counts rounds, repetitions included", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onSettle = Effect.sleep("2 seconds")
      yield* run(handling({ concurrency: 4 }), transport.layer)
      transport.deliver(0, 0, 0)
      yield* quiet()
      yield* TestClock.adjust("2 seconds")
      yield* until("settled", () => transport.settled.length === 3)
      const { count, sum } = yield* Metric.value(Instruments.settleDuration("t", "g"))
      assert.strictEqual(count, transport.batches.length)
      assert.strictEqual(sum, 2 * count)
    }).pipe(alone)
  )

  it.effect("buffer fill: two consumers of a group in one process add up, and leave nothing behind", () =>
    Effect.gen(function* () {
      const fill = Metric.value(Instruments.buffered("t", "g"))
      const size = Metric.value(Instruments.bufferSize("t", "g"))
      yield* Effect.scoped(
        Effect.gen(function* () {
          for (let i = 0; i < 2; i++) {
            const transport = yield* FakeTransport.make
            const stuck = Consumer.make(Numbers, { group: "g", prefetch: 8, shutdown: "1 second" }).pipe(
              Consumer.process(() => Effect.never)
            )
            transport.deliver(1, 2, 3, 4)
            yield* run(stuck, transport.layer)
            yield* quiet()
            assert.strictEqual(transport.held.size - 1, (yield* fill).value / (i + 1))
          }
          assert.isAbove((yield* fill).value, 0)
          assert.strictEqual((yield* size).value, 16)
        })
      )
      assert.strictEqual((yield* fill).value, 0)
      assert.strictEqual((yield* size).value, 0)
    }).pipe(alone)
  )
})

describe("case B15: topics by the thousand", () => {
  it.effect("series are bounded, whatever consumers come and go for, and nothing is uncounted", () =>
    Effect.gen(function* () {
      const context = yield* Effect.context<never>()
      const series: Array<number> = []
      const consumed = Effect.fnUntraced(function* (count: number, from: number) {
        for (let i = from; i < from + count; i++) {
          const topic = Topic.make(`t${i}`, { payload: Schema.Finite })
          yield* Producer.publish(topic, i)
          const outcomes = Consumer.make(topic, { group: "g", concurrency: 1 }).pipe(
            Consumer.process(() => Effect.void),
            Consumer.stream
          )
          yield* Stream.runDrain(Stream.take(outcomes, 1))
          const transport = yield* Transport.AtMostOnce
          transport.lifecycle.emit({ _tag: "Claimed", topic: topic.name, group: "g", from: ["a"], count: 1 })
        }
        series.push((yield* Metric.snapshot).length)
      })
      yield* consumed(20, 0)
      for (let i = 20; i < Instruments.maxConsumedGroups; i++) Instruments.countedAs(`t${i}`, "g", context)
      yield* consumed(1, Instruments.maxConsumedGroups)
      yield* consumed(20, Instruments.maxConsumedGroups + 1)
      // Those of publishers have a bound of their own, which is not reached here: one a topic.
      assert.strictEqual(series[2], series[1]! + 20)
      // One that was there before goes on under its name.
      yield* consumed(1, 7)
      assert.strictEqual(series[3], series[2])
      const count = (metric: Metric.Counter<number>) => Effect.map(Metric.value(metric), (state) => state.count)
      assert.strictEqual(yield* count(Instruments.received("t7", "g")), 2)
      for (const metric of [Instruments.received, Instruments.claimed]) {
        assert.strictEqual(yield* count(metric("other", "other")), 21)
      }
    }).pipe(Effect.provide(Metrics.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))), alone, silently)
  )
})

describe("reasons of dead letters", () => {
  const reasons = Effect.map(Metric.snapshot, (snapshot) =>
    snapshot
      .filter(({ attributes }) => attributes?.["outcome"] === "dead_letter")
      .map(({ attributes, state }) => [attributes?.["reason"], "count" in state ? Number(state.count) : 0] as const)
  )

  it.effect("whatever users make them of, the series are bounded and nothing is uncounted", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const context = yield* Effect.context<never>()
      // Several consumers of a group, one after the other, as after each revival of a layer.
      for (let life = 0; life < 3; life++) {
        const count = Instruments.deadLettered("t", "g", context)
        for (let i = 0; i < 200; i++) count(`order-${life}-${i}`)
        count("DecodeFailure")
        count("x".repeat(65))
        count("order-0-7")
      }
      Instruments.deadLettered("t", "another", context)("order-0-199")
      const found = yield* reasons
      assert.strictEqual(found.length, 20 + 2 + 1)
      const counts = new Map(found)
      assert.strictEqual(counts.get("DecodeFailure"), 3)
      assert.strictEqual(counts.get("order-0-7"), 4)
      assert.strictEqual(counts.get("order-0-19"), 1)
      assert.isUndefined(counts.get("order-0-20"))
      assert.strictEqual(counts.get("other"), 180 + 200 + 200 + 3)
      assert.strictEqual(counts.get("order-0-199"), 1)
      assert.strictEqual(transport.events.length, 0)
    }).pipe(alone)
  )

  it.effect("come through the consumer", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(handling(), transport.layer)
      transport.deliver(2, "rubbish", 2)
      yield* until("settled", () => transport.settled.length === 3)
      assert.deepStrictEqual(
        new Map(yield* reasons),
        new Map([
          ["limit", 2],
          ["DecodeFailure", 1]
        ])
      )
    }).pipe(silently, alone)
  )
})

describe("Metrics.layer", () => {
  it.effect("counts what lifecycle events tell, and makes no work on the hot path", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(Metrics.layer.pipe(Layer.provideMerge(MemoryStreams.layer())))
      const { lifecycle } = Context.get(context, Transport.AtMostOnce)
      assert.isFalse(lifecycle.active)
      for (const event of events(yield* FakeTransport.make)) lifecycle.emit(event)
      const count = (metric: Metric.Counter<number>) => Effect.map(Metric.value(metric), (state) => state.count)
      assert.strictEqual(yield* count(Instruments.settled("t", "g", "dead_letter", "CrashLoop")), 1)
      assert.strictEqual(yield* count(Instruments.consumerFailures("t", "g", false)), 1)
      assert.strictEqual(yield* count(Instruments.claimed("t", "g")), 2)
      assert.strictEqual(yield* count(Instruments.truncated("t", "g")), 3)
      assert.strictEqual(yield* count(Instruments.deadLettersDropped("t", "g")), 4)
      assert.strictEqual(yield* count(Instruments.groupsRecreated("t", "g")), 1)
      assert.strictEqual(yield* count(Instruments.gaps("g", "overflow")), 2)
      assert.strictEqual(yield* count(Instruments.missed("g", "overflow")), 5)
      assert.strictEqual(yield* count(Instruments.disconnects("reader")), 1)
      assert.strictEqual(yield* count(Instruments.reconnects("reader")), 1)
    }).pipe(alone)
  )

  it.effect("counts the dead letters of a crash loop once, and those of consumers not at all", () =>
    Effect.gen(function* () {
      const context = yield* Layer.build(Metrics.layer.pipe(Layer.provideMerge(MemoryStreams.layer())))
      const transport = Context.get(context, Transport.AtMostOnce)
      // Somebody who listens for everything makes the consumers tell everything.
      yield* transport.lifecycle.listen(() => undefined)
      const layer = Layer.succeedContext(context)
      yield* run(handling(), layer)
      yield* Effect.provide(Producer.publish(Numbers, 2), layer)
      yield* quiet()
      assert.strictEqual((yield* Metric.value(Instruments.settled("t", "g", "dead_letter", "limit"))).count, 1)

      yield* Effect.provide(Producer.publish(Topic.make("deadly", { payload: Schema.Finite }), 1), layer)
      const join = transport.receive({
        topic: "deadly",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(1),
        maxDeliveries: 1,
        shutdown: Duration.seconds(1)
      })
      const first = yield* join
      yield* first.take(1)
      yield* freeze(first)
      const second = yield* join
      yield* Effect.forkChild(second.take(1), { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual((yield* Metric.value(Instruments.settled("deadly", "g", "dead_letter", "CrashLoop"))).count, 1)
    }).pipe(silently, alone)
  )
})

describe("Metrics.layerInspector", () => {
  const down = new Transport.TransportError({
    operation: "inspect",
    reason: new Transport.Disconnected({ ambiguous: false, cause: "reset" })
  })

  it.effect("shows figures every 15 seconds, and what the schedule says otherwise", () =>
    Effect.gen(function* () {
      const layer = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      const transport = yield* Effect.provide(Effect.context<Transport.AtMostOnce>(), layer)
      yield* Layer.build(Metrics.layerInspector().pipe(Layer.provide(layer)))
      yield* quiet()
      assert.strictEqual(yield* gauge("waybill_inspector_up"), 1)
      const lag = gauge("waybill_group_lag", { topic: "t", group: "g" })
      assert.isUndefined(yield* lag)
      const { pause } = yield* Effect.provide(Inspector.Inspector.use(Effect.succeed), layer)
      yield* Context.get(transport, Transport.AtMostOnce).receive({
        topic: "t",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 1,
        shutdown: Duration.seconds(1)
      })
      yield* Effect.provide(Producer.publishAll(Numbers, [1, 2]), layer)
      yield* pause("t", "g")
      yield* TestClock.adjust("14 seconds")
      assert.isUndefined(yield* lag)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* lag, 2)
      assert.strictEqual(yield* gauge("waybill_group_paused", { topic: "t", group: "g" }), 1)
      assert.strictEqual(yield* gauge("waybill_topic_messages", { topic: "t" }), 2)
    }).pipe(silently, alone)
  )

  /** A store of which the test says which topics it has and which of them can be read. */
  const fake = Effect.fnUntraced(function* () {
    const topics = new Map<string, ReadonlyArray<string>>()
    const broken = new Set<string>()
    let up = true
    const context = yield* Layer.build(
      Layer.mock(Inspector.Inspector, {
        topics: Effect.suspend(() => (up ? Effect.succeed([...topics.keys()]) : Effect.fail(down))),
        describe: (topic) =>
          broken.has(topic)
            ? topic === "buggy"
              ? Effect.die(new Error("a bug"))
              : Effect.fail(down)
            : Effect.succeed({
                topic,
                pattern: "streams",
                retention: "settled" as const,
                depth: 1,
                delayed: 0,
                nextDelayedAt: undefined,
                groups: (topics.get(topic) ?? []).map((group) => ({
                  group,
                  lag: 1,
                  pending: 0,
                  oldestPendingMillis: 1500,
                  waiting: 0,
                  nextRetryAt: undefined,
                  deadLetters: 0,
                  deadLettersDropped: 0,
                  paused: false,
                  consumers: []
                }))
              })
      })
    )
    return { topics, broken, setUp: (is: boolean) => void (up = is), layer: Layer.succeedContext(context) }
  })

  it.effect("survives failures and bugs of the store, says so, and lets no old figure stand", () =>
    Effect.gen(function* () {
      const lines: Array<unknown> = []
      const { broken, layer, setUp, topics } = yield* fake()
      topics.set("t", ["g", "h"]).set("buggy", []).set("quiet", [])
      const lag = (group: string) => gauge("waybill_group_lag", { topic: "t", group })
      const up = gauge("waybill_inspector_up")
      const depth = (topic: string) => gauge("waybill_topic_messages", { topic })
      yield* Layer.build(
        Metrics.layerInspector({ schedule: Schedule.spaced("1 second"), topics: (topic) => topic !== "quiet" }).pipe(
          Layer.provide(layer)
        )
      ).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => lines.push(message))])))
      yield* quiet()
      assert.deepStrictEqual([yield* up, yield* lag("g"), yield* lag("h")], [1, 1, 1])
      assert.strictEqual(
        yield* gauge("waybill_group_oldest_pending_seconds", { topic: "t", group: "g", unit: "s" }),
        1.5
      )
      assert.isUndefined(yield* depth("quiet"))

      topics.set("t", ["g"])
      broken.add("buggy")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* up, yield* lag("g"), yield* lag("h")], [0, 1, undefined])
      assert.isUndefined(yield* depth("buggy"))

      broken.add("t")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* up, yield* lag("g")], [0, undefined])

      broken.clear()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* up, yield* lag("g"), yield* depth("buggy")], [1, 1, 1])

      setUp(false)
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual([yield* up, yield* lag("g"), yield* depth("buggy")], [0, undefined, undefined])
      setUp(true)
      topics.delete("buggy")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([yield* up, yield* lag("g"), yield* depth("buggy")], [1, 1, undefined])
      // Once for each time that it went down, not for each round.
      assert.strictEqual(lines.length, 2)
    }).pipe(alone)
  )

  it.effect("takes its gauges away when it ends", () =>
    Effect.gen(function* () {
      const { layer, topics } = yield* fake()
      topics.set("t", ["g"])
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* Layer.build(Metrics.layerInspector().pipe(Layer.provide(layer)))
          yield* quiet()
          assert.isAbove((yield* exported).length, 5)
        })
      )
      assert.deepStrictEqual(yield* exported, [])
    }).pipe(alone)
  )
})
