/**
 * Three processes with clocks of their own publish the ticks of a hundred schedules, while one after the other is killed and the server
 * restarts. Each tick must be there once. The hand-written way must fail the same check.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, Random, Schedule } from "effect"
import { complete } from "../Sample.ts"
import { ids, type TickOrders, topic } from "./Ticks.ts"
import { ask, client, seeded } from "./Verdict.ts"
import * as WorkerProcess from "./WorkerProcess.ts"

const seconds = complete ? 60 : 2
const seeds = complete ? 10 : 1
const minutes = 60_000

/** When the server restarts, and whom each second kills. */
const fates = (name: string) =>
  seeded(
    name,
    Effect.all({
      restartIn: Random.nextIntBetween(0, seconds - 1),
      kills: Effect.replicateEffect(
        Effect.all([Random.nextIntBetween(500, 1000), Random.nextIntBetween(0, 2)]),
        seconds
      )
    })
  )

const run = Effect.fnUntraced(function* (name: string, naive: boolean) {
  const { kills, restartIn } = yield* fates(name)
  const server = yield* RedisServer.RedisServer
  const workers = yield* WorkerProcess.Workers
  const redis = yield* client(server.url)
  const spawn = (ahead: number) => workers.spawn<TickOrders>("schedule-worker.ts", { url: server.url, naive, ahead })
  const processes = yield* Effect.all([spawn(0), spawn(5 * minutes), spawn(-5 * minutes)], { concurrency: 3 })
  for (const [second, [millis, drawn]] of (naive ? kills.slice(0, 1) : kills).entries()) {
    yield* Effect.sleep(millis)
    // Another one's death would not be noticed.
    const leader = naive ? yield* ask(() => redis.get("leader")) : undefined
    const i = naive ? processes.findIndex(({ name }) => name === leader) : drawn
    yield* processes[i]!.kill
    if (second === restartIn && !naive) {
      yield* server.kill
      yield* Effect.sleep("500 millis")
      yield* server.start
    }
    processes[i] = yield* spawn((i === 1 ? 5 : i === 2 ? -5 : 0) * minutes)
    if (!naive) continue
    // Its lock outlives it.
    const next = ask(() => redis.get("leader"))
    yield* Effect.repeat(next, {
      until: (name) => name !== null && name !== leader,
      schedule: Schedule.spaced("20 millis")
    })
  }
  yield* Effect.sleep("1500 millis")
  yield* workers.stopAll
  const entries = yield* ask(() => redis.xrange(`{waybill:${topic}}:stream`, "-", "+"))
  const found = new Map<string, Array<number>>(ids.map((id) => [id, []]))
  for (const [, fields] of entries) {
    const [id = "", tick = ""] = (fields[fields.indexOf("id") + 1] ?? "").split("@")
    found.get(id)?.push(Date.parse(tick))
  }
  let doubled = 0
  let missing = 0
  for (const ticks of found.values()) {
    const once = new Set(ticks)
    doubled += ticks.length - once.size
    missing += (Math.max(...ticks) - Math.min(...ticks)) / 1000 + 1 - once.size
  }
  return { doubled, missing, least: Math.min(...[...found.values()].map((ticks) => ticks.length)) }
})

const fixture = () => Layer.mergeAll(RedisServer.layer({ appendonly: "always" }), WorkerProcess.layer)

describe("schedules, streams", () => {
  for (let seed = 1; seed <= seeds; seed++) {
    it.live(
      `E1 E5 SIGKILL of processes and of the server: each tick is published once, clocks being minutes apart (${seed})`,
      () =>
        Effect.gen(function* () {
          const { doubled, least, missing } = yield* run(`schedules ${seed}`, false)
          assert.deepStrictEqual({ doubled, missing }, { doubled: 0, missing: 0 })
          assert.isAtLeast(least, seconds)
        }).pipe(Effect.scoped, Effect.provide(fixture())),
      600_000
    )
  }

  it.live(
    "a leader with a timer and messages without an id doubles ticks, or misses some",
    () =>
      Effect.gen(function* () {
        const { doubled, missing } = yield* run("naive schedules", true)
        assert.isAbove(doubled + missing, 0)
      }).pipe(Effect.scoped, Effect.provide(fixture())),
    600_000
  )
})
