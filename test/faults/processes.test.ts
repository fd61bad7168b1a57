/**
 * Consumers as processes that are killed, stopped and asked to leave. The numbers are those of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@waybill/testing"
import { Effect, Schedule } from "effect"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { patterns } from "./Pattern.ts"
import { many, settled } from "./Verdict.ts"

const again = (verdict: {
  readonly report: { readonly repetitions: ReadonlyArray<{ readonly id: string; readonly because: string }> }
}) => verdict.report.repetitions.map(({ because, id }) => `${id} after ${because}`).toSorted()

describe.each(sampled("processes", patterns, 2))("a consumer process, %s", (pattern) => {
  it.live("E1 SIGKILL in the middle of a handler: a peer takes over after the lease, and the attempt counts", () =>
    Effect.gen(function* () {
      const { workers, spawn, publish, verdict } = yield* Fixture.make
      const victim = yield* spawn()
      yield* publish([["hanging", { act: "hang" }], ...many("work", 50, { act: "work", millis: 5 })])
      yield* victim.says("began hanging")
      // Before the peer is there: from a victim that is only slow it would take the message over as well.
      yield* victim.kill
      const peer = yield* spawn()
      yield* peer.says("began hanging")
      const told = yield* verdict()
      assert.include(again(told), "hanging after Killed")
      const [, second] = (yield* workers.history).filter(({ fact }) => fact._tag === "Started" && fact.id === "hanging")
      assert.deepInclude(second, { writer: peer.name })
      assert.deepInclude(second?.fact, { attempt: 2 })
    }).pipe(Fixture.run({ pattern }))
  )

  it.live(
    "E2 SIGKILL between the effect and the acknowledgement: the effect may come again, under a greater fence",
    () =>
      Effect.gen(function* () {
        const { workers, spawn, publish, verdict } = yield* Fixture.make
        const victim = yield* spawn()
        yield* publish([["twice", { act: "writeAndDie", times: 1 }]])
        yield* victim.gone
        const peer = yield* spawn()
        yield* peer.says("wrote twice accepted")
        assert.deepStrictEqual(again(yield* verdict()), ["twice after Killed"])
        const effects = (yield* workers.history).flatMap(({ fact }) => (fact._tag === "Effect" ? [fact] : []))
        assert.deepStrictEqual(
          effects.map(({ accepted }) => accepted),
          [true, true]
        )
      }).pipe(Fixture.run({ pattern }))
  )

  it.live.each(["taken", "beforeSettling", "afterSettling"] as const)("E2 SIGKILL at the point %s", (failpoint) =>
    Effect.gen(function* () {
      const { spawn, publish, verdict } = yield* Fixture.make
      const victim = yield* spawn({ failpoint, concurrency: 4 })
      yield* publish(many("work", 40, { act: "work", millis: 1 }))
      assert.strictEqual(yield* victim.gone, "SIGKILL")
      yield* spawn()
      const { report } = yield* verdict()
      assert.isTrue(report.repetitions.every(({ because }) => because === "Killed"))
      // Taken and not begun: nobody can tell of a handling. Settled before the kill: nothing to do again.
      if (failpoint === "beforeSettling") assert.isAbove(report.repetitions.length, 0)
      if (failpoint === "taken") assert.strictEqual(report.repetitions.length, 0)
    }).pipe(Fixture.run({ pattern }))
  )

  it.live(
    "E3 SIGSTOP for longer than the lease, then SIGCONT: the zombie's effect and its settlement are refused",
    () =>
      Effect.gen(function* () {
        const { workers, spawn, publish, redis, verdict } = yield* Fixture.make
        const zombie = yield* spawn({ concurrency: 2, lease: "1 second" })
        yield* publish([
          // Long enough that it is stopped before they end.
          ["outside", { act: "write", millis: 3000 }],
          ["fails", { act: "fail", millis: 3000, times: 1 }]
        ])
        yield* zombie.says("began outside")
        yield* zombie.stop
        const peer = yield* spawn()
        yield* peer.says("wrote outside accepted")
        yield* settled(redis)
        yield* zombie.resume
        yield* Effect.raceFirst(zombie.says("lost outside"), zombie.says("stale outside"))
        yield* verdict()
        const refused = (yield* workers.history).filter(
          ({ fact, writer }) =>
            writer === zombie.name && fact._tag === "Settled" && !fact.stale && fact.id === "outside"
        )
        assert.deepStrictEqual(refused, [])
      }).pipe(Fixture.run({ pattern }))
  )

  it.live(
    "E3 SIGSTOP, then SIGCONT, and it settles before it finds out: the server refuses ack, retry and dead letter",
    () =>
      Effect.gen(function* () {
        const { workers, spawn, publish, redis, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const late = ["acked", "retried", "rejected"]
        yield* publish([
          // Long enough that it is stopped before they end.
          ["acked", { act: "write", millis: 3000 }],
          ["retried", { act: "fail", millis: 3000, times: 1 }],
          ["rejected", { act: "defect", millis: 3000, times: 1 }]
        ])
        const zombie = yield* spawn({ concurrency: 3, lease: "2 seconds", deaf: true, through: proxy.port })
        for (const id of late) yield* zombie.says(`began ${id}`)
        yield* zombie.stop
        const peer = yield* spawn()
        yield* peer.says("wrote acked accepted")
        yield* settled(redis)
        const before = (yield* proxy.commands).get("EVALSHA") ?? 0
        yield* zombie.resume
        const settlements = Effect.map(workers.history, (events) =>
          events.flatMap(({ fact, writer }) => (writer === zombie.name && fact._tag === "Settled" ? [fact] : []))
        )
        // Refused or not: of those that are not, it would say nothing.
        const answers = yield* settlements.pipe(
          Effect.repeat({
            until: (found) => late.every((id) => found.some((fact) => fact.id === id)),
            schedule: Schedule.spaced("20 millis")
          }),
          Effect.timeout("30 seconds")
        )
        assert.isTrue(answers.every(({ stale }) => stale))
        // It beats no more: what it has asked for are its settlements.
        assert.isAbove((yield* proxy.commands).get("EVALSHA") ?? 0, before)
        const { letters } = yield* verdict()
        assert.deepStrictEqual(letters, [])
      }).pipe(Fixture.run({ pattern }))
  )

  it.live("E35 event loop blocked for longer than the lease: as E3, for all that was in hand", () =>
    Effect.gen(function* () {
      const { workers, spawn, join, publish, redis, server, verdict } = yield* Fixture.make
      const blocked = yield* spawn({ concurrency: 3, lease: "1 second" })
      yield* publish([
        ["fails", { act: "fail", millis: 2000, times: 1 }],
        ["dies", { act: "defect", millis: 2000, times: 1 }],
        ["blocks", { act: "block", times: 1 }]
      ])
      yield* blocked.says("began blocks")
      const peer = yield* join(server.url)
      yield* peer.says("began blocks")
      yield* settled(redis)
      yield* blocked.unblock
      for (const id of ["fails", "dies", "blocks"]) {
        yield* Effect.raceFirst(blocked.says(`lost ${id}`), blocked.says(`stale ${id}`))
      }
      yield* verdict()
      const accepted = (yield* workers.history).filter(
        ({ fact, writer }) => writer === blocked.name && fact._tag === "Settled" && !fact.stale
      )
      assert.deepStrictEqual(accepted, [])
    }).pipe(Fixture.run({ pattern }))
  )

  it.live(
    "E4 SIGTERM with time enough: what is running is finished and acknowledged, and the process ends with 0",
    () =>
      Effect.gen(function* () {
        const { spawn, publish, verdict } = yield* Fixture.make
        const worker = yield* spawn({ concurrency: 4, every: 4 })
        yield* publish(many("work", 100, { act: "work", millis: 300 }))
        yield* worker.handles(4)
        yield* worker.terminate
        assert.strictEqual(yield* Effect.timeout(worker.gone, "30 seconds"), 0)
        yield* spawn({ concurrency: 50 })
        const { report } = yield* verdict()
        // Nobody was hurt, so every attempt is exactly the first: the checker has looked.
        assert.deepStrictEqual(report.repetitions, [])
        assert.strictEqual(report.counts.handlings, 100)
      }).pipe(Fixture.run({ pattern }))
  )

  it.live("E4 SIGTERM with too little time: what is running is handed back, and its attempt does not count", () =>
    Effect.gen(function* () {
      const { workers, spawn, publish, verdict } = yield* Fixture.make
      const worker = yield* spawn({ concurrency: 2, shutdown: "200 millis", lease: "60 seconds" })
      yield* publish([["hanging", { act: "hang" }], ...many("work", 10, { act: "work", millis: 500 })])
      yield* worker.says("began hanging")
      const started = performance.now()
      yield* worker.terminate
      assert.strictEqual(yield* worker.gone, 0)
      // Without a shutdown of its own it would be five seconds.
      assert.isBelow(performance.now() - started, 4900)
      // A lease of a minute: if the second worker has them at once, they were handed back.
      const second = yield* spawn({ concurrency: 50, lease: "60 seconds", shutdown: "200 millis" })
      yield* second.says("began hanging")
      yield* second.terminate
      yield* second.gone
      const attempts = (yield* workers.history).flatMap(({ fact }) =>
        fact._tag === "Started" && fact.id === "hanging" ? [fact.attempt] : []
      )
      assert.deepStrictEqual(attempts, [1, 1])
      // It hangs on its first attempt, which it has for ever: a death is what counts.
      const third = yield* spawn({ concurrency: 50 })
      yield* third.says("began hanging")
      yield* third.kill
      yield* spawn({ concurrency: 50 })
      yield* verdict()
    }).pipe(Fixture.run({ pattern }))
  )

  it.live("E26 poison that always fails: a dead letter when its policy ends", () =>
    Effect.gen(function* () {
      const { spawn, publish, verdict } = yield* Fixture.make
      yield* publish([["bad", { act: "fail" }], ...many("work", 20, { act: "work" })])
      yield* spawn()
      const { letters, report } = yield* verdict()
      assert.deepStrictEqual(
        letters.map(({ attempts, id, reason }) => ({ attempts, id, reason })),
        [{ attempts: 3, id: "bad", reason: "Failed" }]
      )
      assert.deepStrictEqual(
        report.repetitions.map(({ because }) => because),
        ["Retry", "Retry"]
      )
    }).pipe(Fixture.run({ pattern }))
  )

  it.live("E26 poison that kills its process: a dead letter, unseen, at the limit; what was near it survives", () =>
    Effect.gen(function* () {
      const { spawn, publish, verdict } = yield* Fixture.make
      const orders = { maxDeliveries: 5, concurrency: 8, prefetch: 32 }
      yield* publish([["deadly", { act: "die" }], ...many("work", 60, { act: "work", millis: 20 })])
      for (let life = 1; life <= 5; life++) {
        const worker = yield* spawn(orders)
        yield* worker.says("began deadly")
        assert.strictEqual(yield* worker.gone, "SIGKILL")
      }
      const last = yield* spawn(orders)
      const { letters } = yield* verdict()
      assert.strictEqual(last.said("began deadly"), 0)
      assert.deepStrictEqual(
        letters.map(({ attempts, id, reason }) => ({ attempts, id, reason })),
        [{ attempts: 5, id: "deadly", reason: "CrashLoop" }]
      )
    }).pipe(Fixture.run({ pattern }))
  )
})
