/** Publishes one message to each of so many topics, lets 15 seconds pass, and says what a topic costs, before and after. */
import { Effect, Metric, References, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Producer, Topic } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"

const [url = "", count = "0", ...patterns] = process.argv.slice(2)

const layers = {
  streams: RedisStreams.layer({ prefix: "streams" }),
  lists: RedisLists.layer({ prefix: "lists" }),
  "exactly-once": RedisExactlyOnce.layer({ prefix: "exactly-once" }),
  keyspace: RedisKeyspace.layer({ prefix: "keyspace", notifications: "poll" }),
  pubsub: RedisPubSub.layer({ prefix: "pubsub" }),
  "memory streams": MemoryStreams.layer(),
  "memory lists": MemoryLists.layer(),
  "memory exactly-once": MemoryExactlyOnce.layer(),
  "memory keyspace": MemoryKeyspace.layer(),
  "memory pubsub": MemoryPubSub.layer()
}

const publish = (name: string) =>
  Producer.publish(Topic.make(name, { payload: Schema.String, guarantee: "at-most-once" }), "x")

/** Bytes that are used when nothing more is freed. Node was started with --expose-gc. */
const heap = Effect.promise(async () => {
  let before = Infinity
  for (let left = 100; left > 0; left--) {
    globalThis.gc?.()
    const now = process.memoryUsage().heapUsed
    if (now > before - 20_000) return now
    before = now
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error("the heap goes on shrinking")
})

const measure = Effect.fnUntraced(function* (pattern: string) {
  const n = Number(count)
  const all = (name: string, n: number) =>
    Effect.forEach(Array.from({ length: n }).keys(), (i) => publish(`${pattern} ${name}${i}`.replaceAll(" ", "-")), {
      concurrency: 200,
      discard: true
    })
  yield* all("first", 200)
  yield* TestClock.adjust("15 seconds")
  const empty = yield* heap
  yield* all("topic", n)
  const used = yield* heap
  yield* TestClock.adjust("15 seconds")
  const idle = yield* heap
  return [pattern, Math.round((used - empty) / n), Math.round((idle - empty) / n)]
})

const program = Effect.forEach(patterns, (pattern) =>
  measure(pattern).pipe(
    // Whoever starts this process knows the names.
    Effect.provide(layers[pattern as keyof typeof layers]),
    Effect.provide(IoRedis.layer({ url })),
    Effect.provide(TestClock.layer()),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
)

const figures = await Effect.runPromise(Effect.provideService(program, References.MinimumLogLevel, "None"))
process.stdout.write(JSON.stringify(figures))
process.exit(0)
