import { assert, describe, it } from "@effect/vitest"
import { RedisServer, runUntilIdle } from "@waybill/testing"
import { Duration, Effect, Layer, Logger, Option, Result, Schedule, Schema, Stream, Tracer } from "effect"
import { Consumer, DeadLetters, type Delivery, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisStreams } from "waybill/redis"
import { FakeTransport } from "./FakeTransport.ts"
import { run, until } from "./Running.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Order = Topic.make("orders", { payload: Schema.Finite })
const Invoice = Topic.make("invoices", { payload: Schema.Finite })

/** A tracer that keeps what it made. */
const recorder = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const named = (name: string) => spans.filter((span) => span.name === name)
  return { spans, named, provide: Effect.provideService(Tracer.Tracer, tracer) }
}

const idOf = (span: Tracer.AnySpan | undefined) => span && `${span.traceId}/${span.spanId}`
const parentOf = (span: Tracer.NativeSpan | undefined) => idOf(span && Option.getOrUndefined(span.parent))
const linksOf = (span: Tracer.NativeSpan | undefined) => span?.links.map((link) => idOf(link.span))
const attributesOf = (span: Tracer.NativeSpan | undefined) => Object.fromEntries(span?.attributes ?? [])
const ended = (span: Tracer.NativeSpan) => span.status._tag === "Ended"

const silently = Effect.provide(Logger.layer([]))

describe("the producer's span", () => {
  it.effect("is a producer span with the conventions' attributes, and the context of the message", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { provide, spans } = recorder()
      yield* Producer.publish(Order, 1, { id: "o-1" }).pipe(
        Effect.withSpan("checkout"),
        Effect.provide(transport.layer),
        provide
      )
      const [checkout, send] = spans
      assert.deepInclude(send, { name: "send orders", kind: "producer" })
      assert.isTrue(send !== undefined && ended(send))
      assert.deepStrictEqual(attributesOf(send), {
        "messaging.system": "waybill",
        "messaging.destination.name": "orders",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": "o-1"
      })
      assert.strictEqual(parentOf(send), idOf(checkout))
      assert.strictEqual(transport.published[0]?.[0]?.headers["traceparent"], `00-${send?.traceId}-${send?.spanId}-01`)
    })
  )

  it.effect("stands for the whole of publishAll, and tells how many; the assigned id of a single message", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { provide, spans } = recorder()
      yield* Producer.publishAll(Order, [1, 2, 3]).pipe(Effect.provide(transport.layer), provide)
      yield* Producer.publishAll(Order, []).pipe(Effect.provide(transport.layer), provide)
      yield* Producer.publish(Order, 1).pipe(Effect.provide(transport.layer), provide)
      assert.strictEqual(spans.length, 2)
      const [batch, single] = spans
      assert.strictEqual(attributesOf(batch)["messaging.batch.message_count"], 3)
      assert.notProperty(attributesOf(batch), "messaging.message.id")
      const carried = transport.published[0]?.map((message) => message.headers["traceparent"])
      assert.deepStrictEqual(new Set(carried), new Set([`00-${batch?.traceId}-${batch?.spanId}-01`]))
      assert.strictEqual(attributesOf(single)["messaging.message.id"], "m-0")
    })
  )

  it.effect("ends with the failure", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { provide, spans } = recorder()
      transport.onPublish = Effect.fail(
        new Transport.TransportError({
          operation: "publish",
          reason: new Transport.Disconnected({ ambiguous: true, cause: "reset" })
        })
      )
      yield* Effect.ignore(Producer.publish(Order, 1).pipe(Effect.provide(transport.layer), provide))
      const [send] = spans
      assert.isTrue(send?.status._tag === "Ended" && send.status.exit._tag === "Failure")
      assert.strictEqual(attributesOf(send)["error.type"], "Disconnected")
    })
  )
})

