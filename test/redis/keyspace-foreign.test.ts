/**
 * Keys that other programs write: each version of a key is one message, whoever hears of it and however often.
 */
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { join as path } from "node:path"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Duration, Effect, Fiber, Option } from "effect"
import { Settlement } from "waybill"
import { outgoing } from "./Fixture.ts"
import { cli, consume, make, settle, take } from "./KeyspaceFixture.ts"

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("keys of others", (it) => {
  it.effect("a plain redis-cli SET with an expiry is delivered, and wakes who waits", () =>
    Effect.gen(function* () {
      const { join, key, server } = yield* make({ prefix: "waybill", pollInterval: "1 hour" })
      const receiver = yield* join()
      const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
      assert.strictEqual(yield* cli(server.port, "SET", key("message:x"), "by hand", "EX", "60"), "OK")
      const [delivery] = yield* Fiber.join(fiber)
      assert.strictEqual(delivery.body, "by hand")
      assert.deepStrictEqual({ ...delivery.headers }, {})
      assert.strictEqual(delivery.version, 1)
      assert.closeTo(delivery.publishedAt, Date.now(), 5000)
      assert.deepStrictEqual(yield* settle(receiver, [delivery]), ["Settled"])
    })
  )

  it.effect("the command on the page about the wire format does what the page says", () =>
    Effect.gen(function* () {
      const page = readFileSync(path(import.meta.dirname, "../../docs/wire-format.md"), "utf8")
      const command = /^redis-cli SET .*$/m.exec(page)?.[0] ?? "no command"
      const { server, transport } = yield* make({ prefix: "waybill" })
      const receiver = yield* transport.receive({
        topic: "alerts",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(2)
      })
      yield* Effect.callback<void, Error>((resume) => {
        const line = command.replace("redis-cli", `redis-cli -p ${server.port}`)
        execFile("sh", ["-c", line], (error) => resume(error === null ? Effect.void : Effect.fail(error)))
      })
      assert.strictEqual((yield* receiver.take(1))[0].body, '{"level":"critical","text":"disk full"}')
    })
  )

  it.effect("a key that two programs hear of at once is one message for each group, in both", () =>
    Effect.gen(function* () {
      const fixture = yield* make()
      const other = yield* fixture.another()
      const [one, two] = [yield* fixture.join({ group: "one" }), yield* other.join({ group: "two" })]
      for (let i = 0; i < 50; i++)
        yield* Effect.promise(() => fixture.redis.set(fixture.key(`message:k${i}`), `${i}`, "EX", 60))
      const expected = Array.from({ length: 50 }, (_, i) => `${i}`)
      assert.deepStrictEqual((yield* consume(one, 50)).sort(), expected.toSorted())
      assert.deepStrictEqual((yield* consume(two, 50)).sort(), expected.toSorted())
      // What comes after it would come after a repetition, too.
      yield* fixture.publish("sentinel")
      assert.deepStrictEqual(yield* consume(one, 1), ["sentinel"])
      assert.deepStrictEqual(yield* consume(two, 1), ["sentinel"])
    })
  )

  it.effect("a key that is written again is another message, and takes nothing back that was taken in", () =>
    Effect.gen(function* () {
      const { join, key, redis } = yield* make()
      const first = yield* join({ group: "first" })
      const set = (value: string) => Effect.promise(() => redis.set(key("message:x"), value, "EX", 60))
      yield* set("one")
      assert.deepStrictEqual(yield* consume(first, 1), ["one"])
      yield* set("two")
      assert.deepStrictEqual(yield* consume(first, 1), ["two"])
      yield* Effect.promise(() => redis.del(key("message:x")))
      assert.deepStrictEqual(yield* consume(yield* join({ group: "late" }), 2), ["one", "two"])
    })
  )

  it.effect("a key without an expiry gets that of the layer; what is no string is no message", () =>
    Effect.gen(function* () {
      const { join, key, redis } = yield* make({ ttl: "10 minutes" })
      const receiver = yield* join()
      yield* Effect.promise(() => redis.lpush(key("message:list"), "no message"))
      yield* Effect.promise(() => redis.set(key("message:forever"), "for a while"))
      assert.deepStrictEqual(yield* consume(receiver, 1), ["for a while"])
      assert.closeTo(yield* Effect.promise(() => redis.pttl(key("message:forever"))), 600_000, 10_000)
    })
  )

  it.effect(
    "bytes stay bytes; a sound envelope is read, and one that is not keeps all its bytes in the dead letters",
    () =>
      Effect.gen(function* () {
        const { inspector, join, key, redis } = yield* make()
        const receiver = yield* join()
        const set = (name: string, value: string | Buffer) =>
          Effect.promise(() => redis.set(key(`message:${name}`), value, "EX", 60))
        const bytes = Buffer.from([0x66, 0xff, 0x00, 0xfe])
        yield* set("bytes", bytes)
        assert.deepStrictEqual(
          (yield* take(receiver, 1)).map(({ body }) => Buffer.from(body)),
          [bytes]
        )

        yield* set(
          "sound",
          'waybill:1 {"id":"o-1","key":"k","v":3,"at":1795447473548,"headers":{"a/b":"ü\\"","n":""}}\n{"x":1}\n'
        )
        const [sound] = yield* take(receiver, 1)
        assert(sound !== undefined)
        const { body, headers, id, key: lane, publishedAt, version } = sound
        assert.deepStrictEqual(
          { body, headers: { ...headers }, id, key: lane, publishedAt, version },
          {
            body: '{"x":1}\n',
            headers: { "a/b": 'ü"', n: "" },
            id: "o-1",
            key: "k",
            publishedAt: 1795447473548,
            version: 3
          }
        )

        for (const [i, line] of [
          "{",
          "[]",
          "null",
          '{"id":7}',
          '{"id":""}',
          '{"v":1.5}',
          '{"headers":{"a":1}}',
          '{"headers":[1]}'
        ].entries()) {
          const text = `waybill:1 ${line}\npayload`
          yield* set(`rubbish${i}`, text)
          const [delivery] = yield* take(receiver, 1)
          assert(delivery !== undefined)
          assert.strictEqual(Buffer.from(delivery.body as Uint8Array).toString(), text, line)
          yield* settle(receiver, [delivery], Settlement.deadLetter("DecodeFailure", ""))
        }
        const letters = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
        assert.strictEqual(letters.length, 8)
        assert.strictEqual(letters[0]?.body, "waybill:1 {\npayload")
      })
  )

  it.effect(
    "what was written while nobody listened is found by a scan, in small steps among many other keys, and once",
    () =>
      Effect.gen(function* () {
        const { another, key, redis } = yield* make()
        const fill = "for i = 1, 20000 do redis.call('SET', 'unrelated:' .. i, '') end"
        yield* Effect.promise(() => redis.eval(fill, 0))
        for (let i = 0; i < 250; i++) yield* Effect.promise(() => redis.set(key(`message:early${i}`), `${i}`, "EX", 60))
        const expected = Array.from({ length: 250 }, (_, i) => `${i}`).toSorted()
        for (const group of ["one", "two"]) {
          const program = yield* another({ scan: true })
          const receiver = yield* program.join({ group })
          assert.deepStrictEqual((yield* consume(receiver, 250)).sort(), expected)
          // The second scan finds what the first has taken in.
          yield* program.publish(`sentinel of ${group}`)
          const rest = group === "one" ? ["sentinel of one"] : ["sentinel of one", "sentinel of two"]
          assert.deepStrictEqual(yield* consume(receiver, rest.length), rest)
        }
      })
  )

  it.effect("with poll and scan keys of others are found over and over, without any event", () =>
    Effect.gen(function* () {
      const { join, key, redis } = yield* make({ notifications: "poll", scan: true, pollInterval: "20 millis" })
      yield* Effect.promise(() => redis.config("SET", "notify-keyspace-events", ""))
      const receiver = yield* join()
      for (const value of ["one", "two"]) {
        yield* Effect.promise(() => redis.set(key("message:x"), value, "EX", 60))
        assert.deepStrictEqual(yield* consume(receiver, 1), [value])
      }
    })
  )

  it.effect("glob characters in names mean themselves", () =>
    Effect.gen(function* () {
      const { redis, transport } = yield* make({ prefix: "a*[b]?" })
      const odd = "t[1]*?\\^"
      const receiver = yield* transport.receive({
        topic: odd,
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(2)
      })
      yield* Effect.promise(() => redis.set(`{a*[b]?:${odd}}:message:*[x]`, "odd", "EX", 60))
      assert.deepStrictEqual(yield* consume(receiver, 1), ["odd"])
    })
  )

  it.effect("case B16: names that are no text are messages, heard or scanned, and differ by their bytes", () =>
    Effect.gen(function* () {
      const fixture = yield* make({ pollInterval: "1 hour" })
      const names = [
        Buffer.from([0x6b, 0xff, 0x31]),
        Buffer.from([0x6b, 0xfe, 0x31]),
        Buffer.from([0x00]),
        Buffer.from([0xc3]),
        Buffer.from([0x2a, 0x3f, 0x5b, 0x80]),
        Buffer.from("naïve 🚚")
      ]
      const write = (topic: string, round: string) =>
        Effect.forEach(names, (name, i) =>
          Effect.promise(() =>
            fixture.redis.set(
              Buffer.concat([Buffer.from(fixture.key("message:").replace(":t}", `:${topic}}`)), name]),
              `${round} ${i}`,
              "EX",
              60
            )
          )
        )
      const bodies = (round: string) => names.map((_, i) => `${round} ${i}`)
      for (const topic of ["t", "żółć"]) {
        const receiver = yield* fixture.join({ topic })
        yield* write(topic, "heard")
        assert.deepStrictEqual((yield* consume(receiver, names.length)).toSorted(), bodies("heard"))
        // Each version once.
        yield* write(topic, "again")
        assert.deepStrictEqual((yield* consume(receiver, names.length)).toSorted(), bodies("again"))
        yield* fixture.transport.publish(topic, [outgoing("sentinel")])
        assert.deepStrictEqual(yield* consume(receiver, 1), ["sentinel"])
      }
      yield* write("scanned", "before")
      const late = yield* (yield* fixture.another({ scan: true })).join({ topic: "scanned" })
      assert.deepStrictEqual((yield* consume(late, names.length)).toSorted(), bodies("before"))
    })
  )
})
