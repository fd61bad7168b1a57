/** What a topic costs a process is given back when it is not used any more. */
import { execFile } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"

const topics = 2500

/** Nobody takes the message in memory: it stays, and does not count. */
const message = 400

// The others publish and remember as the first of each row does.
const stored = ["streams", "pubsub"]
const inMemory = ["memory streams", "memory lists", "memory pubsub"]

type Figure = readonly [pattern: string, used: number, idle: number]

/** Bytes a topic for each of the patterns, when it has just been used and 15 seconds later. */
const measure = (url: string, patterns: ReadonlyArray<string>) =>
  Effect.callback<string>((resume) => {
    const worker = new URL("many-topics-worker.ts", import.meta.url).pathname
    execFile(process.execPath, ["--expose-gc", worker, url, String(topics), ...patterns], (error, stdout, stderr) =>
      resume(error === null ? Effect.succeed(stdout) : Effect.die(new Error(`${error.message}${stderr.slice(-2000)}`)))
    )
  }).pipe(
    // What the worker prints.
    Effect.map((out): ReadonlyArray<Figure> => JSON.parse(out) as ReadonlyArray<Figure>)
  )

describe("topics by the thousand", () => {
  it.live(
    "case B15: a topic that is not used for 15 seconds costs at most 1,000 bytes of heap, on every pattern",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const figures = yield* measure(url, [...stored, ...inMemory])
        assert.deepStrictEqual(
          figures.map(([pattern]) => pattern),
          [...stored, ...inMemory]
        )
        for (const [pattern, used, idle] of figures) {
          assert.isAtMost(idle, inMemory.includes(pattern) ? 1000 + message : 1000, pattern)
          // As long as its publisher is open it costs more than that.
          if (stored.includes(pattern)) assert.isAbove(used, 2000, pattern)
        }
      }).pipe(Effect.provide(RedisServer.layer())),
    240_000
  )
})
