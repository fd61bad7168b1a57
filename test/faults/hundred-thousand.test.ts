/**
 * The long run: a hundred thousand messages through three workers, each of which is killed at random moments and
 * replaced; fewer, unless `pnpm test:long` runs it. None may be lost, and each that came twice must have been in the hands of one that was killed.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Random } from "effect"
import { complete, sampled, seedOf } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import type { Job } from "./Jobs.ts"
import { patterns } from "./Pattern.ts"
import { client, judge, publish, seeded, settled } from "./Verdict.ts"
import { Workers } from "./WorkerProcess.ts"

const total = complete ? 100_000 : 15_000
const atOnce = 3
const livesLost = 3
/** How often a worker tells how far it is. */
const every = 100

const job = (i: number): Job => (i % 100 === 99 ? { act: "fail", times: 1 } : { act: "work", millis: 1 })

describe.each(sampled("hundred thousand", patterns, 2))("a hundred thousand messages, %s", (pattern) => {
  it.live(
    "E1 three workers killed with SIGKILL at random moments, and replaced: nothing lost, each repetition explained",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.RedisServer
        const workers = yield* Workers
        const redis = yield* client(server.url)
        // After so many messages each life of each worker ends; the instant within them is up to the machine.
        const schedule = yield* seeded(
          "a hundred thousand messages",
          Effect.replicateEffect(Effect.replicateEffect(Random.nextIntBetween(1, total / 1700), livesLost), atOnce),
          seedOf(`a hundred thousand messages ${pattern}`)
        )
        const spawn = workers.spawn("waybill-worker.ts", {
          pattern,
          url: server.url,
          every,
          concurrency: 64,
          prefetch: 256,
          // No living worker may lose it, on a machine with other things to do: the verdict counts on that.
          lease: "10 seconds",
          maxDeliveries: 20
        })
        const began = performance.now()
        const producing = Effect.forEach(
          Array.from({ length: total / 500 }, (_, batch) => batch * 500),
          (from) =>
            publish(
              workers.recorder,
              Array.from({ length: 500 }, (_, i) => [`n-${from + i}`, job(from + i)] as const)
            ),
          { discard: true }
        )
        const dying = Effect.forEach(
          schedule,
          (lives) =>
            Effect.gen(function* () {
              for (const hundreds of lives) {
                const worker = yield* spawn
                yield* worker.handles(hundreds * every)
                yield* worker.kill
              }
              yield* spawn
            }),
          { concurrency: atOnce, discard: true }
        )
        yield* Effect.all([producing, dying], { concurrency: 2, discard: true })
        yield* settled(redis, 120)
        const seconds = (performance.now() - began) / 1000
        yield* workers.stopAll
        const { letters, report, text } = yield* judge(redis, yield* workers.history)
        console.log(
          `${text}\n${total} messages in ${seconds.toFixed(1)} s, killed after ${JSON.stringify(schedule)} hundreds`
        )

        assert.deepStrictEqual(letters, [])
        assert.deepInclude(report.counts, { published: total, leasesLost: 0, faults: atOnce * livesLost })
        const reasons = Map.groupBy(report.repetitions, (repetition) => repetition.because)
        assert.sameMembers([...reasons.keys()], ["Retry", "Killed"])
        // Some were in flight at a kill, or the test has not hit anything; no more than those who died could hold.
        const killed = reasons.get("Killed") ?? []
        assert.isAbove(killed.length, 0)
        assert.isAtMost(killed.length, atOnce * livesLost * (64 + 256))
      }).pipe(Fixture.run({ pattern })),
    complete ? 900_000 : 300_000
  )
})
