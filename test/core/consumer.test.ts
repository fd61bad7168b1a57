import { assert, describe, it } from "@effect/vitest"
import { freeze } from "@waybill/testing"
import { Context, Deferred, Duration, Effect, Layer, Metric, Option, Schedule, Schema } from "effect"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import { TestClock } from "effect/testing"
import { Consumer, type Delivery, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import * as Instruments from "../../packages/waybill/src/internal/Instruments.ts"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, stop, until } from "./Running.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", { after: Schema.optionalKey(Schema.Number) }) {}
class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}

const Numbers = Topic.make("t", { payload: Schema.Int })
const doubling = Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 3 }))

const source = (options?: Partial<Consumer.Options>) => Consumer.make(Numbers, { group: "g", ...options })

describe("Consumer over MemoryStreams", () => {
  it.effect("acks what succeeds, in order, with the delivery beside the payload", () =>
    Effect.gen(function* () {
      const seen: Array<readonly [number, Delivery.Delivery]> = []
      const consumer = source().pipe(Consumer.process((n, delivery) => Effect.sync(() => seen.push([n, delivery]))))
      const transport = yield* Layer.build(MemoryStreams.layer())
      yield* Effect.provideContext(
        Producer.publishAll(Numbers, [1, 2, 3], (n) => ({ id: `id-${n}`, headers: { n: `${n}` } })),
        transport
      )
      yield* run(consumer, Layer.succeedContext(transport))
      yield* until("three handled", () => seen.length === 3)
      assert.deepStrictEqual(
        seen.map(([n, { attempt, fence, group, headers, id, topic }]) => [
          n,
          id,
          topic,
          group,
          attempt,
          fence > 0,
          headers
        ]),
        [1, 2, 3].map((n) => [n, `id-${n}`, "t", "g", 1, true, { n: `${n}` }])
      )
      yield* quiet()
      const { groups } = yield* Effect.flatMap(Inspector.Inspector, (inspector) => inspector.describe("t")).pipe(
        Effect.provideContext(transport)
      )
      assert.deepInclude(groups[0], { lag: 0, pending: 0, waiting: 0, deadLetters: 0 })
    })
  )

  it.effect("retries exactly when the schedule says, not a millisecond before, then dead-letters", () =>
    Effect.gen(function* () {
      const attempts: Array<readonly [attempt: number, at: number]> = []
      const consumer = source().pipe(
        Consumer.process((_, { attempt }) =>
          Effect.clockWith((clock) => {
            attempts.push([attempt, clock.currentTimeMillisUnsafe()])
            return Effect.fail(new Busy({}))
          })
        ),
        Consumer.onFailure({ Busy: Consumer.retry(doubling) })
      )
      const transport = yield* Layer.build(MemoryStreams.layer())
      yield* Effect.provideContext(Producer.publish(Numbers, 7, { id: "a" }), transport)
      yield* run(consumer, Layer.succeedContext(transport))
      yield* until("first attempt", () => attempts.length === 1)
      yield* quiet()
      for (const [i, wait] of [1000, 2000, 4000].entries()) {
        yield* TestClock.adjust(wait - 1)
        yield* quiet()
        assert.strictEqual(attempts.length, i + 1)
        yield* TestClock.adjust(1)
        yield* until(`attempt ${i + 2}`, () => attempts.length === i + 2)
        yield* quiet()
      }
      assert.deepStrictEqual(attempts, [
        [1, 0],
        [2, 1000],
        [3, 3000],
        [4, 7000]
      ])
      yield* TestClock.adjust("1 day")
      yield* quiet()
      assert.strictEqual(attempts.length, 4)
      const letters = yield* Effect.flatMap(Inspector.Inspector, (inspector) =>
        inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
      ).pipe(Effect.provideContext(transport))
      assert.strictEqual(letters.length, 1)
      assert.deepInclude(letters[0], { id: "a", body: "7", reason: "Busy", attempts: 4, diedAt: 7000 })
      assert.include(letters[0]!.cause, "Busy")
    })
  )

  it.effect("a retry a day away is one step of the clock away", () =>
    Effect.gen(function* () {
      const attempts: Array<number> = []
      const consumer = source().pipe(
        Consumer.process((_, { attempt }) => {
          attempts.push(attempt)
          return attempt === 1 ? Effect.fail(new Busy({ after: 86_400 })) : Effect.void
        }),
        Consumer.onFailure({ Busy: ({ after = 0 }) => Consumer.retry(doubling, { after: Duration.seconds(after) }) })
      )
      const transport = yield* Layer.build(MemoryStreams.layer())
      yield* run(consumer, Layer.succeedContext(transport))
      yield* Effect.provideContext(Producer.publish(Numbers, 7), transport)
      yield* until("first attempt", () => attempts.length === 1)
      yield* quiet()
      yield* TestClock.adjust("1 day")
      yield* until("second attempt", () => attempts.length === 2)
    })
  )

  it.effect("two groups get every message, two consumers of one group share them", () =>
    Effect.gen(function* () {
      const seen: Array<string> = []
      const named = (name: string, group: string) =>
        source({ group, concurrency: 1, prefetch: 0 }).pipe(
          Consumer.process((n) => Effect.as(Effect.yieldNow, void seen.push(`${name}${n}`)))
        )
      const transport = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      yield* run(named("a", "shared"), transport)
      yield* run(named("b", "shared"), transport)
      yield* run(named("c", "alone"), transport)
      yield* Effect.provide(Producer.publishAll(Numbers, [1, 2, 3, 4, 5, 6]), transport)
      yield* until("all handled", () => seen.length === 12)
      yield* quiet()
      assert.strictEqual(seen.length, 12)
      const shared = seen.filter((name) => !name.startsWith("c"))
      assert.deepStrictEqual(shared.map((name) => name.slice(1)).toSorted(), ["1", "2", "3", "4", "5", "6"])
      assert.isTrue(shared.some((name) => name.startsWith("a")) && shared.some((name) => name.startsWith("b")))
    })
  )

  it.effect("what a stopped consumer had in hand goes to the next one, with the same attempt", () =>
    Effect.gen(function* () {
      const attempts: Array<readonly [number, number]> = []
      const never = source({ concurrency: 2, shutdown: "1 second" }).pipe(
        Consumer.process((n, { attempt }) => {
          attempts.push([n, attempt])
          return Effect.never
        })
      )
      const transport = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      yield* Effect.provide(Producer.publishAll(Numbers, [1, 2, 3, 4, 5]), transport)
      const first = yield* run(never, transport)
      yield* until("two in hand", () => attempts.length === 2)
      yield* stop(first)
      const done: Array<readonly [number, number]> = []
      yield* run(
        source().pipe(Consumer.process((n, { attempt }) => Effect.sync(() => done.push([n, attempt])))),
        transport
      )
      yield* until("all handled", () => done.length === 5)
      assert.deepStrictEqual(
        done.toSorted(([a], [b]) => a - b),
        [1, 2, 3, 4, 5].map((n) => [n, 1])
      )
    })
  )

  it.effect("a consumer that stands still loses its messages to another, and its handler is interrupted", () =>
    Effect.gen(function* () {
      const log: Array<string> = []
      const context = yield* Layer.build(MemoryStreams.layer())
      const inner = Context.get(context, Transport.AtLeastOnce)
      const receivers: Array<Transport.Receiver> = []
      const transport = Layer.succeedContext(
        Context.add(context, Transport.AtLeastOnce, {
          ...inner,
          receive: (subscription) =>
            Effect.tap(inner.receive(subscription), (receiver) => Effect.sync(() => receivers.push(receiver)))
        })
      )
      const named = (name: string, effect: Effect.Effect<void>) =>
        source({ lease: "10 seconds", prefetch: 0 }).pipe(
          Consumer.process((n, { attempt, fence }) => {
            log.push(`${name} ${n} attempt ${attempt} fence ${fence}`)
            return effect.pipe(Effect.onInterrupt(() => Effect.sync(() => log.push(`${name} interrupted`))))
          })
        )
      yield* Effect.provide(Producer.publish(Numbers, 1), transport)
      yield* run(named("slow", Effect.never), transport)
      yield* until("in hand", () => log.length === 1)
      yield* freeze(receivers[0]!)
      yield* run(named("other", Effect.void), transport)
      yield* TestClock.adjust("10 seconds")
      yield* until("taken over", () => log.length === 3)
      assert.deepStrictEqual(log.toSorted(), [
        "other 1 attempt 2 fence 2",
        "slow 1 attempt 1 fence 1",
        "slow interrupted"
      ])
    })
  )

  it.effect("paused takes nothing, resumed goes on", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      const context = yield* Layer.build(MemoryStreams.layer())
      const inspector = Context.get(context, Inspector.Inspector)
      const transport = Layer.succeedContext(context)
      yield* run(source().pipe(Consumer.process((n) => Effect.sync(() => seen.push(n)))), transport)
      yield* Effect.provide(Producer.publish(Numbers, 1), transport)
      yield* until("first", () => seen.length === 1)
      yield* inspector.pause("t", "g")
      yield* Effect.provide(Producer.publish(Numbers, 2), transport)
      yield* quiet()
      assert.deepStrictEqual(seen, [1])
      yield* inspector.resume("t", "g")
      yield* until("second", () => seen.length === 2)
    })
  )

  it.effect("a new group can begin with what comes after it", () =>
    Effect.gen(function* () {
      const seen: Array<number> = []
      const transport = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
      yield* Effect.provide(Producer.publish(Numbers, 1), transport)
      yield* run(source({ start: "latest" }).pipe(Consumer.process((n) => Effect.sync(() => seen.push(n)))), transport)
      yield* quiet()
      yield* Effect.provide(Producer.publish(Numbers, 2), transport)
      yield* until("second", () => seen.length > 0)
      assert.deepStrictEqual(seen, [2])
    })
  )
})

