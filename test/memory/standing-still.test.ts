import { assert, describe, it } from "@effect/vitest"
import { freeze } from "@waybill/testing"
import { Clock, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { Settlement, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"

const patterns = [["MemoryStreams", MemoryStreams]] as const

describe.each(patterns)("%s, a receiver that stands still", (_, pattern) => {
  it.effect("waits without asking again and again for what it may not have", () =>
    Effect.gen(function* () {
      const clock = yield* Clock.Clock
      let sleeps = 0
      const counted: Clock.Clock = {
        ...clock,
        sleep: (duration) => {
          sleeps++
          return clock.sleep(duration)
        }
      }
      const transport = yield* Transport.AtMostOnce
      const message = { id: undefined, body: "a", headers: {}, key: undefined, version: 1, due: undefined }
      yield* transport.publish("t", [message])
      const receiver = yield* transport.receive({
        topic: "t",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(30),
        maxDeliveries: 5,
        shutdown: Duration.seconds(1)
      })
      const [delivery] = yield* receiver.take(1)
      yield* receiver.settle([[delivery, Settlement.retry(Duration.seconds(1), "later")]])
      const taking = yield* receiver
        .take(1)
        .pipe(Effect.provideService(Clock.Clock, counted), Effect.forkChild({ startImmediately: true }))
      yield* Effect.gen(function* () {
        yield* freeze(receiver)
        yield* TestClock.adjust("1 minute")
        for (let i = 0; i < 1000; i++) yield* Effect.yieldNow
        assert.isUndefined(taking.pollUnsafe())
        assert.isAtMost(sleeps, 2)
      }).pipe(Effect.scoped)
      // Awake again, it finds what was due meanwhile.
      const [again] = yield* Fiber.join(taking)
      assert.deepStrictEqual([again.id, again.attempt], [delivery.id, 2])
    }).pipe(Effect.scoped, Effect.provide(pattern.layer()))
  )
})
