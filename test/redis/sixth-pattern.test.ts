/**
 * What a new pattern costs: the two files in `sixth-pattern`, and a line in the list. It is a pattern for tests, so the line stands
 * here and not in `internal/patterns.ts`; the command is the one that users have.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer, TransportSuite } from "@waybill/testing"
import { Effect, Fiber, Layer, Schema } from "effect"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { RedisInspector } from "waybill/redis"
import { Patterns, patterns } from "../../packages/waybill/src/redis/internal/patterns.ts"
import { run } from "../cli/Terminal.ts"
import { openedAs, redis } from "./Patterns.ts"
import * as RedisSortedSets from "./sixth-pattern/RedisSortedSets.ts"
import * as SortedSets from "./sixth-pattern/SortedSets.ts"

const server = redis.pipe(Layer.provideMerge(RedisServer.layer()))

TransportSuite.run("RedisSortedSets", {
  layer: RedisSortedSets.layer().pipe(Layer.provideMerge(server)),
  time: "live",
  features: { groups: false, lookup: false, cancel: false },
  conflict: openedAs("streams")
})

const Task = Topic.make("tasks", { payload: Schema.String })

describe("a sixth pattern", () => {
  it.live("serves topics and groups, and the command knows it by one line in the list", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const command = (...args: ReadonlyArray<string>) => run(args, { url, stdin: '"late"\n' })
      yield* Producer.publish(Task, "third", { headers: { deadline: "3000" } })
      yield* Producer.publish(Task, "first", { headers: { deadline: "1000" } })
      yield* Producer.publish(Task, "second", { headers: { deadline: "2000" } })

      assert.strictEqual((yield* (yield* Inspector.Inspector).describe("tasks")).depth, 3)
      const published = yield* command("publish", "tasks")
      assert.deepStrictEqual([published.out, published.err], ["1 stored.\n", ""])
      const [info] = JSON.parse((yield* command("stats", "tasks", "--json")).out)
      assert.deepStrictEqual([info.pattern, info.depth], ["sorted-sets", 4])
      const tail = (yield* command("tail", "tasks", "--json")).out.trim().split("\n")
      assert.deepStrictEqual(
        tail.map((line) => JSON.parse(line).body),
        ['"first"', '"second"', '"third"', '"late"']
      )

      const unlisted = yield* Effect.provideService(command("stats", "tasks"), Patterns, patterns)
      assert.match(unlisted.err, /topic tasks is sorted-sets in the store/)

      const handled: Array<string> = []
      const consumer = Consumer.make(Task, { group: "workers", concurrency: 1 }).pipe(
        Consumer.process((payload) => Effect.sync(() => void handled.push(payload)))
      )
      const running = yield* Effect.forkChild(Layer.launch(Consumer.layer(consumer)))
      while (handled.length < 4) yield* Effect.sleep(5)
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(handled, ["first", "second", "third", "late"])
    }).pipe(
      Effect.provide([RedisSortedSets.layer(), RedisInspector.layer()]),
      // The line.
      Effect.provideService(Patterns, [...patterns, SortedSets.make()]),
      Effect.provide(server)
    )
  )
})
