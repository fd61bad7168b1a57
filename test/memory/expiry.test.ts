import { assert, describe, it } from "@effect/vitest"
import { Probe } from "@waybill/testing"
import { Array as Arr, Duration, Effect, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { type Delivery, Inspector, type Message, Settlement, Transport } from "waybill"
import { MemoryKeyspace } from "waybill/memory"

const outgoing = (id: string, more: Partial<Message.Outgoing> = {}): Message.Outgoing => ({
  id,
  body: id,
  headers: {},
  key: undefined,
  version: 1,
  due: undefined,
  ...more
})

const publish = (...ids: ReadonlyArray<string | Message.Outgoing>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) => {
    const [first = outgoing(""), ...rest] = ids.map((id) => (typeof id === "string" ? outgoing(id) : id))
    return transport.publish("t", [first, ...rest])
  })

const join = (group: string, options?: Partial<Transport.Subscription>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) =>
    transport.receive({
      topic: "t",
      group,
      start: "earliest",
      lease: Duration.seconds(5),
      maxDeliveries: 5,
      shutdown: Duration.seconds(1),
      ...options
    })
  )

const describeTopic = Effect.flatMap(Inspector.Inspector, (inspector) => inspector.describe("t"))

const ids = (deliveries: ReadonlyArray<Delivery.Delivery>) => deliveries.map(({ id }) => id)

const acks = (deliveries: Arr.NonEmptyReadonlyArray<Delivery.Delivery>) =>
  Arr.map(deliveries, (delivery) => [delivery, Settlement.ack] as const)