/** A handler that fails on the first attempt, and notes what span it runs in. */
const consumer = (options: Partial<Consumer.Options>, seen: Array<string | undefined>) =>
  Consumer.make(Order, { group: "billing", ...options }).pipe(
    Consumer.process((_, { attempt }: Delivery.Delivery) =>
      Effect.gen(function* () {
        seen.push(idOf(Option.getOrUndefined(yield* Effect.option(Effect.currentParentSpan))))
        if (attempt === 1) return yield* new Busy({})
      })
    ),
    Consumer.onFailure({ Busy: Consumer.retry(Schedule.spaced("1 millis")) })
  )

describe("the consumer's span", () => {
  it.effect("is one for each attempt, with the conventions' attributes; linked, not parented, by default", () =>
    Effect.gen(function* () {
      const { named, provide } = recorder()
      const seen: Array<string | undefined> = []
      const layer = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      yield* provide(run(consumer({}, seen), layer))
      yield* provide(Effect.provide(Producer.publish(Order, 1, { id: "o-1" }), layer))
      yield* Effect.provide(runUntilIdle(), layer)
      const [send] = named("send orders")
      const attempts = named("process orders")
      assert.strictEqual(attempts.length, 2)
      for (const [i, span] of attempts.entries()) {
        assert.strictEqual(span.kind, "consumer")
        assert.isTrue(ended(span))
        assert.deepStrictEqual(attributesOf(span), {
          "messaging.system": "waybill",
          "messaging.destination.name": "orders",
          "messaging.operation.name": "process",
          "messaging.operation.type": "process",
          "messaging.consumer.group.name": "billing",
          "messaging.message.id": "o-1",
          "waybill.message.attempt": i + 1,
          ...(i === 0 ? { "error.type": "Busy" } : {})
        })
        assert.deepStrictEqual(linksOf(span), [idOf(send)])
        assert.isUndefined(parentOf(span))
        assert.notStrictEqual(span.traceId, send?.traceId)
        assert.strictEqual(seen[i], idOf(span))
      }
    }).pipe(silently)
  )

  it.effect("is a child of the producer's where the consumer asks for it, and linked too", () =>
    Effect.gen(function* () {
      const { named, provide } = recorder()
      const layer = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      yield* provide(run(consumer({ trace: "parent" }, []), layer))
      yield* provide(Effect.provide(Producer.publish(Order, 1), layer))
      yield* Effect.provide(runUntilIdle(), layer)
      const [send] = named("send orders")
      const attempts = named("process orders")
      assert.deepStrictEqual(attempts.map(parentOf), [idOf(send), idOf(send)])
      assert.deepStrictEqual(attempts.map(linksOf), [[idOf(send)], [idOf(send)]])
    }).pipe(silently)
  )

  it.effect("of a batch links to every message's producer", () =>
    Effect.gen(function* () {
      const { named, provide } = recorder()
      const layer = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      for (const n of [1, 2]) yield* provide(Effect.provide(Producer.publish(Order, n, { id: `o-${n}` }), layer))
      yield* Effect.provide(Producer.publish(Order, 3, { headers: { traceparent: "rubbish" } }), layer)
      const batches = Consumer.make(Order, { group: "billing", trace: "parent" }).pipe(
        Consumer.processBatch(10, "1 second", (items) => Effect.succeed(items.map(() => Result.void)))
      )
      yield* provide(run(batches, layer))
      yield* Effect.provide(runUntilIdle(), layer)
      const [batch, ...others] = named("process orders")
      assert.strictEqual(others.length, 0)
      assert.strictEqual(attributesOf(batch)["messaging.batch.message_count"], 3)
      assert.deepStrictEqual(linksOf(batch), named("send orders").map(idOf))
      assert.deepStrictEqual(
        batch?.links.map(({ attributes }) => attributes["messaging.message.id"]),
        ["o-1", "o-2"]
      )
      assert.isUndefined(parentOf(batch))
    }).pipe(silently)
  )

  it.effect("ends however the handler does, and what cannot be decoded is marked too", () =>
    Effect.gen(function* () {
      const { named, provide } = recorder()
      const transport = yield* FakeTransport.make
      const dying = Consumer.make(Order, { group: "g" }).pipe(
        Consumer.process((n): Effect.Effect<void> => {
          if (n === 1) throw new Error("thrown")
          return n === 2 ? Effect.die(new Error("died")) : Effect.interrupt
        })
      )
      yield* provide(run(dying, transport.layer))
      transport.deliver(1, 2, 3, "rubbish")
      yield* until("settled", () => transport.settled.length === 4)
      const spans = named("process orders").concat(named("process t"))
      assert.deepStrictEqual(
        spans.map((span) => attributesOf(span)["error.type"]),
        ["Defect", "Defect", "Interrupted", "Failure"]
      )
      assert.isTrue(spans.every(ended))
    }).pipe(silently)
  )
})

