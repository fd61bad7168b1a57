/** Publishing that waits for a replica, or for the disk. */
import { assert, describe, it, layer } from "@effect/vitest"
import { FaultProxy, RedisSentinel, RedisServer } from "@waybill/testing"
import { Effect, Exit, Fiber, Layer, Schema } from "effect"
import { Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisPubSub, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { storing } from "./Patterns.ts"

const topicOf = (name: string) => Topic.make(name, { payload: Schema.String, guarantee: "at-most-once" })

const reasonOf = <A, E, R>(publishing: Effect.Effect<A, E | Transport.TransportError, R>) =>
  Effect.map(Effect.flip(publishing), (error) => {
    assert.instanceOf(error, Transport.TransportError)
    return error
  })

/** What a replica has of a topic: at least its meta key. */
const has = (server: { readonly url: string }, topic: string) =>
  Effect.scoped(
    Effect.flatMap(Fixture.client(server.url), (redis) => Effect.promise(() => redis.exists(`{waybill:${topic}}:meta`)))
  )

layer(RedisSentinel.layer(), { excludeTestServices: true })("a master and its replica", (it) => {
  describe.each(sampled("durability", Object.keys(storing) as Array<keyof typeof storing>, 1))("%s", (name) => {
    it.effect("replicated: the replica has it, or publishing says that it may be lost, and waits again", () =>
      Effect.gen(function* () {
        const { cutReplica, master, replica } = yield* RedisSentinel.RedisSentinel
        const topic = topicOf(`orders-${name}`)
        const transport = storing[name]({ publishTimeout: "300 millis" }).pipe(
          Layer.provide(IoRedis.layer({ url: (yield* master).url }))
        )
        yield* Effect.gen(function* () {
          const replicated = { durability: "replicated" } as const
          yield* Producer.publish(topic, "first", replicated)
          assert.strictEqual(yield* has(yield* replica, topic.name), 1)
          const mend = yield* cutReplica
          const asking = yield* Effect.forkChild(
            reasonOf(Producer.publish(topic, "second", { ...replicated, id: "2" })),
            { startImmediately: true }
          )
          // Others do not wait.
          yield* Producer.publish(topic, "third")
          assert.isUndefined(asking.pollUnsafe())
          const { reason, stored } = yield* Fiber.join(asking)
          assert.strictEqual(reason._tag, "NotReplicated")
          assert.include(reason.message, "stored, but no replica confirmed it within")
          assert.isUndefined(stored)
          const all = yield* reasonOf(Producer.publishAll(topic, ["4", "5"], () => replicated))
          assert.strictEqual(all.reason._tag, "NotReplicated")
          assert.strictEqual(all.stored, 2)
          yield* mend
          const receipt = yield* Producer.publish(topic, "second", { ...replicated, id: "2" }).pipe(
            // The link comes back when the replica tries again.
            Effect.retry({ times: 20 })
          )
          assert.deepStrictEqual(receipt, { _tag: "Duplicate", id: "2" })
        }).pipe(Effect.provide(transport))
      })
    )
  })

  it.effect("the layer's choice counts where the producer makes none", () =>
    Effect.gen(function* () {
      const { cutReplica, master } = yield* RedisSentinel.RedisSentinel
      const topic = topicOf("defaults")
      const mend = yield* cutReplica
      yield* Effect.gen(function* () {
        assert.strictEqual((yield* reasonOf(Producer.publish(topic, "m"))).reason._tag, "NotReplicated")
        const receipts = yield* Producer.publishAll(topic, ["m"], () => ({ durability: "stored" }))
        assert.strictEqual(receipts[0]?._tag, "Stored")
      }).pipe(
        Effect.provide(
          RedisStreams.layer({ publishTimeout: "200 millis", durability: "replicated" }).pipe(
            Layer.provide(IoRedis.layer({ url: (yield* master).url }))
          )
        )
      )
      yield* mend
    })
  )

  it.effect("a batch whose reply was lost is stored once, and the replica is asked for it again", () =>
    Effect.gen(function* () {
      const { master, replica } = yield* RedisSentinel.RedisSentinel
      const topic = topicOf("lost-replies")
      const proxy = yield* FaultProxy.make((yield* master).port)
      yield* Effect.gen(function* () {
        // The server learns the script, and the connection is there.
        yield* Producer.publish(topic, "first", { durability: "replicated" })
        const before = (yield* proxy.commands).get("WAIT") ?? 0
        const dropped = yield* proxy.dropReply("EVALSHA")
        yield* Producer.publish(topic, "second", { durability: "replicated" })
        yield* dropped
        // The first was sent behind the script, and has not arrived, or its reply has not.
        assert.isAtLeast((yield* proxy.commands).get("WAIT") ?? 0, before + 1)
      }).pipe(Effect.provide(RedisStreams.layer().pipe(Layer.provide(IoRedis.layer({ url: proxy.url })))))
      const redis = yield* Fixture.client((yield* replica).url)
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(`{waybill:${topic.name}}:stream`)), 2)
    })
  )
})