describe("MemoryKeyspace, messages of one minute", () => {
  const layer = Probe.layer.pipe(Layer.provideMerge(MemoryKeyspace.layer({ ttl: "1 minute" })))

  it.effect("a group that comes late gets everything that has not expired, in order, then what is new", () =>
    Effect.gen(function* () {
      const early = yield* join("early")
      yield* publish("a", "b")
      yield* TestClock.adjust("30 seconds")
      yield* publish("c", "d")
      yield* early.settle(acks(yield* early.take(10)))
      yield* TestClock.adjust("30 seconds")
      const late = yield* join("late")
      const [first, ...rest] = yield* late.take(10)
      assert.deepStrictEqual(ids([first, ...rest]), ["c", "d"], "also what others have settled")
      assert.isUndefined(first.gap, "what had expired before it came is nothing that it misses")
      yield* publish("e")
      assert.deepStrictEqual(ids(yield* late.take(10)), ["e"])
      assert.deepStrictEqual(ids(yield* early.take(10)), ["e"])
    }).pipe(Effect.provide(layer))
  )

  it.effect("what expired unread is told once, where it was missing, with the next message", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      const receiver = yield* join("g")
      yield* publish("a", "b", "c", "d")
      const [a, b] = yield* receiver.take(2)
      yield* TestClock.adjust("59999 millis")
      assert.strictEqual((yield* describeTopic).depth, 4)
      yield* TestClock.adjust("1 millis")
      const { depth, groups } = yield* describeTopic
      assert.deepStrictEqual([depth, groups[0]?.lag, groups[0]?.pending], [0, 0, 2])
      assert(b !== undefined)
      yield* receiver.settle([
        [a, Settlement.ack],
        [b, Settlement.ack]
      ])
      yield* publish("e", "f")
      const [e, f] = yield* receiver.take(10)
      const gap = { missed: 2, after: "b", before: "e", reason: "expired" } as const
      assert.deepStrictEqual(e.gap, gap)
      assert.isUndefined(f?.gap)
      const event = yield* probe.event("Gap")
      assert.deepStrictEqual({ ...event }, { _tag: "Gap", topic: "t", group: "g", consumer: receiver.consumer, gap })
      yield* publish("g")
      assert.isUndefined((yield* receiver.take(10))[0].gap)
    }).pipe(Effect.provide(layer))
  )

  it.effect("the hole is in front of what is new, not of what comes back", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      yield* publish("a")
      yield* TestClock.adjust("59 seconds")
      yield* publish("b")
      const [a] = yield* receiver.take(1)
      yield* receiver.settle([[a, Settlement.ack]])
      const [b] = yield* receiver.take(1)
      yield* TestClock.adjust("30 seconds")
      yield* publish("c")
      yield* receiver.settle([[b, Settlement.release]])
      assert.deepStrictEqual(ids(yield* receiver.take(1)), ["b"])
      yield* TestClock.adjust("1 minute")
      yield* publish("d")
      const [d] = yield* receiver.take(10)
      assert.deepStrictEqual(d.gap, { missed: 1, after: "b", before: "d", reason: "expired" })
    }).pipe(Effect.provide(layer))
  )

  it.effect("what expires while it waits for its next attempt is told too", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      yield* publish("a", "b", "c")
      const [a, b, c] = yield* receiver.take(10)
      assert(b !== undefined && c !== undefined)
      yield* receiver.settle([
        [a, Settlement.retry(Duration.seconds(59), "")],
        [b, Settlement.retry(Duration.seconds(60), "")],
        [c, Settlement.retry(Duration.seconds(61), "")]
      ])
      yield* TestClock.adjust("59 seconds")
      assert.deepStrictEqual(ids(yield* receiver.take(10)), ["a"])
      yield* TestClock.adjust("2 seconds")
      yield* publish("d")
      const [d] = yield* receiver.take(10)
      assert.deepStrictEqual(d.gap, { missed: 2, after: "a", before: "d", reason: "expired" })
      assert.strictEqual((yield* describeTopic).groups[0]?.waiting, 0)
    }).pipe(Effect.provide(layer))
  )

  it.effect(
    "what a consumer holds may be settled after it has expired, and a dead letter stays until it is redriven and done",
    () =>
      Effect.gen(function* () {
        const inspector = yield* Inspector.Inspector
        const receiver = yield* join("g")
        yield* publish("a")
        const [a] = yield* receiver.take(1)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* receiver.settle([[a, Settlement.deadLetter("Broken", "")]]), ["Settled"])
        const [letter] = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 1 })
        yield* inspector.redrive("t", "g", [letter?.entry ?? ""])
        yield* TestClock.adjust("1 hour")
        const [again] = yield* receiver.take(1)
        assert.deepStrictEqual([again.id, again.attempt, again.gap], ["a", 1, undefined])
        yield* receiver.settle([[again, Settlement.retry(Duration.hours(1), "")]])
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(ids(yield* receiver.take(1)), ["a"])
      }).pipe(Effect.provide(layer))
  )

  it.effect("a delayed message lives from when it is due", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      yield* publish(outgoing("a", { due: { _tag: "After", delay: Duration.hours(1) } }))
      const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(ids(yield* Effect.fromNullishOr(fiber.pollUnsafe()).pipe(Effect.flatten)), ["a"])
      const other = yield* join("other")
      yield* TestClock.adjust("59 seconds")
      assert.deepStrictEqual(ids(yield* other.take(1)), ["a"])
    }).pipe(Effect.provide(layer))
  )

  it.effect("a group that starts at the latest skips what is there, and what was due before it came", () =>
    Effect.gen(function* () {
      yield* publish("a", outgoing("b", { due: { _tag: "After", delay: Duration.seconds(1) } }))
      yield* TestClock.adjust("1 second")
      const receiver = yield* join("g", { start: "latest" })
      yield* publish("c")
      assert.deepStrictEqual(ids(yield* receiver.take(10)), ["c"])
    }).pipe(Effect.provide(layer))
  )

  it.effect("what has expired is not kept for a group that never reads, only counted", () =>
    Effect.gen(function* () {
      yield* join("a group that never reads")
      for (let minute = 0; minute < 10; minute++) {
        yield* publish(...Array.from({ length: 100 }, (_, i) => `${minute}:${i}`))
        assert.strictEqual((yield* describeTopic).depth, 100)
        yield* TestClock.adjust("1 minute")
      }
      const receiver = yield* join("a group that never reads")
      yield* publish("now")
      assert.strictEqual((yield* receiver.take(1))[0].gap?.missed, 1000)
    }).pipe(Effect.provide(layer))
  )
})
