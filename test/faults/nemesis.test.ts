/**
 * Everything at once: processes, connections and the server are hurt in an order drawn from a seed, for some seconds,
 * and then left in peace: for one seed of two patterns, which the commit chooses, and with `pnpm test:long` for five of each
 * and a minute. WAYBILL_SEED repeats an order, WAYBILL_NEMESIS lets it go on for so many seconds.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@waybill/testing"
import { Effect, Random, Ref } from "effect"
import { complete, sampled, seedOf } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import type { Job } from "./Jobs.ts"
import { patterns } from "./Pattern.ts"
import { ask, drawing, settled } from "./Verdict.ts"

const seconds = Number(process.env.WAYBILL_NEMESIS ?? (complete ? 60 : 8))
const seeds = complete ? [1, 2, 3, 4, 5] : [0]

const jobs: ReadonlyArray<Job> = [
  { act: "work", millis: 1 },
  { act: "work" },
  { act: "write", millis: 20 },
  { act: "fail", times: 1 },
  { act: "work", millis: 100 },
  { act: "writeAndDie", times: 1 },
  { act: "fail" }
]

describe.each(sampled("nemesis", patterns, 2))("a nemesis, %s", (pattern) => {
  it.live.each(seeds)(
    "hurts everything in turn, %s: nothing is lost, and every repetition has its reason",
    (nth) =>
      Effect.gen(function* () {
        const { workers, spawn, publish, redis, server, verdict } = yield* Fixture.make
        const draw = yield* drawing("nemesis", seedOf(`nemesis ${pattern} ${nth}`))
        let until = Infinity
        const peace = Effect.sync(() => performance.now() > until)
        const deeds: Array<string> = []

        /** A place for a worker: whoever works here goes through the same proxy. */
        const place = Effect.gen(function* () {
          const proxy = yield* FaultProxy.make(server.port)
          const start = spawn({ through: proxy.port, concurrency: 8, prefetch: 32, maxDeliveries: 50, every: 100 })
          const worker = yield* Ref.make(yield* start)
          return { proxy, start, worker }
        })
        const places = [yield* place, yield* place, yield* place] as const
        // A busy machine takes its time to start three processes.
        until = performance.now() + seconds * 1000
        const fault = (fault: "Stopped" | "Unreachable" | "Killed", target: string) =>
          workers.recorder.record({ _tag: "Fault", fault, target })
        const healed = (target: string) => workers.recorder.record({ _tag: "Healed", target })

        const pause = draw(Random.nextIntBetween(50, 2500))
        const say = (what: string, whom: string, millis: number) => void deeds.push(`${what} ${whom} ${millis}`)

        const hurtWorker = Effect.fnUntraced(function* ({ proxy, start, worker }: Effect.Success<typeof place>) {
          const present = yield* Ref.get(worker)
          const millis = yield* pause
          const what = yield* draw(Random.choice(["kill", "stop", "terminate", "cut", "hole"] as const))
          say(what, present.name, millis)
          switch (what) {
            case "kill":
              yield* present.kill
              return yield* Effect.flatMap(start, (next) => Ref.set(worker, next))
            case "terminate":
              yield* present.terminate
              yield* present.gone
              return yield* Effect.flatMap(start, (next) => Ref.set(worker, next))
            case "stop":
              yield* present.stop
              yield* Effect.sleep(millis)
              return yield* present.resume
            case "cut": {
              fault("Unreachable", present.name)
              const snapped = yield* proxy.cutAfter(millis, millis % 2 === 0 ? "requests" : "replies")
              yield* Effect.timeoutOption(snapped, "2 seconds")
              return healed(present.name)
            }
            case "hole":
              fault("Unreachable", present.name)
              yield* proxy.blackhole
              yield* Effect.sleep(millis)
              yield* proxy.pass
              return healed(present.name)
          }
        })
        const hurtServer = Effect.gen(function* () {
          const millis = yield* pause
          const what = yield* draw(Random.choice(["clients", "flush", "crash", "freeze"] as const))
          say(what, "server", millis)
          fault("Unreachable", "*")
          switch (what) {
            case "clients":
              yield* ask(() => redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
              break
            case "flush":
              yield* ask(() => redis.script("FLUSH"))
              break
            case "crash":
              yield* server.kill
              yield* Effect.sleep(millis / 2)
              yield* server.start
              break
            case "freeze":
              yield* server.pause
              yield* Effect.sleep(millis)
              yield* server.resume
              break
          }
          healed("*")
        })
        /** Those that took their own life are replaced too. */
        const replacing = Effect.forEach(
          places,
          ({ start, worker }) =>
            Effect.gen(function* () {
              const present = yield* Ref.get(worker)
              yield* present.gone
              if ((yield* Ref.get(worker)) === present) yield* Effect.flatMap(start, (next) => Ref.set(worker, next))
              yield* Effect.sleep("50 millis")
            }).pipe(Effect.forever),
          { concurrency: "unbounded" }
        )
        let count = 0
        const producing = Effect.gen(function* () {
          while (!(yield* peace)) {
            yield* publish(
              Array.from({ length: 20 }, () => {
                const n = count++
                // The last kinds are rare: each takes a process down, or ends as a dead letter.
                const kind = n % 1499 === 700 ? 5 : n % 31 === 0 ? 6 : n % 5
                return [`n-${n}`, jobs[kind]!] as const
              })
            )
            yield* Effect.sleep("30 millis")
          }
        })
        const again = <E, R>(deed: Effect.Effect<unknown, E, R>, most: number) =>
          Effect.gen(function* () {
            while (!(yield* peace)) {
              yield* Effect.sleep(yield* draw(Random.nextIntBetween(0, most)))
              yield* deed
            }
          })
        const hurting = Effect.all(
          [...places.map((place) => again(hurtWorker(place), 1000)), again(hurtServer, 3000)],
          {
            concurrency: "unbounded"
          }
        )
        yield* Effect.all([producing, hurting], { concurrency: 2 }).pipe(
          Effect.andThen(settled(redis, 90)),
          Effect.raceFirst(replacing)
        )
        const { letters, report, text } = yield* verdict().pipe(
          Effect.tapError(() => Effect.sync(() => console.log(deeds)))
        )
        console.log(`${deeds.length} deeds: ${deeds.join(", ")}\n${text}`)
        assert.isNotEmpty(deeds)
        assert.isAbove(count, 0)
        assert.strictEqual(report.counts.published, count)
        assert.isTrue(letters.every(({ reason }) => reason === "Failed"))
      }).pipe(Fixture.run({ pattern, appendonly: "always" })),
    (seconds + 240) * 1000
  )
})
