/**
 * The server is killed under its consumers. The numbers are those of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { patterns } from "./Pattern.ts"
import * as Scene from "./Scene.ts"
import { many, seeded, settled } from "./Verdict.ts"

describe.each(patterns)("a server that is killed, %s", (pattern) => {
  it.live(
    "E5 SIGKILL with its log on disk: everything that was accepted is there, and everybody comes back",
    () =>
      Effect.gen(function* () {
        const { crew, hire, publish, server, verdict } = yield* Scene.make
        const orders = { every: 20, concurrency: 8, lease: "2 seconds" }
        const workers = [yield* hire(orders), yield* hire(orders)] as const
        const moments = yield* seeded("E5", Effect.replicateEffect(Random.nextIntBetween(5, 20), 3))
        const outage = Effect.fnUntraced(function* (millis: number) {
          crew.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
          const before = workers.map((worker) => worker.said("Reconnected"))
          yield* server.kill
          yield* Effect.sleep(millis)
          yield* server.start
          for (const [i, worker] of workers.entries()) yield* worker.says("Reconnected", (before[i] ?? 0) + 1)
        })
        const hurting = Effect.gen(function* () {
          let twenties = 0
          for (const [i, more] of moments.entries()) {
            twenties += more
            // Whoever comes to it first: how they share the work is nobody's promise.
            yield* Effect.raceFirst(
              workers[0].handles(twenties * orders.every),
              workers[1].handles(twenties * orders.every)
            )
            // The last one is longer than the lease: nobody could renew.
            yield* outage(i === 2 ? 2500 : 0)
          }
        })
        const producing = Effect.forEach(
          Array.from({ length: 80 }, (_, i) => many(`batch-${i}`, 50, { act: "work", millis: 2 })),
          publish,
          { discard: true }
        )
        yield* Effect.all([producing, hurting], { concurrency: 2, discard: true })
        const { report, text } = yield* verdict()
        console.log(`E5 ${text}`)
        assert.strictEqual(report.counts.published, 4000)
        for (const worker of workers) assert.isAtLeast(worker.said("Reconnected"), 3)
      }).pipe(Scene.play({ pattern, appendonly: "always" })),
    120_000
  )

  it.live("E8 SIGKILL with nothing on disk: groups are made again, the loss is told, and the work goes on", () =>
    Effect.gen(function* () {
      const { crew, hire, publish, redis, server, verdict } = yield* Scene.make
      const worker = yield* hire({ concurrency: 4, every: 4 })
      yield* publish([...many("slow", 4, { act: "work", millis: 800 }), ...many("gone", 100, { act: "work" })])
      yield* worker.handles(4)
      crew.recorder.record({ _tag: "Fault", fault: "StateLost", target: "*" })
      yield* server.kill
      yield* server.start
      yield* worker.says("GroupRecreated")
      yield* publish(many("after", 100, { act: "work" }))
      yield* settled(redis)
      const { text } = yield* verdict()
      console.log(`E8 ${text}`)
      const after = (yield* crew.history).filter(({ fact }) => fact._tag === "Ended" && fact.id.startsWith("after-"))
      assert.strictEqual(after.length, 100)
    }).pipe(Scene.play({ pattern }))
  )
})
