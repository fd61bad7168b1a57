/**
 * The command between other programs: what comes in piece by piece, who stops reading, and a server that goes away.
 */
import type { ChildProcess } from "node:child_process"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Fiber, Latch } from "effect"
import { becomes, client } from "../redis/Stage.ts"
import { run, type Run, start, until } from "./Terminal.ts"

/** A process whose input stays open, and what it has printed in the end. */
const open = (args: ReadonlyArray<string>, url: string) =>
  Effect.acquireRelease(
    Effect.sync(() => start(args, { url })),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

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
        /^waybill: line 3: 102 bytes, and the limit is 100.*The lines before it were published\n$/
      )
      const envelope = yield* run(["publish", "exact", "--envelope"], {
        url,
        stdin: '{"payload":{"id":12345678901234567890}}\n'
      })
      assert.strictEqual(envelope.code, 1)
      assert.match(envelope.err, /^waybill: line 1: id is 12345678901234567890, .* put it between quotes\n$/)
      assert.strictEqual((yield* run(["tail", "exact", "--json"], { url })).out.trim().split("\n").length, 3)
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
      assert.match(err, /1 line was published before\n$/)
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
      assert.match(err, /^waybill: 1 sent back until then; the same command goes on with the rest$/m)
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
