import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Effect, Fiber, Layer, Queue, Schedule, Schema } from "effect"
import { PersistedQueue, RateLimiter, Redis } from "effect/persistence"
import { IoRedis } from "waybill/redis"

const live = IoRedis.layerEffectRedis({ maxConnections: 2, acquireTimeout: "3 seconds" }).pipe(
  Layer.provideMerge(Layer.unwrap(Effect.map(FaultProxy.FaultProxy, (proxy) => IoRedis.layerUrl(proxy.url)))),
  Layer.provideMerge(FaultProxy.layer),
  Layer.provideMerge(RedisServer.layer())
)

describe("EffectRedis", () => {
  it.live("sends commands, with the replies that Effect's own clients give", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.Redis
      assert.strictEqual(yield* redis.send("SET", "k", "v"), "OK")
      assert.strictEqual(yield* redis.send("GET", "k"), "v")
      assert.strictEqual(yield* redis.send("INCR", "n"), 1)
      yield* redis.send("HSET", "h", "field", "1")
      assert.deepStrictEqual(yield* redis.send("HGETALL", "h"), ["field", "1"])
      yield* redis.send("ZADD", "z", "1.5", "member")
      assert.deepStrictEqual(yield* redis.send("ZRANGE", "z", "0", "-1", "WITHSCORES"), ["member", "1.5"])
      yield* redis.send("XADD", "s", "1-1", "a", "b")
      yield* redis.send("XGROUP", "CREATE", "s", "g", "0")
      const expected = [["s", [["1-1", ["a", "b"]]]]]
      assert.deepStrictEqual(yield* redis.send("XREAD", "STREAMS", "s", "t", "0", "0"), expected)
      assert.deepStrictEqual(yield* redis.send("xreadgroup", "GROUP", "g", "c", "STREAMS", "s", ">"), expected)
      assert.isNull(yield* redis.send("XREAD", "STREAMS", "s", "$"))
      const error = yield* Effect.flip(redis.send("LPUSH", "k", "v"))
      assert.deepInclude(error.cause, { _tag: "WrongKeyType", key: "k" })
      const push = redis.send("EVAL", "return redis.call('LPUSH', KEYS[1], ARGV[1])", "1", "k", "v")
      assert.deepInclude((yield* Effect.flip(push)).cause, { _tag: "WrongKeyType", key: "k" })
    }).pipe(Effect.provide(live))
  )

  it.live("evaluates scripts, also after the server forgot them", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.Redis
      const add = redis.eval(
        Redis.script((key: string, by: number) => [key, by], {
          lua: `return redis.call("INCRBY", KEYS[1], ARGV[1])`,
          numberOfKeys: 1
        }).withReturnType<number>()
      )
      assert.strictEqual(yield* add("n", 2), 2)
      yield* redis.send("SCRIPT", "FLUSH")
      assert.strictEqual(yield* add("n", 3), 5)
    }).pipe(Effect.provide(live))
  )

  it.live("reserves connections for what blocks, no more than the pool has, and takes them back", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.Redis
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* redis.reserve
          yield* redis.reserve
          const popped = yield* Effect.forkChild(first.send("BLPOP", "list", "0"), { startImmediately: true })
          assert.include(String((yield* Effect.flip(redis.reserve)).cause), "Timed out")
          yield* redis.send("RPUSH", "list", "one")
          assert.deepStrictEqual(yield* Fiber.join(popped), ["list", "one"])
        })
      )
      // Given back with a command on it, the connection is closed: it must not swallow what comes next.
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* redis.reserve
          const abandoned = yield* Effect.forkChild(connection.send("BLPOP", "list", "0"), { startImmediately: true })
          yield* Fiber.interrupt(abandoned)
        })
      )
      yield* redis
        .send("INFO", "clients")
        .pipe(Effect.repeat({ until: (info) => String(info).includes("blocked_clients:0") }))
      yield* redis.send("RPUSH", "list", "two")
      assert.strictEqual(yield* redis.send("LPOP", "list"), "two")
    }).pipe(Effect.provide(live))
  )

  it.live("subscribes, and again on each new connection", () =>
    Effect.gen(function* () {
      const redis = yield* Redis.Redis
      const proxy = yield* FaultProxy.FaultProxy
      const messages = yield* redis.subscribe("news")
      assert.strictEqual(yield* redis.send("PUBLISH", "news", "one"), 1)
      assert.deepStrictEqual(yield* Queue.take(messages), { channel: "news", message: "one" })
      yield* proxy.reset
      // What is published before it is back finds no subscriber.
      yield* redis
        .send<number>("PUBLISH", "news", "two")
        .pipe(
          Effect.retry({ times: 10 }),
          Effect.repeat({ until: (receivers) => receivers === 1, schedule: Schedule.spaced(10) })
        )
      assert.deepStrictEqual(yield* Queue.take(messages), { channel: "news", message: "two" })
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.live("tells a subscriber that the server does not want it", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const redis = yield* Redis.Redis
      yield* commands.run("ACL", [], (client) => client.acl("SETUSER", "default", "resetchannels"))
      const messages = yield* redis.subscribe("news")
      const error = yield* Effect.flip(Queue.take(messages))
      assert.deepInclude(error.cause, { _tag: "NotPermitted", command: "subscribe" })
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.live("carries a PersistedQueue through a lost connection", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const queue = yield* PersistedQueue.make({ name: "orders", schema: Schema.Struct({ id: Schema.Int }) })
      yield* queue.offer({ id: 1 }, { id: "1" })
      yield* queue.offer({ id: 1 }, { id: "1" })
      yield* queue.offer({ id: 2 }, { id: "2" })
      const taken: Array<number> = []
      yield* queue.take(({ id }) => Effect.sync(() => taken.push(id)))
      yield* proxy.reset
      yield* queue.take(({ id }) => Effect.sync(() => taken.push(id)))
      assert.deepStrictEqual(taken, [1, 2])
    }).pipe(
      Effect.provide(
        PersistedQueue.layer.pipe(
          Layer.provide(PersistedQueue.layerStoreRedis({ pollInterval: "50 millis" })),
          Layer.provideMerge(live)
        )
      )
    )
  )

  it.live("carries a RateLimiter", () =>
    Effect.gen(function* () {
      const limiter = yield* RateLimiter.RateLimiter
      const consume = limiter.consume({ algorithm: "fixed-window", key: "api", limit: 2, window: "1 minute" })
      assert.strictEqual((yield* consume).remaining, 1)
      assert.strictEqual((yield* consume).remaining, 0)
      const error = yield* Effect.flip(consume)
      assert.strictEqual(error.reason._tag, "RateLimitExceeded")
    }).pipe(Effect.provide(RateLimiter.layer.pipe(Layer.provide(RateLimiter.layerStoreRedis()), Layer.provide(live))))
  )
})
