/**
 * The filter of a group, among members that have missed that it changed, and over messages that are large.
 */
import { assert, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Duration, Effect, Exit, Fiber, Layer, Random, References, Scope } from "effect"
import type { Redis } from "ioredis"
import { type Delivery, type Message, Settlement, Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import { textOf, wants } from "../../packages/waybill/src/internal/Filter.ts"
import { calling } from "../../packages/waybill/src/redis/internal/connection/ScriptReply.ts"
import { select as selectScript } from "../../packages/waybill/src/redis/internal/streams/Selection.ts"
import { topicKeys } from "../../packages/waybill/src/redis/internal/wire/Keys.ts"
import { drawing } from "../faults/Verdict.ts"
import { becomes, outgoing } from "./Fixture.ts"
import * as Patterns from "./Patterns.ts"

const topic = "t"
const of = (...type: ReadonlyArray<string>) => ({ headers: { type } })
const shown = (only?: ReturnType<typeof of>) => only?.headers.type.join() ?? "none"
const message = (type: string, body = type) => outgoing({ body, headers: { type } })

const join = (only?: ReturnType<typeof of>) =>
  Effect.flatMap(Transport.AtLeastOnce, (transport) =>
    transport.receive({
      topic,
      group: "g",
      start: "earliest",
      lease: Duration.seconds(10),
      maxDeliveries: 5,
      shutdown: Duration.seconds(1),
      only
    })
  )

const take = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
  const taken: Array<Delivery.Delivery> = []
  while (taken.length < count) {
    const some = yield* receiver.take(count - taken.length)
    yield* receiver.settle([[some[0], Settlement.ack], ...some.slice(1).map((one) => [one, Settlement.ack] as const)])
    taken.push(...some)
  }
  return taken.map(({ body }) => body)
})

const { RedisKeyspace, RedisStreams } = Patterns.storing

for (const [pattern, layer] of Object.entries({ RedisKeyspace, RedisStreams })) {
  for (const [before, after] of [
    [of("one"), of("two")],
    [of("one"), undefined],
    [undefined, of("two")]
  ] as const) {
    it.live(
      `${pattern}: a member that slept while the filter changed from ${shown(before)} to ${shown(after)} is refused`,
      () =>
        Effect.gen(function* () {
          const { commands } = yield* IoRedis.IoRedis
          const transport = yield* Transport.AtLeastOnce
          const old = yield* join(before)
          const sleep = yield* Scope.make()
          yield* Scope.provide(freeze(old), sleep)
          const consumers = `{waybill:${topic}}:group:g:consumers`
          yield* commands
            .run("zrange", consumers, (client) => client.zrange(consumers, 0, "-1"))
            .pipe(
              Effect.flatMap(([name]) => commands.run("zadd", consumers, (client) => client.zadd(consumers, 1, name!)))
            )
          const next = yield* join(after)
          // A read that waits on the server, and takes everything, loses nothing.
          if (before !== undefined) yield* transport.publish(topic, [message("two"), message("one"), message("two")])
          yield* Scope.close(sleep, Exit.void)
          const refused = yield* Effect.flip(Effect.timeout(old.take(3), "15 seconds"))
          assert(refused._tag === "TransportError", "it was not refused")
          assert.strictEqual(refused.reason._tag, "TopicConflict")
          if (before === undefined) return
          const wanted = after === undefined ? ["two", "one", "two"] : ["two", "two"]
          assert.deepStrictEqual(yield* take(next, wanted.length), wanted)
        }).pipe(
          Effect.scoped,
          Effect.provide(layer().pipe(Layer.provideMerge(Patterns.redis), Layer.provide(RedisServer.layer()))),
          Effect.provideService(References.MinimumLogLevel, "None")
        )
    )
  }
}

