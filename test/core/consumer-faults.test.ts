import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Logger, Metric, Schedule, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type Lifecycle, Topic, Transport } from "waybill"
import * as Instruments from "../../packages/waybill/src/internal/Instruments.ts"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, stop, until } from "./Running.ts"

const Numbers = Topic.make("t", { payload: Schema.Int })
const source = (options?: Partial<Consumer.Options>) => Consumer.make(Numbers, { group: "g", shutdown: 0, ...options })
const acking = (options?: Partial<Consumer.Options>) => source(options).pipe(Consumer.process(() => Effect.void))

const error = (operation: "receive" | "settle", reason: Transport.Reason) =>
  new Transport.TransportError({ operation, topic: "t", reason })
const down = error("receive", new Transport.Disconnected({ ambiguous: false, cause: "reset" }))
const wrong = error("receive", new Transport.WrongKeyType({ key: "{wb:t}:s", detail: "WRONGTYPE" }))
const forbidden = error("settle", new Transport.NotPermitted({ command: "EVALSHA", detail: "NOPERM" }))

const failing = (transport: FakeTransport) =>
  transport.events.flatMap((event) => (event._tag === "ConsumerFailing" ? [event] : []))

/** Fails the first `times` times. */
const failFirst = (times: number, failure: Transport.TransportError): Effect.Effect<void, Transport.TransportError> => {
  let left = times
  return Effect.suspend(() => (left-- > 0 ? Effect.fail(failure) : Effect.void))
}

describe("leases", () => {
  it.effect("a lost one interrupts the handler, its finalizers run, nothing is settled, and the work goes on", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const log: Array<string> = []
      yield* run(
        source({ concurrency: 2 }).pipe(
          Consumer.process((n) =>
            n === 0
              ? Effect.never.pipe(
                  Effect.ensuring(
                    Effect.andThen(
                      Effect.yieldNow,
                      Effect.sync(() => log.push("finalized"))
                    )
                  ),
                  Effect.onInterrupt(() => Effect.sync(() => log.push("interrupted")))
                )
              : Effect.void
          )
        ),
        transport.layer
      )
      const [stuck] = transport.deliver(0)
      yield* until("in hand", () => transport.held.size === 1)
      transport.lose(stuck!)
      yield* until("finalized", () => log.length === 2)
      transport.deliver(...Array.from({ length: 50 }, (_, n) => n + 1))
      yield* until("the others are settled", () => transport.settled.length === 50)
      assert.deepStrictEqual(log, ["finalized", "interrupted"])
      assert.deepStrictEqual(transport.ends(stuck!), ["Lost"])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("one handler at a time and nothing ahead: a lost one whose finalizers take time makes room again", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const seen: Array<number> = []
      yield* run(
        source({ prefetch: 0 }).pipe(
          Consumer.process((n) => {
            seen.push(n)
            return n === 0 ? Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second")) : Effect.void
          })
        ),
        transport.layer
      )
      // The first sleep on a TestClock starts its warning, which an interrupted fiber does not survive.
      yield* TestClock.adjust(1)
      const [stuck] = transport.deliver(0, 1)
      yield* until("in hand", () => seen.length === 1)
      transport.lose(stuck!)
      yield* quiet()
      assert.deepStrictEqual(seen, [0])
      yield* TestClock.adjust("1 second")
      yield* until("the next one", () => transport.settled.length === 1)
      assert.deepStrictEqual(seen, [0, 1])
    })
  )

  it.effect("a handler that cannot be interrupted ends as it likes, and what it ends is not settled", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      yield* run(
        source({ prefetch: 0 }).pipe(
          Consumer.process((n) => (n === 0 ? Effect.uninterruptible(Deferred.await(gate)) : Effect.void))
        ),
        transport.layer
      )
      const [stuck] = transport.deliver(0)
      yield* until("in hand", () => transport.held.size === 1)
      transport.lose(stuck!)
      yield* quiet()
      yield* Deferred.succeed(gate, undefined)
      transport.deliver(1)
      yield* until("the next one", () => transport.settled.length === 1)
      assert.deepStrictEqual(transport.ends(stuck!), ["Lost"])
      assert.strictEqual(transport.count("Settled"), 1)
    })
  )

  it.effect("a delivery that is lost while it waits is never handled", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      const seen: Array<number> = []
      yield* run(
        source({ prefetch: 1 }).pipe(
          Consumer.process((n) => {
            seen.push(n)
            return Deferred.await(gate)
          })
        ),
        transport.layer
      )
      const deliveries = transport.deliver(0, 1, 2, 3)
      yield* until("some are held", () => transport.held.size >= 2)
      transport.lose(deliveries[1]!)
      yield* until("its place is taken", () => transport.taken.length === 3)
      yield* Deferred.succeed(gate, undefined)
      yield* until("the others are settled", () => transport.settled.length === 3)
      assert.deepStrictEqual(seen, [0, 2, 3])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("a lease that is lost after the handler ended: the settlement is stale, counted and told as such", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      transport.onSettle = Deferred.await(gate)
      yield* run(acking({ concurrency: 2 }), transport.layer)
      const [first] = transport.deliver(0, 1)
      yield* until("both are handled", () => transport.held.size === 2)
      yield* quiet()
      transport.lose(first!)
      yield* Deferred.succeed(gate, undefined)
      yield* until("both are told", () => transport.count("Settled") === 2)
      const stale = transport.events.flatMap((event) => (event._tag === "Settled" ? [event.stale] : []))
      assert.deepStrictEqual(stale, [true, false])
      const count = (outcome: Instruments.Outcome) =>
        Effect.map(Metric.value(Instruments.settled("t", "g", outcome)), (s) => s.count)
      assert.strictEqual(yield* count("stale"), 1)
      assert.strictEqual(yield* count("ack"), 1)
      assert.strictEqual((yield* Metric.value(Instruments.leasesLost("t", "g"))).count, 0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("thousands of lost leases at once, in handlers and in the buffer", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let stuck = true
      let interrupted = 0
      yield* run(
        source({ concurrency: 500, prefetch: 3000 }).pipe(
          Consumer.process(() =>
            stuck ? Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++)) : Effect.void
          )
        ),
        transport.layer
      )
      for (let round = 0; round < 5; round++) {
        transport.deliver(...Array.from({ length: 3000 }, (_, n) => n))
        yield* quiet()
        assert.isAtLeast(transport.held.size, 500)
        transport.lose(...transport.held.values())
        yield* quiet()
      }
      assert.isAtLeast(interrupted, 2500)
      stuck = false
      transport.lose(...transport.held.values())
      yield* quiet()
      const last = transport.deliver(...Array.from({ length: 100 }, (_, n) => n))
      yield* until("it goes on", () => last.every((delivery) => transport.ends(delivery).length === 1))
      yield* until("nothing is held", () => transport.held.size === 0)
      assert.deepStrictEqual(transport.complaints(), [])
      const lost = transport.taken.filter((delivery) => transport.ends(delivery).includes("Lost")).length
      assert.strictEqual((yield* Metric.value(Instruments.leasesLost("t", "g"))).count, lost)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )
})

