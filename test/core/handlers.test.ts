import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Commit, Consumer, Producer, Topic } from "waybill"
import { MemoryExactlyOnce } from "waybill/memory"
import { FakeTransport } from "./FakeTransport.ts"
import { run, stop, until } from "./Running.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Numbers = Topic.make("t", { payload: Schema.Int })
const Committed = Topic.make("t", { payload: Schema.Int, guarantee: "transactional" })
const source = (options?: Partial<Consumer.Options>) => Consumer.make(Numbers, { group: "g", ...options })

/** Runs it until so many deliveries have ended, and returns how. */
const ended = Effect.fnUntraced(function* <A, R>(consumer: Consumer.Consumer<A, never, R>, ...bodies: Array<unknown>) {
  const transport = yield* FakeTransport.make
  transport.deliver(...(bodies as Array<number>))
  return yield* Consumer.stream(consumer).pipe(
    Stream.take(bodies.length),
    Stream.runCollect,
    Effect.provide(transport.layer)
  )
})

describe("a handler's scope", () => {
  /** Writes down when something is acquired, used and released, and with which exit. */
  const resource = (events: Array<string>) =>
    Effect.acquireRelease(
      Effect.sync(() => events.push("acquired")),
      (_, exit) => Effect.sync(() => events.push(`released ${exit._tag}`))
    )

  it.effect.each([
    ["success", Effect.void, "Ack", "released Success"],
    ["failure", Effect.fail(new Busy()), "DeadLetter", "released Failure"],
    ["defect", Effect.die("bug"), "DeadLetter", "released Failure"],
    ["interruption", Effect.interrupt, "Retry", "released Failure"]
  ] as const)("is closed with its exit before the message is settled: %s", ([, outcome, settlement, released]) =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const transport = yield* FakeTransport.make
      const consumer = source().pipe(
        Consumer.process(() => Effect.andThen(resource(events), outcome)),
        Consumer.orElse(Consumer.deadLetter())
      )
      transport.deliver(1, 2)
      yield* Consumer.stream(consumer).pipe(
        Stream.tap(({ settlement: { _tag } }) => Effect.sync(() => events.push(_tag))),
        Stream.take(2),
        Stream.runDrain,
        Effect.provide(transport.layer)
      )
      assert.deepStrictEqual(
        events.filter((event) => event === "acquired" || event === released),
        ["acquired", released, "acquired", released]
      )
      assert.isBelow(events.indexOf(released), events.indexOf(settlement))
    })
  )

  it.effect("is closed when the handler takes too long, and when the consumer stops", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const transport = yield* FakeTransport.make
      const consumer = source({ concurrency: 2, shutdown: 0 }).pipe(
        Consumer.process((n) => Effect.andThen(resource(events), n === 1 ? Effect.sleep("1 minute") : Effect.never)),
        Consumer.timeout("1 second"),
        Consumer.orElse(Consumer.deadLetter())
      )
      const running = yield* run(consumer, transport.layer)
      transport.deliver(1)
      yield* until("the first is in its handler", () => events.length === 1)
      yield* TestClock.adjust("1 second")
      yield* until("the first is settled", () => transport.settled.length === 1)
      assert.deepStrictEqual(events, ["acquired", "released Failure"])
      transport.deliver(2)
      yield* until("the second is in its handler", () => events.length === 3)
      yield* stop(running)
      assert.deepStrictEqual(events.slice(2), ["acquired", "released Failure"])
    })
  )

  it.effect.each([1, 2])("is closed when the lease is lost, %i at a time: nothing is settled", (concurrency) =>
    Effect.gen(function* () {
      const events: Array<string> = []
      const transport = yield* FakeTransport.make
      const consumer = source({ concurrency }).pipe(
        Consumer.process(() => Effect.andThen(resource(events), Effect.never))
      )
      yield* run(consumer, transport.layer)
      transport.deliver(1)
      yield* until("it is in its handler", () => events.length === 1)
      transport.lose(...transport.held.values())
      yield* until("it is released", () => events.length === 2)
      assert.deepStrictEqual(events, ["acquired", "released Failure"])
      transport.deliver(2)
      yield* until("the next is in its handler", () => events.length === 3)
      assert.deepStrictEqual(transport.settled, [])
    })
  )

  it.effect("a release that dies makes a dead letter of the message", () =>
    Effect.gen(function* () {
      const [outcome] = yield* ended(
        source().pipe(Consumer.process(() => Effect.addFinalizer(() => Effect.die(new Error("no release"))))),
        1
      )
      assert.deepInclude(outcome?.settlement, { _tag: "DeadLetter", reason: "Defect" })
    })
  )

  it.effect("a batch has one of its own", () =>
    Effect.gen(function* () {
      const events: Array<string> = []
      yield* ended(
        source().pipe(
          Consumer.processBatch(2, 0, (items) =>
            Effect.as(
              resource(events),
              items.map(() => Result.void)
            )
          )
        ),
        1,
        2
      )
      assert.deepStrictEqual(events, ["acquired", "released Success"])
    })
  )
})

