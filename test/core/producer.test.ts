import { assert, describe, it } from "@effect/vitest"
import { Cause, DateTime, Duration, Effect, Exit, Metric, Option, Result, Schema, Stream, Tracer } from "effect"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import { TestClock } from "effect/testing"
import { type Lifecycle, type Message, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import * as Instruments from "../../packages/waybill/src/internal/Instruments.ts"
import { FakeTransport } from "./FakeTransport.ts"

const Order = Topic.make("orders", {
  payload: Schema.Struct({ id: Schema.String, count: Schema.Int }),
  key: (order) => order.id,
  version: 2,
  maxBytes: 200
})

const order = (count: number) => ({ id: `o-${count}`, count })

/** All that can be taken now, in order. */
const taken = Effect.gen(function* () {
  const transport = yield* Transport.AtMostOnce
  const receiver = yield* transport.receive({
    topic: "orders",
    group: "g",
    start: "earliest",
    lease: Duration.minutes(5),
    maxDeliveries: 5,
    shutdown: Duration.zero
  })
  return Effect.map(
    Effect.timeoutOption(receiver.take(1000), 0),
    Option.getOrElse(() => [])
  )
})

/** The one message that `effect` publishes. */
const sent = Effect.fnUntraced(function* <A, E>(effect: Effect.Effect<A, E, Transport.AtLeastOnce>) {
  const transport = yield* FakeTransport.make
  yield* Effect.provide(effect, transport.layer)
  assert.strictEqual(transport.published.length, 1)
  const [message] = transport.published[0]!
  if (message === undefined) return assert.fail("nothing was published")
  return message
})

const traceparentOf = (headers: Message.Headers) => headers["traceparent"]

describe("sink", () => {
  it.effect("publishes what a stream brings, a chunk at a time, and says how many that were", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const count = yield* Stream.fromArrays([order(1), order(2)], [order(3)]).pipe(
        Stream.run(Producer.sink(Order, ({ id }) => ({ id }))),
        Effect.provide(transport.layer)
      )
      assert.strictEqual(count, 3)
      assert.deepStrictEqual(
        transport.published.map((messages) => messages.map(({ id }) => id)),
        [["o-1", "o-2"], ["o-3"]]
      )
    })
  )

  it.effect("fails with what does not fit, and what came before is stored", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const failed = yield* Stream.fromArrays([order(1)], [order(0.5)]).pipe(
        Stream.run(Producer.sink(Order)),
        Effect.flip,
        Effect.provide(transport.layer)
      )
      assert.strictEqual(failed._tag, "InvalidPayload")
      assert.lengthOf(transport.published, 1)
    })
  )
})