describe("durability", () => {
  it.live("fsynced: where the server cannot confirm it, nothing is stored", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* Fixture.client(server.url)
      const topic = topicOf("orders")
      const { reason } = yield* reasonOf(Producer.publish(topic, "m", { durability: "fsynced" })).pipe(
        Effect.provide(RedisStreams.layer().pipe(Layer.provide(IoRedis.layer({ url: server.url }))))
      )
      assert.strictEqual(reason._tag, "NotOffered")
      assert.deepStrictEqual(yield* Effect.promise(() => redis.keys("*")), [])
    }).pipe(Effect.scoped)
  )

  it.live("fsynced: on disk once it succeeds", (context) =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ appendonly: "everysec" })
      const redis = yield* Fixture.client(server.url)
      const known = yield* Effect.promise(() => redis.call("COMMAND", "INFO", "WAITAOF"))
      if (!Array.isArray(known) || known[0] === null) return context.skip("the server does not know WAITAOF")
      const publish = (options: Parameters<typeof RedisStreams.layer>[0], payload: string) =>
        Producer.publish(topicOf("orders"), payload, { durability: "fsynced" }).pipe(
          Effect.provide(RedisStreams.layer(options).pipe(Layer.provide(IoRedis.layer({ url: server.url }))))
        )
      yield* publish({}, "first")
      // From here on the log is not written.
      yield* Effect.promise(() => redis.config("SET", "appendfsync", "no"))
      assert.strictEqual((yield* reasonOf(publish({ publishTimeout: "200 millis" }, "2"))).reason._tag, "NotFsynced")
    }).pipe(Effect.scoped)
  )

  it.effect("in memory there is nothing to wait for; where nothing is stored, it is refused", () =>
    Effect.gen(function* () {
      const options = { durability: "fsynced" } as const
      const receipt = yield* Producer.publish(topicOf("orders"), "m", options).pipe(
        Effect.provide(MemoryStreams.layer())
      )
      assert.strictEqual(receipt._tag, "Stored")
      const server = yield* RedisServer.make()
      const { reason } = yield* reasonOf(Producer.publish(topicOf("prices"), "m", options)).pipe(
        Effect.provide(RedisPubSub.layer().pipe(Layer.provide(IoRedis.layer({ url: server.url }))))
      )
      assert.strictEqual(reason._tag, "NotOffered")
      const mixed = (payload: string) => ({ durability: payload === "a" ? "fsynced" : "replicated" }) as const
      const both = yield* Effect.exit(Producer.publishAll(topicOf("orders"), ["a", "b"], mixed)).pipe(
        Effect.provide(MemoryStreams.layer())
      )
      assert.isTrue(Exit.hasDies(both))
    }).pipe(Effect.scoped)
  )
})
