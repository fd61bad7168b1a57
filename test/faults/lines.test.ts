/**
 * Lines that are slow, uneven or silent, under producers and consumers of every pattern. The numbers are those of the
 * fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@waybill/testing"
import { Effect, Random } from "effect"
import { Producer } from "waybill"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { Job } from "./Jobs.ts"
import * as Pattern from "./Pattern.ts"
import { drawing, many, settled } from "./Verdict.ts"

/** Every way in which a line can carry less well than the loopback does. */
const lines: Record<string, FaultProxy.Line> = {
  latency: { latency: "30 millis" },
  jitter: { jitter: "60 millis" },
  throttling: { bytesPerSecond: 200_000 },
  "every byte by itself": { fragment: 1 },
  "pieces of seven bytes, late and slowly": { fragment: 7, latency: "10 millis", bytesPerSecond: 100_000 }
}

describe.each(sampled("lines", Pattern.patterns, 2))("a line, %s", (pattern) => {
  it.live.each(Object.keys(lines))(
    "E12 %s, for a producer and a consumer: everything is parsed, and no lease is lost",
    (name) =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const draw = yield* drawing(`E12 ${name}`)
        const proxy = yield* FaultProxy.make(server.port)
        // The line carries heartbeats no sooner than all else: how soon depends on how busy this machine is.
        const member = yield* join(proxy.url, { concurrency: 8, prefetch: 16, lease: "1 minute" })
        // The first call of a script carries its text: byte by byte, that alone may take longer than the call's deadline.
        const known = [...many("known", 2, { act: "work" }), ...many("known-retry", 1, { act: "fail", times: 1 })]
        yield* publish(known)
        yield* settled(redis)
        yield* draw(proxy.carry(lines[name]!))
        // Boundaries fall into the middle of a character, too.
        const jobs = [
          ...many("work-ü-漢-😀", 24, { act: "work", millis: 5 }),
          ...many("retry-é", 6, { act: "fail", times: 1 }),
          ...many("dead-ß", 3, { act: "fail" })
        ]
        yield* Effect.gen(function* () {
          for (let from = 0; from < jobs.length; from += 8) {
            const batch = jobs.slice(from, from + 8)
            for (const [id] of batch) workers.recorder.record({ _tag: "Publishing", id })
            yield* Producer.publishAll(
              Job,
              batch.map(([, job]) => job),
              (_, i) => ({ id: batch[i]![0], headers: { name: `${batch[i]![0]} \r\n$5\r\n` } })
            )
            for (const [id] of batch) workers.recorder.record({ _tag: "Published", id })
          }
        }).pipe(Effect.provide(Pattern.on(pattern, proxy.url)))
        const { letters, report } = yield* verdict()
        assert.deepStrictEqual(
          letters.map(({ headers, id }) => [id, headers["name"]]).toSorted(),
          many("dead-ß", 3, { act: "fail" }).map(([id]) => [id, `${id} \r\n$5\r\n`])
        )
        assert.deepInclude(report.counts, { published: known.length + jobs.length, leasesLost: 0, stale: 0 })
        assert.isTrue(report.repetitions.every(({ because }) => because === "Retry"))
        assert.strictEqual(member.happened("ConsumerFailing"), 0)
      }).pipe(Fixture.run({ pattern })),
    120_000
  )

  it.live(
    "E11 black hole: noticed within the deadline, and new connections when it ends",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const member = yield* join(proxy.url, { concurrency: 4 })
        yield* publish([...many("before", 20, { act: "work" }), ["retried", { act: "fail", times: 1 }]])
        yield* settled(redis)
        const open = yield* proxy.connections
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
        yield* proxy.blackhole
        yield* publish(many("during", 20, { act: "work" }))
        // Without a deadline of ours the system would notice after many minutes, and nobody waits here for so long.
        yield* Effect.timeout(member.happens("Disconnected", open), "30 seconds")
        yield* proxy.pass
        yield* member.happens("Reconnected", open)
        const { report } = yield* verdict()
        assert.strictEqual(report.counts.published, 41)
      }).pipe(Fixture.run({ pattern })),
    120_000
  )

  it.live(
    "E13 a consumer is cut off for longer than its lease: a peer takes over, and the rest is shared when it is back",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const draw = yield* drawing("E13")
        const proxy = yield* FaultProxy.make(server.port)
        const cutOff = yield* join(proxy.url, { concurrency: 4, prefetch: 8 })
        yield* publish([
          ["hanging", { act: "hang" }],
          ["failing", { act: "fail", millis: 1000, times: 1 }],
          ...many("work", 40, { act: "work", millis: 50 })
        ])
        yield* cutOff.says("began hanging")
        yield* cutOff.says("began failing")
        yield* Effect.sleep(yield* draw(Random.nextIntBetween(0, 500)))
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: cutOff.name })
        yield* proxy.blackhole
        const peer = yield* join(server.url)
        yield* peer.says("began hanging")
        yield* settled(redis)
        yield* proxy.pass
        yield* publish(many("after", 40, { act: "work", millis: 20 }))
        const { letters, report } = yield* verdict()
        assert.deepStrictEqual(letters, [])
        assert.strictEqual(report.counts.published, 82)
        assert.isTrue(report.repetitions.some(({ id }) => id === "hanging"))
      }).pipe(Fixture.run({ pattern })),
    120_000
  )
})
