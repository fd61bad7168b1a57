import { assert, describe, it } from "@effect/vitest"
import { freeze } from "@waybill/testing"
import { Array as Arr, Duration, Effect } from "effect"
import { TestClock } from "effect/testing"
import { type Message, Settlement, Transport } from "waybill"
import { MemoryKeyspace, MemoryLists, MemoryStreams } from "waybill/memory"

const patterns = [
  ["MemoryStreams", MemoryStreams],
  ["MemoryLists", MemoryLists],
  ["MemoryKeyspace", MemoryKeyspace]
] as const

const outgoing = (body: string): Message.Outgoing => ({
  id: undefined,
  body,
  headers: {},
  key: undefined,
  version: 1,
  due: undefined
})

const publish = (first: string, ...rest: ReadonlyArray<string>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) =>
    transport.publish("t", [outgoing(first), ...rest.map((body) => outgoing(body))])
  )

const join = Effect.flatMap(Transport.AtMostOnce, (transport) =>
  transport.receive({
    topic: "t",
    group: "g",
    start: "earliest",
    lease: Duration.seconds(30),
    maxDeliveries: 3,
    shutdown: Duration.seconds(1)
  })
)

describe.each(patterns)("%s, what consumers have died with", (_, pattern) => {
  /** As many consumers, one after the other, take all there is and stand still for ever. */
  const diesOf = (consumers: number) =>
    Effect.forEach(Arr.range(1, consumers), () =>
      Effect.gen(function* () {
        const receiver = yield* join
        const taken = yield* receiver.take(10)
        yield* freeze(receiver)
        yield* TestClock.adjust("30 seconds")
        return taken.map((delivery) => [delivery.body, delivery.attempt])
      })
    )

  const waits = Effect.fnUntraced(function* (receiver: Transport.Receiver) {
    const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
    yield* TestClock.adjust("1 minute")
    assert.isUndefined(fiber.pollUnsafe(), "nothing for who has a suspect")
    return fiber
  })

  it.effect("goes on in one batch after one death, and one at a time when one more would be its last", () =>
    Effect.gen(function* () {
      yield* publish("a", "b", "c")
      assert.deepStrictEqual(yield* diesOf(2), [
        ["a", "b", "c"].map((body) => [body, 1]),
        ["a", "b", "c"].map((body) => [body, 2])
      ])
      const receiver = yield* join
      const bodies: Array<unknown> = []
      let [suspect, ...others] = yield* receiver.take(10)
      assert.deepStrictEqual(others, [])
      for (const settlement of [Settlement.ack, Settlement.retry(Duration.hours(9), ""), Settlement.release]) {
        assert.strictEqual(suspect.attempt, 3)
        bodies.push(suspect.body)
        const fiber = yield* waits(receiver)
        yield* receiver.settle([[suspect, settlement]])
        yield* TestClock.adjust("1 millis")
        const exit = fiber.pollUnsafe()
        assert.isDefined(exit, `its end lets the next one go out: ${settlement._tag}`)
        ;[suspect, ...others] = yield* exit
        assert.deepStrictEqual(others, [])
      }
      assert.deepStrictEqual(bodies, ["a", "b", "c"])
      assert.strictEqual(suspect.body, "c", "the one that was released")
    }).pipe(Effect.provide(pattern.layer()))
  )

  it.effect("does not hold up what nobody died with, nor other consumers", () =>
    Effect.gen(function* () {
      yield* publish("a", "b")
      yield* diesOf(2)
      yield* publish("new", "newer")
      const one = yield* join
      const two = yield* join
      assert.deepStrictEqual(
        (yield* one.take(10)).map((delivery) => delivery.body),
        ["a", "new", "newer"]
      )
      yield* publish("newest")
      assert.deepStrictEqual(
        (yield* two.take(10)).map((delivery) => delivery.body),
        ["b", "newest"]
      )
    }).pipe(Effect.provide(pattern.layer()))
  )

  it.effect("is free again when its consumer leaves", () =>
    Effect.gen(function* () {
      yield* publish("a", "b")
      yield* diesOf(2)
      yield* Effect.scoped(Effect.flatMap(join, (receiver) => receiver.take(10)))
      const receiver = yield* join
      const [first, ...others] = yield* receiver.take(10)
      assert.deepStrictEqual([first.body, first.attempt, others.length], ["b", 3, 0])
      yield* receiver.settle([[first, Settlement.ack]])
      assert.deepStrictEqual(
        (yield* receiver.take(10)).map(({ attempt, body }) => [body, attempt]),
        [["a", 3]]
      )
    }).pipe(Effect.provide(pattern.layer()))
  )

  it.effect("case F2: is retried, and the deaths before still count", () =>
    Effect.gen(function* () {
      yield* publish("a", "b")
      yield* diesOf(1)
      const receiver = yield* join
      const taken = yield* receiver.take(10)
      yield* receiver.settle(Arr.map(taken, (delivery) => [delivery, Settlement.retry(Duration.zero, "")]))
      yield* Effect.andThen(receiver.take(10), freeze(receiver))
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual((yield* Effect.flatMap(join, (next) => next.take(10))).length, 1)
    }).pipe(Effect.provide(pattern.layer()))
  )
})

describe.each(patterns)("%s, options that make no sense", (_, { layer }) => {
  it.each([
    ["a window of nothing", { deduplicationWindow: 0 }, /deduplicationWindow must be longer than 0/],
    ["no dead letters", { deadLetters: { maxCount: 0 } }, /deadLetters.maxCount must be an integer >= 1, got 0/],
    ["half a dead letter", { deadLetters: { maxCount: 1.5 } }, /deadLetters.maxCount/],
    ["dead letters for no time", { deadLetters: { maxAge: "0 seconds" } }, /deadLetters.maxAge/]
  ] as const)("throw while the layer is described: %s", (_, options, message) => {
    assert.throws(() => layer(options), message)
  })
})

it("MemoryKeyspace refuses messages that do not live", () => {
  assert.throws(() => MemoryKeyspace.layer({ ttl: "0 seconds" }), /ttl must be longer than 0/)
})

it("MemoryStreams refuses a log of no length", () => {
  assert.throws(() => MemoryStreams.layer({ retention: { maxLength: 0 } }), /retention.maxLength/)
})
