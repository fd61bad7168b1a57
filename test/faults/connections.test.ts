/**
 * Connections that break, hang and are closed by the server, under producers and consumers. The numbers are those of the
 * fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@waybill/testing"
import { Effect, Schedule } from "effect"
import { Producer, Transport } from "waybill"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { Job } from "./Jobs.ts"
import * as Pattern from "./Pattern.ts"
import { ask, many, settled } from "./Verdict.ts"

describe("a connection, streams", () => {
  it.live.each(
    ["XREADGROUP", "XACK", "EVALSHA"].flatMap((command) => [
      { when: "before", command },
      { when: "after", command }
    ])
  )("E10 reset $when the server has executed $command of a consumer", ({ command, when }) =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      const proxy = yield* FaultProxy.make(server.port)
      const member = yield* join(proxy.url, { concurrency: 2, prefetch: 4 })
      const rounds = 6
      for (let round = 0; round < rounds; round++) {
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
        const snapped = yield* when === "before" ? proxy.resetBefore(command) : proxy.dropReply(command)
        yield* publish([
          ...many(`work-${round}`, 5, { act: "work" }),
          [`retry-${round}`, { act: "fail", times: 1 }],
          [`dead-${round}`, { act: "fail" }]
        ])
        yield* Effect.timeout(snapped, "10 seconds")
        // Each fault meets a consumer that works.
        yield* settled(redis)
      }
      const { letters, report } = yield* verdict()
      assert.strictEqual(report.counts.published, rounds * 7)
      assert.deepStrictEqual(
        letters.map(({ id, reason }) => [id, reason]).toSorted(),
        Array.from({ length: rounds }, (_, round) => [`dead-${round}`, "Failed"])
      )
      assert.isAtLeast(member.happened("Disconnected"), rounds)
    }).pipe(Fixture.run())
  )

  it.live(
    "E11 black hole: noticed within the deadline, and a new connection when it ends",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const member = yield* join(proxy.url, { concurrency: 4 })
        yield* publish(many("before", 20, { act: "work" }))
        yield* member.happens("Settled", 20)
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
        yield* proxy.blackhole
        // Both connections: the one for commands, and the one that reads. Without a deadline of ours the system would notice
        // after many minutes, and nobody waits here for so long.
        yield* member.happens("Disconnected", 2)
        yield* publish(many("during", 20, { act: "work" }))
        yield* proxy.pass
        yield* member.happens("Reconnected", 2)
        const { report } = yield* verdict()
        assert.strictEqual(report.counts.published, 40)
      }).pipe(Fixture.run()),
    120_000
  )

  it.live(
    "E11 black hole of one consumer for longer than its lease: a peer takes over, and what it says afterwards is stale",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const cutOff = yield* join(proxy.url, { concurrency: 4, prefetch: 0, leaseLost: "continue" })
        yield* publish([
          // Long enough that the hole is there before they end.
          ["acked", { act: "write", millis: 2000 }],
          ["retried", { act: "fail", millis: 2000, times: 1 }]
        ])
        yield* cutOff.says("began acked")
        yield* cutOff.says("began retried")
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: cutOff.name })
        yield* proxy.blackhole
        const peer = yield* join(server.url)
        yield* peer.says("began acked")
        yield* peer.says("began retried")
        // Its handlers have ended by now, and what it wants to settle with has not got through.
        yield* cutOff.says("wrote acked accepted")
        yield* settled(redis)
        yield* proxy.pass
        yield* cutOff.happens("Settled", 2)
        const { report } = yield* verdict()
        assert.strictEqual(report.counts.stale, 2)
      }).pipe(Fixture.run()),
    120_000
  )

  it.live("E14 closed many times while there is nothing to do: what comes next does not wait for a backoff", () =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      const member = yield* join(server.url)
      yield* publish([["first", { act: "work" }]])
      yield* member.happens("Settled")
      workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
      const waiting = ask(() => redis.info("clients")).pipe(
        Effect.repeat({ until: (info) => info.includes("blocked_clients:1"), schedule: Schedule.spaced("10 millis") }),
        Effect.timeout("20 seconds")
      )
      let fastest = Infinity
      for (let round = 1; round <= 10; round++) {
        yield* waiting
        yield* ask(() => redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        // The connection for commands, and the one that reads.
        yield* Effect.timeout(member.happens("Reconnected", 2 * round), "20 seconds")
        if (round <= 7) continue
        const began = performance.now()
        yield* publish([[`next-${round}`, { act: "work" }]])
        yield* member.happens("Settled", round - 6)
        fastest = Math.min(fastest, performance.now() - began)
      }
      // After so many losses a backoff that goes on would be at its longest, 1.6 seconds at the least, each time. A machine that
      // has other things to do may hold up one of them.
      assert.isBelow(fastest, 1500)
      yield* verdict()
    }).pipe(Fixture.run())
  )

  it.live("no server at all: publishing fails in time with a typed error, and leaving ends in time", () =>
    Effect.gen(function* () {
      const { join, server } = yield* Fixture.make
      const member = yield* join(server.url, { shutdown: "1 second" })
      yield* server.kill
      const began = performance.now()
      const error = yield* Effect.flip(Producer.publish(Job, { act: "work" }))
      assert.isTrue(error instanceof Transport.TransportError && error.reason._tag === "Disconnected")
      assert.isBelow(performance.now() - began, 20_000)
      const leaving = performance.now()
      yield* member.leave
      assert.isBelow(performance.now() - leaving, 20_000)
    }).pipe(Fixture.run())
  )
})

describe.each(sampled("connections", Pattern.patterns, 2))("a connection, %s", (pattern) => {
  it.live("E10 reset before and after the server has executed a publish: stored once, with one receipt", () =>
    Effect.gen(function* () {
      const {
        workers,
        join,
        pattern: { depth },
        redis,
        server,
        verdict
      } = yield* Fixture.make
      const proxy = yield* FaultProxy.make(server.port)
      yield* Effect.gen(function* () {
        const ids = new Set<string>()
        for (let i = 0; i < 20; i++) {
          yield* i % 2 === 0 ? proxy.dropReply("EVALSHA") : proxy.resetBefore("EVALSHA")
          // Without an id of its own: only the publisher can tell that it asks again.
          const receipts = yield* Producer.publishAll(Job, [{ act: "work" }, { act: "work" }])
          for (const { _tag, id } of receipts) {
            assert.strictEqual(_tag, "Stored")
            ids.add(id)
            workers.recorder.record({ _tag: "Published", id })
          }
        }
        assert.strictEqual(ids.size, 40)
        assert.strictEqual(yield* depth(redis), 40)
      }).pipe(Effect.provide(Pattern.on(pattern, proxy.url)))
      yield* join(server.url)
      const { report } = yield* verdict()
      assert.deepStrictEqual(report.repetitions, [])
    }).pipe(Fixture.run({ pattern }))
  )

  it.live(
    "E10 cut anywhere in a request or a reply",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const member = yield* join(proxy.url, { concurrency: 4, prefetch: 16 })
        for (let round = 0; round < 20; round++) {
          workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
          const snapped = yield* proxy.cutAfter(37 * (round + 1), round % 2 === 0 ? "requests" : "replies")
          yield* publish(many(`work-${round}`, 20, { act: "work", millis: 1 }))
          yield* Effect.timeout(snapped, "10 seconds")
          yield* settled(redis)
        }
        const { report } = yield* verdict()
        assert.strictEqual(report.counts.published, 400)
      }).pipe(Fixture.run({ pattern })),
    120_000
  )

  it.live(
    "E10 cut again before it has recovered, many times: it recovers from the last one too",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const member = yield* join(proxy.url, { concurrency: 4, prefetch: 16 })
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
        yield* publish(many("work", 100, { act: "work", millis: 1 }))
        for (let round = 0; round < 15; round++) {
          yield* Effect.timeout(
            yield* proxy.cutAfter(100 + 20 * round, round % 2 === 0 ? "requests" : "replies"),
            "10 seconds"
          )
        }
        const { report } = yield* verdict()
        assert.strictEqual(report.counts.published, 100)
      }).pipe(Fixture.run({ pattern })),
    120_000
  )

  it.live("E14 closed by the server again and again, all or one by one: nobody notices", () =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      const member = yield* join(server.url, { concurrency: 4 })
      yield* publish(many("before", 10, { act: "work" }))
      yield* settled(redis)
      const connections = ask(async () =>
        String(await redis.client("LIST"))
          .split("\n")
          .filter(
            (line) => line.includes(`name=${member.name}`) && line.includes(" sub=0 ") && line.includes(" psub=0 ")
          )
          .map((line) => /^id=(\d+)/.exec(line)?.[1] ?? "")
      )
      const open = (yield* connections).length
      assert.strictEqual(open, pattern === "streams" ? 2 : 1)
      workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
      for (let round = 0; round < 10; round++) {
        // For commands and, with streams, for reading: a kill that does not find both is no event to wait for.
        const ids = yield* connections.pipe(
          Effect.repeat({ until: (ids) => ids.length === open, schedule: Schedule.spaced("10 millis") })
        )
        yield* publish([
          ...many(`work-${round}`, 30, { act: "work", millis: 2 }),
          [`retry-${round}`, { act: "fail", times: 1 }]
        ])
        yield* ask(async () => {
          if (round % 2 === 0) await redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
          else for (const id of ids) await redis.call("CLIENT", "KILL", "ID", id)
        })
        yield* Effect.timeout(member.happens("Reconnected", open * (round + 1)), "20 seconds")
      }
      const { report } = yield* verdict()
      assert.strictEqual(report.counts.published, 320)
      assert.strictEqual(member.happened("LeaseLost"), 0)
    }).pipe(Fixture.run({ pattern }))
  )

  it.live("E16 SCRIPT FLUSH in a loop: nobody notices", () =>
    Effect.gen(function* () {
      const { join, publish, redis, server, verdict } = yield* Fixture.make
      const member = yield* join(server.url, { concurrency: 4 })
      yield* ask(() => redis.script("FLUSH")).pipe(Effect.repeat(Schedule.spaced("2 millis")), Effect.forkScoped)
      for (let round = 0; round < 20; round++) {
        yield* publish([
          ...many(`work-${round}`, 20, { act: "work", millis: 1 }),
          [`retry-${round}`, { act: "fail", times: 1 }],
          [`dead-${round}`, { act: "fail" }]
        ])
      }
      const { letters, report } = yield* verdict()
      assert.strictEqual(letters.length, 20)
      assert.isTrue(report.repetitions.every(({ because }) => because === "Retry"))
      assert.strictEqual(member.happened("ConsumerFailing"), 0)
    }).pipe(Fixture.run({ pattern }))
  )
})
