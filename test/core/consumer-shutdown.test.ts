import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, type Fiber, Layer, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Topic, Transport } from "waybill"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, stop, until } from "./Running.ts"

const Numbers = Topic.make("t", { payload: Schema.Int })
const source = (options?: Partial<Consumer.Options>) =>
  Consumer.make(Numbers, { group: "g", shutdown: "10 seconds", ...options })
const sleeping = (millis: number, options?: Partial<Consumer.Options>) =>
  source(options).pipe(Consumer.process(() => Effect.sleep(millis)))

/** What the documentation of `Consumer.run` allows on top of `shutdown`. */
const grace = 10_000

const down = new Transport.TransportError({
  operation: "settle",
  topic: "t",
  reason: new Transport.Disconnected({ ambiguous: true, cause: "reset" })
})

/** Interrupts without waiting. */
const begin = <A, E>(fiber: Fiber.Fiber<A, E>) => Effect.sync(() => fiber.interruptUnsafe())

describe("shutdown", () => {
  it.effect("an idle consumer stops at once", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(sleeping(1, { concurrency: 50 }), transport.layer)
      yield* quiet()
      const { exit, millis } = yield* stop(fiber)
      assert.strictEqual(millis, 0)
      assert.isTrue(Exit.isFailure(exit) && Exit.hasInterrupts(exit))
      assert.strictEqual(transport.leaves, 1)
    })
  )

  it.effect("running handlers finish, nothing new is begun, what was only taken goes back", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const seen: Array<number> = []
      const fiber = yield* run(
        source({ concurrency: 2, prefetch: 4 }).pipe(
          Consumer.process((n) => {
            seen.push(n)
            return Effect.sleep("9 seconds")
          })
        ),
        transport.layer
      )
      transport.deliver(0, 1, 2, 3, 4, 5, 6, 7)
      yield* until("two in hand", () => seen.length === 2)
      yield* quiet()
      assert.isAbove(transport.held.size, 2)
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 9000)
      assert.deepStrictEqual(seen, [0, 1])
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Ack"])
      assert.strictEqual(transport.held.size, 0)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("handlers that take longer are interrupted, their finalizers run, and they are released", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let finalized = 0
      const fiber = yield* run(
        source({ concurrency: 3 }).pipe(
          Consumer.process((n) =>
            Effect.ensuring(
              Effect.sleep(n * 6000),
              Effect.sync(() => finalized++)
            )
          )
        ),
        transport.layer
      )
      transport.deliver(1, 2, 3)
      yield* until("in hand", () => transport.held.size === 3)
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 10_000)
      assert.strictEqual(finalized, 3)
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Release", "Release"])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("a handler that fails because it is interrupted by the shutdown is judged by its failure", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(
        source({ shutdown: 0 }).pipe(
          Consumer.process(() => Effect.catchCause(Effect.never, () => Effect.fail("gave up"))),
          Consumer.orElse(Consumer.deadLetter())
        ),
        transport.layer
      )
      transport.deliver(1)
      yield* until("in hand", () => transport.held.size === 1)
      yield* stop(fiber)
      assert.deepStrictEqual(transport.complaints(), [])
      assert.include(["Release", "DeadLetter"], transport.outcomes()[0])
    })
  )

  it.effect("a shutdown of zero interrupts at once", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(sleeping(60_000, { shutdown: 0, concurrency: 100 }), transport.layer)
      transport.deliver(...Array.from({ length: 300 }, (_, n) => n))
      yield* until("in hand", () => transport.held.size >= 100)
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 0)
      assert.deepStrictEqual(transport.outcomes(), Array(100).fill("Release"))
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("what ended just before is flushed, however much it is", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      transport.onSettle = Effect.sleep("500 millis")
      const fiber = yield* run(
        source({ concurrency: 2000, prefetch: 0 }).pipe(Consumer.process(() => Deferred.await(gate))),
        transport.layer
      )
      transport.deliver(...Array.from({ length: 2000 }, (_, n) => n))
      yield* until("all in hand", () => transport.held.size === 2000)
      yield* begin(fiber)
      yield* Deferred.succeed(gate, undefined)
      const { millis } = yield* stop(fiber)
      assert.isAtMost(millis, 2000)
      assert.strictEqual(transport.settled.length, 2000)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("a connection that comes back while it stops still gets the settlements", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let failures = 3
      transport.onSettle = Effect.suspend(() => (failures-- > 0 ? Effect.fail(down) : Effect.void))
      const fiber = yield* run(sleeping(1), transport.layer)
      transport.deliver(1)
      yield* until("in hand", () => transport.held.size === 1)
      yield* begin(fiber)
      const { millis } = yield* stop(fiber)
      assert.isAtMost(millis, 1000)
      assert.deepStrictEqual(transport.outcomes(), ["Ack"])
    })
  )

  it.effect.each([
    ["settling never answers", { onSettle: Effect.never }],
    ["settling never answers and cannot be interrupted", { onSettle: Effect.uninterruptible(Effect.never) }],
    ["settling always fails", { onSettle: Effect.fail(down) }],
    ["taking never answers and cannot be interrupted", { onTake: Effect.uninterruptible(Effect.never) }],
    [
      "taking takes its time to be interrupted",
      { onTake: Effect.onInterrupt(Effect.never, () => Effect.sleep("3 seconds")) }
    ],
    ["leaving never answers", { onLeave: Effect.never }],
    ["leaving never answers and cannot be interrupted", { onLeave: Effect.uninterruptible(Effect.never) }],
    [
      "nothing ever answers",
      {
        onTake: Effect.uninterruptible(Effect.never),
        onSettle: Effect.uninterruptible(Effect.never),
        onLeave: Effect.uninterruptible(Effect.never)
      }
    ]
  ] as const)("returns in time when %s", ([, steps]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* TestClock.adjust(1)
      const fiber = yield* run(
        source({ concurrency: 4, prefetch: 0 }).pipe(
          Consumer.process((n) =>
            n === 0 ? Effect.uninterruptible(Effect.never) : n === 1 ? Effect.never : Effect.void
          )
        ),
        transport.layer
      )
      transport.deliver(0, 1, 2)
      yield* until("in hand", () => transport.taken.length === 3)
      yield* quiet()
      Object.assign(transport, steps)
      transport.deliver(3)
      yield* quiet()
      const { millis } = yield* stop(fiber)
      assert.isAtMost(millis, 10_000 + grace)
    })
  )

  it.effect("returns in time when a handler cannot be interrupted, and its delivery goes back", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(
        source({ concurrency: 2 }).pipe(
          Consumer.process((n) => (n === 0 ? Effect.uninterruptible(Effect.never) : Effect.void))
        ),
        transport.layer
      )
      const [stuck] = transport.deliver(0, 1)
      yield* until("the other is settled", () => transport.settled.length === 1)
      const { millis } = yield* stop(fiber)
      assert.isAtMost(millis, 10_000 + grace)
      assert.deepStrictEqual(transport.ends(stuck!), ["Returned"])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("leaves the group only when the take has ended, if that does not take long", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* TestClock.adjust(1)
      const log: Array<string> = []
      transport.onTake = Effect.onInterrupt(Effect.never, () =>
        Effect.andThen(
          Effect.sleep("500 millis"),
          Effect.sync(() => log.push("the take has ended"))
        )
      )
      transport.onLeave = Effect.sync(() => log.push("left"))
      const fiber = yield* run(sleeping(1), transport.layer)
      yield* quiet()
      const { millis } = yield* stop(fiber)
      assert.deepStrictEqual(log, ["the take has ended", "left"])
      assert.strictEqual(millis, 500)
    })
  )

  it.effect("a handler that blocks its own shutdown for long does not settle after the consumer has left", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      const fiber = yield* run(
        source().pipe(Consumer.process(() => Effect.uninterruptible(Deferred.await(gate)))),
        transport.layer
      )
      transport.deliver(0)
      yield* until("in hand", () => transport.held.size === 1)
      yield* stop(fiber)
      yield* Deferred.succeed(gate, undefined)
      yield* quiet()
      assert.deepStrictEqual(transport.complaints(), [])
      assert.strictEqual(transport.batches.length, 0)
    })
  )

  it.effect("a second and a third interruption change nothing", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(sleeping(5000, { concurrency: 2 }), transport.layer)
      transport.deliver(1, 2)
      yield* until("in hand", () => transport.held.size === 2)
      for (let i = 0; i < 50; i++) {
        yield* begin(fiber)
        yield* Effect.yieldNow
      }
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 5000)
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Ack"])
      assert.strictEqual(transport.leaves, 1)
    })
  )

  it.effect("interrupted while it still joins, it leaves nothing behind", () =>
    Effect.gen(function* () {
      for (let turns = 0; turns < 12; turns++) {
        const transport = yield* FakeTransport.make
        transport.onReceive = Effect.gen(function* () {
          for (let i = 0; i < 5; i++) yield* Effect.yieldNow
        })
        const fiber = yield* run(sleeping(1), transport.layer)
        for (let i = 0; i < turns; i++) yield* Effect.yieldNow
        const { millis } = yield* stop(fiber)
        assert.strictEqual(millis, 0)
        assert.strictEqual(transport.leaves, transport.joins, `after ${turns} turns`)
        assert.strictEqual(transport.count("ConsumerStopped"), transport.count("ConsumerStarted"))
      }
    })
  )

  it.effect("interrupted while the server is away, it stops at once", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onReceive = Effect.fail(down)
      const fiber = yield* run(sleeping(1), transport.layer)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* stop(fiber)).millis, 0)
    })
  )

  it.effect("a lease that is lost during the drain is not settled", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(sleeping(5000, { concurrency: 2 }), transport.layer)
      const [first] = transport.deliver(1, 2)
      yield* until("in hand", () => transport.held.size === 2)
      yield* begin(fiber)
      yield* TestClock.adjust("1 second")
      transport.lose(first!)
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 4000)
      assert.deepStrictEqual(transport.outcomes(), ["Ack"])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("many consumers stop side by side", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fibers = yield* Effect.forEach(Array.from({ length: 50 }), () =>
        run(sleeping(1000, { prefetch: 0 }), transport.layer)
      )
      transport.deliver(...Array.from({ length: 50 }, (_, n) => n))
      yield* until("all in hand", () => transport.held.size === 50)
      for (const fiber of fibers) yield* begin(fiber)
      for (const fiber of fibers) yield* stop(fiber)
      assert.deepStrictEqual(transport.outcomes(), Array(50).fill("Ack"))
      assert.strictEqual(transport.leaves, 50)
    })
  )

  describe("of a batch", () => {
    const batching = (handler: () => Effect.Effect<void>, options?: Partial<Consumer.Options>) =>
      source(options).pipe(
        Consumer.processBatch(10, "1 minute", (items) =>
          Effect.as(
            handler(),
            items.map(() => Result.void)
          )
        )
      )

    it.effect("one that is still collected is handled as it is", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const fiber = yield* run(
          batching(() => Effect.void),
          transport.layer
        )
        transport.deliver(1, 2, 3)
        yield* until("three collected", () => transport.held.size === 3)
        yield* quiet()
        const { millis } = yield* stop(fiber)
        assert.strictEqual(millis, 0)
        assert.deepStrictEqual(transport.outcomes(), ["Ack", "Ack", "Ack"])
        assert.deepStrictEqual(transport.complaints(), [])
      })
    )

    it.effect("one that takes too long is released whole", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const fiber = yield* run(
          batching(() => Effect.never),
          transport.layer
        )
        transport.deliver(...Array.from({ length: 10 }, (_, n) => n))
        yield* until("ten collected", () => transport.held.size === 10)
        yield* quiet()
        const { millis } = yield* stop(fiber)
        assert.strictEqual(millis, 10_000)
        assert.deepStrictEqual(transport.outcomes(), Array(10).fill("Release"))
        assert.deepStrictEqual(transport.complaints(), [])
      })
    )
  })

  it.effect("the end of the layer's scope does the same", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* Effect.forkDetach(
        Effect.scoped(
          Effect.andThen(Layer.build(Consumer.layer(sleeping(3000)).pipe(Layer.provide(transport.layer))), Effect.never)
        )
      )
      transport.deliver(1, 2)
      yield* until("in hand", () => transport.held.size > 0)
      const { millis } = yield* stop(fiber)
      assert.strictEqual(millis, 3000)
      assert.deepStrictEqual(transport.outcomes(), ["Ack"])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )
})
