/** Several transports in one program: everything goes by the topic's name, and what types cannot see fails in words. */
import { assert, describe, it } from "@effect/vitest"
import { Probe, runUntilIdle } from "@waybill/testing"
import { Cause, Effect, Exit, Layer, Metric, Result, Schedule, Schema, Stream } from "effect"
import {
  Commit,
  Consumer,
  DeadLetters,
  Health,
  Log,
  Metrics,
  Producer,
  Records,
  Topic,
  Transport,
  type Delivery
} from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { RedisLists, RedisPubSub } from "waybill/redis"

class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
class Ledger extends Transport.Tag<Ledger>()("shop/Ledger", { guarantee: "transactional" }) {}
class Prices extends Transport.Tag<Prices>()("shop/Prices", { guarantee: "at-most-once" }) {}

const group = "g"
const Order = Topic.make("orders", { payload: Schema.String, on: Orders })
const Deposit = Topic.make("bank/deposits", { payload: Schema.Int, on: Ledger })
const Price = Topic.make("prices", { payload: Schema.Int, on: Prices })
const Plain = Topic.make("plain", { payload: Schema.String })

const total = Commit.counter("total")

const named = Layer.mergeAll(
  MemoryStreams.layer({ as: Orders }),
  MemoryExactlyOnce.layer({ as: Ledger }),
  MemoryPubSub.layer({ as: Prices })
)

const failure = (cause: Cause.Cause<unknown>) => Cause.squash(cause) as Transport.TransportError

