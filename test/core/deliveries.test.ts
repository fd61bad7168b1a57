import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Schema, Stream } from "effect"
import { Consumer, type Settlement, Topic } from "waybill"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, stop, until } from "./Running.ts"

class Broken extends Schema.TaggedError<Broken>()("Broken", {}) {}

const Numbers = Topic.make("t", { payload: Schema.Int })
const numbers = (options?: Partial<Consumer.Options>) => Consumer.deliveries(Numbers, { group: "g", ...options })
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => from + n)

/** How each ended, in the order of the bodies. */
const ends = (transport: FakeTransport) => transport.taken.map((delivery) => transport.ends(delivery).join())

describe("deliveries", () => {
  it.effect.each<
    [what: string, end: Settlement.Settlement["_tag"], settle: (one: Consumer.Pulled<number>) => Effect.Effect<string>]
  >([
    ["ack", "Ack", ({ ack }) => ack],
    ["retry", "Retry", ({ retry }) => retry("1 second", "later")],
    ["deadLetter", "DeadLetter", ({ deadLetter }) => deadLetter("no-good")],
    ["release", "Release", ({ release }) => release]
  ])("%s settles once, and returns when the store knows", ([, end, settle]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(1)
      const told = yield* numbers().pipe(
        Stream.mapEffect((one) =>
          Effect.gen(function* () {
            const first = yield* settle(one)
            assert.strictEqual(ends(transport)[0], end)
            return [one.payload, first, yield* one.ack]
          })
        ),
        Stream.take(1),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      assert.deepStrictEqual(told, [[1, "Settled", end === "Ack" ? "Settled" : "Stale"]])
      assert.deepStrictEqual(ends(transport), [end])
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("what the schema refuses is a dead letter, and not shown", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver("rubbish", 2)
      const shown = yield* numbers().pipe(
        Stream.tap(({ ack }) => ack),
        Stream.map(({ payload }) => payload),
        Stream.take(1),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      assert.deepStrictEqual(shown, [2])
      assert.deepStrictEqual(ends(transport), ["DeadLetter", "Ack"])
    })
  )

  it.effect("at most concurrency are out, and at most prefetch more are taken", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(...range(0, 100))
      const out: Array<Consumer.Pulled<number>> = []
      const fiber = yield* numbers({ concurrency: 5, prefetch: 3 }).pipe(
        Stream.runForEach((one) => Effect.sync(() => out.push(one))),
        Effect.provide(transport.layer),
        Effect.forkChild
      )
      yield* until("five are out", () => out.length === 5)
      yield* quiet()
      assert.lengthOf(out, 5)
      assert.isAtMost(transport.mostHeld, 8)
      assert.strictEqual(yield* out[0]!.ack, "Settled")
      yield* until("the next one is out", () => out.length === 6)
      yield* Fiber.interrupt(fiber)
      assert.isAtMost(transport.mostHeld, 8)
    })
  )

  it.effect.each<[what: string, told: ReadonlyArray<string>, end: Effect.Effect<void, Broken>]>([
    ["ends", ["Release"], Effect.void],
    ["fails", ["Retry"], Effect.fail(new Broken())],
    ["dies", ["Retry"], Effect.die("no")]
  ])("a stream that %s settles what it had pulled and no more: %s", ([, told, end]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(...range(0, 4))
      yield* numbers({ concurrency: 3 }).pipe(
        Stream.take(2),
        Stream.runForEach(({ ack, payload }) => (payload === 0 ? ack : end)),
        Effect.exit,
        Effect.provide(transport.layer)
      )
      // The third lay before the stream, the fourth before the workers.
      assert.deepStrictEqual(ends(transport).slice(0, 3), ["Ack", ...told, "Release"])
      assert.include(["Release", "Returned"], ends(transport)[3])
      assert.deepStrictEqual(
        transport.complaints().filter((line) => !line.includes("Returned")),
        []
      )
      assert.strictEqual(transport.leaves, 1)
    })
  )

  it.effect("an interrupted stream releases, and what it had says Stale from then on", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.deliver(1)
      const pulled = yield* Deferred.make<Consumer.Pulled<number>>()
      const fiber = yield* numbers().pipe(
        Stream.runForEach((one) => Deferred.succeed(pulled, one)),
        Effect.provide(transport.layer),
        Effect.forkChild
      )
      const one = yield* Deferred.await(pulled)
      const { exit, millis } = yield* stop(fiber)
      assert.isTrue(Exit.hasInterrupts(exit))
      assert.isBelow(millis, 1000, "it does not wait for what nobody settles any more")
      assert.deepStrictEqual(ends(transport), ["Release"])
      assert.strictEqual(yield* one.ack, "Stale")
    })
  )

  it.effect("a lost lease makes an ack Stale, and others go on", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const [lost] = transport.deliver(1, 2)
      const told = yield* numbers().pipe(
        Stream.mapEffect(({ ack, payload }) => {
          if (payload === 1) transport.lose(lost!)
          return Effect.andThen(payload === 1 ? quiet() : Effect.void, ack)
        }),
        Stream.take(2),
        Stream.runCollect,
        Effect.provide(transport.layer)
      )
      assert.deepStrictEqual(told, ["Stale", "Settled"])
      assert.deepStrictEqual(ends(transport), ["Lost", "Ack"])
    })
  )

  it.effect("a stream that fails on one message for ever does not spin: each time is a retry with its delay", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const [one] = transport.deliver(1)
      let delivery = one!
      const delays: Array<number> = []
      for (let attempt = 1; attempt < 30; attempt++) {
        yield* numbers().pipe(
          Stream.mapEffect(() => Effect.fail(new Broken())),
          Stream.runDrain,
          Effect.exit,
          Effect.provide(transport.layer)
        )
        const [, settlement] = transport.settled.at(-1)!
        if (settlement._tag !== "Retry") break
        delays.push(Duration.toMillis(settlement.delay))
        delivery = transport.again(delivery, attempt + 1)
      }
      const [, last] = transport.settled.at(-1)!
      assert.deepInclude(last, { _tag: "DeadLetter", reason: "Broken" })
      assert.isTrue(delays.length > 1 && delays.every((delay) => delay > 0))
    })
  )

  it("refuses options that make refuses", () => {
    assert.throws(() => numbers({ concurrency: 0 }), /concurrency/)
  })
})
