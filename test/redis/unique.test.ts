/** What the store records about ids that producers choose. */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, References, Schema } from "effect"
import type { Redis } from "ioredis"
import { Producer, Settlement, Topic, Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import { ClaimedDelivery } from "../../packages/waybill/src/redis/internal/claims/ClaimedDelivery.ts"
import { becomes, client, make, outgoing } from "./Fixture.ts"
import * as Patterns from "./Patterns.ts"

const Task = Topic.make("tasks", { payload: Schema.String })

type Found = (redis: Redis, base: string, place: string) => Promise<number>

const inBodies: Found = (redis, base, place) => redis.hexists(`${base}bodies`, place)

/** Whether a message that is due is in its place. */
const stored: Record<keyof typeof Patterns.storing, Found> = {
  RedisStreams: (redis, base, place) => redis.xrange(`${base}stream`, place, place).then(({ length }) => length),
  RedisLists: inBodies,
  RedisExactlyOnce: inBodies,
  RedisKeyspace: (redis, base, place) => redis.exists(`${base}message:#${place}`)
}

layer(RedisServer.layer(), { excludeTestServices: true })("ids of producers", (it) => {
  it.effect.each(Object.entries(Patterns.storing))(
    "%s: the marker of an id says where its message is",
    ([name, pattern]) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const redis = yield* client(url)
        const base = `{${name}:tasks}:`
        const published = Effect.andThen(
          Producer.publish(Task, "now", { id: "now" }),
          Producer.publish(Task, "later", { id: "later", delay: "1 hour" })
        )
        yield* Effect.provide(published, pattern({ prefix: name }).pipe(Layer.provide(IoRedis.layer({ url }))))
        const [now, later] = yield* Effect.promise(() => redis.mget(`${base}seen:now`, `${base}seen:later`))
        assert.strictEqual(yield* Effect.promise(() => stored[name as keyof typeof stored](redis, base, now ?? "")), 1)
        assert.match(later ?? "", /^d/)
        assert.isNotNull(yield* Effect.promise(() => redis.zscore(`${base}delayed`, later?.slice(1) ?? "")))
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.effect.each(Object.entries(Patterns.storing))("%s: nothing is left of unique ids", ([name, pattern]) =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const redis = yield* client(url)
      const prefix = `left${name}`
      const unique = Effect.promise(() => redis.hkeys(`{${prefix}:t}:unique`))
      const layer = pattern({ prefix }).pipe(Layer.provide(IoRedis.layer({ url })))
      const { publish, receive } = Context.get(yield* Layer.build(layer), Transport.AtMostOnce)
      const ids = ["acked", "retried", "dead"]
      const subscription = {
        topic: "t",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(1)
      } as const
      const receiver = yield* receive(subscription)
      for (const id of ids) yield* publish("t", [outgoing({ body: id, id, unique: "until-settled" })])
      assert.sameMembers(yield* unique, ids)
      const endings = {
        acked: Settlement.ack,
        retried: Settlement.retry(Duration.zero, ""),
        dead: Settlement.deadLetter("", "")
      }
      for (let ended = 0; ended < 4;) {
        for (const delivery of yield* receiver.take(3)) {
          const ending = delivery.attempt > 1 ? Settlement.ack : endings[delivery.id as keyof typeof endings]
          yield* receiver.settle([[delivery, ending]])
          ended++
        }
      }
      assert.deepStrictEqual(yield* unique, [])
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.effect.each(["RedisLists", "RedisExactlyOnce", "RedisKeyspace"] as const)(
    "%s: the ack of a message with an id of its own is plain until a topic has unique ids",
    (name) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const layer = Patterns.storing[name]({ prefix: `plain${name}` }).pipe(Layer.provide(IoRedis.layer({ url })))
        const { publish, receive } = Context.get(yield* Layer.build(layer), Transport.AtMostOnce)
        const receiver = yield* receive({
          topic: "t",
          group: "g",
          start: "earliest",
          lease: Duration.seconds(10),
          maxDeliveries: 5,
          shutdown: Duration.seconds(1)
        })
        for (const unique of [undefined, "until-settled"] as const) {
          yield* publish("t", [outgoing({ body: "a", id: `${unique}`, ...(unique === undefined ? {} : { unique }) })])
          const [delivery] = yield* receiver.take(1)
          assert(delivery instanceof ClaimedDelivery)
          assert.strictEqual(delivery.handle.first !== undefined, unique !== undefined)
          yield* receiver.settle([[delivery, Settlement.ack]])
        }
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.effect("streams: ids of lost messages are freed, and looking for them costs little", () =>
    Effect.gen(function* () {
      const fixture = yield* make({ pollInterval: "100 millis" })
      const { groupKey, join, key, publish, redis } = fixture
      const lease = Duration.minutes(10)
      yield* join({ lease })
      yield* join({ lease })
      yield* fixture.inspector.pause("t", "g")
      const calls = (command: string) =>
        Effect.promise(async () =>
          Number(RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await redis.info("commandstats"))?.[1] ?? 0)
        )
      for (let n = 0; n < 50; n++) yield* publish({ body: "a", id: `x${n}`, unique: "until-settled" })
      const noted = Effect.promise(() => redis.hget(groupKey("state"), "unique"))
      yield* becomes(
        "a member has looked",
        Effect.map(noted, (at) => at !== null),
        true
      )
      yield* Effect.promise(() => redis.config("RESETSTAT"))
      yield* becomes(
        "beats",
        Effect.map(calls("evalsha"), (n) => n >= 6),
        true
      )
      assert.isBelow(yield* calls("xrange"), 20, "no entries are loaded")
      assert.strictEqual((yield* calls("hscan")) + (yield* calls("hrandfield")), 0, "once a lease")
      yield* Effect.promise(() => redis.xtrim(key("stream"), "MAXLEN", 1))
      yield* join({ lease: Duration.seconds(1) })
      yield* becomes(
        "the ids",
        Effect.promise(() => redis.hkeys(key("unique"))),
        ["x49"]
      )
    }).pipe(Effect.scoped)
  )

  it.effect("streams: an id that a retired group kept is freed if a group joins under its name", () =>
    Effect.gen(function* () {
      const { groupKey, inspector, joinAndLeave, publish, redis, settle, take } = yield* make({
        pollInterval: "100 millis"
      })
      const lease = Duration.seconds(1)
      const message = { body: "a", id: "x", unique: "until-settled" } as const
      const { leave, receiver } = yield* joinAndLeave({ lease })
      yield* publish(message)
      yield* settle(receiver, yield* take(receiver, 1), Settlement.retry(Duration.hours(1), "later"))
      yield* leave
      yield* inspector.retire("t", "g")
      const again = yield* joinAndLeave({ lease })
      yield* becomes(
        "the receipt",
        Effect.map(publish(message), ([receipt]) => receipt?._tag),
        "Stored"
      )
      // The new group keeps what it retries.
      yield* settle(again.receiver, yield* take(again.receiver, 1), Settlement.retry(Duration.hours(1), "later"))
      const noted = Effect.promise(() => redis.hget(groupKey("state"), "unique"))
      const before = yield* noted
      yield* becomes(
        "a member has looked",
        Effect.map(noted, (at) => at !== before),
        true
      )
      assert.strictEqual((yield* publish(message))[0]?._tag, "Duplicate")
    }).pipe(Effect.scoped)
  )
})
