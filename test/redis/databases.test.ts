/**
 * Case A9: one prefix in several databases of one server. Channels know no database, so that what is published, woken
 * and sent back in one must not be heard in another.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, Option, References } from "effect"
import { Inspector, Settlement, Transport } from "waybill"
import { IoRedis, RedisInspector, RedisPubSub } from "waybill/redis"
import { client, outgoing } from "./Fixture.ts"
import * as Patterns from "./Patterns.ts"

const prefix = "a9"

const server = RedisServer.layer()

const live = { timeout: 30_000 }

/** A layer in a database, as a program of its own has it. */
const programIn = Effect.fnUntraced(function* (
  db: number,
  pattern: Layer.Layer<Transport.AtMostOnce | Inspector.Inspector, never, IoRedis.IoRedis>
) {
  const { url } = yield* RedisServer.RedisServer
  // Once by the URL and once by the option.
  const redis = db % 2 === 0 ? IoRedis.layer({ url, db }) : IoRedis.layer({ url: `${url}/${db}` })
  const context = yield* Layer.build(pattern.pipe(Layer.provide(redis))).pipe(
    Effect.provideService(References.MinimumLogLevel, "None")
  )
  const transport = Context.get(context, Transport.AtMostOnce)
  return {
    transport,
    inspector: Context.get(context, Inspector.Inspector),
    listen: (topic: string) =>
      transport.receive({
        topic,
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.millis(50)
      })
  }
})

/** A tool beside the layer. */
const toolIn = Effect.fnUntraced(function* (db: number) {
  const { url } = yield* RedisServer.RedisServer
  const tool = RedisInspector.layer({ prefix }).pipe(Layer.provide(IoRedis.layer({ url, db })))
  return Context.get(yield* Layer.build(tool), Inspector.Inspector)
})

const letters = (inspector: Inspector.Inspector["Service"], topic: string) =>
  inspector.deadLetters(topic, "g", { after: Option.none(), limit: 10 })

describe("case A9: databases", () => {
  for (const [kind, channels, topic] of [
    ["plain channels", "plain", "t"],
    ["sharded channels", "sharded", "t"],
    ["patterns", "plain", "t*"]
  ] as const) {
    it.live(
      `what is published in a database is heard in it alone: ${kind}`,
      () =>
        Effect.gen(function* () {
          const programs = yield* Effect.forEach([0, 1, 2, 11], (db) =>
            programIn(db, RedisPubSub.layer({ prefix, channels }))
          )
          const receivers = yield* Effect.forEach(programs, ({ listen }) => listen(topic))
          // The last one has heard everything before it when it hears its own.
          for (const [i, { transport }] of programs.entries()) yield* transport.publish("t", [outgoing(`of ${i}`)])
          for (const [i, { transport }] of programs.entries()) yield* transport.publish("t", [outgoing(`end ${i}`)])
          for (const [i, receiver] of receivers.entries()) {
            const heard: Array<unknown> = []
            while (heard.at(-1) !== `end ${i}`) {
              for (const { body, topic } of yield* receiver.take(1)) {
                heard.push(body)
                assert.strictEqual(topic, "t")
              }
            }
            assert.deepStrictEqual(heard, [`of ${i}`, `end ${i}`])
          }
        }).pipe(Effect.provide(server)),
      live
    )

    it.live(
      `a dead letter is sent back to its own database: ${kind}`,
      () =>
        Effect.gen(function* () {
          const pattern = RedisPubSub.layer({ prefix, channels })
          const [one, ...others] = yield* Effect.forEach([1, 2, 0], (db) => programIn(db, pattern))
          assert(one !== undefined)
          yield* Effect.scoped(
            Effect.gen(function* () {
              const receiver = yield* one.listen(topic)
              yield* one.transport.publish("t", [outgoing("bad")])
              const [delivery] = yield* receiver.take(1)
              yield* receiver.settle([[delivery, Settlement.deadLetter("Bad", "cause")]])
            })
          )
          for (const { listen } of others) yield* listen(topic)
          const tool = yield* toolIn(1)
          const [letter] = yield* letters(tool, topic)
          assert(letter !== undefined)
          for (const inspector of [one.inspector, tool]) {
            assert.strictEqual(yield* inspector.redrive(topic, "g", [letter.entry]), 0)
            assert.strictEqual((yield* letters(inspector, topic)).length, 1)
          }
          const receiver = yield* one.listen(topic)
          assert.strictEqual(yield* tool.redrive(topic, "g", [letter.entry]), 1)
          const [delivery] = yield* receiver.take(1)
          assert.deepStrictEqual([delivery.body, delivery.topic], ["bad", "t"])
          assert.deepStrictEqual(yield* letters(tool, topic), [])
        }).pipe(Effect.provide(server)),
      live
    )
  }

  for (const [name, pattern] of Object.entries(Patterns.storing)) {
    it.live(
      `a database wakes its own consumers alone, and at once: ${name}`,
      () =>
        Effect.gen(function* () {
          const { url } = yield* RedisServer.RedisServer
          const spy = yield* client(url)
          const heard: Array<string> = []
          spy.on("pmessage", (_: string, channel: string) => heard.push(channel))
          yield* Effect.promise(() => spy.psubscribe(`{${prefix}:*`))
          // Without a wake nothing is found within the time of the test.
          const options = { prefix, pollInterval: "1 hour" } as const
          const consumer = yield* programIn(1, pattern(options))
          const producer = yield* programIn(1, pattern(options))
          const receiver = yield* consumer.listen("t")
          const due = { _tag: "After", delay: Duration.millis(300) } as const
          yield* producer.transport.publish("t", [outgoing({ body: "late", due })])
          yield* producer.transport.publish("t", [outgoing("now")])
          const bodies: Array<unknown> = []
          while (bodies.length < 2) bodies.push(...(yield* receiver.take(1)).map(({ body }) => body))
          assert.deepStrictEqual(bodies, ["now", "late"])
          // What was published before the PING is read before its reply.
          yield* Effect.promise(() => spy.call("PING"))
          assert.isNotEmpty(heard)
          assert.deepStrictEqual(new Set(heard), new Set([`{${prefix}:t}:wake@1`]))
        }).pipe(Effect.provide(server)),
      live
    )
  }
})
