/** Commands go where their keys are: over all masters, through slot migration, failover and kills. */
import { assert, layer } from "@effect/vitest"
import { RedisCluster } from "@waybill/testing"
import { Deferred, Effect, Exit, Fiber, Layer, Schema } from "effect"
import { Consumer, type Lifecycle, Producer, Topic, Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"

const redis = Layer.unwrap(
  // Only one of them: the others are named by it.
  Effect.map(RedisCluster.RedisCluster, ({ addresses }) => IoRedis.layer({ cluster: addresses.slice(0, 1) }))
)

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n)

const topicsOf = (prefix: string) => numbers(6).map((i) => Topic.make(`${prefix}${i}`, { payload: Schema.Number }))

/** A consumer of each topic, and what they have been given. */
const consumersOf = (topics: ReturnType<typeof topicsOf>, expected: number) => {
  const received = new Map(topics.map(({ name }) => [name, new Array<number>()]))
  const all = Deferred.makeUnsafe<void>()
  const [first, ...others] = topics.map((topic) =>
    Consumer.make(topic, { group: "g", lease: "5 seconds" }).pipe(
      Consumer.process((n) =>
        Effect.sync(() => {
          received.get(topic.name)?.push(n)
          const count = [...received.values()].reduce((sum, { length }) => sum + length, 0)
          if (count === topics.length * expected) Deferred.doneUnsafe(all, Exit.void)
        })
      ),
      Consumer.layer
    )
  )
  return { received, all: Deferred.await(all), layer: Layer.mergeAll(first!, ...others) }
}

/** Like a publish: one of the keys never exists. */
const script = {
  name: "count",
  lua: "#!lua\nredis.call('EXISTS', KEYS[2])\nreturn redis.call('HINCRBY', KEYS[1], ARGV[1], 1)"
}

layer(RedisCluster.layer(), { excludeTestServices: true, timeout: "60 seconds" })("a cluster", (it) => {
  it.effect("topics on every master in one program", () =>
    Effect.gen(function* () {
      const cluster = yield* RedisCluster.RedisCluster
      const topics = topicsOf("spread")
      const masters = yield* Effect.forEach(topics, ({ name }) => cluster.masterOf(`{waybill:${name}}`))
      assert.strictEqual(new Set(masters).size, 3)
      const { all, layer, received } = consumersOf(topics, 50)
      yield* Effect.gen(function* () {
        yield* Effect.forEach(topics, (topic) => Effect.forEach(numbers(50), (n) => Producer.publish(topic, n)), {
          concurrency: "unbounded"
        })
        yield* all
      }).pipe(Effect.provide(layer), Effect.provide(RedisStreams.layer()), Effect.provide(redis))
      for (const ns of received.values()) assert.deepStrictEqual(ns, numbers(50))
    })
  )

  it.effect("nothing runs twice, and nothing acknowledged is lost: a slot that moves, a failover, a kill", () =>
    Effect.gen(function* () {
      const cluster = yield* RedisCluster.RedisCluster
      const { commands } = yield* IoRedis.IoRedis
      const tags = numbers(6).map((i) => `{count${i}}`)
      const outcomes = new Map<string, "done" | "ambiguous" | "not run">()
      let stop = false
      const writers = yield* Effect.forEach(
        [...tags, ...tags],
        Effect.fnUntraced(
          function* (tag, writer) {
            for (let i = 0; !stop; i++) {
              const id = `${writer}-${i}`
              const outcome = yield* commands.eval(script, [`${tag}h`, `${tag}none`], [id]).pipe(
                Effect.as("done" as const),
                Effect.catchTag("Disconnected", ({ ambiguous }) =>
                  Effect.succeed(ambiguous ? ("ambiguous" as const) : ("not run" as const))
                ),
                Effect.catchTag("Refused", () => Effect.succeed("not run" as const))
              )
              outcomes.set(`${tag} ${id}`, outcome)
              yield* Effect.sleep(2)
            }
          },
          (writing) => Effect.forkChild(writing)
        )
      )
      const [moving = "", other = ""] = tags
      const target = yield* Effect.flatMap(cluster.masterOf(moving), (from) =>
        Effect.map(
          Effect.forEach(tags, cluster.masterOf),
          (masters) => masters.find((master) => master !== from) ?? from
        )
      )
      yield* cluster.migrate(moving, target)
      yield* cluster.failOver(other)
      yield* (yield* cluster.masterOf(moving)).kill
      yield* cluster.whole
      yield* Effect.sleep(200)
      stop = true
      yield* Effect.forEach(writers, Fiber.join)
      const wrong: Array<string> = []
      for (const tag of tags) {
        const counts = yield* commands.run("hgetall", `${tag}h`, (client) => client.hgetall(`${tag}h`))
        for (const [key, outcome] of outcomes) {
          if (!key.startsWith(`${tag} `)) continue
          const count = Number(counts[key.slice(tag.length + 1)] ?? 0)
          if (count > 1) wrong.push(`${key} ran ${count} times`)
          if (outcome === "done" && count === 0) wrong.push(`${key} is lost`)
          if (outcome === "not run" && count > 0) wrong.push(`${key} ran all the same`)
        }
      }
      assert.deepStrictEqual(wrong, [])
      const tally = [...outcomes.values()]
      assert.isAbove(tally.filter((outcome) => outcome === "done").length, 500)
      // One for each writer at the killed master, at most.
      assert.isAtMost(tally.filter((outcome) => outcome === "ambiguous").length, tags.length * 2)
      assert.lengthOf(
        tally.filter((outcome) => outcome === "not run"),
        0
      )
      yield* Effect.forEach(cluster.nodes, (node) => node.start, { discard: true })
      yield* cluster.whole
    }).pipe(Effect.provide(redis))
  )

  it.effect("a topic moves with its consumer: no group is lost, and everything is delivered", () =>
    Effect.gen(function* () {
      const cluster = yield* RedisCluster.RedisCluster
      const topics = topicsOf("moving")
      const { all, layer, received } = consumersOf(topics, 200)
      yield* Effect.gen(function* () {
        const events: Array<Lifecycle.Event> = []
        yield* (yield* Transport.AtLeastOnce).lifecycle.listen((event) => events.push(event))
        const publishing = yield* Effect.forEach(
          topics,
          (topic) => Effect.forEach(numbers(200), (n) => Effect.andThen(Producer.publish(topic, n), Effect.sleep(5))),
          { concurrency: "unbounded" }
        ).pipe(Effect.forkChild)
        for (const { name } of topics.slice(0, 2)) {
          const tag = `{waybill:${name}}`
          const from = yield* cluster.masterOf(tag)
          const masters = yield* Effect.forEach(topics, ({ name }) => cluster.masterOf(`{waybill:${name}}`))
          yield* cluster.migrate(tag, masters.find((master) => master !== from) ?? from)
        }
        yield* cluster.failOver(`{waybill:${topics[2]?.name}}`)
        yield* Fiber.join(publishing)
        yield* all
        assert.deepStrictEqual(
          events.filter(({ _tag }) => _tag === "GroupRecreated" || _tag === "LeaseLost" || _tag === "Truncated"),
          []
        )
      }).pipe(Effect.scoped, Effect.provide(layer), Effect.provide(RedisStreams.layer()), Effect.provide(redis))
      for (const ns of received.values())
        assert.deepStrictEqual(
          [...new Set(ns)].sort((a, b) => a - b),
          numbers(200)
        )
    })
  )
})
