import { assert, it } from "@effect/vitest"
import { RedisSentinel } from "@waybill/testing"
import { Effect } from "effect"
import { Redis } from "ioredis"

const passwords = { password: "of-servers", sentinelPassword: "of-sentinels" }

/** What a server that knows nothing of the fixture says. */
const ask = <A>({ port }: { readonly port: number }, f: (redis: Redis) => Promise<A>): Effect.Effect<A> =>
  Effect.promise(async () => {
    const redis = new Redis(port, { retryStrategy: null, password: passwords.password })
    try {
      return await f(redis)
    } finally {
      redis.disconnect()
    }
  })

it.layer(RedisSentinel.layer(passwords))("RedisSentinel", (it) => {
  it.effect("a replica takes over: asked to, and after a kill without what it was cut off from", () =>
    Effect.gen(function* () {
      const { cutReplica, failOver, master, replica, servers, successorOf, whole } = yield* RedisSentinel.RedisSentinel
      const old = yield* master
      assert.strictEqual(old, servers[0])
      // Sentinel does not wait for what has yet to reach the replica.
      assert.strictEqual(yield* ask(old, (redis) => redis.set("k", "kept").then(() => redis.wait(1, 0))), 1)
      const next = yield* failOver
      assert.strictEqual(yield* ask(next, (redis) => redis.set("k", "again", "GET")), "kept")
      yield* whole
      assert.strictEqual(yield* replica, old)
      const mend = yield* cutReplica
      yield* ask(next, (redis) => redis.set("k", "lost"))
      yield* next.kill
      assert.strictEqual(yield* successorOf(next), old)
      assert.strictEqual(yield* ask(old, (redis) => redis.get("k")), "again")
      yield* mend
      yield* next.start
      yield* whole
    })
  )
})