describe("handlers that break the fiber they run in", () => {
  it.effect.each([
    ["no effect at all", (): unknown => undefined],
    [
      "something else inside",
      (): unknown => Effect.flatMap(Effect.void, () => "text" as unknown as Effect.Effect<void>)
    ],
    ["something else, later", (): unknown => Effect.flatMap(Effect.yieldNow, () => 7 as unknown as Effect.Effect<void>)]
  ] as const)("%s: a defect of that message, and the others go on", ([, handler]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        // The types rule it out; JavaScript does not.
        source({ concurrency: 2 }).pipe(
          Consumer.process((n) => (n === 1 ? (handler() as Effect.Effect<void>) : Effect.void))
        ),
        transport.layer
      )
      transport.deliver(0, 1, 2, 3)
      yield* until("all settled", () => transport.settled.length === 4)
      for (const [{ body }, settlement] of transport.settled) {
        if (body === "1") assert.deepInclude(settlement, { _tag: "DeadLetter", reason: "Defect" })
        else assert.strictEqual(settlement._tag, "Ack")
      }
    })
  )
})

describe("when the transport fails for a while", () => {
  it.effect("joining waits with backoff", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onReceive = failFirst(3, down)
      yield* run(acking(), transport.layer)
      transport.deliver(1)
      yield* quiet()
      for (const wait of [100, 200, 400]) {
        assert.strictEqual(transport.joins, 0)
        yield* TestClock.adjust(wait)
        yield* quiet()
      }
      yield* until("settled", () => transport.settled.length === 1)
      assert.deepStrictEqual(
        failing(transport).map(({ permanent }) => permanent),
        [false, false, false]
      )
    })
  )

  it.effect("what a failed try to join has opened is closed before the next one, and after the last", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let opened = 0
      let open = 0
      let most = 0
      const connect = Effect.acquireRelease(
        Effect.sync(() => {
          opened++
          most = Math.max(most, ++open)
        }),
        () => Effect.sync(() => open--)
      )
      transport.onReceive = Effect.andThen(connect, failFirst(20, down))
      const fiber = yield* run(acking(), transport.layer)
      yield* TestClock.adjust("5 minutes")
      yield* until("it has joined", () => transport.joins === 1)
      assert.deepStrictEqual([opened, open, most], [21, 1, 1])
      yield* stop(fiber)
      assert.strictEqual(open, 0)
      transport.onReceive = Effect.andThen(connect, Effect.fail(wrong))
      yield* Effect.exit(Effect.provide(Consumer.run(acking()), transport.layer))
      assert.strictEqual(open, 0)
      transport.onReceive = Effect.andThen(connect, Effect.never)
      const stuck = yield* run(acking(), transport.layer)
      yield* quiet()
      assert.strictEqual(open, 1)
      yield* stop(stuck)
      assert.strictEqual(open, 0)
    })
  )

  it.effect("taking and settling are waited out, reported and logged, and nothing is lost", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const logged: Array<string> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        const [first] = Array.isArray(message) ? message : [message]
        logged.push(`${logLevel} ${String(first)}`)
      })
      transport.onTake = failFirst(2, down)
      transport.onSettle = failFirst(2, error("settle", new Transport.Refused({ code: "OOM", detail: "OOM" })))
      yield* Effect.provide(run(acking({ concurrency: 3 }), transport.layer), Logger.layer([logger]))
      transport.deliver(1, 2, 3, 4, 5)
      for (let i = 0; i < 10; i++) {
        yield* quiet()
        yield* TestClock.adjust(100)
      }
      yield* until("all settled", () => transport.settled.length === 5)
      assert.deepStrictEqual(transport.complaints(), [])
      assert.deepStrictEqual(
        failing(transport).map(({ error }) => error),
        [
          "receive on topic t: the connection is down (reset)",
          "receive on topic t: the connection is down (reset)",
          "settle on topic t: the server rejected the command for now: OOM",
          "settle on topic t: the server rejected the command for now: OOM"
        ]
      )
      assert.deepStrictEqual(
        logged.filter((line) => /ConsumerFailing|ConsumerRecovered/.test(line)),
        ["Error ConsumerFailing", "Info ConsumerRecovered", "Error ConsumerFailing", "Info ConsumerRecovered"]
      )
    })
  )

  it.effect("ten errors of an outage are logged, and the next outage begins anew", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const logged: Array<string> = []
      const logger = Logger.make<unknown, void>(({ message }) => {
        const [first] = Array.isArray(message) ? message : [message]
        if (/ConsumerFailing|ConsumerRecovered/.test(String(first))) logged.push(String(first))
      })
      let left = 30
      transport.onTake = Effect.suspend(() =>
        left-- > 0
          ? Effect.fail(error("receive", new Transport.Disconnected({ ambiguous: false, cause: `port ${left}` })))
          : Effect.void
      )
      yield* Effect.provide(run(acking(), transport.layer), Logger.layer([logger]))
      transport.deliver(1)
      yield* TestClock.adjust("10 minutes")
      yield* until("the outage is over", () => logged.includes("ConsumerRecovered"))
      assert.deepStrictEqual(logged, [...Array<string>(10).fill("ConsumerFailing"), "ConsumerRecovered"])
      assert.strictEqual(failing(transport).length, 30)
      // Completes the take that waits; the next one fails once.
      left = 1
      transport.deliver(2)
      yield* until("the second is settled", () => transport.settled.length === 2)
      transport.deliver(3)
      yield* quiet()
      yield* TestClock.adjust("1 second")
      yield* until("the next outage is over", () => logged.length > 12)
      assert.deepStrictEqual(logged.slice(11), ["ConsumerFailing", "ConsumerRecovered"])
    })
  )

  it.effect("the backoff grows to five seconds and begins anew after a success", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onTake = Effect.fail(down)
      yield* run(acking(), transport.layer)
      yield* TestClock.adjust("1 minute")
      yield* quiet()
      const tries = transport.takes.length
      // 0.1 + 0.2 + ... + 3.2 s, then every five seconds.
      assert.isTrue(tries >= 15 && tries <= 20, `${tries} tries`)
      transport.onTake = Effect.void
      transport.deliver(1)
      yield* TestClock.adjust("5 seconds")
      yield* until("the first is settled", () => transport.settled.length === 1)
      yield* quiet()
      transport.onTake = failFirst(1, down)
      // Completes the take that waits; the next one fails once.
      transport.deliver(2)
      yield* until("the second is settled", () => transport.settled.length === 2)
      transport.deliver(3)
      yield* quiet()
      assert.strictEqual(transport.settled.length, 2)
      yield* TestClock.adjust(100)
      yield* until("the third is settled", () => transport.settled.length === 3)
    })
  )

  it.effect("handlers go on while nothing can be settled, up to what may be held", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onSettle = Effect.fail(error("settle", down.reason))
      let handled = 0
      yield* run(
        source({ concurrency: 2, prefetch: 20 }).pipe(Consumer.process(() => Effect.sync(() => void handled++))),
        transport.layer
      )
      transport.deliver(...Array.from({ length: 1000 }, (_, n) => n))
      yield* TestClock.adjust("1 hour")
      yield* quiet()
      assert.isAtMost(transport.mostHeld, 22)
      assert.strictEqual(handled, transport.held.size)
      transport.onSettle = Effect.void
      yield* TestClock.adjust("5 seconds")
      yield* until("all settled", () => transport.settled.length === 1000)
      assert.strictEqual(handled, 1000)
    })
  )
})