describe("Producer", () => {
  it.effect("a message is what was given, once; the same id again is a duplicate with the same receipt", () =>
    Effect.gen(function* () {
      const first = yield* Producer.publish(Order, order(1), { id: "a", headers: { from: "été", "": "empty" } })
      assert.deepStrictEqual(first, { _tag: "Stored", id: "a" })
      assert.deepStrictEqual(yield* Producer.publish(Order, order(2), { id: "a" }), { _tag: "Duplicate", id: "a" })
      const take = yield* taken
      const deliveries = yield* take
      assert.strictEqual(deliveries.length, 1)
      const { body, headers, id, key, publishedAt, version } = deliveries[0]!
      assert.deepStrictEqual(
        { body, headers, id, key, publishedAt, version },
        {
          body: '{"id":"o-1","count":1}',
          headers: { from: "été", "": "empty" },
          id: "a",
          key: "o-1",
          publishedAt: 0,
          version: 2
        }
      )
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("without an id each message gets one of its own, and the receipt names it", () =>
    Effect.gen(function* () {
      const receipts = yield* Effect.forEach([1, 1, 1], (count) => Producer.publish(Order, order(count)))
      assert.strictEqual(new Set(receipts.map((receipt) => receipt.id)).size, 3)
      const take = yield* taken
      assert.deepStrictEqual(
        (yield* take).map((delivery) => delivery.id),
        receipts.map((receipt) => receipt.id)
      )
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("each outcome of a call with several is counted", () =>
    Effect.gen(function* () {
      const Saved = Topic.make("counted", { payload: Schema.Int, unique: Topic.debounce("5 seconds") })
      const receipts = yield* Producer.publishAll(Saved, [1, 2, 3, 4, 5], (n) =>
        n === 5 ? { id: "b" } : { id: "a", ...(n === 4 && { unique: Topic.throttle("1 minute", { keep: "first" }) }) }
      )
      assert.deepStrictEqual(
        receipts.map(({ _tag }) => _tag),
        ["Stored", "Replaced", "Replaced", "Duplicate", "Stored"]
      )
      const counts = yield* Effect.forEach(["stored", "replaced", "duplicate"] as const, (outcome) =>
        Effect.map(Metric.value(Instruments.published("counted", outcome)), ({ count }) => count)
      )
      assert.deepStrictEqual(counts, [2, 2, 1])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect(
    "messages that become one need an id, and are due as the topic says unless the publisher says otherwise",
    () =>
      Effect.gen(function* () {
        const Saved = Topic.make("saved", { payload: Schema.Int, unique: Topic.debounce("5 seconds") })
        const failed = yield* Effect.flip(Producer.publish(Saved, 1))
        assert.deepInclude(failed, { _tag: "InvalidPayload", part: "id" })
        const dues = yield* Effect.forEach([{}, { delay: 0 }, { unique: "window" }] as const, (options) =>
          Effect.map(Producer.message(Saved, 1, { id: "a", ...options }), ({ message: { due, unique } }) => [
            due?._tag === "After" ? Duration.toMillis(due.delay) : due,
            typeof unique
          ])
        )
        assert.deepStrictEqual(dues, [
          [5000, "object"],
          [0, "object"],
          [undefined, "undefined"]
        ])
      }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("the id is forgotten after the window", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Order, order(1), { id: "a" })
      yield* TestClock.adjust("59 minutes")
      assert.strictEqual((yield* Producer.publish(Order, order(1), { id: "a" }))._tag, "Duplicate")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Producer.publish(Order, order(1), { id: "a" }))._tag, "Stored")
    }).pipe(Effect.provide(MemoryStreams.layer({ deduplicationWindow: "1 hour" })))
  )

  describe("publishAll", () => {
    it.effect("keeps the order, with options for each, in one call", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const payloads = Array.from({ length: 500 }, (_, i) => order(i))
        const receipts = yield* Producer.publishAll(Order, payloads, ({ count }, index) => {
          assert.strictEqual(count, index)
          return { id: `id-${index}`, headers: { index: `${index}` }, ...(index === 3 ? { delay: "5 seconds" } : {}) }
        }).pipe(Effect.provide(transport.layer))
        assert.deepStrictEqual(
          receipts,
          payloads.map((_, i) => ({ _tag: "Stored", id: `id-${i}` }))
        )
        assert.strictEqual(transport.published.length, 1)
        assert.deepStrictEqual(
          transport.published[0],
          payloads.map(({ id, count }, i) => ({
            id: `id-${i}`,
            body: JSON.stringify({ id, count }),
            headers: { index: `${i}` },
            key: id,
            version: 2,
            due: i === 3 ? { _tag: "After" as const, delay: Duration.seconds(5) } : undefined
          }))
        )
      })
    )

    it.effect("tells new from known inside one batch, and the first of two equals wins", () =>
      Effect.gen(function* () {
        yield* Producer.publish(Order, order(1), { id: "a" })
        const receipts = yield* Producer.publishAll(Order, [order(1), order(2), order(3), order(4)], (_, i) => ({
          id: ["a", "b", "b", "c"][i]
        }))
        assert.deepStrictEqual(
          receipts.map(({ _tag, id }) => [_tag, id]),
          [
            ["Duplicate", "a"],
            ["Stored", "b"],
            ["Duplicate", "b"],
            ["Stored", "c"]
          ]
        )
        const take = yield* taken
        assert.deepStrictEqual(
          (yield* take).map((delivery) => JSON.parse(String(delivery.body)).count),
          [1, 2, 4]
        )
      }).pipe(Effect.provide(MemoryStreams.layer()))
    )

    it.effect("of nothing calls nobody and answers nothing", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        assert.deepStrictEqual(yield* Effect.provide(Producer.publishAll(Order, []), transport.layer), [])
        assert.strictEqual(transport.published.length, 0)
        assert.strictEqual(transport.events.length, 0)
      })
    )

    it.effect.each([
      ["InvalidPayload", { id: "a", count: 0.5 }],
      ["PayloadTooLarge", { id: "x".repeat(200), count: 1 }]
    ] as const)("one bad item fails the batch before anything is sent: %s", ([tag, bad]) =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        for (const batch of [
          [bad, order(1), order(2)],
          [order(1), order(2), bad]
        ]) {
          const failure = yield* Effect.flip(Effect.provide(Producer.publishAll(Order, batch), transport.layer))
          assert.strictEqual(failure._tag, tag)
        }
        assert.strictEqual(
          (yield* Effect.flip(Effect.provide(Producer.publish(Order, bad), transport.layer)))._tag,
          tag
        )
        assert.strictEqual(transport.published.length, 0)
        assert.strictEqual(transport.events.length, 0)
      })
    )

    it.effect("a payload may be undefined", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const Tick = Topic.make("ticks", { payload: Schema.Void })
        yield* Effect.provide(Producer.publishAll(Tick, [undefined, undefined]), transport.layer)
        assert.strictEqual(transport.published[0]!.length, 2)
      })
    )
  })

  describe("when", () => {
    it.effect("a delay and an instant are kept to the millisecond, on the store's clock", () =>
      Effect.gen(function* () {
        const take = yield* taken
        yield* TestClock.setTime(1000)
        yield* Producer.publish(Order, order(1), { id: "delayed", delay: "1 second" })
        yield* Producer.publish(Order, order(2), { id: "at", at: DateTime.makeUnsafe(3000) })
        yield* Producer.publish(Order, order(3), { id: "past", at: DateTime.makeUnsafe(500) })
        yield* Producer.publish(Order, order(4), { id: "both", delay: "3 seconds", at: DateTime.makeUnsafe(1500) })
        const ids = Effect.map(take, (deliveries) => deliveries.map((delivery) => delivery.id))
        assert.deepStrictEqual(yield* ids, ["past"])
        yield* TestClock.setTime(1999)
        assert.deepStrictEqual(yield* ids, [])
        yield* TestClock.setTime(2000)
        assert.deepStrictEqual(yield* ids, ["delayed"])
        yield* TestClock.setTime(2999)
        assert.deepStrictEqual(yield* ids, [])
        yield* TestClock.setTime(3000)
        assert.deepStrictEqual(yield* ids, ["at"])
        yield* TestClock.setTime(4000)
        assert.deepStrictEqual(yield* ids, ["both"])
      }).pipe(Effect.provide(MemoryStreams.layer()))
    )

    it.effect.each([
      ["nothing", undefined, undefined],
      ["no due time", { id: "a" }, undefined],
      ["undefined", { delay: undefined, at: undefined }, undefined],
      ["a delay", { delay: "2 seconds" }, { _tag: "After", delay: Duration.seconds(2) }],
      ["a delay of nothing", { delay: 0 }, { _tag: "After", delay: Duration.zero }],
      ["an instant", { at: DateTime.makeUnsafe(7) }, { _tag: "At", epochMillis: 7 }],
      [
        "an instant in a zone",
        { at: DateTime.makeZonedUnsafe("2026-07-01T12:00:00", { timeZone: "Europe/Paris", adjustForTimeZone: true }) },
        { _tag: "At", epochMillis: Date.UTC(2026, 6, 1, 10) }
      ],
      ["both", { delay: 5, at: DateTime.makeUnsafe(7) }, { _tag: "After", delay: Duration.millis(5) }]
    ] as const)("options with %s", ([, options, due]) =>
      Effect.gen(function* () {
        assert.deepStrictEqual((yield* sent(Producer.publish(Order, order(1), options))).due, due)
      })
    )
  })

  describe("traceparent", () => {
    it.effect("names the span that publishes, and can be read back", () =>
      Effect.gen(function* () {
        const message = yield* sent(
          Effect.gen(function* () {
            const span = yield* Effect.currentSpan
            yield* Producer.publish(Order, order(1), { headers: { span: `${span.traceId}/${span.spanId}` } })
          }).pipe(Effect.withSpan("checkout"))
        )
        const parent = HttpTraceContext.w3c(message.headers as Parameters<typeof HttpTraceContext.w3c>[0])
        assert.isTrue(Option.isSome(parent))
        if (Option.isNone(parent)) return
        assert.strictEqual(`${parent.value.traceId}/${parent.value.spanId}`, message.headers["span"])
        assert.isTrue(parent.value.sampled)
      })
    )

    it.effect("says that a span is not sampled", () =>
      Effect.gen(function* () {
        const message = yield* sent(Effect.withSpan(Producer.publish(Order, order(1)), "quiet", { sampled: false }))
        assert.match(traceparentOf(message.headers) ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/)
      })
    )

    it.effect("goes to each message of a batch", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* Producer.publishAll(Order, [order(1), order(2)]).pipe(
          Effect.withSpan("batch"),
          Effect.provide(transport.layer)
        )
        const [first, second] = transport.published[0]!.map((message) => traceparentOf(message.headers))
        assert.isDefined(first)
        assert.strictEqual(first, second)
      })
    )

    it.effect("that the caller gives is not overwritten, and its other headers stay", () =>
      Effect.gen(function* () {
        const headers = { traceparent: "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01", other: "kept" }
        const message = yield* sent(Effect.withSpan(Producer.publish(Order, order(1), { headers }), "checkout"))
        assert.deepStrictEqual(message.headers, headers)
      })
    )

    it.effect("is absent without a span", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual((yield* sent(Producer.publish(Order, order(1)))).headers, {})
      })
    )

    it.effect("is absent when tracing is switched off", () =>
      Effect.gen(function* () {
        const publish = Effect.withSpan(Producer.publish(Order, order(1)), "unseen")
        assert.deepStrictEqual((yield* sent(Effect.withTracerEnabled(publish, false))).headers, {})
      })
    )

    it.effect("skips a span that is not to be propagated, and names the one around it", () =>
      Effect.gen(function* () {
        const message = yield* sent(
          Effect.gen(function* () {
            const outer = yield* Effect.currentSpan
            yield* Producer.publish(Order, order(1), { headers: { outer: outer.spanId } }).pipe(
              Effect.withSpan("private", { annotations: Tracer.DisablePropagation.context(true) })
            )
          }).pipe(Effect.withSpan("outer"))
        )
        assert.include(traceparentOf(message.headers) ?? "", `-${message.headers["outer"]}-`)
      })
    )

    it.effect("is valid for a parent whose ids are shorter than W3C's", () =>
      Effect.gen(function* () {
        const span = Tracer.externalSpan({ traceId: "463ac35c9f6413ad", spanId: "a2fb4a1d1a96d312", sampled: true })
        const message = yield* sent(Effect.withParentSpan(Producer.publish(Order, order(1)), span))
        assert.strictEqual(traceparentOf(message.headers), "00-0000000000000000463ac35c9f6413ad-a2fb4a1d1a96d312-01")
      })
    )

    it.effect("is left out rather than wrong when the ids are no W3C ids", () =>
      Effect.gen(function* () {
        const span = Tracer.externalSpan({ traceId: "Root=1-5759e988", spanId: "x", sampled: true })
        const message = yield* sent(Effect.withParentSpan(Producer.publish(Order, order(1)), span))
        assert.deepStrictEqual(message.headers, {})
      })
    )
  })

  describe("what others see", () => {
    it.effect("one Published event a batch, with its receipts", () =>
      Effect.gen(function* () {
        const { lifecycle } = yield* Transport.AtMostOnce
        const events: Array<Lifecycle.Event> = []
        yield* lifecycle.listen((event) => events.push(event))
        yield* Producer.publishAll(Order, [order(1), order(2)], (_, i) => ({ id: `i-${i}` }))
        assert.deepStrictEqual(
          events.map((event) =>
            event._tag === "Published" ? [event.topic, event.messages.length, event.receipts] : event
          ),
          [
            [
              "orders",
              2,
              [
                { _tag: "Stored", id: "i-0" },
                { _tag: "Stored", id: "i-1" }
              ]
            ]
          ]
        )
      }).pipe(Effect.provide(MemoryStreams.layer()))
    )

    it.effect("stored and duplicate messages are counted apart, in the caller's registry", () =>
      Effect.gen(function* () {
        yield* Producer.publishAll(Order, [order(1), order(2), order(3)], (_, i) => ({ id: `i-${i}` }))
        yield* Producer.publishAll(Order, [order(1), order(2)], (_, i) => ({ id: `i-${i}` }))
        yield* Effect.ignore(Producer.publish(Order, { id: "a", count: 0.5 }))
        assert.strictEqual((yield* Metric.value(Instruments.published("orders", "stored"))).count, 3)
        assert.strictEqual((yield* Metric.value(Instruments.published("orders", "duplicate"))).count, 2)
        yield* Producer.publish(Order, order(4), { id: "i-4" })
        yield* Producer.publish(Order, order(4), { id: "i-4" })
        assert.strictEqual((yield* Metric.value(Instruments.published("orders", "stored"))).count, 4)
        assert.strictEqual((yield* Metric.value(Instruments.published("orders", "duplicate"))).count, 3)
      }).pipe(Effect.provide(MemoryStreams.layer()), Effect.provideService(Metric.MetricRegistry, new Map()))
    )
  })

  describe("when the transport fails", () => {
    const down = new Transport.TransportError({
      operation: "publish",
      topic: "orders",
      reason: new Transport.Disconnected({ ambiguous: true, cause: "reset" })
    })

    it.effect("the error comes through as it is, and nothing is counted or told", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        transport.onPublish = Effect.fail(down)
        const result = yield* Effect.result(Effect.provide(Producer.publish(Order, order(1)), transport.layer))
        assert.isTrue(Result.isFailure(result) && result.failure === down)
        assert.strictEqual(transport.events.length, 0)
        assert.strictEqual((yield* Metric.value(Instruments.published("orders", "stored"))).count, 0)
      }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    )

    it.effect("a reason can be caught alone", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        transport.onPublish = Effect.fail(down)
        const caught = yield* Producer.publish(Order, order(1)).pipe(
          Effect.catchReason("TransportError", "Disconnected", (reason) => Effect.succeed(reason.ambiguous)),
          Effect.provide(transport.layer)
        )
        assert.isTrue(caught)
      })
    )

    it.effect("a key function that throws is a defect of the caller, and nothing is sent", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const Broken = Topic.make("t", {
          payload: Schema.String,
          key: () => {
            throw new Error("no key")
          }
        })
        const exit = yield* Effect.exit(Effect.provide(Producer.publish(Broken, "a"), transport.layer))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
        assert.strictEqual(transport.published.length, 0)
      })
    )
  })
})
