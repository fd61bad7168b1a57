/**
 * Effectively once in memory: the suite, and what happens after the memory of published ids and after the marker.
 */
import { assert, describe, it } from "@effect/vitest"
import { freeze, runUntilIdle, TransportSuite } from "@waybill/testing"
import { Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Commit, Consumer, DeadLetters, Producer, Records, Topic } from "waybill"
import { MemoryExactlyOnce } from "waybill/memory"

TransportSuite.run("MemoryExactlyOnce", {
  layer: MemoryExactlyOnce.layer(),
  time: "test",
  freeze,
  features: { groups: false, transactional: true, untilSettled: true, coalescing: true, untilTaken: true }
})

const Numbers = Topic.make("numbers", { payload: Schema.Int, guarantee: "transactional" })
const total = Commit.counter("total")
const words = Commit.hash("words")

describe("MemoryExactlyOnce", () => {
  it.effect("an id that is published again is applied once, until its marker has expired", () =>
    Effect.gen(function* () {
      const publish = Effect.andThen(Producer.publish(Numbers, 1, { id: "same" }), runUntilIdle())
      yield* publish
      assert.strictEqual(yield* Records.read(Numbers, total.value), 1)
      for (let day = 1; day <= 7; day++) {
        yield* TestClock.adjust("1 day")
        assert.strictEqual((yield* Producer.publish(Numbers, 1, { id: "same" }))._tag, "Stored")
        yield* runUntilIdle()
        assert.strictEqual(yield* Records.read(Numbers, total.value), 1)
      }
      yield* TestClock.adjust("1 day")
      yield* publish
      assert.strictEqual(yield* Records.read(Numbers, total.value), 2)
    }).pipe(
      Effect.provide(
        Consumer.make(Numbers, { group: "g" }).pipe(
          Consumer.transactional((n) => Effect.succeed(Commit.make({ writes: [total.add(n)] }))),
          Consumer.layer,
          Layer.provideMerge(MemoryExactlyOnce.layer())
        )
      )
    )
  )

  it.effect("what was refused in part is never applied again, however late and often it is redriven", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Numbers, 1, { id: "partial" })
      yield* runUntilIdle()
      for (let week = 1; week <= 3; week++) {
        yield* TestClock.adjust("6 days")
        assert.strictEqual((yield* DeadLetters.redrive(Numbers, "g")).done, 1)
        yield* runUntilIdle()
        assert.strictEqual(yield* Records.read(Numbers, total.value), 1)
      }
    }).pipe(
      Effect.provide(
        Consumer.make(Numbers, { group: "g" }).pipe(
          Consumer.transactional((n) =>
            Effect.succeed(Commit.make({ writes: [total.add(n), words.set("a", "text"), words.increment("a", n)] }))
          ),
          Consumer.layer,
          Layer.provideMerge(MemoryExactlyOnce.layer())
        )
      )
    )
  )
})
