/**
 * Others who write where the messages of pub/sub travel, and where its dead letters lie. The numbers are those of the fault
 * matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Effect, Layer, Logger, Option, Schedule, type Scope } from "effect"
import { Consumer, Inspector, Producer, Transport } from "waybill"
import { IoRedis, RedisPubSub } from "waybill/redis"
import { group, Job } from "./Jobs.ts"
import { streamKeys } from "./Pattern.ts"
import { ask, client } from "./Verdict.ts"

const { consumers, dead, groups, meta, state } = streamKeys
const channel = meta.replace(/meta$/, "channel")

/** A server, a plain client of it, and the pattern. */
const fixture = Effect.gen(function* () {
  const server = yield* RedisServer.make()
  const redis = yield* client(server.url)
  const context = yield* Layer.build(RedisPubSub.layer().pipe(Layer.provideMerge(IoRedis.layer({ url: server.url }))))
  return { redis, context, inspector: Context.get(context, Inspector.Inspector) }
})

const play = <A, E>(test: Effect.Effect<A, E, Scope.Scope>) =>
  test.pipe(Effect.scoped, Effect.provide(Logger.layer([])))

/** The same, where it may get lost. */
const News = { ...Job, on: Transport.AtMostOnce }

const consumer = (done: Array<string>) =>
  Consumer.make(News, { group }).pipe(Consumer.process(({ act }) => Effect.sync(() => void done.push(act))))

describe("others who write into the topic, pub/sub", () => {
  it.live("E20 WRONGTYPE of any key before the start: the consumer fails and names it, and writes nothing", () =>
    Effect.gen(function* () {
      const { context, redis } = yield* fixture
      for (const key of [meta, groups, consumers, state, dead]) {
        yield* ask(() => redis.flushall())
        yield* ask(() => redis.set(key, "mine"))
        const error = yield* Effect.flip(Effect.provideContext(Consumer.run(consumer([])), context)).pipe(
          Effect.timeout("20 seconds")
        )
        assert.isTrue(error instanceof Transport.TransportError)
        assert.deepInclude(error.reason, { _tag: "WrongKeyType", key })
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
      }
    }).pipe(play)
  )

  it.live("E24 whatever they publish becomes a dead letter with what arrived, and the loop goes on", () =>
    Effect.gen(function* () {
      const { context, inspector, redis } = yield* fixture
      const done: Array<string> = []
      yield* Effect.forkScoped(Effect.provideContext(Consumer.run(consumer(done)), context))
      const until = (holds: Effect.Effect<boolean, unknown>) =>
        holds.pipe(
          Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("20 millis") }),
          Effect.timeout("20 seconds")
        )
      yield* until(
        Effect.map(
          ask(() => redis.pubsub("NUMSUB", channel)),
          ([, count]) => Number(count) > 0
        )
      )
      const wrong = [
        "{not json",
        '{"act":"dance"}',
        "",
        Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x7b]),
        "waybill:1 oops\n{}",
        "[".repeat(50_000)
      ]
      for (const body of wrong) yield* ask(() => redis.publish(channel, body))
      yield* Effect.provideContext(Producer.publish(News, { act: "work" }), context)
      yield* until(Effect.sync(() => done.length > 0))
      const letters = inspector.deadLetters(Job.name, group, { after: Option.none(), limit: 100 })
      yield* until(Effect.map(letters, ({ length }) => length >= wrong.length))
      const bytes = (body: unknown) => Buffer.from(body as string).toString("base64")
      assert.sameMembers(
        (yield* letters).map(({ body }) => bytes(body)),
        wrong.map(bytes)
      )
      assert.isTrue((yield* letters).every(({ reason }) => reason === "DecodeFailure"))
      assert.deepStrictEqual(done, ["work"])
    }).pipe(play)
  )
})
