/**
 * Faults that meet the queues in lists at places that only they have. The numbers are those of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@waybill/testing"
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { Producer, Transport } from "waybill"
import * as Fixture from "./Fixture.ts"
import { group, Job } from "./Jobs.ts"
import * as Member from "./Member.ts"
import { listKeys } from "./Pattern.ts"
import { ask, many, settled } from "./Verdict.ts"

const queues = ["lists", "exactly-once"] as const
const processing = (consumer: string) => listKeys.returned.replace(/returned$/, `processing:${consumer}`)

const reasonOf = (error: unknown): Transport.Reason => {
  if (error instanceof Transport.TransportError) return error.reason
  throw error
}

describe.each(queues)("a queue, %s", (pattern) => {
  const play = Fixture.run({ pattern })
  it.live.each(["before", "after"] as const)(
    "E10 reset %s the server has executed what a consumer asks for, again and again",
    (when) =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const member = yield* join(proxy.url, { concurrency: 2, prefetch: 4 })
        const rounds = 10
        for (let round = 0; round < rounds; round++) {
          workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
          const snapped = yield* when === "before" ? proxy.resetBefore("EVALSHA") : proxy.dropReply("EVALSHA")
          yield* publish([
            ...many(`work-${round}`, 5, { act: "work" }),
            [`retry-${round}`, { act: "fail", times: 1 }],
            [`dead-${round}`, { act: "fail" }]
          ])
          yield* Effect.timeout(snapped, "10 seconds")
          yield* settled(redis)
        }
        const { letters, report } = yield* verdict()
        assert.strictEqual(report.counts.published, rounds * 7)
        assert.deepStrictEqual(
          letters.map(({ id, reason }) => [id, reason]).toSorted(),
          Array.from({ length: rounds }, (_, round) => [`dead-${round}`, "Failed"])
        )
      }).pipe(play)
  )

  it.live("E1 what a consumer holds is free again, in its order, when it is gone", () =>
    Effect.gen(function* () {
      const { spawn, publish, redis, verdict } = yield* Fixture.make
      const victim = yield* spawn({ concurrency: 1, prefetch: 16, lease: "500 millis" })
      yield* publish([["hanging", { act: "hang" }], ...many("work", 12, { act: "work" })])
      yield* victim.says("began hanging")
      yield* victim.kill
      const peer = yield* spawn({ concurrency: 1, prefetch: 16 })
      yield* peer.says("began hanging")
      const { report } = yield* verdict()
      assert.strictEqual(report.counts.acknowledged, 13)
      assert.deepStrictEqual(yield* ask(() => redis.keys(processing("*"))), [])
    }).pipe(play)
  )
})

describe.each(queues)("a queue with foreign values, %s", (pattern) => {
  const play = Fixture.run({ pattern })
  const spoil = (redis: Redis, key: string) => ask(() => redis.multi().del(key).set(key, "mine").exec())

  it.live("E20 WRONGTYPE of any key before the start: the consumer fails and names it, and writes nothing", () =>
    Effect.gen(function* () {
      const { redis, server } = yield* Fixture.make
      for (const [name, key] of Object.entries(listKeys)) {
        yield* ask(() => redis.flushall())
        yield* spoil(redis, key)
        const member = yield* Member.join(`member-${name}`, server.url, {}, pattern)
        assert.deepInclude(reasonOf(yield* member.fails), { _tag: "WrongKeyType", key })
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
        yield* member.leave
      }
    }).pipe(play)
  )

  it.live("E20 WRONGTYPE of any key that a publisher writes: it fails and names it, and writes nothing", () =>
    Effect.gen(function* () {
      const { redis } = yield* Fixture.make
      for (const name of ["ready", "readyHigh", "readyLow", "bodies", "meta", "delayed", "delayedBodies"] as const) {
        yield* ask(() => redis.flushall())
        const key = listKeys[name]
        yield* spoil(redis, key)
        for (const delay of name.startsWith("delayed") ? (["1 hour"] as const) : [undefined, "1 hour" as const]) {
          const error = yield* Effect.flip(Producer.publish(Job, { act: "work" }, { id: "one", delay }))
          assert.deepInclude(reasonOf(error), { _tag: "WrongKeyType", key })
        }
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
      }
    }).pipe(play)
  )

  it.live(
    "E20 WRONGTYPE of any key in the middle of the work: told, nothing half done, and it goes on without it",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
        for (const [name, key] of Object.entries(listKeys)) {
          // Only joining and publishing read it.
          if (name === "meta") continue
          const member = yield* join(server.url)
          yield* publish(many(`before-${name}`, 5, { act: "work" }))
          yield* settled(redis)
          const kept = yield* ask(() => redis.dumpBuffer(key))
          yield* spoil(redis, key)
          assert.deepInclude(reasonOf(yield* member.fails), { _tag: "WrongKeyType", key })
          yield* ask(async () => {
            await redis.del(key)
            // In the list of consumers stands one that could not leave: it would be there until its heartbeat runs out.
            if (kept !== null && name !== "consumers") await redis.restore(key, 0, kept)
          })
          yield* member.leave
        }
        yield* join(server.url)
        yield* publish([
          ["retried", { act: "fail", times: 1 }],
          ["rejected", { act: "fail" }],
          ...many("after", 20, { act: "work" })
        ])
        const { letters } = yield* verdict()
        assert.deepStrictEqual(
          letters.map(({ id }) => id),
          ["rejected"]
        )
      }).pipe(play)
  )
})

describe.each(queues)("an inbox, %s", (pattern) => {
  const play = Fixture.run({ pattern })
  it.live("E24 whatever others push becomes a message, or a dead letter with what arrived, and the loop goes on", () =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      const member = yield* join(server.url)
      const binary = Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x7b])
      const wrong: ReadonlyArray<string | Buffer> = [
        "{not json",
        '{"act":"dance"}',
        "",
        "null",
        binary,
        "waybill:1 oops\n{}",
        'waybill:1 {"v":"new"}\n{"act":"work"}',
        'waybill:1 {"headers":{"a":1}}\n{"act":"work"}',
        'waybill:1 {"headers":"x"}\n{"act":"work"}',
        'waybill:1 {"at":"yesterday"}\n{"act":"work"}',
        '{"__proto__":{"act":"work"}}',
        "-",
        "[".repeat(50_000)
      ]
      const fine = [
        '{"act":"work"}',
        'waybill:1 {"id":"named","headers":{"h":"1"},"key":"k","at":1700000000000}\n{"act":"work"}',
        'waybill:1 {"colour":"red","__proto__":{"id":"x"}}\n{"act":"work"}',
        '{"act":"work","__proto__":{"millis":5}}'
      ]
      for (const body of [...wrong, ...fine]) yield* ask(() => redis.rpush(listKeys.inbox, body))
      yield* publish(many("after", 20, { act: "work" }))
      yield* settled(redis)
      for (const { fact } of member.recorder.events) {
        if (fact._tag !== "Settled" || fact.id.startsWith("after-")) continue
        workers.recorder.record({ _tag: "Published", id: fact.id })
      }
      const { letters } = yield* verdict()
      const sent = wrong.map((body) => Buffer.from(body as string).toString("base64"))
      assert.sameMembers(
        letters.map(({ body }) => Buffer.from(body as string).toString("base64")),
        sent
      )
      assert.deepStrictEqual([...new Set(letters.map(({ reason }) => reason))], ["DecodeFailure"])
      const done = member.recorder.events.flatMap(({ fact }) =>
        fact._tag === "Ended" && fact.outcome === "success" ? [fact.id] : []
      )
      assert.include(done, "named")
      assert.strictEqual(done.filter((id) => !id.startsWith("after-")).length, fine.length)
      assert.strictEqual(group, letters[0]?.group)
    }).pipe(play)
  )
})
