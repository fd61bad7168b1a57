/** What the command shows where something is wrong with one topic, one group or the prefix. */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"
import { client } from "../redis/Fixture.ts"
import { run } from "./Terminal.ts"

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })(
  "waybill, where one is wrong",
  (it) => {
    it.effect("case C3: the others are shown, this one is named, and the exit code says so", () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make()
        const redis = yield* client(url)
        yield* run(["publish", "good"], { url, stdin: "1\n" })
        yield* run(["publish", "queue", "--pattern", "lists"], { url, stdin: "1\n" })
        yield* Effect.promise(async () => {
          await redis.sadd("waybill:topics", "broken", "unknown", "list")
          await redis.set("{waybill:broken}:meta", "of a wrong type")
          await redis.hset("{waybill:unknown}:meta", "pattern", "telepathy")
          await redis.hset("{waybill:list}:meta", "pattern", "lists", "wire", "1")
          await redis.set("{waybill:list}:groups", "of a wrong type")
        })
        for (const command of ["topics", "stats"]) {
          const people = yield* run([command], { url })
          assert.strictEqual(people.code, 2, people.err)
          assert.match(people.out, /^good /m)
          assert.match(people.out, /^queue /m)
          assert.match(people.err, /broken cannot be read: the key \{waybill:broken\}:meta holds/)
          assert.match(people.err, /^unknown cannot be read: .*telepathy/m)
          assert.match(people.err, /^list cannot be read: the key \{waybill:list\}:groups/m)
          const program = yield* run([command, "--json"], { url })
          assert.strictEqual(program.code, 2)
          const items: ReadonlyArray<{ readonly topic: string; readonly depth?: number; readonly error?: string }> =
            JSON.parse(program.out)
          assert.deepStrictEqual(
            items.map(({ depth, error, topic }) => [topic, depth, error === undefined]),
            [
              ["good", 1, true],
              ["queue", 1, true],
              ["broken", undefined, false],
              ["list", undefined, false],
              ["unknown", undefined, false]
            ]
          )
        }
        assert.strictEqual((yield* run(["stats", "good"], { url })).code, 0)
        assert.strictEqual((yield* run(["stats", "broken"], { url })).code, 2)
      }).pipe(Effect.scoped)
    )

    it.effect("case D12: under a wrong prefix those are named that there are", () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make()
        const redis = yield* client(url)
        const empty = yield* run(["topics"], { url })
        assert.deepStrictEqual([empty.code, empty.out], [0, "There are no topics under the prefix waybill.\n"])
        yield* run(["publish", "orders", "--prefix", "shop"], { url, stdin: "1\n" })
        yield* run(["publish", "orders", "--prefix", "other"], { url, stdin: "1\n" })
        yield* Effect.promise(async () => {
          await redis.set("text:topics", "no registry")
          await redis.mset(Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`key:${i}`, "x"])))
        })
        for (const args of [["topics"], ["stats"], ["stats", "orders"], ["pending", "orders", "g"]]) {
          const { err, out } = yield* run(args, { url })
          assert.match(
            out + err,
            /under the prefix waybill\. Prefixes with topics: other, shop\. Choose one with --prefix\./
          )
        }
        const chosen = yield* run(["topics", "--prefix", "shop"], { url })
        assert.match(chosen.out, /^orders /m)
        assert.deepStrictEqual(JSON.parse((yield* run(["topics", "--json"], { url })).out), [])
      }).pipe(Effect.scoped)
    )

    it.effect("case D6: a group that was renamed is named, with what it holds and how it is retired", () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make({ appendonly: "always" })
        const redis = yield* client(url)
        for (const pattern of ["streams", "keyspace"]) {
          yield* run(["publish", pattern, "--pattern", pattern], { url, stdin: "1\n2\n3\n" })
        }
        yield* Effect.promise(async () => {
          for (const topic of ["streams", "keyspace"]) await redis.sadd(`{waybill:${topic}}:groups`, "old", "new")
          for (const group of ["old", "new"]) {
            await redis.xgroup("CREATE", "{waybill:streams}:stream", group, "0")
            for (const topic of ["streams", "keyspace"]) {
              await redis.zadd(`{waybill:${topic}}:group:new:consumers`, Date.now() + 3_600_000, "alive")
            }
          }
        })
        const { code, out } = yield* run(["doctor", "--watch", "0"], { url })
        assert.strictEqual(code, 4)
        for (const topic of ["streams", "keyspace"]) {
          const line = out.split("\n").find((text) => text.startsWith(`!! ${topic}, group old:`)) ?? ""
          assert.match(line, /no consumer is alive, and 3 messages are waiting for one/)
          const [, command = ""] = /renamed.*`waybill (groups retire [^`]*)`/.exec(line) ?? []
          assert.notInclude(out, `!! ${topic}, group new`)
          // What it says to do helps.
          assert.strictEqual((yield* run([...command.split(" "), "--yes"], { url })).code, 0, line)
          assert.notInclude((yield* run(["doctor", "--watch", "0"], { url })).out, `${topic}, group old`)
        }
      }).pipe(Effect.scoped)
    )
  }
)
