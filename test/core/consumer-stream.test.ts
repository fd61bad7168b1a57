import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Result, Schedule, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, stop, until } from "./Running.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Numbers = Topic.make("t", { payload: Schema.Int })
const source = (options?: Partial<Consumer.Options>) => Consumer.make(Numbers, { group: "g", ...options })
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => from + n)

describe("stream", () => {
  it.effect.each([
    [1, 1, 0],
    [1, 1, 4],
    [16, 3, 0],
    [256, 4, 32]
  ] as const)(
    "case F10: buffer of %i, concurrency %i, prefetch %i: what is settled beyond take(10) is bounded",
    ([bufferSize, concurrency, prefetch]) =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        transport.deliver(...range(0, 2000))
        const outcomes = yield* source({ concurrency, prefetch, bufferSize }).pipe(
          Consumer.process(() => Effect.void),
          Consumer.stream,
          Stream.take(10),
          Stream.runCollect,
          Effect.provide(transport.layer)
        )
        assert.lengthOf(outcomes, 10)
        assert.isAtMost(transport.settled.length, 10 + 2 * (bufferSize + concurrency + prefetch))
      })
  )

  it.each([0, -1, 1.5, NaN, Infinity])("a buffer of %d is refused", (bufferSize) => {
    assert.throws(() => source({ bufferSize }), /bufferSize/)
  })

  it.effect("tells how each delivery ended, with the handler's value, after it was settled", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const consumer = source().pipe(
        Consumer.process((n) => (n === 1 ? Effect.fail(new Busy()) : Effect.succeed(`value ${n}`))),
        Consumer.onFailure({ Busy: Consumer.retry(Schedule.spaced("1 second")) })
      )
      transport.deliver(0, 1, "rubbish", 2)
      const outcomes = yield* Consumer.stream(consumer).pipe(
        Stream.tap(({ delivery }) => Effect.sync(() => assert.strictEqual(transport.ends(delivery).length, 1))),
        Stream.take(4),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      const values: ReadonlyArray<Option.Option<string>> = outcomes.map(({ value }) => value)
      assert.deepStrictEqual(values, [Option.some("value 0"), Option.none(), Option.none(), Option.some("value 2")])
      assert.deepStrictEqual(
        outcomes.map(({ delivery, settled, settlement }) => [delivery.body, settlement._tag, settled]),
        [
          ["0", "Ack", "Settled"],
          ["1", "Retry", "Settled"],
          ["rubbish", "DeadLetter", "Settled"],
          ["2", "Ack", "Settled"]
        ]
      )
    })
  )

  it.effect("a value that is undefined is a value", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(0)
      const [outcome] = yield* source().pipe(
        Consumer.process(() => Effect.void),
        Consumer.stream,
        Stream.take(1),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      assert.deepStrictEqual(outcome?.value, Option.some(undefined))
    })
  )

  it.effect("stale settlements come as such", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onSettle = Effect.sync(() => transport.lose(...transport.held.values()))
      transport.deliver(0)
      const [outcome] = yield* source().pipe(
        Consumer.process(() => Effect.void),
        Consumer.stream,
        Stream.take(1),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      assert.strictEqual(outcome?.settled, "Stale")
    })
  )

  it.effect("values stay with their deliveries, however many settle at once", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onSettle = Effect.yieldNow
      transport.deliver(...range(0, 3000))
      const outcomes = yield* source({ concurrency: 2000 }).pipe(
        Consumer.process((n) =>
          n % 3 === 0 ? Effect.fail("third") : n % 3 === 1 ? Effect.succeed(n) : Effect.as(Effect.yieldNow, n)
        ),
        Consumer.orElse(Consumer.deadLetter()),
        Consumer.stream,
        Stream.take(3000),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      assert.isAbove(Math.max(...transport.batches), 1)
      for (const { delivery, value } of outcomes) {
        const n = Number(delivery.body)
        assert.deepStrictEqual(value, n % 3 === 0 ? Option.none() : Option.some(n))
      }
    })
  )

  it.effect("who reads slowly slows the consumer down", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let handled = 0
      let read = 0
      const fiber = yield* source({ concurrency: 4, prefetch: 16 }).pipe(
        Consumer.process(() => Effect.sync(() => void handled++)),
        Consumer.stream,
        Stream.rechunk(1),
        Stream.runForEach(() =>
          Effect.andThen(
            Effect.sync(() => read++),
            Effect.sleep("1 second")
          )
        ),
        Effect.provide(transport.layer),
        Effect.forkChild
      )
      transport.deliver(...range(0, 10_000))
      yield* quiet()
      for (let second = 0; second < 20; second++) {
        yield* TestClock.adjust("1 second")
        yield* quiet()
      }
      assert.isAtLeast(read, 20)
      assert.isAtMost(read, 22)
      // A buffer of outcomes, what the consumer may hold, and what is being settled.
      assert.isAtMost(handled, 700)
      yield* stop(fiber)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("ends cleanly and at once when enough is read, with the buffer full and the rest released", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(...range(0, 20_000))
      const fiber = yield* source({ concurrency: 8 }).pipe(
        Consumer.process((n) => Effect.succeed(n)),
        Consumer.stream,
        Stream.tap(() => (transport.settled.length < 500 ? Effect.yieldNow : Effect.void)),
        Stream.take(3),
        Stream.runCollect,
        Effect.provide(transport.layer),
        Effect.forkChild
      )
      yield* until("it has ended", () => fiber.pollUnsafe() !== undefined)
      assert.strictEqual((yield* Fiber.join(fiber)).length, 3)
      assert.strictEqual(transport.leaves, 1)
      assert.strictEqual(transport.held.size, 0)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("ends at once with a reader that has stopped reading", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(...range(0, 20_000))
      const fiber = yield* source({ concurrency: 8 }).pipe(
        Consumer.process((n) => Effect.succeed(n)),
        Consumer.stream,
        Stream.runForEach(() => Effect.never),
        Effect.provide(transport.layer),
        Effect.forkChild
      )
      yield* quiet()
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 0)
      assert.strictEqual(transport.leaves, 1)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("running handlers get their time when the stream ends", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* source({ concurrency: 2, shutdown: "10 seconds" }).pipe(
        Consumer.process((n) => Effect.sleep(n * 1000)),
        Consumer.stream,
        Stream.take(1),
        Stream.runCollect,
        Effect.provide(transport.layer),
        Effect.forkChild
      )
      transport.deliver(1, 5)
      yield* until("in hand", () => transport.held.size === 2)
      yield* TestClock.adjust("1 second")
      yield* quiet()
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("4 seconds")
      yield* until("it has ended", () => fiber.pollUnsafe() !== undefined)
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Ack"])
    })
  )

  it.effect("fails with what run fails with, after what was settled before", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const wrong = new Transport.TransportError({
        operation: "receive",
        topic: "t",
        reason: new Transport.WrongKeyType({ key: "k", detail: "WRONGTYPE" })
      })
      let takes = 0
      transport.onTake = Effect.suspend(() => (++takes > 1 ? Effect.fail(wrong) : Effect.void))
      transport.deliver(0)
      const seen: Array<unknown> = []
      const exit = yield* source().pipe(
        Consumer.process((n) => Effect.succeed(n)),
        Consumer.stream,
        Stream.runForEach(({ value }) => Effect.sync(() => seen.push(Option.getOrUndefined(value)))),
        Effect.provide(transport.layer),
        Effect.exit
      )
      assert.deepStrictEqual(exit, Exit.fail(wrong))
      assert.deepStrictEqual(transport.outcomes(), ["Ack"])
      assert.deepStrictEqual(seen, [0])
    })
  )

  it.effect("of batches has a value an item", () =>
    Effect.gen(function* () {
      const transport = Effect.provide(MemoryStreams.layer())
      const outcomes = yield* Effect.gen(function* () {
        yield* Producer.publishAll(Numbers, range(0, 10))
        return yield* source().pipe(
          Consumer.processBatch(4, 0, (items) =>
            Effect.succeed(items.map(({ payload }) => Result.succeed(payload * 2)))
          ),
          Consumer.stream,
          Stream.take(10),
          Stream.runCollect
        )
      }).pipe(transport)
      assert.deepStrictEqual(
        outcomes.map(({ delivery, value }) => [Number(delivery.body) * 2, Option.getOrUndefined(value)]),
        range(0, 10).map((n) => [n * 2, n * 2])
      )
    })
  )
})
