import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Effect, Fiber, Layer, Option, References, Schema } from "effect"
import { Consumer, Producer, Replies, Topic, Transport } from "waybill"
import { IoRedis, RedisStreams, RedisPubSub } from "waybill/redis"
import { becomes } from "./Fixture.ts"
import { redis, storing } from "./Patterns.ts"

class Odd extends Schema.TaggedError<Odd>()("Odd", { n: Schema.Int }) {}

const Half = Topic.request(Topic.make("half", { payload: Schema.Int }), { success: Schema.Int, error: Odd })

/** A process, as far as Redis can tell. */
const program = (url: string) =>
  Layer.merge(RedisStreams.layer(), RedisPubSub.layer()).pipe(
    Layer.provide(Layer.fresh(IoRedis.layer({ url }))),
    Layer.fresh
  )

describe("requests on Redis", () => {
  for (const [pattern, layer] of Object.entries(storing)) {
    it.live(`${pattern}: one whose caller gives up is removed, or cancelled while its handler runs`, () =>
      Effect.gen(function* () {
        const { inspector } = yield* Transport.AtLeastOnce
        const depth = Effect.map(inspector.describe(Half.name), (info) => info.depth)
        const early = yield* Effect.forkChild(Producer.request(Half, 6))
        yield* becomes("it is stored", depth, 1)
        yield* Fiber.interrupt(early)
        const left = yield* inspector.messages(Half.name, { after: Option.none(), limit: 10 })
        assert.deepStrictEqual(left, [])
        const begun = yield* Deferred.make<void>()
        const ended = yield* Deferred.make<void>()
        const answering = Consumer.make(Half, { group: "half" }).pipe(
          Consumer.respond(Half, () =>
            Deferred.succeed(begun, undefined).pipe(
              Effect.andThen(Effect.never),
              Effect.onInterrupt(() => Deferred.succeed(ended, undefined))
            )
          )
        )
        yield* Layer.build(Consumer.layer(answering))
        const running = yield* Effect.forkChild(Producer.request(Half, 8))
        yield* Deferred.await(begun)
        yield* Fiber.interrupt(running)
        yield* Effect.timeout(Deferred.await(ended), "20 seconds")
        const letters = inspector.deadLetters(Half.name, "half", { after: Option.none(), limit: 10 })
        yield* becomes(
          "what was cancelled",
          Effect.map(letters, (letters) => letters.map(({ body, reason }) => [body, reason])),
          [["8", "Cancelled"]]
        )
      }).pipe(
        Effect.scoped,
        Effect.provide(
          Replies.layer.pipe(
            Layer.provideMerge(Layer.merge(layer(), RedisPubSub.layer())),
            Layer.provide(redis),
            Layer.provide(RedisServer.layer())
          )
        ),
        Effect.provideService(References.MinimumLogLevel, "Error")
      )
    )
  }

  it.live("are answered by another process, each caller with its own answers", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const begun: Array<number> = []
      const answering = Consumer.make(Half, { group: "half", concurrency: 4 }).pipe(
        Consumer.respond(Half, (n) => {
          begun.push(n)
          return n < 0 ? Effect.never : n % 2 === 1 ? Effect.fail(new Odd({ n })) : Effect.succeed(n / 2)
        }),
        Consumer.layer
      )
      const caller = Effect.forEach([2, 3, 4], (n) => Effect.result(Producer.request(Half, n)), {
        concurrency: "unbounded"
      }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(program(url)))))
      yield* Effect.gen(function* () {
        const both = yield* Effect.all([caller, caller], { concurrency: 2 })
        for (const [one, odd, two] of both) {
          assert.deepStrictEqual(
            [one, two].map((result) => result?._tag === "Success" && result.success),
            [1, 2]
          )
          assert.deepStrictEqual(odd?._tag === "Failure" && odd.failure, new Odd({ n: 3 }))
        }
        // An early deadline interrupts the handler: its place is free for the next.
        const late = Producer.request(Half, -1, { timeout: "1 second" }).pipe(
          Effect.flip,
          Effect.provide(Replies.layer.pipe(Layer.provideMerge(program(url))))
        )
        const fibers = yield* Effect.forEach([1, 2, 3, 4], () => Effect.forkChild(late))
        yield* becomes(
          "all of them wait",
          Effect.sync(() => begun.filter((n) => n < 0).length),
          4
        )
        for (const fiber of fibers) {
          const failure = yield* Fiber.join(fiber)
          assert.strictEqual(failure._tag === "Unanswered" && failure.why, "TimedOut")
        }
        assert.lengthOf(yield* caller, 3)
      }).pipe(Effect.provide(answering.pipe(Layer.provide(program(url)))))
    }).pipe(
      Effect.scoped,
      Effect.provideService(References.MinimumLogLevel, "Error"),
      Effect.provide(RedisServer.layer())
    )
  )
})
