/**
 * The command between other programs: what comes in piece by piece, who stops reading, and a server that goes away.
 */
import type { ChildProcess } from "node:child_process"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Fiber, Latch } from "effect"
import { becomes, client } from "../redis/Fixture.ts"
import { run, type Run, start, until } from "./Terminal.ts"

/** A process whose input stays open, and what it has printed in the end. */
const open = (args: ReadonlyArray<string>, url: string) =>
  Effect.acquireRelease(start(args, { url }), (child) => Effect.sync(() => child.kill("SIGKILL")))

const ended = (child: ChildProcess) =>
  Effect.callback<Run>((resume) => {
    let out = ""
    let err = ""
    child.stdout?.on("data", (chunk) => (out += chunk))
    child.stderr?.on("data", (chunk) => (err += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
  })

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("waybill, between programs", (it) => {
  it.effect("publishes a line when it comes, and not when there are many", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const redis = yield* client(url)
      const stored = Effect.promise(() => redis.xlen("{waybill:slow}:stream"))
      const child = yield* open(["publish", "slow"], url)
      const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
      for (let line = 1; line <= 3; line++) {
        child.stdin?.write(`${line}\n`)
        yield* becomes(`line ${line}`, stored, line)
      }
      child.stdin?.end()
      const { code, out } = yield* Fiber.join(over)
      assert.deepStrictEqual([code, out], [0, "3 stored.\n"])
    }).pipe(Effect.scoped)
  )

  it.effect("stores a line as it is, and says which one cannot be", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const line = '{"id":12345678901234567890,"f":1.0, "a":1}'
      assert.strictEqual((yield* run(["publish", "exact"], { url, stdin: `${line}\n` })).code, 0)
      const stored = (yield* run(["tail", "exact", "--json"], { url })).out
      assert.strictEqual(JSON.parse(stored).body, line)

      const large = yield* run(["publish", "exact", "--max-bytes", "100"], {
        url,
        stdin: `1\n2\n"${"x".repeat(100)}"\n4\n`
      })
      assert.strictEqual(large.code, 1)
      assert.match(
        large.err,
        /^waybill: line 3: 102 bytes, most of them in its body; the limit is 100.*The lines before it were published\n$/
      )
      assert.strictEqual((yield* run(["tail", "exact", "--json"], { url })).out.trim().split("\n").length, 3)
    })
  )

  it.effect("case C6: the payload of an envelope is stored as the text that it is", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const payloads = [
        "1e400",
        "0.10000000000000000000000001",
        "12345678901234567e3",
        "-0",
        "1.0",
        "null",
        '{"id":12345678901234567890, "a" : [1.50,{"payload":2}],"a":"}\\"]:,{"}',
        '"\\ud800 \\u00e9 \\/"',
        "[]"
      ]
      const lines = payloads.flatMap((payload) => [
        `{"payload":${payload}}`,
        `{"headers": {"payload" : "no" , "b":"{"} , "payload" :  ${payload} , "key":"a,b" }`,
        `{"payload":"not this one","p\\u0061yload":${payload}}`
      ])
      const ended = yield* run(["publish", "envelopes", "--envelope"], { url, stdin: lines.join("\n") })
      assert.strictEqual(ended.code, 0, ended.err)
      const { out } = yield* run(["tail", "envelopes", "-n", "100", "--json"], { url })
      const stored = out
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line))
      assert.deepStrictEqual(
        stored.map(({ body }) => body),
        payloads.flatMap((payload) => [payload, payload, payload])
      )
      assert.deepStrictEqual([stored[1].headers, stored[1].key], [{ payload: "no", b: "{" }, "a,b"])
      for (const line of ['{"key":"k"}', '[{"payload":1}]', "1", '{"payload":1,"delay":1e400}']) {
        assert.strictEqual((yield* run(["publish", "envelopes", "--envelope"], { url, stdin: line })).code, 1, line)
      }
      const misspelled = yield* run(["publish", "envelopes", "--envelope"], {
        url,
        stdin: '{"payload":1,"dealy":1000}'
      })
      assert.strictEqual(misspelled.code, 1)
      assert.include(misspelled.err, "dealy")
    })
  )

  it.effect("case C4: bytes that are no text are refused with the line, and text is stored byte for byte", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const redis = yield* client(url)
      const publish = (topic: string, bytes: Buffer) =>
        Effect.gen(function* () {
          const child = yield* open(["publish", topic], url)
          const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
          // A character that comes in two halves is one.
          for (const byte of bytes) child.stdin?.write(Buffer.from([byte]))
          child.stdin?.end()
          return yield* Fiber.join(over)
        })
      const bad = Buffer.concat([
        Buffer.from('"fine"\n'),
        Buffer.from('"caf\xe9"\n', "latin1"),
        Buffer.from('"late"\n')
      ])
      const refused = yield* publish("bytes", bad)
      assert.strictEqual(refused.code, 1)
      assert.match(refused.err, /^waybill: line 2: not valid UTF-8/)
      const good = '"café \u{1f600} \u2028"'
      const stored = yield* publish("bytes", Buffer.from(`${good}\r\n\n ${good} `))
      assert.deepStrictEqual([stored.code, stored.out], [0, "2 stored.\n"])
      const entries = yield* Effect.promise(() => redis.xrangeBuffer("{waybill:bytes}:stream", "-", "+"))
      const bodies = entries.map(([, fields]) => fields[fields.findIndex((field) => String(field) === "payload") + 1])
      assert.deepStrictEqual(bodies.map(String), ['"fine"', good, good])
      // What JavaScript calls white space and JSON does not is no part of a value, and a mark of order stands at the beginning.
      for (const wrong of ['\u00a0"a"', '"a"\u2003', '\ufeff"a"\u3000']) {
        const foreign = yield* run(["publish", "bytes"], { url, stdin: `"first"\n${wrong}` })
        assert.strictEqual(foreign.code, 1)
        assert.match(foreign.err, /^waybill: line 2: not valid JSON/)
      }
      const endless = yield* run(["publish", "bytes", "--max-bytes", "10"], { url, stdin: "1".repeat(2_000_000) })
      assert.strictEqual(endless.code, 1)
      assert.match(endless.err, /^waybill: line 1: /)
    }).pipe(Effect.scoped)
  )

  it.effect("says which line has an id, a key or headers that are refused, and publishes the lines before it", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const half = "\\ud800"
      for (const [i, [wrong, said]] of [
        [`"id":"${half}"`, /invalid id .*half of a surrogate pair/],
        [`"key":"${half}"`, /invalid key .*half of a surrogate pair/],
        [`"headers":{"${half}":"x"}`, /invalid headers .*half of a surrogate pair/],
        [`"id":"${"i".repeat(200)}"`, /most of them in its id; the limit is 100, and --max-bytes/],
        [`"headers":{"h":"${"i".repeat(200)}"}`, /most of them in its headers; the limit is 100, and --max-bytes/],
        ['"id":""', /id/],
        ['"delay":1e300', /delay/]
      ].entries() as ArrayIterator<[number, [string, RegExp]]>) {
        const stdin = `{"payload":1}\n{"payload":2}\n{"payload":3,${wrong}}\n{"payload":4}\n`
        const ended = yield* run(["publish", `refused-${i}`, "--envelope", "--max-bytes", "100"], { url, stdin })
        assert.strictEqual(ended.code, 1, wrong)
        assert.match(ended.err, said)
        assert.match(ended.err, /^waybill: line 3: [^]*The lines before it were published\n$/)
        const stored = (yield* run(["tail", `refused-${i}`], { url })).out
        assert.strictEqual(stored.trim().split("\n").length, 2, wrong)
      }
    })
  )

  it.effect("ends in peace when nobody reads on", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const stdin = Array.from({ length: 3000 }, (_, i) => `{"n":${i},"text":"${"x".repeat(100)}"}`).join("\n")
      yield* run(["publish", "many"], { url, stdin })
      const child = yield* open(["tail", "many", "-n", "3000"], url)
      const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
      child.stdout?.once("data", () => child.stdout?.destroy())
      const { code, err } = yield* Fiber.join(over)
      assert.deepStrictEqual([code, err], [0, ""])
    }).pipe(Effect.scoped)
  )

  it.effect("case C1: a reader that leaves does not change the exit code, and ends what would print on", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      yield* run(["publish", "left"], { url, stdin: "1\n2\n" })
      for (const [args, expected] of [
        [["doctor", "--json", "--watch", "0"], 4],
        [["topics"], 0],
        [["stats", "left", "--watch", "--interval", "0.2"], 0]
      ] as const) {
        const child = yield* open(args, url)
        const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
        child.stdout?.destroy()
        assert.strictEqual((yield* Fiber.join(over)).code, expected, args.join(" "))
      }
    }).pipe(Effect.scoped)
  )

  it.effect("prints nothing but the answer, whatever happens to its connection", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const redis = yield* client(url)
      const stored = Effect.promise(() => redis.xlen("{waybill:cut}:stream"))
      const child = yield* open(["publish", "cut", "--json"], url)
      const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
      child.stdin?.write("1\n")
      yield* becomes("the first", stored, 1)
      yield* Effect.promise(() => redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
      child.stdin?.end("2\n")
      const { code, err, out } = yield* Fiber.join(over)
      assert.strictEqual(code, 0, err)
      assert.deepStrictEqual(JSON.parse(out), { read: 2, stored: 2, duplicate: 0 })
      assert.match(err, /Disconnected/)
    }).pipe(Effect.scoped)
  )

  it.effect("says how many lines were published when the server is gone", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* client(server.url)
      const child = yield* open(["publish", "half"], server.url)
      const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
      child.stdin?.write("1\n")
      yield* becomes(
        "the first",
        Effect.promise(() => redis.xlen("{waybill:half}:stream")),
        1
      )
      yield* server.kill
      child.stdin?.end("2\n")
      const { code, err } = yield* Fiber.join(over)
      assert.strictEqual(code, 2)
      assert.match(err, /1 line was published before that\n$/)
    }).pipe(Effect.scoped)
  )

  it.effect("a redrive that is interrupted says how far it got, and the same command goes on", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const redis = yield* client(url)
      const dead = "{waybill:broken}:group:g:dead"
      yield* Effect.promise(async () => {
        await redis.sadd("waybill:topics", "broken")
        await redis.xgroup("CREATE", "{waybill:broken}:stream", "g", "0", "MKSTREAM")
        for (let i = 0; i < 30; i++) await redis.xadd(dead, "*", "payload", String(i))
      })
      const left = Effect.promise(() => redis.xlen(dead))
      // One at once, and the next one a quarter of an hour later.
      const child = yield* open(["dead", "redrive", "broken", "g", "--limit", "20", "--rate", "0.001", "--yes"], url)
      const over = yield* Effect.forkChild(ended(child), { startImmediately: true })
      yield* becomes("the first", left, 29)
      // It has had the answer for long: the server has heard nothing of it for a second.
      const waits = Effect.promise(async () =>
        String(await redis.call("CLIENT", "LIST"))
          .split("\n")
          .some((line) => line.includes("name=waybill-cli") && Number(/ idle=(\d+)/.exec(line)?.[1]) >= 1)
      )
      yield* becomes("it waits for the next", waits, true)
      child.kill("SIGINT")
      const { code, err } = yield* Fiber.join(over)
      assert.strictEqual(code, 130)
      assert.match(err, /^waybill: 1 redriven so far; run the same command again for the rest$/m)
      const rest = yield* run(["dead", "redrive", "broken", "g", "--yes", "--json"], { url })
      assert.strictEqual(JSON.parse(rest.out).done, 29)
      assert.strictEqual(yield* left, 0)
    }).pipe(Effect.scoped)
  )

  it.effect("watches on when the server is back", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ appendonly: "always" })
      yield* run(["publish", "watched"], { url: server.url, stdin: "1\n" })
      const again = yield* Latch.make()
      let looks = 0
      let needed = Infinity
      const watching = yield* Effect.forkChild(
        until(
          ["stats", "watched", "--watch", "--interval", "0.2", "--json"],
          { url: server.url },
          (out) => {
            looks = out.split("\n").length - 1
            return looks > needed
          },
          () => again.openUnsafe()
        ),
        { startImmediately: true }
      )
      yield* again.await
      yield* server.kill
      yield* server.start
      needed = looks + 2
      const { code, err } = yield* Fiber.join(watching)
      assert.strictEqual(code, 130, err)
    }).pipe(Effect.scoped)
  )
})