it.effect("a consumer is built by calls as it is by a pipe", () =>
  Effect.gen(function* () {
    const handled = Consumer.process(source(), (n, { attempt }) =>
      n === 1 ? Effect.fail(new Busy()) : Effect.succeed(attempt)
    )
    assert.isTrue(Consumer.isConsumer(handled))
    assert.isFalse(Consumer.isConsumer(source()))
    assert.isFalse(Consumer.isConsumer(null))
    const routed = Consumer.onFailure(handled, { Busy: Consumer.deadLetter("Occupied") })
    const gaps: Array<unknown> = []
    const whole = Consumer.orElse(
      Consumer.timeout(
        Consumer.onGap(routed, (gap) => Effect.sync(() => gaps.push(gap))),
        "1 second"
      ),
      Consumer.acknowledge
    )
    assert.isTrue(Consumer.isConsumer(whole))
    const outcomes = yield* ended(whole, 1, 2)
    assert.deepStrictEqual(
      outcomes.map(({ settlement }) => (settlement._tag === "DeadLetter" ? settlement.reason : settlement._tag)),
      ["Occupied", "Ack"]
    )
    assert.deepStrictEqual(gaps, [])
  })
)

describe("a generator function", () => {
  it.effect("is a handler", () =>
    Effect.gen(function* () {
      const outcomes = yield* ended(
        source().pipe(
          Consumer.process(function* (n, { attempt }) {
            const half = yield* Effect.succeed(n / 2)
            if (!Number.isInteger(half)) return yield* new Busy()
            return half + attempt
          }),
          Consumer.onFailure({ Busy: Consumer.deadLetter("Odd") })
        ),
        4,
        5
      )
      assert.deepStrictEqual(
        outcomes.map(({ settlement, value }) => [settlement._tag, value._tag === "Some" ? value.value : undefined]),
        [
          ["Ack", 3],
          ["DeadLetter", undefined]
        ]
      )
    })
  )

  it.effect("handles a batch", () =>
    Effect.gen(function* () {
      const outcomes = yield* ended(
        source().pipe(
          Consumer.processBatch(2, 0, function* (items) {
            yield* Effect.void
            return items.map(({ payload }) => (payload === 1 ? Result.succeed("one") : Result.fail(new Busy())))
          }),
          Consumer.orElse(Consumer.deadLetter())
        ),
        1,
        2
      )
      assert.deepStrictEqual(
        outcomes.map(({ settlement }) => settlement._tag),
        ["Ack", "DeadLetter"]
      )
    })
  )

  it.effect("returns a commit", () =>
    Effect.gen(function* () {
      const handled = Commit.counter("handled")
      const counted = yield* Consumer.make(Committed, { group: "g" }).pipe(
        Consumer.transactional(function* (n) {
          yield* Effect.void
          return Commit.make({ writes: [handled.add(n)] })
        }),
        Consumer.stream,
        Stream.take(1),
        Stream.runCollect,
        Effect.provide(
          Layer.effectDiscard(Producer.publish(Committed, 3)).pipe(Layer.provideMerge(MemoryExactlyOnce.layer()))
        )
      )
      assert.deepStrictEqual(
        counted.map(({ settlement, settled }) => [settlement._tag, settled]),
        [["Ack", "Settled"]]
      )
    })
  )
})

describe("what is no handler", () => {
  const wrongs: ReadonlyArray<readonly [string, () => unknown, RegExp]> = [
    ["a promise", () => Promise.resolve(1), /returned a promise: .*Effect\.tryPromise/],
    ["a number", () => 1, /must return an effect/],
    ["nothing", () => undefined, /must return an effect/],
    ["null", () => null, /must return an effect/]
  ]

  it.effect.each(wrongs)("%s becomes a dead letter that says so, and the next message is handled", ([, wrong, text]) =>
    Effect.gen(function* () {
      // JavaScript would let it.
      const handled = () => wrong() as Effect.Effect<never>
      const one = source().pipe(Consumer.process((n) => (n === 1 ? handled() : Effect.succeed(n))))
      const batch = source().pipe(
        Consumer.processBatch(1, 0, ([{ payload: n }]) => (n === 1 ? handled() : Effect.succeed([Result.void])))
      )
      for (const outcomes of [yield* ended(one, 1, 2), yield* ended(batch, 1, 2)]) {
        const [first, second] = outcomes
        assert(first?.settlement._tag === "DeadLetter")
        assert.strictEqual(first.settlement.reason, "Defect")
        assert.match(first.settlement.cause, text)
        assert.strictEqual(second?.settlement._tag, "Ack")
      }
    })
  )
})
