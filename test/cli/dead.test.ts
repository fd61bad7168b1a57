/** Which dead letters the command chooses. */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"
import { client } from "../redis/Fixture.ts"
import { run } from "./Terminal.ts"

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("waybill dead", (it) => {
  it.effect("case C2: bytes are searched as bytes, and not as what is printed of them", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.make()
      const redis = yield* client(url)
      const text = (word: string) => Buffer.from(word)
      const bodies: ReadonlyArray<readonly [id: string, body: Buffer]> = [
        ["zeros", Buffer.from([0xff, 0, 0])],
        ["hello", Buffer.concat([text("hello "), Buffer.from([0xff])])],
        ["umlaut", Buffer.concat([Buffer.from([0xc3]), text("grüße")])],
        ["text", text('"wAA says hello"')]
      ]
      yield* Effect.promise(async () => {
        await redis.sadd("waybill:topics", "t")
        await redis.xgroup("CREATE", "{waybill:t}:stream", "g", "0", "MKSTREAM")
        for (const [id, body] of bodies) {
          const head = ["reason", "r", "cause", "", "attempts", "1", "fence", "1", "id", id, "at", "1"]
          await redis.xadd("{waybill:t}:group:g:dead", "*", ...head, "origin", "1-1", "consumer", "c", "payload", body)
        }
      })
      const found = (contains: string) =>
        Effect.map(run(["dead", "list", "t", "g", "--contains", contains, "--json"], { url }), ({ out }) =>
          JSON.parse(out).map(({ id }: { id: string }) => id)
        )
      const cases: ReadonlyArray<readonly [contains: string, ids: ReadonlyArray<string>]> = [
        ["wAA", ["text"]],
        ["/wAA", []],
        ["hello", ["hello", "text"]],
        ["aGVsbG8", []],
        ["grüße", ["umlaut"]],
        ["\u0000\u0000", ["zeros"]],
        ["base64", []],
        ["\ufffd", []]
      ]
      for (const [contains, ids] of cases) assert.deepStrictEqual(yield* found(contains), ids, contains)
      for (const filter of ["--contains", "--reason", "--id"]) {
        for (const action of ["list", "discard", "redrive"]) {
          const refused = yield* run(["dead", action, "t", "g", filter, "", ...(action === "list" ? [] : ["--yes"])], {
            url
          })
          assert.notStrictEqual(refused.code, 0, `${action} ${filter}`)
          assert.include(refused.err, `${filter} is empty`)
        }
      }
      const during = (...times: ReadonlyArray<string>) => run(["dead", "list", "t", "g", "--json", ...times], { url })
      const long = "2020-01-01T00:00:00"
      for (const [times, count] of [
        [["--after", `${long}Z`], bodies.length],
        [["--before", `${long}+02:00`], 0]
      ] as const) {
        assert.lengthOf(JSON.parse((yield* during(...times)).out), count)
      }
      for (const time of [long, "2020-01-01", "yesterday"]) {
        assert.include((yield* during("--before", time)).err, "--before takes a time with its zone")
      }
      const discarded = yield* run(["dead", "discard", "t", "g", "--contains", "wAA", "--yes", "--json"], { url })
      assert.strictEqual(JSON.parse(discarded.out).done, 1)
      const redriven = yield* run(["dead", "redrive", "t", "g", "--contains", "hello", "--yes", "--json"], { url })
      assert.strictEqual(JSON.parse(redriven.out).done, 1)
      const { out } = yield* run(["dead", "list", "t", "g", "--json"], { url })
      assert.deepStrictEqual(
        JSON.parse(out).map(({ id }: { readonly id: string }) => id),
        ["zeros", "umlaut"]
      )
    }).pipe(Effect.scoped)
  )
})
