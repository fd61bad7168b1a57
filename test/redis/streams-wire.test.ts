/**
 * The wire format: what another program may write, and what it finds; whatever it writes, the consumers live on and
 * no byte is lost.
 */
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Duration, Effect, Fiber } from "effect"
import { Commit, Settlement } from "waybill"
import * as Fixture from "./Fixture.ts"

const cli = (port: number, ...args: ReadonlyArray<string>) =>
  Effect.callback<string, Error>((resume) => {
    execFile("redis-cli", ["-p", String(port), ...args], (error, stdout) =>
      resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(error))
    )
  })

const shell = (command: string) =>
  Effect.callback<string, Error>((resume) => {
    execFile("sh", ["-c", command], (error, stdout) =>
      resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(error))
    )
  })

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("wire format", (it) => {
  it.effect("a message published by redis-cli XADD is consumed, with defaults for what it leaves out", () =>
    Effect.gen(function* () {
      const { group, join: enter, key, server, settle, take } = yield* Fixture.make()
      const entry = yield* cli(server.port, "XADD", key("stream"), "*", "payload", '{"id":1}')
      const receiver = yield* enter()
      const [delivery] = yield* take(receiver, 1)
      assert.strictEqual(delivery?.id, entry)
      assert.strictEqual(delivery?.body, '{"id":1}')
      assert.strictEqual(delivery?.publishedAt, Number(entry.split("-")[0]))
      assert.strictEqual(delivery?.version, 1)
      assert.strictEqual(delivery?.key, undefined)
      assert.deepStrictEqual(delivery?.headers, {})
      assert.deepStrictEqual(yield* settle(receiver, [delivery!]), ["Settled"])
      assert.strictEqual((yield* group()).pending, 0)
    })
  )

  it.effect("the command on the page about the wire format does what the page says", () =>
    Effect.gen(function* () {
      const page = readFileSync(join(import.meta.dirname, "../../docs/wire-format.md"), "utf8")
      const command = /^redis-cli XADD .*$/m.exec(page)?.[0] ?? "no command"
      const { server, transport } = yield* Fixture.make({ prefix: "waybill" })
      const terms = { group: "g", start: "earliest", maxDeliveries: 5 } as const
      const times = { lease: Duration.seconds(10), shutdown: Duration.seconds(2) }
      const receiver = yield* transport.receive({ topic: "orders", ...terms, ...times })
      yield* shell(command.replace("redis-cli", `redis-cli -p ${server.port}`))
      const [delivery] = yield* receiver.take(1)
      assert.strictEqual(delivery.body, '{"id":"o-1","cents":1200}')
    })
  )

  it.effect("every optional field of the envelope is read", () =>
    Effect.gen(function* () {
      const { join, key, redis, take } = yield* Fixture.make()
      const required = ["payload", "x"]
      const optional = ["id", "order-1", "key", "k", "v", "3", "at", "1700000000000", "headers", '{"a":"b"}']
      yield* Effect.promise(() => redis.xadd(key("stream"), "*", ...required, ...optional, "unknown", "kept"))
      const [delivery] = yield* take(yield* join(), 1)
      const { body, headers, id, key: orderKey, publishedAt, version } = delivery!
      assert.deepStrictEqual(
        { body, headers, id, orderKey, publishedAt, version },
        { body: "x", headers: { a: "b" }, id: "order-1", orderKey: "k", publishedAt: 1_700_000_000_000, version: 3 }
      )
    })
  )

  it.effect("what we publish is what the page on the wire format says", () =>
    Effect.gen(function* () {
      const { key, prefix, publish, redis } = yield* Fixture.make()
      const [plain] = yield* publish(
        "plain",
        { body: "full", id: "id-1", headers: { h: "1" }, key: "k", version: 2 },
        { body: "late", due: { _tag: "After", delay: Duration.hours(1) } }
      )
      const entries = yield* Effect.promise(() => redis.xrange(key("stream"), "-", "+"))
      assert.deepStrictEqual(entries[0], [plain!.id, ["payload", "plain"]])
      assert.strictEqual(entries[1]?.[1].join(" "), 'payload full id id-1 headers {"h":"1"} key k v 2')
      assert.strictEqual(entries.length, 2)
      assert.deepStrictEqual(yield* Effect.promise(() => redis.hgetall(key("meta"))), {
        pattern: "streams",
        wire: "1",
        delayed: "1"
      })
      assert.isAbove(yield* Effect.promise(() => redis.pttl(key("seen:id-1"))), 590_000)
      assert.strictEqual(yield* Effect.promise(() => redis.zcard(key("delayed"))), 1)
      assert.deepStrictEqual(yield* Effect.promise(() => redis.smembers(`${prefix}:topics`)), ["t"])
    })
  )

  const odd: ReadonlyArray<readonly [string, ReadonlyArray<string | Buffer>]> = [
    ["no payload", ["other", "x"]],
    ["a field with an empty name", ["", ""]],
    ["headers that are no JSON", ["payload", "{}", "headers", "{"]],
    ["headers that are a list", ["payload", "{}", "headers", "[]"]],
    ["headers with a number", ["payload", "{}", "headers", '{"a":1}']],
    ["headers that are null", ["payload", "{}", "headers", "null"]],
    ["a version in words", ["payload", "{}", "v", "two"]],
    ["a negative version", ["payload", "{}", "v", "-1"]],
    ["a time in words", ["payload", "{}", "at", "yesterday"]],
    ["a payload that is no UTF-8", ["payload", Buffer.from([0xff, 0xfe, 0x00, 0x80])]],
    ["headers and a payload that are both wrong", ["payload", Buffer.from([0xc3, 0x28]), "headers", "]"]]
  ]
  for (const [name, fields] of odd) {
    it.effect(
      `an entry with ${name} is delivered undecodable, and its fields reach the dead letters as they were`,
      () =>
        Effect.gen(function* () {
          const { groupKey, join, key, redis, settle, take } = yield* Fixture.make()
          yield* Effect.promise(() => redis.xadd(key("stream"), "*", ...fields))
          const receiver = yield* join()
          const [delivery] = yield* take(receiver, 1)
          assert.instanceOf(delivery?.body, Uint8Array)
          yield* settle(receiver, [delivery!], Settlement.deadLetter("DecodeFailure", "cause"))
          const [letter] = yield* Effect.promise(() => redis.xrangeBuffer(groupKey("dead"), "-", "+"))
          assert.deepStrictEqual(
            letter?.[1].slice(18).map((field) => field.toString("hex")),
            fields.map((field) => Buffer.from(field).toString("hex"))
          )
        })
    )
  }

  // The first pair of another program's entry reads like what we note about a message ourselves.
  it.effect.each([
    ["tally", "4;1;"],
    ["failure", '{"tag":"Lie","message":"","fields":{}}']
  ] as const)("a field called %s is a field, through retries, deaths, the dead letters and a redrive", ([name, lie]) =>
    Effect.gen(function* () {
      const { groupKey, inspector, join, key, letters, read, redis, settle, take } = yield* Fixture.make()
      const fields = [name, lie, "payload", "{"]
      yield* Effect.promise(() => redis.xadd(key("stream"), "*", ...fields))
      const lies = Effect.promise(async () => (await redis.xrange(groupKey("dead"), "-", "+"))[0]?.[1].slice(-4))
      const redriven = Effect.gen(function* () {
        assert.deepStrictEqual(yield* lies, fields)
        const [letter] = yield* letters
        assert.strictEqual(letter?.body, "{")
        assert.isUndefined(letter?.failure)
        assert.strictEqual(yield* inspector.redrive("t", "g", [letter!.entry]), 1)
      })
      const receiver = yield* join({ lease: Duration.millis(300), maxDeliveries: 1 })
      const die = Settlement.deadLetter("Bad", "cause")
      yield* settle(receiver, yield* take(receiver, 1), die)
      yield* redriven
      yield* settle(receiver, yield* take(receiver, 1), Settlement.retry(Duration.zero, "again"))
      yield* settle(receiver, yield* take(receiver, 1), die)
      yield* redriven
      yield* take(receiver, 1)
      yield* freeze(receiver)
      const heir = yield* join({ maxDeliveries: 1 })
      const next = yield* Effect.forkChild(take(heir, 1), { startImmediately: true })
      yield* Fixture.becomes(
        "dead-lettered",
        Effect.map(letters, (all) => all.map(({ reason }) => reason)),
        ["CrashLoop"]
      )
      yield* redriven
      const total = Commit.counter("total")
      const [delivery] = yield* Fiber.join(next)
      yield* settle(heir, [delivery!], Settlement.commit(Commit.make({ writes: [total.add(1)] })))
      assert.strictEqual(yield* read(total.value), 1)
    })
  )

  it.effect("__proto__ among the headers is a header, and nothing else", () =>
    Effect.gen(function* () {
      const { join, key, redis, take } = yield* Fixture.make()
      yield* Effect.promise(() =>
        redis.xadd(key("stream"), "*", "payload", "x", "headers", '{"__proto__":"y","constructor":"z"}')
      )
      const [delivery] = yield* take(yield* join(), 1)
      assert.strictEqual(delivery?.body, "x")
      assert.strictEqual(Object.getOwnPropertyDescriptor(delivery?.headers, "__proto__")?.value, "y")
    })
  )

  it.effect("bytes that are no text survive retries, the dead letters and a redrive", () =>
    Effect.gen(function* () {
      const { inspector, join, key, letters, redis, settle, take } = yield* Fixture.make()
      const bytes = Buffer.from([0, 0xff, 0xfe, 0x80, 10, 13, 0xed, 0xa0, 0x80])
      yield* Effect.promise(() => redis.xadd(key("stream"), "*", "payload", bytes))
      const receiver = yield* join()
      const expectBytes = (body: unknown) => assert.deepStrictEqual(Buffer.from(body as Uint8Array), bytes)
      const [first] = yield* take(receiver, 1)
      expectBytes(first?.body)
      yield* settle(receiver, [first!], Settlement.retry(Duration.zero, "again"))
      const [second] = yield* take(receiver, 1)
      expectBytes(second?.body)
      yield* settle(receiver, [second!], Settlement.deadLetter("Bad", "cause"))
      const [letter] = yield* letters
      expectBytes(letter?.body)
      yield* inspector.redrive("t", "g", [letter!.entry])
      const [third] = yield* take(receiver, 1)
      expectBytes(third?.body)
    })
  )

  it.effect("text with the replacement character in it is text", () =>
    Effect.gen(function* () {
      const { join, publish, take } = yield* Fixture.make()
      yield* publish("what \uFFFD is this")
      const [delivery] = yield* take(yield* join(), 1)
      assert.strictEqual(delivery?.body, "what \uFFFD is this")
    })
  )

  it.effect("an entry with thousands of fields keeps its payload through a retry", () =>
    Effect.gen(function* () {
      const { join, key, redis, settle, take } = yield* Fixture.make()
      const fields = Array.from({ length: 5000 }, (_, i) => [`field-${i}`, "x"]).flat()
      yield* Effect.promise(() => redis.xadd(key("stream"), "*", ...fields, "payload", "wide"))
      const receiver = yield* join()
      const [first] = yield* take(receiver, 1)
      assert.strictEqual(first?.body, "wide")
      yield* settle(receiver, [first!], Settlement.retry(Duration.zero, "again"))
      const [second] = yield* take(receiver, 1)
      assert.strictEqual(second?.body, "wide")
      assert.strictEqual(second?.attempt, 2)
    })
  )

  it.effect("a waiting body that is no longer ours does not stop the others", () =>
    Effect.gen(function* () {
      const { groupKey, join, redis, settle, take, publish } = yield* Fixture.make()
      const receiver = yield* join()
      yield* publish("a", "b")
      yield* settle(receiver, yield* take(receiver, 2), Settlement.retry(Duration.millis(400), "again"))
      const [member] = yield* Effect.promise(() => redis.zrange(groupKey("waiting"), "0", "0"))
      yield* Effect.promise(() => redis.hset(groupKey("waiting-bodies"), member!, "garbage"))
      const again = yield* take(receiver, 2)
      assert.deepStrictEqual(again.map(({ body }) => body).sort(), ["b", "garbage"])
    })
  )
})
