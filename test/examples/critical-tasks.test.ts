import { spawn } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"
import { Redis } from "ioredis"

const program = join(import.meta.dirname, "../../examples/critical-tasks/main.ts")

const run = (url: string | undefined) =>
  Effect.callback<{ readonly code: number | null; readonly out: string }>((resume) => {
    const child = spawn(process.execPath, [program], { env: { ...process.env, REDIS_URL: url } })
    let out = ""
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (out += text))
    child.once("close", (code) => resume(Effect.succeed({ code, out })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** Who did what, of the lines of one who. What two processes do at the same time has no order. */
const said = (out: string, who: string): ReadonlyArray<string> =>
  [...out.matchAll(/^ *[\d.]+ s {2}(\S+(?: \d)?) +(\S+(?: \S+)?)(?: {2,}(.*))?$/gm)].flatMap(([, by, state, detail]) =>
    by === who ? [`${state}${state === "delivered" ? ` ${detail}` : ""}`] : []
  )

const expectStory = (out: string) => {
  assert.deepStrictEqual(said(out, "worker 1"), ["started", "delivered attempt 1, fence 1", "waiting", "stopped"])
  assert.deepStrictEqual(said(out, "worker 2"), [
    "started",
    "delivered attempt 2, fence 2",
    "stands still",
    "wakes up",
    "lease lost"
  ])
  assert.deepStrictEqual(said(out, "worker 3"), [
    "started",
    "delivered attempt 3, fence 3",
    "waiting",
    "delivered attempt 4, fence 4",
    "waiting",
    "delivered attempt 5, fence 5",
    "dead"
  ])
  assert.deepStrictEqual(said(out, "worker 4"), ["started", "delivered attempt 1, fence 6", "done"])
  assert.deepStrictEqual(said(out, "store"), ["claimed"])
  assert.include(out, "dead letter: invoice-7, Unreachable after 5 attempts")
  assert.include(out, "redriven: 1\n")
  assert.include(out, "20 of 20 invoices are out, 0 left in the store")
}

describe("examples/critical-tasks", () => {
  it.live(
    "in memory",
    () =>
      Effect.gen(function* () {
        const { code, out } = yield* run(undefined)
        assert.strictEqual(code, 0, out)
        expectStory(out)
      }),
    120_000
  )

  it.live(
    "on Redis, where a worker is a process that is stopped; it leaves no key behind",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make()
        const { code, out } = yield* run(server.url)
        assert.strictEqual(code, 0, out)
        expectStory(out)
        const redis = yield* Effect.acquireRelease(
          Effect.sync(() => new Redis(server.port)),
          (redis) => Effect.sync(() => redis.disconnect())
        )
        assert.deepStrictEqual(yield* Effect.promise(() => redis.keys("*")), [])
      }).pipe(Effect.scoped),
    120_000
  )
})