it.live("RedisStreams: one call goes through a few megabytes, wanted or not", () =>
  Effect.gen(function* () {
    const { commands } = yield* IoRedis.IoRedis
    const transport = yield* Transport.AtLeastOnce
    yield* freeze(yield* join(of("two")))
    const keys = topicKeys("waybill", topic, 0)
    const call = calling(commands, { topic, pattern: "streams" }, { ...keys, ...keys.group("g") })
    const only = textOf(of("two"))
    const select = (bytes: number) =>
      Effect.gen(function* () {
        const reply = yield* call(selectScript, { group: "g", consumer: "c", only, max: 100, bytes })
        assert(reply._tag === "OK")
        return reply
      })
    const publish = (type: string) =>
      Effect.forEach(Array.from({ length: 40 }), () =>
        transport.publish(topic, [message(type, "x".repeat(256 * 1024))])
      )
    yield* publish("one")
    let calls = 1
    while ((yield* select(1024 * 1024)).last === "") calls++
    assert.isAtLeast(calls, 2)
    assert.isAtMost(calls, 4)
    yield* publish("two")
    assert.strictEqual((yield* select(1024 * 1024)).entries.length, 4)
  }).pipe(
    Effect.scoped,
    Effect.provide(RedisStreams().pipe(Layer.provideMerge(Patterns.redis), Layer.provide(RedisServer.layer()))),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)

/** Selects for groups of one topic, without receivers; each has a filter. */
const selecting = Effect.fnUntraced(function* (filters: Readonly<Record<string, Message.Filter>>) {
  const { commands } = yield* IoRedis.IoRedis
  const keys = topicKeys("waybill", topic, 0)
  const run = <A>(command: (client: Redis) => Promise<A>) => commands.run("test", keys.stream, command)
  for (const [group, only] of Object.entries(filters)) {
    const { retry, state } = keys.group(group)
    yield* run(async (client) => {
      for (const key of [keys.stream, retry])
        await client.xgroup("CREATE", key, group, "0", "MKSTREAM", "ENTRIESREAD", 0)
      await client.hset(state, "only", textOf(only))
    })
  }
  const select = (group: string, max: number, bytes: number) =>
    calling(
      commands,
      { topic, pattern: "streams" },
      { ...keys, ...keys.group(group) }
    )(selectScript, {
      group,
      consumer: "c",
      only: textOf(filters[group]),
      max,
      bytes
    })
  return { keys, run, select }
})

const onRedis = Layer.provideMerge(Patterns.redis, RedisServer.layer())

it.live(
  "RedisStreams: on a quiet topic no script runs for a message that the group does not want, and soon it has passed it",
  () =>
    Effect.gen(function* () {
      const transport = yield* Transport.AtLeastOnce
      const { run } = yield* selecting({})
      const receiver = yield* join(of("two"))
      const taken = yield* Effect.forkChild(take(receiver, 1))
      const calls = (command: string) =>
        run(async (client) => {
          const [, count] = new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await client.info("commandstats")) ?? []
          return Number(count ?? 0)
        })
      const waits = run(async (client) => (await client.info("clients")).includes("blocked_clients:1"))
      const passed = yield* calls("xgroup\\|setid")
      for (let n = 0; n < 10; n++) {
        const before = yield* calls("xread")
        yield* becomes("it waits", waits, true)
        yield* transport.publish(topic, [message("one")])
        yield* becomes(
          "it was woken",
          Effect.map(calls("xread"), (after) => after > before),
          true
        )
      }
      assert.isAtMost((yield* calls("xgroup\\|setid")) - passed, 7, "once a second")
      const { inspector } = transport
      yield* becomes(
        "its lag",
        Effect.map(inspector.describe(topic), ({ groups }) => groups[0]?.lag),
        0
      )
      yield* transport.publish(topic, [message("two")])
      assert.deepStrictEqual(yield* Fiber.join(taken), ["two"])
    }).pipe(
      Effect.scoped,
      Effect.provide(RedisStreams().pipe(Layer.provideMerge(onRedis))),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
)

it.live(
  "RedisStreams: groups that want types share the notes of which entry is of which, and get what they want in order",
  () =>
    Effect.gen(function* () {
      const draw = yield* drawing("filters")
      const below = (count: number) => draw(Random.nextIntBetween(0, count - 1))
      const one = <A>(values: ReadonlyArray<A>) => Effect.map(below(values.length), (n) => values[n]!)
      const long = "long".repeat(20)
      const filters: Readonly<Record<string, Message.Filter>> = {
        a: of("A"),
        bc: of("B", "C"),
        long: of(long),
        keyed: { ...of("A", "B"), key: ["k1"] },
        region: { headers: { type: ["A"], region: ["eu"] } },
        key: { key: ["k1"] }
      }
      const { keys, run, select } = yield* selecting(filters)
      const expected = Object.fromEntries(Object.keys(filters).map((group) => [group, new Array<string>()]))
      const add = Effect.fnUntraced(function* (count: number) {
        for (let n = 0; n < count; n++) {
          const headers = yield* one<Record<string, string>>([
            { type: "A" },
            { type: "A", region: "eu" },
            { type: "B", region: "eu" },
            { type: "C" },
            { type: long },
            { region: "eu" },
            {}
          ])
          const key = yield* one(["k1", "k2", undefined])
          const broken = yield* one(["", "", "", "", "headers", "payload"])
          const fields = broken === "payload" ? ["other", "x"] : ["payload", "x".repeat(yield* below(50))]
          if (key !== undefined) fields.push("key", key)
          fields.push("headers", broken === "headers" ? '{"type":"A"' : JSON.stringify(headers))
          const id = yield* run((client) => client.xadd(keys.stream, "*", ...fields))
          for (const [group, only] of Object.entries(filters)) {
            const seen = broken === "headers" ? { key: only.key } : only
            if (broken === "payload" || wants(seen, { headers, key })) expected[group]!.push(id!)
          }
        }
      })
      const got = Object.fromEntries(Object.keys(filters).map((group) => [group, new Array<string>()]))
      yield* add(400)
      const open = new Set(Object.keys(filters))
      let added = 400
      while (open.size > 0) {
        if (added < 800 && (yield* below(4)) === 0) {
          yield* add(40)
          added += 40
          for (const group of Object.keys(filters)) open.add(group)
        }
        const group = yield* one([...open])
        const reply = yield* select(group, 1 + (yield* below(60)), yield* one([500, 5000, 1e6]))
        assert(reply._tag === "OK")
        got[group]!.push(...reply.entries.map(({ entry }) => entry))
        if (reply.last !== "") open.delete(group)
      }
      assert.deepStrictEqual(got, expected)
      const groups = yield* run((client) => client.xinfo("GROUPS", keys.stream) as Promise<Array<Array<unknown>>>)
      for (const flat of groups) assert.strictEqual(flat[flat.indexOf("entries-read") + 1], added)
      assert.isAbove(yield* run((client) => client.xlen(keys.types)), 0)
    }).pipe(Effect.scoped, Effect.provide(onRedis))
)

it.live(
  "RedisStreams: a group that wants types goes by the notes of another, and counts only what it could have seen",
  () =>
    Effect.gen(function* () {
      const { keys, run, select } = yield* selecting({ a: of("A"), b: of("B") })
      const selected = (group: string) =>
        Effect.map(select(group, 100, 1e6), (reply) => (reply._tag === "OK" ? reply.entries : []))
      const types = Array.from({ length: 300 }, (_, n) => (n % 100 === 0 ? "A" : n % 100 === 50 ? "B" : "C"))
      const publish = Effect.forEach(types, (type) =>
        run((client) => client.xadd(keys.stream, "*", "payload", "x", "headers", JSON.stringify({ type })))
      )
      yield* publish
      assert.lengthOf(yield* selected("a"), 3)
      // They are made to say that nothing is of type B.
      yield* run(async (client) => {
        for (const [id, fields] of await client.xrange(keys.types, "-", "+")) {
          await client.del(keys.types)
          await client.xadd(keys.types, id, ...fields.map((field) => (field === "=B" ? "=other" : field)))
        }
      })
      assert.lengthOf(yield* selected("b"), 0)
      yield* publish
      assert.lengthOf(yield* selected("a"), 3)
      yield* run((client) => client.xtrim(keys.stream, "MAXLEN", 220))
      assert.lengthOf(yield* selected("b"), 2)
      const groups = yield* run((client) => client.xinfo("GROUPS", keys.stream) as Promise<Array<Array<unknown>>>)
      assert.deepStrictEqual(
        groups.map((flat) => flat[flat.indexOf("entries-read") + 1]),
        [600, 520]
      )
    }).pipe(Effect.scoped, Effect.provide(onRedis))
)