describe("when the transport fails for good", () => {
  it.effect.each([
    ["joining", { step: "onReceive", failure: wrong }],
    ["taking", { step: "onTake", failure: wrong }],
    ["settling", { step: "onSettle", failure: forbidden }]
  ] as const)("run fails with the typed error that names the key or command: %s", ([, { failure, step }]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport[step] = Effect.fail(failure)
      transport.deliver(1)
      const fiber = yield* run(acking(), transport.layer)
      // It takes no time: nobody is left who could settle anything.
      yield* until("it has ended", () => fiber.pollUnsafe() !== undefined)
      const exit = fiber.pollUnsafe()
      assert.deepStrictEqual(exit, Exit.fail(failure))
      assert.match(failure.message, step === "onSettle" ? /EVALSHA/ : /\{wb:t\}:s/)
      assert.deepStrictEqual(
        failing(transport).map(({ error, permanent }) => [permanent, error]),
        [[true, failure.message]]
      )
      assert.strictEqual(transport.held.size, 0)
      assert.strictEqual(transport.leaves, transport.joins)
    })
  )

  it.effect("handlers that run then are drained and their settlements arrive", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      const fiber = yield* run(
        source({ concurrency: 2, prefetch: 0, shutdown: "10 seconds" }).pipe(
          Consumer.process(() => Deferred.await(gate))
        ),
        transport.layer
      )
      transport.deliver(1)
      yield* until("in hand", () => transport.held.size === 1)
      transport.onTake = Effect.fail(wrong)
      transport.deliver(2)
      yield* until("the next take fails", () => failing(transport).length === 1 || transport.held.size === 2)
      yield* Deferred.succeed(gate, undefined)
      yield* until("it has ended", () => fiber.pollUnsafe() !== undefined)
      assert.deepStrictEqual(fiber.pollUnsafe(), Exit.fail(wrong))
      assert.isAtLeast(transport.settled.length, 1)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("the layer fails when it is built", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onReceive = Effect.fail(wrong)
      const exit = yield* Effect.exit(
        Effect.scoped(Layer.build(Consumer.layer(acking()).pipe(Layer.provide(transport.layer))))
      )
      assert.deepStrictEqual(exit, Exit.fail(wrong))
      yield* TestClock.adjust("1 hour")
      yield* quiet()
      assert.strictEqual(failing(transport).length, 1)
    })
  )

  it.effect("the layer dies when it is built on a receiver with a bug", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onReceive = Effect.die("a bug in receive")
      const exit = yield* Effect.exit(
        Effect.scoped(Layer.build(Consumer.layer(acking()).pipe(Layer.provide(transport.layer))))
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
    })
  )

  it.effect("the layer waits while the server is away, and can be given up", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onReceive = Effect.fail(down)
      const scope = yield* Scope.make()
      const building = yield* Effect.forkChild(
        Scope.provide(Layer.build(Consumer.layer(acking()).pipe(Layer.provide(transport.layer))), scope)
      )
      yield* TestClock.adjust("1 hour")
      yield* quiet()
      assert.isUndefined(building.pollUnsafe())
      yield* Fiber.interrupt(building)
      yield* Scope.close(scope, Exit.void)
      const tries = failing(transport).length
      yield* TestClock.adjust("1 hour")
      yield* quiet()
      assert.strictEqual(failing(transport).length, tries)
    })
  )

  it.effect.each([
    ["a typed error", Effect.fail(wrong), wrong.message],
    ["a defect", Effect.die(new Error("a bug in take")), "a bug in take"]
  ] as const)("a layer that is up reports %s and tries again every 30 seconds", ([, failure, message]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onTake = failure
      yield* Layer.build(Consumer.layer(acking()).pipe(Layer.provide(transport.layer)))
      for (let i = 1; i <= 3; i++) {
        yield* until("it fails", () => failing(transport).length === i)
        yield* quiet()
        assert.strictEqual(transport.joins, i)
        yield* TestClock.adjust(29_999)
        yield* quiet()
        assert.strictEqual(transport.joins, i)
        if (i === 3) transport.onTake = Effect.void
        yield* TestClock.adjust(1)
        yield* until("it joins again", () => transport.joins === i + 1)
      }
      for (const event of failing(transport)) {
        assert.isTrue(event.permanent)
        assert.include(event.error, message)
      }
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 1)
      assert.strictEqual(transport.leaves, 3)
    })
  )

  it.effect.each(["onTake", "onSettle"] as const)("run dies of a receiver's bug, loudly: %s", (step) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport[step] = Effect.die(new Error("a bug"))
      transport.deliver(1)
      const fiber = yield* run(acking(), transport.layer)
      yield* until("it has ended", () => fiber.pollUnsafe() !== undefined)
      const exit = fiber.pollUnsafe()
      assert.isTrue(exit !== undefined && Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.deepStrictEqual(
        failing(transport).map(({ error, permanent }) => [permanent, error.includes("a bug")]),
        [[true, true]]
      )
      assert.strictEqual(transport.held.size, 0)
    })
  )

  it.effect("a listener that throws when the consumer starts keeps it from nothing", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* transport.lifecycle.listen((event: Lifecycle.Event) => {
        if (event._tag === "ConsumerStarted") throw new Error("a listener's bug")
      })
      const fiber = yield* run(acking(), transport.layer)
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(transport.joins, 1)
      assert.strictEqual(transport.leaves, 1)
    })
  )

  it.effect("the layer's consumer is stopped with it", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const scope = yield* Scope.make()
      yield* Scope.provide(Layer.build(Consumer.layer(acking()).pipe(Layer.provide(transport.layer))), scope)
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 1)
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(transport.leaves, 1)
      transport.deliver(2)
      yield* quiet()
      assert.strictEqual(transport.settled.length, 1)
    })
  )

  it.effect("stopping a layer that waits to try again takes no time", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.onTake = Effect.fail(wrong)
      const scope = yield* Scope.make()
      yield* Scope.provide(Layer.build(Consumer.layer(acking()).pipe(Layer.provide(transport.layer))), scope)
      yield* until("it fails", () => failing(transport).length === 1)
      yield* quiet()
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(transport.joins, 1)
    })
  )
})

describe("retry policies that never answer", () => {
  it.effect("hold up one worker, not the others and not the shutdown", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const never = Schedule.spaced("1 second").pipe(Schedule.modifyDelay(() => Effect.never))
      const fiber = yield* run(
        source({ concurrency: 2 }).pipe(
          Consumer.process((n) => (n === 0 ? Effect.fail("boom") : Effect.void)),
          Consumer.orElse(Consumer.retry(never))
        ),
        transport.layer
      )
      transport.deliver(...Array.from({ length: 20 }, (_, n) => n))
      yield* until("the others are settled", () => transport.settled.length === 19)
      const { millis } = yield* stop(fiber)
      assert.isAtMost(millis, 10_000)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )
})
