/**
 * The negative control for queues: consumers of a list as they are often written by hand must fail the checker that the
 * library passes.
 */
import { assert, describe, it } from "@effect/vitest"
import { History, RedisServer } from "@waybill/testing"
import { Effect, Layer, Random } from "effect"
import { group, list, type NaiveListOrders } from "./Naive.ts"
import { ask, client, seeded } from "./Verdict.ts"
import * as WorkerProcess from "./WorkerProcess.ts"

const Fixture = Layer.mergeAll(RedisServer.layer(), WorkerProcess.layer)

const idsOf = (raws: ReadonlyArray<string>): Array<string> => raws.map((raw) => (JSON.parse(raw) as { id: string }).id)

/** Runs workers over 500 messages, of which every tenth fails when `failing`; each dies in the handling that `kills` says. */
const run = Effect.fnUntraced(function* (
  mode: NaiveListOrders["mode"],
  failing: boolean,
  kills: ReadonlyArray<number>
) {
  const server = yield* RedisServer.RedisServer
  const workers = yield* WorkerProcess.Workers
  const redis = yield* client(server.url)
  for (let i = 0; i < 500; i++) {
    const id = `m-${i}`
    workers.recorder.record({ _tag: "Publishing", id })
    yield* ask(() => redis.lpush(list, JSON.stringify({ id, fails: failing && i % 10 === 9 })))
    workers.recorder.record({ _tag: "Published", id })
  }
  const spawn = (fate: Pick<NaiveListOrders, "dieIn"> = {}) =>
    workers.spawn("naive-list-worker.ts", { url: server.url, mode, ...fate })
  for (const dieIn of kills) {
    // By its own hand: one that is killed from outside may just have nothing in hand.
    const worker = yield* spawn({ dieIn })
    assert.strictEqual(yield* worker.gone, "SIGKILL")
  }
  const last = yield* spawn()
  yield* last.says("idle")
  yield* workers.stopAll
  const stuck = yield* ask(async () => {
    const keys = await redis.keys(`${list}:processing:*`)
    return (await Promise.all(keys.map((key) => redis.lrange(key, 0, -1)))).flat()
  })
  const report = History.check(yield* workers.history, [
    { group, undelivered: [], pending: idsOf(stuck), waiting: [], deadLetters: [] }
  ])
  console.log(`naive ${mode}, ${kills.length} kills: ${History.render(report)}`)
  return new Set(report.violations.map((violation) => violation._tag))
})

const drawn = (name: string) => seeded(name, Effect.replicateEffect(Random.nextIntBetween(5, 60), 4))

describe("a naive consumer of a list", () => {
  it.live.each(["pop", "lremFinally"] as const)("%s passes while nothing fails and nobody is killed", (mode) =>
    Effect.gen(function* () {
      assert.deepStrictEqual([...(yield* run(mode, false, []))], [])
    }).pipe(Effect.provide(Fixture))
  )

  it.live(
    "that pops a message and then handles it loses it when it is killed",
    () =>
      Effect.gen(function* () {
        assert.include([...(yield* run("pop", false, yield* drawn("pop")))], "Lost")
      }).pipe(Effect.provide(Fixture)),
    120_000
  )

  it.live("that removes a message in finally loses what fails", () =>
    Effect.gen(function* () {
      assert.include([...(yield* run("lremFinally", true, []))], "Lost")
    }).pipe(Effect.provide(Fixture))
  )

  it.live(
    "that has a processing list and nobody who looks into it leaves there what it held when it was killed",
    () =>
      Effect.gen(function* () {
        assert.isNotEmpty([...(yield* run("lremFinally", false, yield* drawn("lremFinally")))])
      }).pipe(Effect.provide(Fixture)),
    120_000
  )
})
