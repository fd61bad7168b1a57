import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Result, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, DeadLetters, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { quiet } from "./Running.ts"

class Odd extends Schema.TaggedError<Odd>()("Odd", {}) {}

const Numbers = Topic.make("numbers", { payload: Schema.Int })
const group = "judge"

/** Odd numbers die as `Odd`, multiples of four as `Four`, the rest is fine. */
const judge = Consumer.make(Numbers, { group, concurrency: 4 }).pipe(
  Consumer.process((n) => (n % 2 === 1 ? Effect.fail(new Odd()) : n % 4 === 0 ? Effect.die("four") : Effect.void)),
  Consumer.onFailure({ Odd: Consumer.deadLetter() })
)

const counted = Effect.gen(function* () {
  const inspector = yield* Inspector.Inspector
  const [info] = (yield* inspector.describe(Numbers.name)).groups
  return { dead: info?.deadLetters, open: (info?.lag ?? 0) + (info?.pending ?? 0) + (info?.waiting ?? 0) }
})

/** Publishes 0 to n-1 and runs the judge until each of them has been settled. */
const judged = Effect.fnUntraced(function* (n: number) {
  yield* Producer.publishAll(
    Numbers,
    Array.from({ length: n }, (_, i) => i)
  )
  yield* judge.pipe(Consumer.stream, Stream.take(n), Stream.runDrain)
})

const onMemory = Effect.provide(MemoryStreams.layer())

describe("DeadLetters", () => {
  it.effect("streams them decoded, oldest first, and says when a body is none", () =>
    Effect.gen(function* () {
      yield* judged(1200)
      const transport = yield* Transport.AtMostOnce
      const bare = { id: undefined, headers: {}, key: undefined, version: 1, due: undefined }
      yield* transport.publish(Numbers.name, [{ ...bare, body: "{" }])
      yield* judge.pipe(Consumer.stream, Stream.take(1), Stream.runDrain)
      const letters = yield* Stream.runCollect(DeadLetters.stream(Numbers, group))
      const numbers = letters.flatMap((letter) => (Result.isSuccess(letter.payload) ? [letter.payload.success] : []))
      assert.deepStrictEqual(
        [...numbers].sort((a, b) => a - b),
        Array.from({ length: 1200 }, (_, i) => i).filter((n) => n % 2 === 1 || n % 4 === 0)
      )
      const last = letters.at(-1)
      assert.strictEqual(last?.reason, "DecodeFailure")
      assert.strictEqual(last?.body, "{")
      assert.isTrue(last !== undefined && Result.isFailure(last.payload))
    }).pipe(onMemory)
  )

  it.effect("redrives what matches, once, however often it is asked", () =>
    Effect.gen(function* () {
      yield* judged(100)
      const where = (letter: DeadLetters.Decoded<number>) => letter.reason === "Odd"
      const plan = yield* DeadLetters.redrive(Numbers, group, { where, dryRun: true })
      assert.deepStrictEqual(plan, { examined: 75, selected: 50, done: 0 })
      assert.deepStrictEqual(yield* counted, { dead: 75, open: 0 })
      const both = yield* Effect.all(
        [DeadLetters.redrive(Numbers, group, { where }), DeadLetters.redrive(Numbers, group, { where })],
        { concurrency: "unbounded" }
      )
      assert.strictEqual(both[0].done + both[1].done, 50)
      assert.deepStrictEqual(yield* counted, { dead: 25, open: 50 })
    }).pipe(onMemory)
  )

  it.effect("does not chase what dies again while it redrives", () =>
    Effect.gen(function* () {
      yield* judged(40)
      const running = yield* Effect.forkChild(Consumer.run(judge))
      const report = yield* DeadLetters.redrive(Numbers, group, { ratePerSecond: 10 }).pipe(
        Effect.forkChild,
        // Until it waits for the clock: a page is read in a fiber of its own.
        Effect.tap(quiet()),
        Effect.tap(TestClock.adjust("1 minute")),
        Effect.flatMap(Fiber.join)
      )
      assert.deepStrictEqual(report, { examined: 30, selected: 30, done: 30 })
      yield* Fiber.interrupt(running)
    }).pipe(onMemory)
  )

  it.effect("keeps to the rate", () =>
    Effect.gen(function* () {
      yield* judged(40)
      const redriving = yield* Effect.forkChild(DeadLetters.redrive(Numbers, group, { ratePerSecond: 10 }))
      yield* quiet()
      yield* TestClock.adjust("999 millis")
      assert.strictEqual((yield* counted).dead, 20)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual((yield* counted).dead, 19)
      yield* Fiber.interrupt(redriving)
    }).pipe(onMemory)
  )

  it.effect("case F9: a rate is even from the first second on, whatever it is", () =>
    Effect.gen(function* () {
      yield* judged(800)
      for (const ratePerSecond of [50, 7, 33.3, 400]) {
        const { dead: before = 0 } = yield* counted
        const redriving = yield* Effect.forkChild(DeadLetters.discard(Numbers, group, { ratePerSecond }))
        yield* quiet()
        for (let tenths = 1; tenths <= 10; tenths++) {
          yield* TestClock.adjust("100 millis")
          const { dead = 0 } = yield* counted
          const expected = (ratePerSecond * tenths) / 10
          // A step is at most a twentieth of a second's, and at least one.
          assert.closeTo(
            before - dead,
            expected,
            Math.max(2, ratePerSecond / 20 + 1),
            `${ratePerSecond} after ${tenths}`
          )
        }
        yield* Fiber.interrupt(redriving)
      }
    }).pipe(onMemory)
  )

  it.effect.each([1e-10, Number.MIN_VALUE])("case F9: a rate of %d does the first, and waits for the next", (rate) =>
    Effect.gen(function* () {
      yield* judged(2)
      const redriving = yield* Effect.forkChild(DeadLetters.redrive(Numbers, group, { ratePerSecond: rate }))
      yield* quiet()
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(redriving.pollUnsafe())
      assert.strictEqual((yield* counted).dead, 1)
      yield* Fiber.interrupt(redriving)
    }).pipe(onMemory)
  )

  it.effect("what is looked at and left costs no time of the rate", () =>
    Effect.gen(function* () {
      yield* judged(40)
      const where = ({ payload }: DeadLetters.Decoded<number>) => Result.isSuccess(payload) && payload.success === 7
      const redriving = yield* Effect.forkChild(DeadLetters.redrive(Numbers, group, { ratePerSecond: 10, where }))
      yield* quiet()
      yield* TestClock.adjust("100 millis")
      assert.deepInclude(yield* Fiber.join(redriving), { selected: 1, done: 1 })
    }).pipe(onMemory)
  )

  it.effect("discards what matches, up to the limit, and leaves the rest", () =>
    Effect.gen(function* () {
      yield* judged(100)
      const where = (letter: DeadLetters.Decoded<number>) => letter.reason === "Defect"
      assert.deepInclude(yield* DeadLetters.discard(Numbers, group, { where, limit: 10 }), { selected: 10, done: 10 })
      assert.deepStrictEqual(yield* counted, { dead: 65, open: 0 })
    }).pipe(onMemory)
  )

  it.effect("finds none in a group that does not exist", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* DeadLetters.redrive(Numbers, "nobody"), { examined: 0, selected: 0, done: 0 })
    }).pipe(Effect.provide(Layer.fresh(MemoryStreams.layer())))
  )
})
