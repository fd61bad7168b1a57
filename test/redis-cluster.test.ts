import { assert, describe, it } from "@effect/vitest"
import { RedisCluster } from "@waybill/testing"
import { Effect } from "effect"
import { Redis } from "ioredis"

/** What a server that knows nothing of the fixture says. */
const ask = <A>({ port }: { readonly port: number }, f: (redis: Redis) => Promise<A>): Effect.Effect<A> =>
  Effect.promise(async () => {
    const redis = new Redis(port, { retryStrategy: null })
    try {
      return await f(redis)
    } finally {
      redis.disconnect()
    }
  })

const get = (node: { readonly port: number }, key: string) =>
  ask(node, (redis) => redis.get(key).catch(({ message }: Error) => message))

it.layer(RedisCluster.layer())("RedisCluster", (it) => {
  it.effect("three masters share the slots, each with a replica that follows", () =>
    Effect.gen(function* () {
      const cluster = yield* RedisCluster.RedisCluster
      const keys = ["a", "b", "c"]
      const masters = yield* Effect.forEach(keys, cluster.masterOf)
      assert.strictEqual(new Set(masters).size, 3)
      for (const [i, key] of keys.entries()) {
        const master = masters[i]
        const replica = yield* cluster.replicaOf(key)
        assert.notInclude(masters, replica)
        assert.isTrue(master !== undefined && (yield* ask(master, (redis) => redis.set(key, "1"))) === "OK")
        assert.strictEqual(yield* ask(replica, (redis) => redis.role().then(([role]) => role)), "slave")
      }
      yield* cluster.flush
      assert.isNull(yield* get(yield* cluster.masterOf("a"), "a"))
    })
  )

  it.effect("a slot moves with its keys, step by step or as a whole", () =>
    Effect.gen(function* () {
      const cluster = yield* RedisCluster.RedisCluster
      const [from, to] = [yield* cluster.masterOf("{a}"), yield* cluster.masterOf("{b}")]
      yield* ask(from, (redis) => Promise.all(Array.from({ length: 25 }, (_, i) => redis.set(`{a}${i}`, i))))
      const migration = yield* cluster.beginMigration("{a}", to)
      assert.strictEqual(yield* migration.move(7), 7)
      const sources = yield* Effect.forEach(Array.from({ length: 25 }), (_, i) => get(from, `{a}${i}`))
      assert.strictEqual(sources.filter((reply) => reply?.startsWith("ASK")).length, 7)
      while ((yield* migration.move(10)) > 0);
      yield* migration.finish
      assert.strictEqual(yield* cluster.masterOf("{a}"), to)
      assert.strictEqual(yield* get(to, "{a}24"), "24")
      assert.match(String(yield* get(from, "{a}24")), /^MOVED /)
      yield* cluster.migrate("{a}", from)
      assert.strictEqual(yield* get(from, "{a}24"), "24")
      yield* cluster.whole
    })
  )

  it.effect("a replica takes over: asked to without loss, and after a kill without what it was cut off from", () =>
    Effect.gen(function* () {
      const cluster = yield* RedisCluster.RedisCluster
      const [old, next] = [yield* cluster.masterOf("c"), yield* cluster.replicaOf("c")]
      yield* ask(old, (redis) => redis.set("c", "kept"))
      yield* cluster.failOver("c")
      assert.strictEqual(yield* cluster.masterOf("c"), next)
      assert.strictEqual(yield* get(next, "c"), "kept")
      yield* cluster.whole
      const mend = yield* cluster.cutReplica("c")
      yield* ask(next, (redis) => redis.set("c", "lost"))
      yield* next.kill
      yield* cluster.whole
      assert.strictEqual(yield* cluster.masterOf("c"), old)
      assert.strictEqual(yield* get(old, "c"), "kept")
      yield* mend
      yield* next.start
      yield* cluster.whole
      assert.strictEqual(yield* cluster.replicaOf("c"), next)
    })
  )
})

describe("the processes of a cluster", () => {
  it.effect("end with the scope", () =>
    Effect.gen(function* () {
      const nodes = yield* Effect.scoped(
        Effect.map(RedisCluster.make({ masters: 1, replicas: 0 }), (cluster) => cluster.nodes)
      )
      for (const node of nodes) assert.isUndefined(yield* node.pid)
    })
  )
})
