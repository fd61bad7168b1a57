/**
 * `waybill dead redrive --yes` killed half way, again and again, and then run to its end: every message is in exactly one
 * place at any time, and in the end all are back with their group, each once.
 */
import type { ChildProcess } from "node:child_process"
import { assert, layer } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, References } from "effect"
import type { Redis } from "ioredis"
import { Settlement, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisLists, RedisStreams } from "waybill/redis"
import { client, outgoing } from "../redis/Fixture.ts"
import { complete, sampled } from "../Sample.ts"
import { start } from "./Terminal.ts"

const count = complete ? 20_000 : 5000
const batch = 1000
const kills = 3

interface Place {
  readonly dead: ReadonlyArray<string>
  readonly back: ReadonlyArray<string>
}

const fieldOf = (fields: ReadonlyArray<string>, name: string) => fields[fields.indexOf(name) + 1] ?? ""

const keyOf = (topic: string, name: string) => `{waybill:${topic}}:group:g:${name}`

const idsOf = async (redis: Redis, key: string) =>
  (await redis.xrange(key, "-", "+")).map(([, fields]) => fieldOf(fields, "id"))

/** In lists, messages that brought an id are known by it; those that nobody has a record of are not there. */
const inLists = async (redis: Redis, topic: string) => {
  const ids = await redis.lrange(keyOf(topic, "returned"), 0, -1)
  const records = ids.length === 0 ? [] : await redis.hmget(`{waybill:${topic}}:bodies`, ...ids)
  return {
    dead: await idsOf(redis, keyOf(topic, "dead")),
    back: ids.filter((_, i) => records[i] !== null)
  }
}

/** Looks past the library, at what docs/wire-format.md and docs/lists.md call the keys. */
const places: Record<string, (redis: Redis, topic: string) => Promise<Place>> = {
  streams: async (redis, topic) => ({
    dead: await idsOf(redis, keyOf(topic, "dead")),
    back: await idsOf(redis, keyOf(topic, "retry"))
  }),
  lists: inLists,
  "exactly-once": inLists
}

/** What is wrong, if anything: how many are nowhere, and how many are there once too often. */
const wrong = ({ back, dead }: Place) => {
  const all = [...dead, ...back]
  const there = new Set(all)
  return { lost: count - there.size, doubled: all.length - there.size }
}

const redrive = (topic: string, url: string) => start(["dead", "redrive", topic, "g", "--yes", "--json"], { url })

/** Ends when the process does; answers its exit code, or none when it was killed. */
const ended = (child: ChildProcess) =>
  Effect.callback<number | null>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.succeed(child.exitCode))
    child.once("close", (code) => resume(Effect.succeed(code)))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

const deadLetter = Effect.fnUntraced(function* (topic: string, url: string, pattern: (typeof patterns)[number][1]) {
  const context = yield* Layer.build(pattern.pipe(Layer.provide(IoRedis.layer({ url }))))
  const transport = Context.get(context, Transport.AtMostOnce)
  const receiver = yield* transport.receive({
    topic,
    group: "g",
    start: "earliest",
    lease: Duration.seconds(30),
    maxDeliveries: 5,
    shutdown: Duration.seconds(1)
  })
  for (let from = 0; from < count; from += batch) {
    const [first, ...others] = Array.from({ length: batch }, (_, i) =>
      outgoing({ id: `m${from + i}`, body: String(from + i) })
    )
    assert(first !== undefined)
    yield* transport.publish(topic, [first, ...others])
    for (let deadLettered = 0; deadLettered < batch;) {
      const [one, ...more] = yield* receiver.take(batch - deadLettered)
      const end = Settlement.deadLetter("Bad", "cause")
      yield* receiver.settle([[one, end], ...more.map((delivery) => [delivery, end] as const)])
      deadLettered += 1 + more.length
    }
  }
})

const patterns = [
  ["streams", RedisStreams.layer()],
  ["lists", RedisLists.layer()],
  ["exactly-once", RedisExactlyOnce.layer()]
] as const

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("a redrive that is killed", (it) => {
  it.effect.each(sampled("killed redrives", patterns, 2))(
    "loses and doubles nothing: %s",
    ([topic, pattern]) =>
      Effect.gen(function* () {
        const { port, url } = yield* RedisServer.RedisServer
        // Every command of the redrive goes through this process: however slow that is, it sees each step in time to kill.
        const proxy = yield* FaultProxy.make(port)
        const redis = yield* client(url)
        const look = Effect.promise(() => places[topic]!(redis, topic))
        // Nobody takes meanwhile: the group is left before anything comes back.
        yield* Effect.scoped(deadLetter(topic, url, pattern))
        assert.strictEqual((yield* look).dead.length, count)

        let left = count
        for (let kill = 1; kill <= kills; kill++) {
          const child = yield* redrive(topic, proxy.url)
          const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
          const before = left
          while (left > before - 500 && over.pollUnsafe() === undefined) {
            left = yield* Effect.promise(() => redis.xlen(keyOf(topic, "dead")))
          }
          child.kill("SIGKILL")
          assert.isNull(yield* ended(child), "it was killed before its end")
          const found = yield* look
          left = found.dead.length
          assert.isAbove(left, 0)
          assert.isBelow(left, before)
          assert.deepStrictEqual(wrong(found), { lost: 0, doubled: 0 }, `after kill ${kill}, with ${left} left`)
        }
        const last = yield* redrive(topic, url)
        let out = ""
        last.stdout?.on("data", (chunk) => (out += chunk))
        assert.strictEqual(yield* ended(last), 0)
        assert.strictEqual(JSON.parse(out).done, left)
        const found = yield* look
        assert.strictEqual(found.dead.length, 0)
        assert.deepStrictEqual(wrong(found), { lost: 0, doubled: 0 })
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    120_000
  )

  it.effect("the check notices a redrive in two steps that was killed between them", () =>
    Effect.sync(() => {
      const dead = Array.from({ length: count }, (_, i) => `m${i}`)
      assert.deepStrictEqual(wrong({ dead, back: dead.slice(0, 200) }), { lost: 0, doubled: 200 })
      assert.deepStrictEqual(wrong({ dead: dead.slice(200), back: [] }), { lost: 200, doubled: 0 })
      assert.deepStrictEqual(wrong({ dead: dead.slice(1), back: ["m0", "m0"] }), { lost: 0, doubled: 1 })
    })
  )
})
