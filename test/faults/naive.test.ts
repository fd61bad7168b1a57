/**
 * The negative control: consumers as they are often written by hand go through what Waybill goes through, and the same
 * checker must find what they lose and what they double. If this file fails, the others prove nothing.
 */
import { assert, describe, it } from "@effect/vitest"
import { History, RedisServer } from "@waybill/testing"
import { Effect, Layer, Random, Schedule } from "effect"
import type { Redis } from "ioredis"
import { group, type NaiveOrders, stream } from "./Naive.ts"
import { ask, client, seeded } from "./Verdict.ts"
import * as WorkerProcess from "./WorkerProcess.ts"

const Fixture = Layer.mergeAll(RedisServer.layer(), WorkerProcess.layer)

/** Puts messages into the stream; with `failing` every tenth fails once. */
const publish = (redis: Redis, recorder: History.Recorder, count: number, failing: boolean) =>
  ask(async () => {
    await redis.xgroup("CREATE", stream, group, "0", "MKSTREAM")
    for (let i = 0; i < count; i++) {
      const id = `m-${i}`
      recorder.record({ _tag: "Publishing", id })
      await redis.xadd(stream, "*", "id", id, "attempt", 1, "fails", failing && i % 10 === 9 ? 1 : 0)
      recorder.record({ _tag: "Published", id })
    }
  })

const remains = (redis: Redis): Effect.Effect<History.Remains> =>
  ask(async () => {
    const ids = (entries: ReadonlyArray<readonly [string, ReadonlyArray<string>]>) =>
      entries.map(([, fields]) => fields[fields.indexOf("id") + 1] ?? "")
    const [info] = (await redis.xinfo("GROUPS", stream)) as Array<Array<string>>
    const undelivered = ids(await redis.xrange(stream, `(${info?.[7]}`, "+"))
    const rows = (await redis.xpending(stream, group, "-", "+", 100_000)) as Array<[string]>
    const pending: Array<string> = []
    for (const [entry] of rows) pending.push(...ids(await redis.xrange(stream, entry, entry)))
    return { group, undelivered, pending, waiting: [], deadLetters: [] }
  })

const settled = (redis: Redis) =>
  remains(redis).pipe(
    Effect.repeat({
      until: ({ pending, undelivered }) => pending.length + undelivered.length === 0,
      schedule: Schedule.spaced("50 millis")
    }),
    Effect.timeout("60 seconds")
  )

/** Runs three workers over the messages; each is replaced when it dies, in the handlings that `kills` says. */
const run = Effect.fnUntraced(function* (mode: NaiveOrders["mode"], kills: ReadonlyArray<number>, dieInRetry?: number) {
  const server = yield* RedisServer.RedisServer
  const workers = yield* WorkerProcess.Workers
  const redis = yield* client(server.url)
  yield* publish(redis, workers.recorder, 2000, mode === "copyToRetry")
  const orders = { url: server.url, mode, lease: 500 }
  // By its own hand: one that is killed from outside may just have nothing in hand.
  const victim = Effect.fnUntraced(function* (dieIn: number) {
    const worker = yield* workers.spawn("naive-worker.ts", { ...orders, dieIn })
    return yield* worker.gone
  })
  const doomed =
    dieInRetry === undefined ? undefined : yield* workers.spawn("naive-worker.ts", { ...orders, dieInRetry })
  for (const end of yield* Effect.forEach(kills, victim, { concurrency: 2 })) assert.strictEqual(end, "SIGKILL")
  if (doomed !== undefined) assert.strictEqual(yield* doomed.gone, "SIGKILL")
  yield* workers.spawn("naive-worker.ts", orders)
  yield* settled(redis)
  yield* workers.stopAll
  const report = History.check(yield* workers.history, [yield* remains(redis)])
  console.log(`naive ${mode}, ${kills.length + (doomed === undefined ? 0 : 1)} kills: ${History.render(report)}`)
  return report
})

const tags = (report: History.Report) => [...new Set(report.violations.map((violation) => violation._tag))]

describe("a naive consumer", () => {
  it.live.each(["ackFirst", "copyToRetry"] as const)(
    "%s passes while nobody is killed",
    (mode) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(tags(yield* run(mode, [])), [])
      }).pipe(Effect.provide(Fixture)),
    120_000
  )

  it.live(
    "that acknowledges before it handles loses messages when it is killed",
    () =>
      Effect.gen(function* () {
        const kills = yield* seeded("ackFirst", Effect.replicateEffect(Random.nextIntBetween(20, 200), 4))
        assert.include(tags(yield* run("ackFirst", kills)), "Lost")
      }).pipe(Effect.provide(Fixture)),
    120_000
  )

  it.live(
    "E35 that is blocked for longer than its lease doubles what it retries then, without a fence",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.RedisServer
        const workers = yield* WorkerProcess.Workers
        const redis = yield* client(server.url)
        // The tenth of them fails once.
        yield* publish(redis, workers.recorder, 10, true)
        const orders = { url: server.url, mode: "copyToRetry", lease: 1000 } as const
        const blocked = yield* workers.spawn("naive-worker.ts", { ...orders, blockIn: 10 })
        yield* blocked.says("blocked")
        yield* workers.spawn("naive-worker.ts", orders)
        // The other one has taken all over, and done it.
        yield* settled(redis)
        yield* blocked.unblock
        yield* blocked.says("retried")
        yield* settled(redis)
        yield* workers.stopAll
        assert.include(tags(History.check(yield* workers.history, [yield* remains(redis)])), "TwoEnds")
      }).pipe(Effect.provide(Fixture)),
    120_000
  )

  it.live(
    "that copies a failed message and then acknowledges it doubles it when it is killed in between",
    () =>
      Effect.gen(function* () {
        const retry = yield* seeded("copyToRetry", Random.nextIntBetween(1, 20))
        assert.include(tags(yield* run("copyToRetry", [], retry)), "Unexplained")
      }).pipe(Effect.provide(Fixture)),
    120_000
  )
})
