/**
 * What is large travels in pieces: other clients of the server notice nothing, and all of it arrives once.
 */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Effect, Layer, Option, References, Schedule, Schema } from "effect"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { IoRedis } from "waybill/redis"
import * as Patterns from "./Patterns.ts"

const servers = Patterns.redis.pipe(Layer.provideMerge(RedisServer.layer()))

const quiet = Layer.succeed(References.MinimumLogLevel, "None")

/** How many scripts ran meanwhile. How long each of them takes is not asked: a busy machine holds up the server itself. */
const watched = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const { commands } = yield* IoRedis.IoRedis
  const look = Effect.map(
    commands.run("info", [], (redis) => redis.info("commandstats")),
    (stats) => Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
  )
  const before = yield* look
  const value = yield* effect
  return { value, scripts: (yield* look) - before }
})

const until = (topic: string, found: (letters: number) => boolean) =>
  Effect.flatMap(Inspector.Inspector, (inspector) =>
    Effect.repeat(inspector.describe(topic), {
      until: ({ groups }) => found(groups[0]?.deadLetters ?? 0),
      schedule: Schedule.spaced("50 millis")
    })
  )

for (const [name, pattern] of Object.entries(Patterns.all)) {
  /** What is only sent has no id of the producer's own. */
  const stores = name !== "RedisPubSub"
  layer(
    pattern({ prefix: "large", publishTimeout: "50 seconds" }).pipe(
      Layer.provideMerge(servers),
      Layer.provideMerge(quiet)
    ),
    { excludeTestServices: true, timeout: "60 seconds" }
  )(name, (it) => {
    it.effect(
      "case B1: a call of very many messages is stored in parts that nobody else notices",
      () =>
        Effect.gen(function* () {
          const Text = Topic.make("texts", { payload: Schema.String, key: (text) => text, guarantee: "at-most-once" })
          const count = 20_000
          const payloads = Array.from({ length: count }, (_, i) => `message ${i}`)
          // With all that makes arguments: more of them than a command may have.
          const { scripts, value: receipts } = yield* watched(
            Producer.publishAll(Text, payloads, (_, i) => ({
              headers: { index: String(i) },
              ...(stores ? { id: `many-${i}`, delay: "1 day" } : {})
            }))
          )
          assert.isTrue(
            receipts.every(({ _tag, id }, i) => (stores ? _tag === "Stored" && id === `many-${i}` : _tag === "Sent"))
          )
          assert.strictEqual(receipts.length, count)
          const inspector = yield* Inspector.Inspector
          if (stores) assert.strictEqual((yield* inspector.describe(Text.name)).delayed, count)
          assert.isAtLeast(scripts, count / 250)
        }),
      60_000
    )

    it.effect(
      "case B3: large messages that are published at the same time do not travel as one",
      () =>
        Effect.gen(function* () {
          const Shared = Topic.make("headers", { payload: Schema.String, guarantee: "at-most-once" })
          const headers = { large: "h".repeat(700_000) }
          const { scripts, value: receipts } = yield* watched(
            Effect.forEach(
              Array.from({ length: 40 }, (_, i) => i),
              (i) => Producer.publish(Shared, "abc", { headers, ...(stores ? { id: `h-${i}` } : {}) }),
              { concurrency: "unbounded" }
            )
          )
          assert.isTrue(receipts.every(({ _tag }) => _tag === (stores ? "Stored" : "Sent")))
          assert.isAtLeast(scripts, 7)
        }),
      60_000
    )

    it.effect(
      "case B4: a call of more than fits into a command is stored in parts",
      () =>
        Effect.gen(function* () {
          const Large = Topic.make("bodies", { payload: Schema.String, guarantee: "at-most-once" })
          const payload = "x".repeat(900_000)
          const { scripts, value: receipts } = yield* watched(
            Producer.publishAll(Large, Array<string>(20).fill(payload), (_, i) => (stores ? { id: `b-${i}` } : {}))
          )
          assert.deepStrictEqual(
            receipts.map(({ _tag, id }) => (stores ? `${_tag} ${id}` : _tag)),
            Array.from({ length: 20 }, (_, i) => (stores ? `Stored b-${i}` : "Sent"))
          )
          assert.isAtLeast(scripts, 20)
        }),
      60_000
    )

    it.effect.skipIf(!stores)(
      "case B6: large messages that are due at the same time come in a few at a time",
      () =>
        Effect.gen(function* () {
          const Due = Topic.make("due", { payload: Schema.String, guarantee: "at-most-once" })
          const count = 30
          const moves = Effect.map(
            Effect.flatMap(IoRedis.IoRedis, ({ commands }) =>
              commands.run("info", [], (redis) => redis.info("commandstats"))
            ),
            (stats) => Number(/cmdstat_zrem:calls=(\d+)/.exec(stats)?.[1] ?? 0)
          )
          yield* Producer.publishAll(Due, Array<string>(count).fill("x".repeat(300_000)), () => ({ delay: "1 millis" }))
          const before = yield* moves
          const all = yield* Deferred.make<void>()
          let handled = 0
          yield* Layer.build(
            Consumer.make(Due, { group: "g", concurrency: 50 }).pipe(
              Consumer.process(() => (++handled === count ? Deferred.succeed(all, undefined) : Effect.void)),
              Consumer.layer
            )
          )
          yield* Deferred.await(all)
          assert.isAtLeast((yield* moves) - before, 4)
        }).pipe(Effect.scoped),
      60_000
    )

    it.effect(
      "case B5: reasons of megabytes are cut, and every failure is a dead letter",
      () =>
        Effect.gen(function* () {
          const Failing = Topic.make("failing", { payload: Schema.Int, guarantee: "at-most-once" })
          const reason = "ü".repeat(4_000_000)
          yield* Layer.build(
            Consumer.make(Failing, { group: "g", concurrency: 50 }).pipe(
              Consumer.process(() => Effect.fail("no")),
              Consumer.orElse(Consumer.deadLetter(reason)),
              Consumer.layer
            )
          )
          yield* Producer.publishAll(
            Failing,
            Array.from({ length: 150 }, (_, i) => i)
          )
          yield* until(Failing.name, (letters) => letters === 150)
          const inspector = yield* Inspector.Inspector
          const letters = yield* inspector.deadLetters(Failing.name, "g", { after: Option.none(), limit: 150 })
          for (const letter of letters) {
            assert.isAtMost(Buffer.byteLength(letter.reason), 1024)
            assert.match(letter.reason, /^ü{500,}\.\.\.$/)
          }
        }),
      60_000
    )

    it.effect(
      "case B5: large messages that fail at the same time are not dead-lettered in one step",
      () =>
        Effect.gen(function* () {
          const Failing = Topic.make("letters", { payload: Schema.String, guarantee: "at-most-once" })
          const all = yield* Deferred.make<void>()
          let running = 0
          yield* Layer.build(
            Consumer.make(Failing, { group: "g", concurrency: 40 }).pipe(
              Consumer.process(() =>
                Effect.suspend(() => {
                  if (++running === 40) Deferred.doneUnsafe(all, Effect.void)
                  return Effect.andThen(Deferred.await(all), Effect.fail("no"))
                })
              ),
              Consumer.orElse(Consumer.deadLetter("large")),
              Consumer.layer
            )
          )
          yield* Producer.publishAll(Failing, Array<string>(39).fill("x".repeat(900_000)))
          const { scripts } = yield* watched(
            Effect.andThen(
              Producer.publish(Failing, "the last one"),
              until(Failing.name, (letters) => letters === 40)
            )
          )
          assert.isAtLeast(scripts, 9)
        }),
      60_000
    )
  })
}
