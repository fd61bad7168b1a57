/**
 * Publishing in memory takes no time and needs no turn of its own: subscribers that can keep up are not starved by it.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"

const Tick = Topic.make("ticks", { payload: Schema.Int, guarantee: "at-most-once" })

/** Consumers in groups of their own, and what each has seen: numbers, and how many were missing. */
const audience = (size: number, total: number, handle: (n: number) => Effect.Effect<void> = () => Effect.void) => {
  const seen = Array.from({ length: size }, () => ({ numbers: [] as Array<number>, missed: 0 }))
  const done = Deferred.makeUnsafe<void>()
  let left = size
  const consumers = seen.map((one, i) =>
    Consumer.make(Tick, { group: `g${i}` }).pipe(
      Consumer.process((n, { gap }) =>
        Effect.andThen(
          handle(n),
          Effect.sync(() => {
            one.numbers.push(n)
            one.missed += gap?.missed ?? 0
            if (one.numbers.length + one.missed === total && --left === 0) Deferred.doneUnsafe(done, Effect.void)
          })
        )
      ),
      Consumer.layer
    )
  )
  const [first, ...rest] = consumers
  assert(first !== undefined)
  return { seen, done: Deferred.await(done), layer: Layer.mergeAll(first, ...rest) }
}

const numbers = Array.from({ length: 5000 }, (_, i) => i)

describe("case F8: 5,000 messages to 50 subscribers in memory", () => {
  it.effect.each([
    ["in one call", Producer.publishAll(Tick, numbers)],
    ["in many calls, one after the other", Effect.forEach(numbers, (n) => Producer.publish(Tick, n))],
    ["in many calls at once", Effect.forEach(numbers, (n) => Producer.publish(Tick, n), { concurrency: "unbounded" })]
  ] as const)("%s: all arrive", ([, publishing]) =>
    Effect.gen(function* () {
      const { done, layer, seen } = audience(50, 5000)
      yield* Effect.andThen(publishing, done).pipe(Effect.provide(layer.pipe(Layer.provideMerge(MemoryPubSub.layer()))))
      for (const { missed, numbers: arrived } of seen) {
        assert.strictEqual(missed, 0)
        assert.strictEqual(new Set(arrived).size, 5000)
      }
    })
  )

  /** Many of almost nothing, and some that fill most of the room. */
  const sized = (n: number) => (n % 100 < 70 ? {} : { headers: { padding: "x".repeat(n % 7 === 0 ? 1500 : n % 50) } })
  it.effect.each([
    ["in one call", Producer.publishAll(Tick, numbers, sized)],
    ["in many calls, one after the other", Effect.forEach(numbers, (n) => Producer.publish(Tick, n, sized(n)))],
    [
      "in many calls at once",
      Effect.forEach(numbers, (n) => Producer.publish(Tick, n, sized(n)), { concurrency: "unbounded" })
    ]
  ] as const)("%s, with room for few bytes: all arrive", ([, publishing]) =>
    Effect.gen(function* () {
      const { done, layer, seen } = audience(10, 5000)
      yield* Effect.andThen(publishing, done).pipe(
        Effect.provide(layer.pipe(Layer.provideMerge(MemoryPubSub.layer({ bufferBytes: 2000 }))))
      )
      for (const { missed, numbers: arrived } of seen) {
        assert.strictEqual(missed, 0)
        assert.strictEqual(new Set(arrived).size, 5000)
      }
    })
  )

  it.effect("one that takes nothing has gaps, as on Redis, and holds up neither the publisher nor the others", () =>
    Effect.gen(function* () {
      const quick = audience(5, 5000)
      const slow = audience(1, 5000, (n) => (n === 0 ? Effect.sleep("1 hour") : Effect.void))
      yield* Effect.gen(function* () {
        yield* Producer.publishAll(Tick, numbers)
        yield* quick.done
        yield* TestClock.adjust("1 hour")
        yield* slow.done
      }).pipe(
        Effect.provide(
          Layer.mergeAll(quick.layer, slow.layer).pipe(Layer.provideMerge(MemoryPubSub.layer({ buffer: 100 })))
        )
      )
      for (const { missed } of quick.seen) assert.strictEqual(missed, 0)
      const [{ missed = 0, numbers: arrived = [] } = {}] = slow.seen
      assert.isAbove(missed, 4000)
      assert.strictEqual(arrived.length + missed, 5000)
      assert.strictEqual(arrived.at(-1), 4999)
    })
  )
})

describe("case F8: publishing without end", () => {
  it.effect.each(
    Object.entries({
      MemoryPubSub: MemoryPubSub.layer(),
      MemoryStreams: MemoryStreams.layer(),
      MemoryLists: MemoryLists.layer(),
      MemoryExactlyOnce: MemoryExactlyOnce.layer(),
      MemoryKeyspace: MemoryKeyspace.layer()
    })
  )("%s: who consumes gets turns meanwhile", ([, memory]) =>
    Effect.gen(function* () {
      const enough = Deferred.makeUnsafe<void>()
      let handled = 0
      const consumer = Consumer.make(Tick, { group: "g" }).pipe(
        Consumer.process(() =>
          Effect.sync(() => {
            if (++handled === 1000) Deferred.doneUnsafe(enough, Effect.void)
          })
        ),
        Consumer.layer
      )
      yield* Effect.gen(function* () {
        const publishing = yield* Effect.forkChild(Effect.forever(Producer.publish(Tick, 1)))
        yield* Deferred.await(enough)
        yield* Fiber.interrupt(publishing)
      }).pipe(Effect.provide(consumer.pipe(Layer.provideMerge(memory))))
    })
  )
})
