/** The examples on a Redis that is there: each run begins as the first one did, and leaves nothing. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"
import { client } from "../redis/Fixture.ts"
import { sampled } from "../Sample.ts"

const onRedis = ["exactly-once", "pubsub", "lists", "five-patterns", "keyspace", "several-patterns"]

const root = join(import.meta.dirname, "../..")

const example = (name: string, url: string, bank = url) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["scripts/example.ts", name], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, REDIS_URL: url, BANK_REDIS_URL: bank }
  })
  return { code: status, out: stdout, err: stderr }
}

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("examples on Redis", (it) => {
  it.effect.each(sampled("examples on Redis", onRedis, 3))(
    "case D8: %s says the same twice, and leaves no key",
    (name) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make()
        const redis = yield* client(url)
        const bank = name === "several-patterns" ? (yield* RedisServer.make()).url : url
        const onBank = yield* client(bank)
        const runs = [example(name, url, bank), example(name, url, bank)]
        for (const { code, err, out } of runs) assert.strictEqual(code, 0, out + err)
        // Only the prefix of the run differs, and what happens at the same time may be told in another order.
        const said = runs.map(({ out }) =>
          out
            .replaceAll(/example-\d+/g, "example")
            .split("\n")
            .sort()
        )
        if (name !== "lists") assert.deepStrictEqual(said[1], said[0])
        assert.include(yield* Effect.promise(() => onBank.info("commandstats")), "cmdstat_evalsha")
        for (const server of [redis, onBank]) {
          assert.deepStrictEqual(yield* Effect.promise(() => server.keys("*")), [])
        }
      }).pipe(Effect.scoped),
    240_000
  )

  it.effect.each(["quickstart", "telemetry"])(
    "case D8: %s says that it does not use REDIS_URL",
    (name) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const { code, err } = example(name, url)
        assert.strictEqual(code, 0, err)
        assert.include(err, `${name} runs in memory: it does not use REDIS_URL.`)
      }),
    240_000
  )
})