describe("Consumer", () => {
  describe("make refuses what can only be a bug", () => {
    it.each(["", "a b", "a{b}", "x".repeat(201)])("the group name %j", (group) => {
      assert.throws(() => source({ group }), /invalid group name/)
    })
    it.each([0, -1, 1.5, NaN, Infinity])("concurrency %d", (concurrency) => {
      assert.throws(() => source({ concurrency }), /concurrency/)
    })
    it.each([-1, 0.5, NaN, Infinity])("prefetch %d", (prefetch) => {
      assert.throws(() => source({ prefetch }), /prefetch/)
    })
    it.each([0, -1, 1.5, NaN, Infinity])("maxDeliveries %d", (maxDeliveries) => {
      assert.throws(() => source({ maxDeliveries }), /maxDeliveries/)
    })
    it.each([0, -1, 1.5, NaN, Infinity])("a batch of %d", (size) => {
      assert.throws(
        () => source().pipe(Consumer.processBatch(size, "1 second", () => Effect.succeed([]))),
        /size must be/
      )
    })
  })

  it.effect("dead-letters what cannot be decoded at once, raw, unseen by the handler", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const seen: Array<number> = []
      yield* run(
        source().pipe(
          Consumer.process((n) => (seen.push(n), Effect.fail(new Busy({})))),
          // Not even a catch-all that retries is asked.
          Consumer.orElse(Consumer.retry(Schedule.forever))
        ),
        transport.layer
      )
      const rubbish = [new Uint8Array([0xff, 0x00]), "{", '"text"', "1.5", ""]
      transport.deliver(...rubbish)
      yield* until("all settled", () => transport.settled.length === rubbish.length)
      assert.deepStrictEqual(
        transport.settled.map(([{ body }, settlement]) => [
          body,
          settlement._tag === "DeadLetter" && settlement.reason
        ]),
        rubbish.map((body) => [body, "DecodeFailure"])
      )
      assert.deepStrictEqual(seen, [])
      for (const [, settlement] of transport.settled) {
        assert.include(settlement._tag === "DeadLetter" ? settlement.cause : "", "invalid payload of topic t")
      }
    })
  )

  it.effect("a user's own DecodeFailure is a failure like any other", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.process(() => Effect.fail(new Topic.DecodeFailure({ topic: "other", issue: "nested" }))),
          Consumer.onFailure({ DecodeFailure: Consumer.retry(Schedule.forever) })
        ),
        transport.layer
      )
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 1)
      assert.deepStrictEqual(transport.outcomes(), ["Retry"])
    })
  )

  it.effect.each([
    ["a defect", () => Effect.die("bug"), "Defect"],
    [
      "a handler that throws",
      (): Effect.Effect<void> => {
        throw new Error("thrown")
      },
      "Defect"
    ],
    ["a handler that returns no effect", () => undefined as unknown as Effect.Effect<void>, "Defect"],
    ["a failure", () => Effect.fail(new Declined({ code: "c" })), "Declined"],
    ["a failing finalizer", () => Effect.ensuring(Effect.void, Effect.die("in the finalizer")), "Defect"]
  ] as const)("%s is dead-lettered and the worker goes on", ([, handler, reason]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.process((n): Effect.Effect<void, Declined> => (n === 0 ? handler() : Effect.void)),
          Consumer.onFailure({ Declined: Consumer.deadLetter() })
        ),
        transport.layer
      )
      transport.deliver(0, 1)
      yield* until("both settled", () => transport.settled.length === 2)
      const [bad, good] = transport.settled.map(([, settlement]) => settlement)
      assert.strictEqual(bad!._tag === "DeadLetter" && bad!.reason, reason)
      assert.strictEqual(good!._tag, "Ack")
    })
  )

  const interrupting = {
    "that fails with an interruption": Effect.interrupt,
    "that interrupts its own fiber": Effect.withFiber((fiber) => {
      fiber.interruptUnsafe()
      return Effect.never
    }),
    "that is interrupted from outside while it waits": Effect.callback<void>((resume) => {
      void resume
    }).pipe((never) =>
      Effect.withFiber((fiber) => {
        setImmediate(() => fiber.interruptUnsafe())
        return never
      })
    )
  }
  it.effect.each(Object.entries(interrupting))("a handler %s has failed once, and nobody else with it", ([, effect]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(
        source({ concurrency: 2 }).pipe(Consumer.process((n) => (n % 5 === 0 ? effect : Effect.yieldNow))),
        transport.layer
      )
      transport.deliver(...Array.from({ length: 20 }, (_, n) => n))
      yield* until("all settled", () => transport.settled.length === 20)
      const expected = (n: number) => (n % 5 === 0 ? "Retry" : "Ack")
      for (const [{ body }, settlement] of transport.settled) {
        assert.strictEqual(settlement._tag, expected(Number(body)), `message ${String(body)}`)
      }
      transport.deliver(1)
      yield* until("it goes on", () => transport.settled.length === 21)
      assert.isUndefined(fiber.pollUnsafe())
    })
  )

  it.effect("never more than `concurrency` handlers at a time, and that many when there is work", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let running = 0
      let most = 0
      yield* run(
        source({ concurrency: 7 }).pipe(
          Consumer.process(() =>
            Effect.gen(function* () {
              most = Math.max(most, ++running)
              yield* Effect.sleep("1 second")
              running--
            })
          )
        ),
        transport.layer
      )
      transport.deliver(...Array.from({ length: 100 }, (_, n) => n))
      for (let second = 0; second <= 15; second++) {
        yield* until("working at full width", () => running === Math.min(7, 100 - second * 7) || running === 0)
        yield* quiet()
        assert.strictEqual(running, Math.max(0, Math.min(7, 100 - second * 7)))
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(most, 7)
      yield* until("all settled", () => transport.settled.length === 100)
    })
  )

  it.effect("concurrency 1000 is reached too", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const gate = yield* Deferred.make<void>()
      let running = 0
      yield* run(
        source({ concurrency: 1000, prefetch: 0 }).pipe(
          Consumer.process(() => {
            running++
            return Deferred.await(gate)
          })
        ),
        transport.layer
      )
      transport.deliver(...Array.from({ length: 2500 }, (_, n) => n))
      yield* until("a thousand at a time", () => running === 1000)
      yield* quiet()
      assert.strictEqual(transport.mostHeld, 1000)
      yield* Deferred.succeed(gate, undefined)
      yield* until("all settled", () => transport.settled.length === 2500)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("what ends together is settled together", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(source({ concurrency: 16 }).pipe(Consumer.process(() => Effect.void)), transport.layer)
      transport.deliver(...Array.from({ length: 5000 }, (_, n) => n))
      yield* until("all settled", () => transport.settled.length === 5000)
      assert.isAtMost(transport.batches.length, 100)
      assert.isAtMost(Math.max(...transport.batches), 1000)
    })
  )

  it.effect("one at a time keeps the order of delivery", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const seen: Array<string> = []
      yield* run(
        source().pipe(
          Consumer.process((n) =>
            Effect.gen(function* () {
              seen.push(`begin ${n}`)
              for (let i = 0; i <= n % 4; i++) yield* Effect.yieldNow
              seen.push(`end ${n}`)
            })
          )
        ),
        transport.layer
      )
      for (let n = 0; n < 200; n += 20) {
        transport.deliver(...Array.from({ length: 20 }, (_, i) => n + i))
        if (n % 40 === 0) yield* quiet()
      }
      yield* until("all settled", () => transport.settled.length === 200)
      assert.deepStrictEqual(seen, Array.from({ length: 200 }, (_, n) => [`begin ${n}`, `end ${n}`]).flat())
      assert.deepStrictEqual(
        transport.settled.map(([{ body }]) => Number(body)),
        Array.from({ length: 200 }, (_, n) => n)
      )
    })
  )

  describe("prefetch", () => {
    it.effect.each([
      [1, 0],
      [1, 1],
      [4, 0],
      [4, 10],
      [64, 1024],
      [1, 5000]
    ] as const)("concurrency %i and prefetch %i bound what is held, and all gets done", ([concurrency, prefetch]) =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source({ concurrency, prefetch }).pipe(
            Consumer.process((n) => (n % 3 === 0 ? Effect.yieldNow : Effect.void))
          ),
          transport.layer
        )
        transport.deliver(...Array.from({ length: 1000 }, (_, n) => n))
        yield* until("all settled", () => transport.settled.length === 1000)
        assert.isAtMost(transport.mostHeld, concurrency + prefetch)
        assert.isAtMost(Math.max(...transport.takes), 1000)
        assert.deepStrictEqual(transport.complaints(), [])
      })
    )

    it.effect("grows while handlers are fast, so that round trips are few", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(source({ concurrency: 4 }).pipe(Consumer.process(() => Effect.void)), transport.layer)
        transport.deliver(...Array.from({ length: 8_000 }, (_, n) => n))
        yield* until("all settled", () => transport.settled.length === 8_000)
        assert.isAtMost(transport.takes.length, 100)
      })
    )

    it.effect("a take asks for at most a thousand", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(source({ concurrency: 2500 }).pipe(Consumer.process(() => Effect.never)), transport.layer)
        transport.deliver(...Array.from({ length: 3000 }, (_, n) => n))
        yield* until("all workers have work", () => transport.held.size >= 2500)
        assert.strictEqual(transport.takes[0], 1000)
        assert.isAtMost(Math.max(...transport.takes), 1000)
      })
    )

    it.effect("handlers that become slow do not hoard", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        let slow = false
        yield* run(
          source({ concurrency: 2 }).pipe(Consumer.process(() => (slow ? Effect.sleep("1 second") : Effect.void))),
          transport.layer
        )
        transport.deliver(...Array.from({ length: 8_000 }, (_, n) => n))
        yield* until("all settled", () => transport.settled.length === 8_000)
        assert.isAbove(transport.mostHeld, 500)
        slow = true
        transport.deliver(...Array.from({ length: 8_000 }, (_, n) => n))
        yield* until("some are held", () => transport.held.size > 0)
        // What had been taken before anyone could know is worked off; after that, few are held.
        yield* TestClock.adjust("10 minutes")
        yield* quiet()
        assert.isAtMost(transport.held.size, 10)
        assert.isAtLeast(transport.settled.length, 8_000 + 2 * 600)
      })
    )

    it.effect("one slow handler does not starve: a free worker always finds work", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source({ concurrency: 2, prefetch: 0 }).pipe(
            Consumer.process((n) => (n === 0 ? Effect.sleep("1 hour") : Effect.void))
          ),
          transport.layer
        )
        transport.deliver(...Array.from({ length: 100 }, (_, n) => n))
        yield* until("the others are settled", () => transport.settled.length === 99)
      })
    )
  })

  describe("timeout", () => {
    it.effect("interrupts the handler and is a failure with a route", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        let interrupted = 0
        yield* run(
          source().pipe(
            Consumer.process(() => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))),
            Consumer.timeout("3 seconds"),
            Consumer.onFailure({ HandlerTimeout: ({ millis }) => Consumer.deadLetter(`${millis} ms`) })
          ),
          transport.layer
        )
        transport.deliver(1)
        yield* quiet()
        yield* TestClock.adjust(2999)
        yield* quiet()
        assert.strictEqual(interrupted, 0)
        yield* TestClock.adjust(1)
        yield* until("settled", () => transport.settled.length === 1)
        assert.strictEqual(interrupted, 1)
        const settlement = transport.settled[0]![1]
        assert.deepInclude(settlement, { _tag: "DeadLetter", reason: "3000 ms" })
      })
    )

    it.effect("leaves a quick handler alone, and what it throws stays a defect", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source().pipe(
            Consumer.process((n): Effect.Effect<void> => {
              if (n === 0) throw new Error("thrown")
              return Effect.void
            }),
            Consumer.timeout("3 seconds"),
            Consumer.onFailure({ HandlerTimeout: Consumer.deadLetter() })
          ),
          transport.layer
        )
        transport.deliver(1, 0)
        yield* until("settled", () => transport.settled.length === 2)
        assert.deepStrictEqual(transport.outcomes(), ["Ack", "DeadLetter"])
        assert.deepInclude(transport.settled[1]![1], { reason: "Defect" })
      })
    )
  })

  it.live("handlers that never wait leave the others in this process their turns", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let handled = 0
      const spin = Effect.clockWith((clock) =>
        Effect.sync(() => {
          const until = clock.currentTimeMillisUnsafe() + 2
          while (clock.currentTimeMillisUnsafe() < until);
          handled++
        })
      )
      const fiber = yield* Effect.forkChild(
        Effect.provide(Consumer.run(source().pipe(Consumer.process(() => spin))), transport.layer)
      )
      transport.deliver(...Array.from({ length: 100 }, (_, n) => n))
      let turns = 0
      while (handled < 100) {
        turns++
        yield* Effect.yieldNow
      }
      assert.isAbove(turns, 10)
      fiber.interruptUnsafe()
      yield* until("it has ended", () => fiber.pollUnsafe() !== undefined)
    })
  )

  describe("routes", () => {
    it.effect("can be given in several tables", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source().pipe(
            Consumer.process((n) => (n === 0 ? Effect.fail(new Busy({})) : Effect.fail(new Declined({ code: "c" })))),
            Consumer.onFailure({ Busy: Consumer.acknowledge }),
            Consumer.onFailure({ Declined: ({ code }) => Consumer.deadLetter(code) })
          ),
          transport.layer
        )
        transport.deliver(0, 1)
        yield* until("both settled", () => transport.settled.length === 2)
        assert.deepStrictEqual(transport.outcomes(), ["Ack", "DeadLetter"])
        assert.deepInclude(transport.settled[1]![1], { reason: "c" })
      })
    )

    it.effect("a catch-all keeps its failures when a later one is for those that came after it", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source().pipe(
            Consumer.process((n) => (n === 0 ? Effect.fail("boom") : Effect.never)),
            Consumer.orElse((error) => Consumer.deadLetter(`first: ${error.toUpperCase()}`)),
            Consumer.timeout("1 second"),
            Consumer.orElse((error) => Consumer.deadLetter(`second: ${error.millis.toFixed()}`))
          ),
          transport.layer
        )
        transport.deliver(0, 1)
        yield* quiet()
        yield* TestClock.adjust("1 second")
        yield* until("both settled", () => transport.settled.length === 2)
        assert.deepStrictEqual(
          transport.settled.map(([, settlement]) => settlement._tag === "DeadLetter" && settlement.reason),
          ["first: BOOM", "second: 1000"]
        )
      })
    )
  })

  describe("context", () => {
    class Greeter extends Context.Service<Greeter, { readonly greet: (n: number) => string }>()("test/Greeter") {}

    it.effect("the handler sees its services", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const seen: Array<string> = []
        const consumer = source().pipe(
          Consumer.process((n) => Effect.map(Greeter, ({ greet }) => void seen.push(greet(n))))
        )
        yield* run(consumer, Layer.merge(transport.layer, Layer.succeed(Greeter, { greet: (n) => `hello ${n}` })))
        transport.deliver(1)
        yield* until("handled", () => transport.settled.length === 1)
        assert.deepStrictEqual(seen, ["hello 1"])
      })
    )

    it.effect("the producer's span is the parent of the handler's", () =>
      Effect.gen(function* () {
        const transport = Layer.succeedContext(yield* Layer.build(MemoryStreams.layer()))
        const parents: Array<string | undefined> = []
        const consumer = source().pipe(
          Consumer.process(
            Effect.fn("handle")(function* () {
              const span = yield* Effect.currentSpan
              const parent = Option.getOrUndefined(span.parent)
              parents.push(parent && `${parent.traceId}/${parent.spanId}`)
            })
          ),
          Consumer.orElse(Consumer.deadLetter())
        )
        yield* run(consumer, transport)
        const publisher = yield* Effect.gen(function* () {
          yield* Producer.publish(Numbers, 1)
          const span = yield* Effect.currentSpan
          return `${span.traceId}/${span.spanId}`
        }).pipe(Effect.withSpan("publisher"), Effect.provide(transport))
        yield* until("handled", () => parents.length === 1)
        yield* Effect.provide(Producer.publish(Numbers, 2), transport)
        yield* Effect.provide(Producer.publish(Numbers, 3, { headers: { traceparent: "rubbish" } }), transport)
        yield* until("handled", () => parents.length === 3)
        assert.deepStrictEqual(parents, [publisher, undefined, undefined])
        assert.isTrue(Option.isNone(HttpTraceContext.w3c({ traceparent: "rubbish" } as never)))
      })
    )
  })

  it.effect("metrics: received, settled by outcome, handler duration", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.process((n) =>
            n === 1
              ? Effect.fail(new Busy({}))
              : n === 2
                ? Effect.fail(new Declined({ code: "c" }))
                : Effect.sleep(n * 10)
          ),
          Consumer.onFailure({ Busy: Consumer.retry(doubling), Declined: Consumer.deadLetter() })
        ),
        transport.layer
      )
      // Waiting for work is not working.
      yield* TestClock.adjust("1 minute")
      const deliveries = transport.deliver(0, 1, 2, 4, "rubbish")
      yield* until("three settled", () => transport.settled.length === 3)
      yield* TestClock.adjust("40 millis")
      yield* until("five settled", () => transport.settled.length === 5)
      const count = (outcome: Instruments.Outcome, reason?: string) =>
        Effect.map(Metric.value(Instruments.settled("t", "g", outcome, reason)), (state) => state.count)
      assert.strictEqual((yield* Metric.value(Instruments.received("t", "g"))).count, 5)
      assert.strictEqual(yield* count("ack"), 2)
      assert.strictEqual(yield* count("retry"), 1)
      assert.strictEqual(yield* count("dead_letter", "Declined"), 1)
      assert.strictEqual(yield* count("dead_letter", "DecodeFailure"), 1)
      const duration = yield* Metric.value(Instruments.handlerDuration("t", "g"))
      assert.strictEqual(duration.count, 5)
      assert.strictEqual(duration.max, 0.04)
      assert.strictEqual(duration.sum, 0.04)
      assert.strictEqual(deliveries.length, 5)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("a retry policy that takes its time is not counted as the next handler's", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const slow = doubling.pipe(Schedule.modifyDelay(({ duration }) => Effect.as(Effect.sleep("1 minute"), duration)))
      yield* run(
        source().pipe(
          Consumer.process((n) => (n === 0 ? Effect.fail(new Busy({})) : Effect.void)),
          Consumer.onFailure({ Busy: Consumer.retry(slow) })
        ),
        transport.layer
      )
      transport.deliver(0, 1)
      yield* quiet()
      yield* TestClock.adjust("1 minute")
      yield* until("both settled", () => transport.settled.length === 2)
      assert.strictEqual((yield* Metric.value(Instruments.handlerDuration("t", "g"))).max, 0)
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("events: started, each settlement, stopped", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const fiber = yield* run(source().pipe(Consumer.process(() => Effect.void)), transport.layer)
      transport.deliver(1, 2)
      yield* until("settled", () => transport.settled.length === 2)
      yield* stop(fiber)
      assert.deepStrictEqual(
        transport.events.map((event) => event._tag),
        ["ConsumerStarted", "Settled", "Settled", "ConsumerStopping", "ConsumerStopped"]
      )
      for (const event of transport.events) {
        assert.deepInclude(event, { topic: "t", group: "g" })
        if (event._tag === "Settled") assert.isFalse(event.stale)
        if (event._tag === "ConsumerStarted" || event._tag === "ConsumerStopped") {
          assert.strictEqual(event.consumer, "fake-1")
        }
      }
    })
  )
})
