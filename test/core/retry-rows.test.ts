import { assert, describe, it } from "@effect/vitest"
import { Probe } from "@waybill/testing"
import { Effect, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"

class NoSlot extends Schema.TaggedError<NoSlot>()("NoSlot", {}) {}
class EngineError extends Schema.TaggedError<EngineError>()("EngineError", {}) {}

const Render = Topic.make("renders", { payload: Schema.String, guarantee: "at-most-once" })

const layers = {
  MemoryStreams: MemoryStreams.layer(),
  MemoryLists: MemoryLists.layer(),
  MemoryPubSub: MemoryPubSub.layer()
}

describe("case D1: one count for each row", () => {
  it.effect.each(Object.entries(layers))("seven failures of one row use up nothing of another: %s", ([, layer]) =>
    Effect.gen(function* () {
      const attempts: Array<number> = []
      const Renderer = Consumer.make(Render, { group: "renderer" }).pipe(
        Consumer.process((_, { attempt }) => {
          attempts.push(attempt)
          return attempt <= 7 ? Effect.fail(new NoSlot()) : Effect.fail(new EngineError())
        }),
        Consumer.onFailure({
          NoSlot: Consumer.retry(Schedule.spaced("1 second")),
          EngineError: Consumer.retry(Schedule.spaced("10 seconds").pipe(Schedule.upTo({ times: 1 })))
        }),
        Consumer.layer
      )
      yield* Effect.gen(function* () {
        yield* Producer.publish(Render, "a")
        for (let i = 0; i < 60; i++) yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(attempts, [1, 2, 3, 4, 5, 6, 7, 8, 9])
        const [letter] = yield* (yield* Probe.Probe).deadLetters
        assert.strictEqual(letter?.reason, "EngineError")
      }).pipe(Effect.provide(Renderer.pipe(Layer.provideMerge(Probe.layer), Layer.provideMerge(layer))))
    })
  )

  it.effect("case B10: a nightly retry is due tonight", () =>
    Effect.gen(function* () {
      const times: Array<string> = []
      yield* TestClock.setTime(Date.parse("2026-03-10T22:59:00Z"))
      const Nightly = Consumer.make(Render, { group: "nightly" }).pipe(
        Consumer.process(() =>
          Effect.clockWith((clock) => {
            times.push(new Date(clock.currentTimeMillisUnsafe()).toISOString().slice(0, 13))
            return Effect.fail(new NoSlot())
          })
        ),
        Consumer.onFailure({ NoSlot: Consumer.retry(Schedule.cron("1 23 * * *", "UTC")) }),
        Consumer.layer
      )
      yield* Effect.gen(function* () {
        yield* Producer.publish(Render, "a")
        for (let i = 0; i < 5; i++) yield* TestClock.adjust("1 minute")
        for (let i = 0; i < 2.5 * 24 * 4; i++) yield* TestClock.adjust("15 minutes")
        assert.deepStrictEqual(times, ["2026-03-10T22", "2026-03-10T23", "2026-03-11T23", "2026-03-12T23"])
      }).pipe(Effect.provide(Nightly.pipe(Layer.provideMerge(MemoryStreams.layer()))))
    })
  )
})
