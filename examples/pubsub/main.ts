import { NodeRuntime } from "@effect/platform-node"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Console, Effect, Layer, References, Schema } from "effect"
import { Consumer, Producer, Topic, type Transport } from "waybill"
import { MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisPubSub, RedisStreams } from "waybill/redis"

const Price = Topic.make("prices", {
  payload: Schema.Struct({ number: Schema.Int, cents: Schema.Int }),
  guarantee: "at-most-once"
})

const url = process.env["REDIS_URL"]

/** The same consumer for both: at most once is enough for it, and more is welcome. */
const board = (heard: Array<number>) =>
  Consumer.make(Price, { group: "board" }).pipe(
    Consumer.process(({ number }) => Effect.sync(() => heard.push(number))),
    Consumer.onGap((gap) => Console.log(`  gap: ${gap.missed ?? "an unknown number"} missed (${gap.reason})`)),
    Consumer.layer
  )

const publish = (from: number, to: number) =>
  Producer.publishAll(
    Price,
    Array.from({ length: to - from + 1 }, (_, i) => ({ number: from + i, cents: 100 + i }))
  )

/** Waits until the board has shown the last price. */
const shown = (heard: ReadonlyArray<number>, last: number) =>
  Effect.gen(function* () {
    while (heard.at(-1) !== last) yield* Effect.sleep("10 millis")
  })

/** A board is there, is switched off for five prices, and comes back. */
const story = Effect.gen(function* () {
  const heard: Array<number> = []
  yield* Effect.andThen(publish(1, 3), shown(heard, 3)).pipe(Effect.provide(board(heard)))
  yield* publish(4, 8)
  yield* Effect.andThen(publish(9, 10), shown(heard, 10)).pipe(Effect.provide(board(heard)))
  return heard
})

const tell = <E>(name: string, transport: Layer.Layer<Transport.AtMostOnce, E>): Effect.Effect<void, unknown> =>
  Effect.gen(function* () {
    yield* Console.log(`${name}: prices 1 to 10, and the board is off from 4 to 8`)
    const heard = yield* Effect.provide(story, transport)
    const lost = Array.from({ length: 10 }, (_, i) => i + 1).filter((number) => !heard.includes(number))
    yield* Console.log(`  shown: ${heard.join(" ")}`)
    yield* Console.log(lost.length === 0 ? "  nothing is lost\n" : `  lost for good: ${lost.join(" ")}\n`)
  })

/** A slow board with a small buffer: pub/sub drops, and says so. */
const slow = Effect.gen(function* () {
  const heard: Array<number> = []
  yield* Console.log("pub/sub: a slow board with room for three, and twenty prices at once")
  const Slow = Consumer.make(Price, { group: "slow", prefetch: 0 }).pipe(
    Consumer.process(({ number }) =>
      Effect.delay(
        Effect.sync(() => heard.push(number)),
        "20 millis"
      )
    ),
    Consumer.onGap((gap) => Console.log(`  gap: ${gap.missed} missed (${gap.reason})`)),
    Consumer.layer
  )
  yield* Effect.andThen(publish(1, 20), shown(heard, 20)).pipe(Effect.provide(Slow))
  yield* Console.log(`  shown: ${heard.join(" ")}\n`)
})

const prefix = `prices-${process.pid}`
const redis = IoRedis.layer({ url })
/** Beside a layer: what it has left goes when it closes. */
const tidy = Layer.provide(temporaryKeys(`${prefix}-pubsub`, `${prefix}-streams`), redis)

Effect.gen(function* () {
  yield* Console.log(url === undefined ? "In memory; set REDIS_URL to see the same on Redis.\n" : "On Redis.\n")
  const small = { buffer: 3 } as const
  if (url === undefined) {
    yield* tell("pub/sub", MemoryPubSub.layer())
    yield* tell("streams", MemoryStreams.layer())
    yield* Effect.provide(slow, MemoryPubSub.layer(small))
  } else {
    yield* Effect.gen(function* () {
      yield* tell("pub/sub", Layer.provide(RedisPubSub.layer({ prefix: `${prefix}-pubsub` }), redis))
      yield* tell("streams", Layer.provide(RedisStreams.layer({ prefix: `${prefix}-streams` }), redis))
      yield* Effect.provide(slow, Layer.provide(RedisPubSub.layer({ prefix: `${prefix}-pubsub`, ...small }), redis))
    }).pipe(Effect.provide(tidy))
  }
}).pipe(Effect.provideService(References.MinimumLogLevel, "Error"), NodeRuntime.runMain)
