import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Scheduler, Stream } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

const Numbers = Topic.make("numbers", { payload: Schema.Int })
const count = 400

/** Handlers that stay and handlers that leave the processor, so that batches arrive at every moment. */
const handler = (n: number) => (n % 3 === 0 ? Effect.yieldNow : n % 7 === 0 ? Effect.sleep(1) : Effect.void)

const handled = (concurrency: number) =>
  Effect.gen(function* () {
    const publishing = Effect.gen(function* () {
      for (let n = 0; n < count; n++) {
        yield* Producer.publish(Numbers, n)
        if (n % 11 === 0) yield* Effect.sleep(1)
      }
    })
    const consumer = Consumer.make(Numbers, { group: "all", concurrency }).pipe(Consumer.process(handler))
    const [, outcomes] = yield* Effect.all(
      [publishing, consumer.pipe(Consumer.stream, Stream.take(count), Stream.runCollect)],
      { concurrency: 2 }
    )
    return new Set(outcomes.map(({ delivery }) => delivery.id)).size
  }).pipe(Effect.provide(MemoryStreams.layer()))

describe("a fiber may be made to yield between any two steps", () => {
  // The scheduler does so after 2048 steps; here much earlier, so that it happens everywhere. The in-memory streams need 64 steps in one turn.
  it.live.each([101, 113, 131, 151, 179, 211, 257, 331])("a turn of %i steps loses no wake-up", (steps) =>
    Effect.gen(function* () {
      for (const concurrency of [1, 4]) {
        const size = yield* handled(concurrency).pipe(
          Effect.provideService(Scheduler.MaxOpsBeforeYield, steps),
          Effect.timeout("1 minute")
        )
        assert.strictEqual(size, count)
      }
    })
  )
})