describe("without a tracer", () => {
  it.effect("no span is made; what the handler publishes belongs to the producer's trace all the same", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const traceparent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
      const spans: Array<boolean> = []
      const forwarding = Consumer.make(Order, { group: "g" }).pipe(
        Consumer.process((n) =>
          Effect.gen(function* () {
            spans.push(Option.isSome(yield* Effect.option(Effect.currentSpan)))
            yield* Producer.publish(Invoice, n)
          })
        ),
        Consumer.orElse(Consumer.deadLetter())
      )
      yield* run(forwarding, transport.layer)
      transport.offer(transport.delivery(1, { headers: { traceparent } }), transport.delivery(2))
      yield* until("settled", () => transport.settled.length === 2)
      assert.deepStrictEqual(spans, [false, false])
      assert.deepStrictEqual(
        transport.published.flat().map((message) => message.headers["traceparent"]),
        [traceparent, undefined]
      )
    })
  )
})

/** Retried once, dead, redriven, done: through all of it the context of the producer. */
const journey = Effect.gen(function* () {
  const { named, provide } = recorder()
  const inspector = yield* Inspector.Inspector
  const layer = Layer.succeedContext(yield* Effect.context<Transport.AtMostOnce | Transport.AtLeastOnce>())
  let redriven = false
  let calls = 0
  const stubborn = Consumer.make(Order, { group: "billing" }).pipe(
    Consumer.process((): Effect.Effect<void, Busy> => {
      calls++
      return redriven ? Effect.void : Effect.fail(new Busy({}))
    }),
    Consumer.onFailure({ Busy: Consumer.retry(Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 1 }))) })
  )
  const becomes = (what: string, ask: Effect.Effect<boolean, Transport.TransportError>) =>
    ask.pipe(
      Effect.repeat({ until: (is: boolean) => is, schedule: Schedule.spaced(Duration.millis(20)) }),
      Effect.timeout("20 seconds"),
      Effect.mapError((error) => new Error(`${what}: ${error.message}`))
    )
  const letters = Effect.map(inspector.describe("orders"), ({ groups }) => groups[0]?.deadLetters ?? 0)
  yield* provide(Effect.forkScoped(Effect.provide(Consumer.run(stubborn), layer)))
  yield* provide(Producer.publish(Order, 1, { id: "o-1", headers: { tenant: "a" } }))
  yield* becomes(
    "a dead letter",
    Effect.map(letters, (count) => count === 1)
  )
  const [letter] = yield* Stream.runCollect(DeadLetters.stream(Order, "billing"))
  const [send] = named("send orders")
  assert.deepStrictEqual(letter?.headers, {
    tenant: "a",
    traceparent: `00-${send?.traceId}-${send?.spanId}-01`
  })
  redriven = true
  yield* DeadLetters.redrive(Order, "billing")
  yield* becomes(
    "handled again",
    Effect.sync(() => calls === 3 && named("process orders").every(ended))
  )
  const attempts = named("process orders")
  assert.deepStrictEqual(
    attempts.map((span) => attributesOf(span)["waybill.message.attempt"]),
    [1, 2, 1]
  )
  for (const span of attempts) assert.deepStrictEqual(linksOf(span), [idOf(send)])
}).pipe(Effect.scoped, silently)

describe("the context in the headers goes through retry, dead letter and redrive", () => {
  it.live("in memory", () => Effect.provide(journey, MemoryStreams.layer()))

  it.live("on Redis", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      yield* Effect.provide(journey, RedisStreams.layer().pipe(Layer.provide(IoRedis.layerUrl(url))))
    }).pipe(Effect.provide(RedisServer.layer()))
  )
})
