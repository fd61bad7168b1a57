/** Schedules on a server: several processes, each with connections of its own, watch the same ones. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Clock, Context, DateTime, Effect, Layer, Option, References, Schema, Stream } from "effect"
import { Consumer, Schedules, Topic, Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import { becomes, client } from "./Fixture.ts"
import * as Patterns from "./Patterns.ts"

const Report = Topic.make("reports", { payload: Schema.String })

const quietly = Effect.provideService(References.MinimumLogLevel, "Error")

/** What one process provides. */
const process = (pattern: keyof typeof Patterns.storing, url: string) =>
  Layer.build(Patterns.storing[pattern]().pipe(Layer.provideMerge(IoRedis.layer({ url }))))

describe.each(["RedisStreams", "RedisLists"] as const)("schedules on %s", (pattern) => {
  it.live("of three processes that watch, one publishes each tick, on time by the server's clock", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const processes = [yield* process(pattern, url), yield* process(pattern, url), yield* process(pattern, url)]
      const ids = Array.from({ length: 10 }, (_, i) => `s${i}`)
      const times = 4
      const declared = Schedules.layer(
        ids.map((id) => Schedules.every(id, "1 second", { topic: Report, payload: id, missed: "all", times }))
      )
      for (const context of processes) yield* Effect.provide(Layer.build(declared), context)
      const [{ inspector }] = processes.map((context) => Context.get(context, Transport.AtLeastOnce)) as [
        Transport.Transport
      ]
      const messages = inspector.messages(Report.name, { after: Option.none(), limit: 1000 })
      yield* becomes(
        "the ticks",
        Effect.map(messages, (all) => all.length),
        times * ids.length
      )
      // One after the other, whenever the first one was.
      const ticks = Map.groupBy(yield* messages, ({ headers }) => headers["schedule"])
      assert.deepStrictEqual([...ticks.keys()].sort(), ids)
      for (const some of ticks.values()) {
        const at = some.map(({ headers }) => Date.parse(headers["tick"] ?? ""))
        assert.deepStrictEqual(
          at,
          Array.from({ length: times }, (_, i) => (at[0] ?? 0) + i * 1000)
        )
      }
      const late = (yield* messages)
        .map(({ headers, publishedAt }) => publishedAt - Date.parse(headers["tick"] ?? ""))
        .sort((a, b) => a - b)
      // A machine with other work to do is late by itself, but not each time, and never early.
      assert.isAtLeast(late[0] ?? -1, 0)
      assert.isAtMost(late[0] ?? Infinity, 100)
      const states = yield* Effect.provide(Stream.runCollect(Schedules.list(Report)), processes[0]!)
      assert.deepStrictEqual(
        states.map(({ published, state }) => `${state} ${published}`),
        ids.map(() => `ended ${times}`)
      )
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()), quietly)
  )
})

describe("schedules", () => {
  it.live("a consumer of the topic publishes the ticks of schedules that another program stores", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const handled: Array<string> = []
      const consuming = yield* process("RedisStreams", url)
      const consumer = Consumer.make(Report, { group: "g" }).pipe(
        Consumer.process((payload) => Effect.sync(() => handled.push(payload))),
        Consumer.layer
      )
      yield* Effect.provide(Layer.build(consumer), consuming)
      const storing = yield* process("RedisStreams", url)
      yield* Effect.provide(
        Schedules.upsert(Schedules.every("s", "1 second", { topic: Report, payload: "tick", times: 1 })),
        storing
      )
      yield* becomes(
        "the tick is handled",
        Effect.sync(() => handled),
        ["tick"]
      )
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()), quietly)
  )

  it.live("what a process that has died had found is forgotten", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const { schedules } = Context.get(yield* process("RedisStreams", url), Transport.AtLeastOnce)
      yield* schedules!.note(Report.name, [{ schedule: "s", found: "missing" }], [], 50)
      yield* becomes("no drift is known", schedules!.drifts(Report.name, 10), [])
      const redis = yield* client(url)
      yield* becomes(
        "nothing is left",
        Effect.promise(() => redis.keys("*")),
        []
      )
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()), quietly)
  )

  it.live("those that this build cannot read do not hold up the ones behind them", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const context = yield* process("RedisStreams", url)
      const { inspector, schedules } = Context.get(context, Transport.AtLeastOnce)
      const change = (from: number, count: number, text: string) =>
        schedules!.change(
          Report.name,
          Array.from({ length: count }, (_, i) => {
            return { id: `s${from + i}`, revision: "", next: from + i, text, messages: [] }
          }),
          true
        )
      yield* change(1, 250, JSON.stringify({ every: 1000, message: { body: "new" }, new: 1 }))
      yield* change(251, 10, JSON.stringify({ every: 1000, end: 0, message: { body: "old" } }))
      yield* schedules!.watch(Report.name)
      const depth = Effect.map(inspector.describe(Report.name), ({ depth }) => depth)
      yield* becomes("the ones behind are published", depth, 10)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()), quietly)
  )

  it.live(
    "thousands of schedules take at most 400 bytes each, wait without commands, and are due within a second",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const context = yield* process("RedisStreams", url)
        const redis = yield* client(url)
        const { inspector, schedules } = Context.get(context, Transport.AtLeastOnce)
        const numbers = (section: string, pattern: RegExp) =>
          Effect.map(
            Effect.promise(() => redis.info(section)),
            (info) => Number(pattern.exec(info)?.[1] ?? 0)
          )
        const memory = numbers("memory", /used_memory_dataset:(\d+)/)
        const scripts = numbers("commandstats", /cmdstat_evalsha:calls=(\d+)/)
        const store = (id: string) =>
          Schedules.upsert(
            Schedules.cron(id, "0 8 * * MON", { zone: "Europe/Berlin", topic: Report, payload: `{"user":"${id}"}` })
          )
        const some = (count: number) => Array.from({ length: count }, (_, i) => `user:${10_000 + i}`)
        yield* Effect.provide(store("user:0"), context)
        const before = yield* memory
        const ids = some(2000)
        yield* Effect.provide(Effect.forEach(ids, store, { concurrency: 200, discard: true }), context)
        assert.isAtMost(((yield* memory) - before) / ids.length, 400)
        const listed = yield* Effect.provide(Stream.runCollect(Schedules.list(Report)), context)
        assert.strictEqual(new Set(listed.map(({ id }) => id)).size, ids.length + 1)

        yield* schedules!.watch(Report.name)
        yield* Effect.sleep("500 millis")
        const calls = yield* scripts
        yield* Effect.sleep("1 second")
        assert.isAtMost((yield* scripts) - calls, 1)

        // All of them are due again, as after a change of their definitions.
        const now = yield* Clock.currentTimeMillis
        const start = DateTime.makeUnsafe(now + 2000)
        const soon = Effect.forEach(
          some(1000),
          (id) => Schedules.upsert(Schedules.every(id, "1 second", { topic: Report, payload: id, start, times: 1 })),
          { concurrency: 200, discard: true }
        )
        yield* Effect.provide(soon, context)
        const depth = Effect.map(inspector.describe(Report.name), ({ depth }) => depth)
        yield* becomes("all are published", depth, 1000)
        const [last] = yield* inspector.messages(Report.name, { before: Option.none(), limit: 1 })
        assert.isAtMost((last?.publishedAt ?? Infinity) - Date.parse(last?.headers["tick"] ?? ""), 1000)
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()), quietly)
  )
})
