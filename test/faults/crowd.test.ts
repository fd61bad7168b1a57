/**
 * Many members of one group that do the same at once: they beat, promote, take over and clear away. The number is that of
 * the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Option, Schedule } from "effect"
import { Producer } from "waybill"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { Job } from "./Jobs.ts"
import { patterns, streamKeys } from "./Pattern.ts"
import { ask, many, settled } from "./Verdict.ts"

describe.each(sampled("crowd", patterns, 2))("a crowd, %s", (pattern) => {
  it.live("E39 many members that beat, promote and take over at once: nothing is lost, nothing doubled", () =>
    Effect.gen(function* () {
      const { workers, spawn, join, publish, redis, server, verdict } = yield* Fixture.make
      // Of a living one that is held up for longer than its lease the verdict knows nothing: it would find a stale fence.
      const terms = { concurrency: 2, prefetch: 4, lease: "2 seconds" }
      /** Victims that were found dead by one of the members. The name of a consumer has its process in it. */
      const found = new Set<string>()
      const members = yield* Effect.replicateEffect(join(server.url, terms), 8)
      for (const [id] of many("due", 100, { act: "work" })) workers.recorder.record({ _tag: "Publishing", id })
      yield* Producer.publishAll(
        Job,
        many("due", 100, { act: "work" }).map(([, job]) => job),
        (_, i) => ({ id: `due-${i}`, delay: `${50 + (i % 10)} millis` })
      )
      for (const [id] of many("due", 100, { act: "work" })) workers.recorder.record({ _tag: "Published", id })
      for (const { transport } of members) {
        yield* transport.lifecycle.listen((event) => {
          if (event._tag !== "Claimed") return
          for (const name of event.from) if (!name.includes(`-${process.pid}-`)) found.add(name)
        })
      }
      let published = 100
      for (let round = 0; round < 3; round++) {
        // The last one dies holding nothing, as any of them may, so no other consumer waits for its messages.
        const holding = round < 2
        const victim = yield* spawn({ ...terms, concurrency: 8, ...(holding ? { failpoint: "beforeSettling" } : {}) })
        // The others may be quicker: there is work until the victim has had some of it, too.
        for (let wave = 0, dead = false; !dead; wave++) {
          yield* publish([
            ...many(`retry-${round}-${wave}`, 50, { act: "fail", times: 1 }),
            ...many(`slow-${round}-${wave}`, 100, { act: "work", millis: 40 })
          ])
          published += 150
          if (holding) {
            dead = Option.isSome(yield* Effect.timeoutOption(victim.gone, "1 second"))
          } else {
            yield* settled(redis)
            yield* victim.kill
            dead = true
          }
        }
        // Before the next one comes: it might be the one that finds it.
        if (holding) {
          yield* Effect.sync(() => found.size > round).pipe(
            Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("20 millis") }),
            Effect.timeout("30 seconds")
          )
        }
      }
      yield* settled(redis)
      // The others forget the dead, also one that held nothing; who is left then has yet to leave.
      yield* ask(() => redis.zcard(streamKeys.consumers)).pipe(
        Effect.repeat({ until: (count) => count === members.length, schedule: Schedule.spaced("20 millis") }),
        Effect.timeout("30 seconds")
      )
      const { report } = yield* verdict()
      assert.strictEqual(report.counts.published, published)
    }).pipe(Fixture.run({ pattern }))
  )
})