describe("topics on transports with names", () => {
  it.effect("a handler publishes to topics of other transports, and each is where its topic says", () => {
    const prices: Array<number> = []
    const consumers = Layer.mergeAll(
      Consumer.make(Order, { group }).pipe(
        Consumer.process(function* (order, { id }: Delivery.Delivery) {
          yield* Producer.publish(Deposit, order.length, { id })
          yield* Producer.publish(Price, 250)
        }),
        Consumer.orElse(Consumer.deadLetter()),
        Consumer.layer
      ),
      Consumer.make(Deposit, { group }).pipe(
        Consumer.transactional((cents) => Effect.succeed(Commit.make({ writes: [total.add(cents)] }))),
        Consumer.layer
      ),
      Consumer.make(Price, { group }).pipe(
        Consumer.process((price) => Effect.sync(() => prices.push(price))),
        Consumer.layer
      )
    )
    return Effect.gen(function* () {
      yield* Producer.publish(Order, "three")
      yield* runUntilIdle({ on: [Orders, Ledger, Prices] })
      assert.strictEqual(yield* Records.read(Deposit, total.value), 5)
      assert.deepStrictEqual(prices, [250])
      const where = yield* Effect.flatMap(
        Transport.all(Orders, Ledger, Prices),
        Effect.forEach(({ inspector }) => inspector.topics)
      )
      assert.deepStrictEqual(where, [["orders"], ["bank/deposits"], ["prices"]])
      const settled = (yield* (yield* Probe.Probe).events).flatMap((event) =>
        event._tag === "Settled" ? [event.topic] : []
      )
      assert.deepStrictEqual(settled.toSorted(), ["bank/deposits", "orders", "prices"])
    }).pipe(
      Effect.provide(
        consumers.pipe(Layer.provideMerge(Probe.layerOn(Orders, Ledger, Prices)), Layer.provideMerge(named))
      )
    )
  })

  it.effect("one topic name on two transports is two topics", () => {
    const There = Topic.make(Order.name, { payload: Schema.String, on: Ledger })
    return Effect.gen(function* () {
      yield* Producer.publish(Order, "here")
      const bodies = (entries: ReadonlyArray<Log.Entry<string>>) =>
        entries.map(({ payload }) => Result.getOrElse(payload, String))
      assert.deepStrictEqual(bodies(yield* Log.first(Order, { limit: 9 })), ["here"])
      assert.deepStrictEqual(bodies(yield* Log.first(There, { limit: 9 })), [])
      yield* Producer.publish(There, "there")
      assert.deepStrictEqual(bodies(yield* Log.last(There, { limit: 9 })), ["there"])
      assert.deepStrictEqual(bodies(yield* Stream.runCollect(Log.stream(Order))), ["here"])
    }).pipe(Effect.provide(named))
  })

  it.effect("dead letters, health and metrics are those of the topic's transport", () => {
    const failing = Consumer.make(Order, { group }).pipe(
      Consumer.process(() => Effect.fail("no")),
      Consumer.orElse(Consumer.deadLetter("No")),
      Consumer.layer
    )
    const gauges = Metrics.layerInspector({ on: Orders, schedule: Schedule.recurs(0) })
    return Effect.gen(function* () {
      yield* Producer.publish(Order, "o")
      yield* runUntilIdle({ on: [Orders] })
      assert.strictEqual(yield* Stream.runCount(DeadLetters.stream(Order, group)), 1)
      const report = yield* Health.check({ on: Orders, limits: { deadLetters: 0 } })
      assert.deepStrictEqual([report.status, report.problems.map(({ code }) => code)], ["degraded", ["DeadLetters"]])
      assert.strictEqual((yield* Health.check({ on: Ledger, limits: { deadLetters: 0 } })).status, "ready")
      yield* Effect.scoped(Effect.andThen(Layer.build(gauges), Effect.yieldNow))
      assert.deepStrictEqual(yield* DeadLetters.discard(Order, group), { examined: 1, selected: 1, done: 1 })
    }).pipe(
      Effect.provide(failing.pipe(Layer.provideMerge(Metrics.layerOn(Orders, Ledger)), Layer.provideMerge(named))),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })
})

describe("default names", () => {
  it.effect.each([
    ["streams last", Layer.mergeAll(MemoryPubSub.layer(), MemoryStreams.layer())],
    ["pub/sub last", Layer.mergeAll(MemoryStreams.layer(), MemoryPubSub.layer())]
  ] as const)("merged, %s: a topic that may not be lost is stored", ([, layers]) =>
    Effect.gen(function* () {
      // Nobody listens: on pub/sub it would be lost.
      yield* Producer.publish(Plain, "kept")
      assert.strictEqual((yield* Log.first(Plain, { limit: 1 })).length, 1)
    }).pipe(Effect.provide(layers))
  )

  it.effect(
    "a consumer that asks for less consumes from its topic's transport, or from a weaker one without it",
    () => {
      const heard: Array<string> = []
      const easy = Consumer.make(Plain, { group, guarantee: "at-most-once" }).pipe(
        Consumer.process((payload) => Effect.sync(() => heard.push(payload))),
        Consumer.layer
      )
      return Effect.gen(function* () {
        yield* Effect.gen(function* () {
          yield* Producer.publish(Plain, "stored")
          yield* runUntilIdle()
        }).pipe(Effect.provide(easy), Effect.provide(Layer.mergeAll(MemoryStreams.layer(), MemoryPubSub.layer())))
        yield* Effect.gen(function* () {
          const { publish } = yield* Transport.AtMostOnce
          yield* publish(Plain.name, [
            { id: undefined, body: '"heard"', headers: {}, key: undefined, version: 1, due: undefined }
          ])
          yield* runUntilIdle()
        }).pipe(Effect.provide(easy), Effect.provide(MemoryPubSub.layer()))
        assert.deepStrictEqual(heard, ["stored", "heard"])
      })
    }
  )
})

describe("what types cannot see", () => {
  const lists = MemoryLists.layer as (options: { readonly as: unknown }) => Layer.Layer<never>
  const asNever = (self: Effect.Effect<unknown, unknown, never> | Effect.Effect<unknown, unknown, unknown>) =>
    self as Effect.Effect<unknown, unknown>

  it("a name that promises more than the pattern keeps throws at the layer's line", () => {
    const text = /^shop\/Ledger promises transactional, and this layer keeps /
    for (const layer of [
      MemoryLists.layer,
      MemoryKeyspace.layer,
      MemoryPubSub.layer,
      RedisLists.layer,
      RedisPubSub.layer
    ]) {
      assert.throws(() => (layer as typeof lists)({ as: Ledger }), text)
    }
  })

  it("a consumer that asks for more than its topic promises throws", () => {
    const make = Consumer.make as (topic: unknown, options: unknown) => unknown
    assert.throws(
      () => make(Order, { group, guarantee: "transactional" }),
      /^topic orders promises only at-least-once, but its consumer asks for transactional$/
    )
  })

  it.effect("a transport that is missing, or too weak, fails at the first use", () => {
    const weak = Layer.effectContext(
      Effect.map(Layer.build(MemoryPubSub.layer()), (context) => {
        const transport = context.mapUnsafe.get(Transport.AtMostOnce.key) as Transport.Transport
        return Layer.succeed(Orders, transport as Transport.Transport<"at-least-once">)
      }).pipe(Effect.flatMap(Layer.build))
    )
    const consumer = Consumer.make(Order, { group }).pipe(Consumer.process(() => Effect.void))
    return Effect.gen(function* () {
      for (const [layers, text] of [
        [MemoryLists.layer(), "shop/Orders needs at-least-once, and no layer provides it"],
        [weak, "shop/Orders needs at-least-once, and its layer keeps at-most-once"]
      ] as ReadonlyArray<readonly [Layer.Layer<never>, string]>) {
        for (const use of [
          Producer.publish(Order, "o"),
          Producer.publishAll(Order, ["o"]),
          Consumer.run(consumer),
          Layer.build(Consumer.layer(consumer))
        ]) {
          const exit = yield* Effect.exit(Effect.provide(Effect.scoped(asNever(use)), layers))
          assert(Exit.isFailure(exit))
          const error = failure(exit.cause)
          assert.strictEqual(error.reason._tag, "NotProvided")
          assert.strictEqual(error.reason.message, text)
          assert.isTrue(error.reason.permanent)
        }
      }
      const records = Records.read(Order as never, total.value) as Effect.Effect<number, Transport.TransportError>
      const error = yield* Effect.flip(Effect.provide(records, MemoryLists.layer({ as: Orders })))
      assert.strictEqual(error.reason._tag, "NotProvided")
    })
  })

  it.effect("a commit whose message lives on another transport becomes a dead letter that says so", () => {
    const paying = Consumer.make(Deposit, { group }).pipe(
      Consumer.transactional(() =>
        Effect.map(Producer.message(Order, "o"), (message) => Commit.make({ messages: [message] }))
      ),
      Consumer.orElse(Consumer.deadLetter()),
      Consumer.layer
    )
    return Effect.gen(function* () {
      yield* Producer.publish(Deposit, 1)
      yield* runUntilIdle({ on: [Orders, Ledger] })
      const [letter] = yield* Stream.runCollect(DeadLetters.stream(Deposit, group))
      assert.strictEqual(letter?.reason, "Defect")
      assert.include(letter?.cause, "topic orders is on shop/Orders, and a commit publishes on its own transport only")
      assert.deepStrictEqual(yield* Log.first(Order, { limit: 1 }), [])
    }).pipe(Effect.provide(paying.pipe(Layer.provideMerge(named))))
  })

  it("a topic with a name and a guarantee throws", () => {
    const make = Topic.make as (name: string, options: unknown) => unknown
    assert.throws(
      () => make("both", { payload: Schema.Int, on: Orders, guarantee: "transactional" }),
      "topic both is on shop/Orders, whose name sets the guarantee: leave guarantee out"
    )
  })
})
