import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"

const main = join(import.meta.dirname, "../../examples/five-patterns/main.ts")

const table = `
1 is sent, offline: 2, back: 3
  pub/sub       1, 3
  streams       1, 2, 3
  lists         1, 2, 3
  exactly once  1, 2, 3
  keyspace      1, 2, 3
a process dies holding 1
  pub/sub       2
  streams       1 (attempt 2), 2
  lists         1 (attempt 2), 2
  exactly once  1 (attempt 2), 2
  keyspace      1 (attempt 2), 2
1 is published twice, then 2
  pub/sub       refused
  streams       1, 2
  lists         1, 2
  exactly once  1, 2
  keyspace      1, 2
two groups, and 1
  pub/sub       both: 1
  streams       both: 1
  lists         refused
  exactly once  refused
  keyspace      both: 1
1 and 2 are done, a late group, 3
  pub/sub       3
  streams       3
  lists         refused
  exactly once  refused
  keyspace      1, 2, 3
`

const printed = (url: string | undefined) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, [main], {
    encoding: "utf8",
    env: { ...process.env, REDIS_URL: url }
  })
  assert.strictEqual(status, 0, `${stdout}${stderr}`)
  return stdout
}

describe("five-patterns", () => {
  it("prints what arrives in memory", { timeout: 180_000 }, () => {
    assert.strictEqual(printed(undefined), `What arrives, in memory:\n${table}`)
  })

  it.live(
    "prints the same on Redis",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        assert.strictEqual(printed(url), `What arrives, in Redis:\n${table}`)
      }).pipe(Effect.provide(RedisServer.layer())),
    120_000
  )
})
