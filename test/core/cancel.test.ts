import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Option, Schema } from "effect"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

const Job = Topic.make("jobs", { payload: Schema.String })

describe("Inspector.cancel", () => {
  it.effect("interrupts the handler, retries nothing, and lets the next message begin", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const begun = yield* Deferred.make<void>()
      const interrupted = yield* Deferred.make<void>()
      const next = yield* Deferred.make<void>()
      const worker = Consumer.make(Job, { group: "g", concurrency: 1 }).pipe(
        Consumer.process((job) =>
          job === "next"
            ? Deferred.succeed(next, undefined)
            : Deferred.succeed(begun, undefined).pipe(
                Effect.andThen(Effect.never),
                Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
              )
        )
      )
      yield* Effect.forkScoped(Consumer.run(worker))
      const { id } = yield* Producer.publish(Job, "endless")
      const ahead = yield* Producer.publish(Job, "cancelled unbegun")
      yield* Producer.publish(Job, "next")
      yield* Deferred.await(begun)
      assert.deepStrictEqual(yield* inspector.cancel("jobs", ahead.id), ["g"])
      assert.deepStrictEqual(yield* inspector.cancel("jobs", id), ["g"])
      yield* Deferred.await(interrupted)
      yield* Deferred.await(next)
      const letters = yield* Effect.repeat(
        Effect.andThen(Effect.yieldNow, inspector.deadLetters("jobs", "g", { after: Option.none(), limit: 10 })),
        { until: ({ length }) => length === 2 }
      )
      assert.deepStrictEqual(letters.map(({ body, reason }) => [body, reason]).sort(), [
        ['"cancelled unbegun"', "Cancelled"],
        ['"endless"', "Cancelled"]
      ])
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(MemoryStreams.layer())))
  )
})
