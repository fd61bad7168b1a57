/**
 * A store that loses its keys, is full, holds foreign values, or refuses permission; and messages that no producer of
 * ours would write. The numbers are those of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Logger, Schedule, Schema } from "effect"
import type { Redis } from "ioredis"
import { Producer, Topic, Transport } from "waybill"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { group, Job } from "./Jobs.ts"
import * as Member from "./Member.ts"
import * as Pattern from "./Pattern.ts"
import { person, story } from "./Storing.ts"
import { ask, client, keys, many, settled } from "./Verdict.ts"

const reasonOf = (error: unknown): Transport.Reason => {
  if (error instanceof Transport.TransportError) return error.reason
  throw error
}

interface Forgetting {
  readonly forget: (redis: Redis) => Promise<unknown>
  /** What the consumer says of it, when it finds work undone. */
  readonly told: "GroupRecreated" | "Truncated"
  /** How often: once by default. */
  readonly times?: number
  /** Messages that were not given to anybody yet are still there. */
  readonly backlog?: boolean
  /** What is in hand is finished. */
  readonly inHand?: boolean
}

const everything: Forgetting = { forget: (redis) => redis.flushall(), told: "GroupRecreated" }
const ofQueue: Record<string, Forgetting> = {
  FLUSHALL: everything,
  "DEL of the groups": {
    forget: (redis) => redis.del(Pattern.listKeys.groups),
    told: "GroupRecreated",
    backlog: true,
    inHand: true
  },
  // Of the backlog, and of the retry.
  "DEL of the messages": { forget: (redis) => redis.del(Pattern.listKeys.bodies), told: "Truncated", times: 21 }
}
const forgetting: Record<Pattern.Name, Record<string, Forgetting>> = {
  streams: {
    // It failed once, and had nowhere to wait but in a store that did not know it any more.
    FLUSHALL: { ...everything, inHand: true },
    "DEL of the stream": { forget: (redis) => redis.del(keys.stream), told: "GroupRecreated", inHand: true },
    "XGROUP DESTROY": {
      forget: (redis) => redis.xgroup("DESTROY", keys.stream, group),
      told: "GroupRecreated",
      backlog: true,
      inHand: true
    }
  },
  lists: ofQueue,
  "exactly-once": ofQueue,
  keyspace: { FLUSHALL: everything }
}

describe.each(sampled("stores that forget", Pattern.patterns, 2))("a store that forgets, %s", (pattern) => {
  const faults = forgetting[pattern]
  const groupsLost = Object.keys(faults).filter((name) => faults[name]?.told === "GroupRecreated")

  it.live.each(groupsLost)("E17 %s while nothing is to be done: told, and the work goes on", (name) =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      const member = yield* join(server.url)
      yield* publish(many("before", 20, { act: "work" }))
      yield* settled(redis)
      workers.recorder.record({ _tag: "Fault", fault: "StateLost", target: "*" })
      yield* ask(() => faults[name]!.forget(redis))
      yield* Effect.timeout(member.happens("GroupRecreated"), "20 seconds")
      yield* publish(many("after", 20, { act: "work" }))
      const { report } = yield* verdict()
      assert.strictEqual(report.counts.published, 40)
      // Forgiven is what was published before; what came after is owed, and the checker has looked.
      assert.strictEqual(member.happened("ConsumerFailing"), 0)
    }).pipe(Fixture.run({ pattern }))
  )

  it.live.each(Object.keys(faults))(
    "E17 %s in the middle of the work: told, and it goes on with what is there",
    (name) =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const member = yield* join(server.url, { concurrency: 1, prefetch: 0 })
        yield* publish([["in-hand", { act: "fail", millis: 1000, times: 1 }], ...many("backlog", 20, { act: "work" })])
        yield* member.says("began in-hand")
        workers.recorder.record({ _tag: "Fault", fault: "StateLost", target: "*" })
        const { backlog = false, forget, inHand = false, times, told } = faults[name]!
        yield* ask(() => forget(redis))
        yield* member.happens(told, times)
        yield* publish(many("after", 20, { act: "work" }))
        yield* verdict()
        const done = new Set(
          member.recorder.events.flatMap(({ fact }) =>
            fact._tag === "Ended" && fact.outcome === "success" ? [fact.id] : []
          )
        )
        assert.strictEqual(done.has("in-hand"), inHand)
        for (let i = 0; i < 20; i++) assert.strictEqual(done.has(`backlog-${i}`), backlog, `${i}`)
      }).pipe(Fixture.run({ pattern }))
  )
})

describe.each(sampled("full stores", Pattern.patterns, 2))("a store that is full, %s", (pattern) => {
  it.live("E18 out of memory: producers are told, consumers drain it, and it recovers", () =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      yield* publish([
        ...many("work", 200, { act: "work" }),
        ...many("retry", 10, { act: "fail", times: 1 }),
        ...many("dead", 5, { act: "fail" })
      ])
      workers.recorder.record({ _tag: "Publishing", id: "later" })
      yield* Producer.publish(Job, { act: "work" }, { id: "later", delay: "500 millis" })
      workers.recorder.record({ _tag: "Published", id: "later" })
      yield* ask(() => redis.config("SET", "maxmemory", "1"))
      const refused = reasonOf(yield* Effect.flip(Producer.publish(Job, { act: "work" })))
      assert.deepInclude(refused, { _tag: "Refused", code: "OOM" })
      yield* join(server.url)
      yield* settled(redis)
      yield* ask(() => redis.config("SET", "maxmemory", "0"))
      yield* publish(many("after", 20, { act: "work" }))
      const { letters, report } = yield* verdict()
      assert.strictEqual(letters.length, 5)
      assert.strictEqual(report.counts.published, 236)
    }).pipe(Fixture.run({ pattern }))
  )
})

describe("a store with foreign values, streams", () => {
  const Other = Topic.make("other", { payload: Schema.String })
  const mine = (key: string) => keys[key as keyof typeof keys]
  const spoil = (redis: Redis, key: string) => ask(() => redis.multi().del(key).set(key, "mine").exec())

  const joined = [
    "stream",
    "meta",
    "groups",
    "retry",
    "consumers",
    "state",
    "released",
    "waiting",
    "waitingBodies",
    "dead"
  ] as const

  it.live("E20 WRONGTYPE of any key before the start: the consumer fails and names it, and writes nothing", () =>
    Effect.gen(function* () {
      const { redis, server } = yield* Fixture.make
      for (const name of joined) {
        yield* ask(() => redis.flushall())
        const key = mine(name)
        yield* spoil(redis, key)
        const member = yield* Member.join(`member-${name}`, server.url)
        assert.deepInclude(reasonOf(yield* member.fails), { _tag: "WrongKeyType", key })
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
        yield* Producer.publish(Other, "others are not concerned")
        yield* member.leave
      }
    }).pipe(Fixture.run())
  )

  it.live.each(["stream", "meta", "delayed", "delayedBodies"] as const)(
    "E20 WRONGTYPE of %s: publishing fails and names it, and writes nothing",
    (name) =>
      Effect.gen(function* () {
        const { redis } = yield* Fixture.make
        const key = mine(name)
        yield* spoil(redis, key)
        for (const delay of [undefined, "1 hour"] as const) {
          const error = yield* Effect.flip(Producer.publish(Job, { act: "work" }, { id: "one", delay }))
          assert.deepInclude(reasonOf(error), { _tag: "WrongKeyType", key })
        }
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
      }).pipe(Fixture.run())
  )

  it.live(
    "E20 WRONGTYPE of any key in the middle of the work: the consumer fails and names it, and goes on without it",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
        const seen = [
          "stream",
          "retry",
          "consumers",
          "state",
          "released",
          "delayed",
          "delayedBodies",
          "waiting",
          "dead"
        ]
        for (const name of [...seen, "waitingBodies"]) {
          const member = yield* join(server.url)
          yield* publish(many(`before-${name}`, 5, { act: "work" }))
          yield* settled(redis)
          const key = mine(name)
          const kept = yield* ask(() => redis.dumpBuffer(key))
          if (name === "stream" || name === "retry") {
            workers.recorder.record({ _tag: "Fault", fault: "StateLost", target: "*" })
          }
          yield* spoil(redis, key)
          assert.deepInclude(reasonOf(yield* member.fails), { _tag: "WrongKeyType", key })
          yield* ask(async () => {
            await redis.del(key)
            if (kept !== null) await redis.restore(key, 0, kept)
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
      }).pipe(Fixture.run()),
    120_000
  )
})

describe("a store that refuses permission, streams", () => {
  const urlOf = (port: number) => `redis://app:secret@127.0.0.1:${port}`
  const grant = (redis: Redis, ...rules: ReadonlyArray<string>) =>
    ask(() => redis.call("ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "&*", "+@all", ...rules))

  const later = ["xreadgroup", "xack", "xpending", "xclaim", "zadd"]

  /** Something for each command to do: a message to ack, one to retry, one to dead-letter, and one that a peer dies with. */
  const play = Effect.fnUntraced(function* (denied: string) {
    const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
    workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
    // Nobody is to take its message over before it is dead.
    const dying = yield* workers.spawn("waybill-worker.ts", { url: server.url, lease: "4 seconds" })
    yield* publish([["hanging", { act: "hang" }]])
    yield* dying.says("began hanging")
    yield* grant(redis)
    const refused = yield* Member.join("refused", urlOf(server.port), { concurrency: 1 })
    yield* refused.happens("ConsumerStarted")
    yield* publish(many("early", 10, { act: "work" }))
    yield* settled(redis).pipe(Effect.timeoutOption("500 millis"))
    yield* grant(redis, `-${denied}`)
    yield* dying.kill
    yield* publish([
      ["retry", { act: "fail", times: 1 }],
      ["dead", { act: "fail" }],
      ...many("work", 10, { act: "work" })
    ])
    const error = yield* refused.fails
    const reason = reasonOf(error)
    if (reason._tag !== "NotPermitted") throw error
    assert.strictEqual(reason.command.split("|")[0], denied)
    yield* refused.leave
    // What it has handled and could not settle, it has handed back as it left.
    for (const { fact } of refused.recorder.events.slice()) {
      if (fact._tag !== "Started") continue
      const { fence, group, id } = fact
      const isSettled = refused.recorder.events.some((other) => other.fact._tag === "Settled" && other.fact.id === id)
      if (!isSettled) refused.recorder.record({ _tag: "Settled", group, id, fence, as: "Release", stale: false })
    }

    yield* grant(redis)
    yield* join(urlOf(server.port))
    yield* settled(redis)
    const { letters } = yield* verdict(refused)
    assert.deepStrictEqual(
      letters.map(({ id }) => id),
      ["dead"]
    )
  })

  it.live.each(later)("E21 %s is denied later: the error names it, nothing half done", (denied) =>
    play(denied).pipe(Fixture.run())
  )

  it.live("E21 publishing without permission fails with a typed error", () =>
    Effect.gen(function* () {
      const { redis, server } = yield* Fixture.make
      yield* grant(redis, "-xadd")
      const error = yield* Producer.publish(Job, { act: "work" }).pipe(
        Effect.flip,
        Effect.provide(Pattern.on("streams", urlOf(server.port)))
      )
      assert.deepInclude(reasonOf(error), { _tag: "NotPermitted" })
      assert.strictEqual(yield* ask(() => redis.exists(keys.stream)), 0)
    }).pipe(Fixture.run())
  )

  it.live("E21 without INFO, CLIENT, CONFIG and PING it works all the same, and leaves in time", () =>
    Effect.gen(function* () {
      const { join, publish, redis, server, verdict } = yield* Fixture.make
      yield* grant(redis, "-info", "-client", "-config", "-ping", "-command", "-acl")
      const member = yield* join(urlOf(server.port))
      yield* publish([...many("work", 50, { act: "work" }), ["retry", { act: "fail", times: 1 }]])
      yield* settled(redis)
      const began = performance.now()
      yield* member.leave
      assert.isBelow(performance.now() - began, 20_000)
      const { report } = yield* verdict()
      assert.strictEqual(report.counts.published, 51)
    }).pipe(Fixture.run())
  )
})

describe("messages that no producer of ours would write, streams", () => {
  it.live("E24 misshapen entries: dead letters with what arrived, and the loop goes on", () =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      yield* join(server.url)
      const binary = Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x7b])
      const wrong: Record<string, ReadonlyArray<string | Buffer>> = {
        "no JSON": ["payload", "{not json"],
        "another schema": ["payload", '{"act":"dance"}'],
        "no payload": ["colour", "red"],
        "an empty payload": ["payload", ""],
        null: ["payload", "null"],
        binary: ["payload", binary],
        "a version that is none": ["payload", '{"act":"work"}', "v", "new"],
        "headers that are no JSON": ["payload", '{"act":"work"}', "headers", "oops"],
        "headers that are no strings": ["payload", '{"act":"work"}', "headers", '{"a":1}'],
        "a time that is none": ["payload", '{"act":"work"}', "at", "yesterday"],
        "an attempt of its own": ["payload", "x", "attempt", "99", "fence", "99"],
        "a prototype for a body": ["payload", '{"__proto__":{"act":"work"}}'],
        "the beginning of a number": ["payload", "-"],
        deep: ["payload", "[".repeat(50_000)]
      }
      const fine: Record<string, ReadonlyArray<string>> = {
        "only a payload": ["payload", '{"act":"work"}'],
        "unknown fields": ["payload", '{"act":"work"}', "__proto__", "x", "constructor", "y"],
        "a prototype beside the body": ["payload", '{"act":"work","__proto__":{"millis":5}}'],
        "a prototype in the headers": ["payload", '{"act":"work"}', "headers", '{"__proto__":"x"}']
      }
      const entries = new Map<string, string>()
      for (const [name, fields] of [...Object.entries(wrong), ...Object.entries(fine)]) {
        const entry = String(yield* ask(() => redis.xadd(keys.stream, "*", ...fields)))
        workers.recorder.record({ _tag: "Published", id: entry })
        entries.set(entry, name)
      }
      yield* publish(many("after", 20, { act: "work" }))
      const { letters, report } = yield* verdict()
      assert.sameMembers(
        letters.map(({ id }) => entries.get(id)),
        Object.keys(wrong)
      )
      for (const { body, id, reason } of letters) {
        assert.strictEqual(reason, "DecodeFailure", entries.get(id))
        const fields = wrong[entries.get(id)!]!
        const sent = fields[fields.indexOf("payload") + 1]
        if (fields.includes("payload")) {
          assert.deepStrictEqual(Buffer.from(body as string), Buffer.from(sent as string), entries.get(id))
        }
      }
      // Everything that arrived lies in the dead letter, also what Waybill does not read.
      const raw = JSON.stringify(yield* ask(() => redis.xrange(keys.dead, "-", "+")))
      for (const trace of ["colour", "yesterday", "oops"]) assert.include(raw, trace)
      assert.strictEqual(report.counts.deadLettered, Object.keys(wrong).length)
      assert.isUndefined(({} as { readonly act?: string }).act)
    }).pipe(Fixture.run())
  )
})

const byAnotherHand: Record<string, (redis: Redis, body: string) => Promise<unknown>> = {
  streams: (redis, body) => redis.xadd(keys.stream, "*", "payload", body),
  lists: (redis, body) => redis.rpush(Pattern.listKeys.inbox, body),
  "exactly-once": (redis, body) => redis.rpush(Pattern.listKeys.inbox, body)
}

describe.each(["streams", "lists", "exactly-once"] as const)("large messages, %s", (pattern) => {
  it.live(
    "E25 twenty megabytes by another hand arrive whole; of ours they are refused, and nothing of them is sent",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make()
        const redis = yield* client(server.url)
        const { consume, left, publish } = yield* person(pattern, server.url)
        const { steps, tell, until } = story()
        const large = "waybill ".repeat(2.5 * 1024 * 1024)
        yield* consume((body) => tell("A", body === large ? "has it whole" : body.slice(0, 20)))
        assert.propertyVal(yield* Effect.flip(publish(large)), "_tag", "PayloadTooLarge")
        yield* ask(() => byAnotherHand[pattern]!(redis, JSON.stringify(large)))
        yield* until("A", "has it whole")
        yield* publish("small")
        yield* until("A", "small")
        yield* left.pipe(Effect.repeat({ until: ([undone]) => undone === 0, schedule: Schedule.spaced("20 millis") }))
        assert.deepStrictEqual(yield* left, [0, 0])
        assert.strictEqual(steps.length, 2)
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
  )
})

describe.each(Pattern.patterns)("a slow consumer, %s", (pattern) => {
  it.live("E37 behind a quick producer: it has no more bytes in hand than it may have, and everything is handled", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const { consume, left, publish } = yield* person(pattern, server.url)
      const bodies = Array.from({ length: 40 }, (_, i) => String(i).padEnd(10_000))
      yield* Effect.forEach(bodies, publish)
      const done = new Set<string>()
      let inHand = 0
      let most = 0
      let begunAt = 0
      // A handler ends when no other one begins any more: then the consumer has all that it may hold.
      const filled = Effect.sync(() => performance.now() - begunAt > 200).pipe(
        Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("20 millis") })
      )
      yield* consume(
        (body) =>
          Effect.suspend(() => {
            begunAt = performance.now()
            most = Math.max(most, ++inHand)
            return filled
          }).pipe(
            Effect.andThen(
              Effect.sync(() => {
                inHand--
                done.add(body)
              })
            )
          ),
        { concurrency: 40, prefetch: 0, prefetchBytes: 100_000, lease: "30 seconds" }
      )
      yield* left.pipe(
        Effect.repeat({ until: ([undone]) => undone === 0, schedule: Schedule.spaced("20 millis") }),
        Effect.timeout("30 seconds")
      )
      assert.strictEqual(done.size, bodies.length)
      // The last of them may not fit.
      assert.isAtMost(most, 11)
    }).pipe(Effect.scoped, Effect.provide(Logger.layer([])))
  )
})

describe.each(Pattern.patterns)("doubles, %s", (pattern) => {
  it.live("E27 the same id published again, one by one, together, in one batch, later: stored once, one receipt", () =>
    Effect.gen(function* () {
      const {
        workers,
        join,
        pattern: { depth },
        redis,
        server,
        verdict
      } = yield* Fixture.make
      const one = (id: string, delay?: "300 millis") => Producer.publish(Job, { act: "work" }, { id, delay })
      for (const id of ["one", "together", "batch", "delayed"]) workers.recorder.record({ _tag: "Publishing", id })

      const first = yield* one("one")
      const second = yield* one("one").pipe(Effect.provide(Pattern.on(pattern, server.url)))
      assert.deepStrictEqual(
        [first, second],
        [
          { _tag: "Stored", id: "one" },
          { _tag: "Duplicate", id: "one" }
        ]
      )
      const together = yield* Effect.replicateEffect(one("together"), 50, { concurrency: "unbounded" })
      const batch = yield* Producer.publishAll(
        Job,
        Array.from({ length: 50 }, () => ({ act: "work" }) as const),
        () => ({
          id: "batch"
        })
      )
      const delayed = yield* Effect.replicateEffect(one("delayed", "300 millis"), 5)
      for (const receipts of [together, batch, delayed]) {
        assert.strictEqual(receipts.filter(({ _tag }) => _tag === "Stored").length, 1)
        assert.strictEqual(new Set(receipts.map(({ id }) => id)).size, 1)
      }
      assert.strictEqual(yield* depth(redis), 3)
      for (const id of ["one", "together", "batch", "delayed"]) workers.recorder.record({ _tag: "Published", id })
      yield* join(server.url)
      const { report } = yield* verdict()
      assert.strictEqual(report.counts.handlings, 4)
    }).pipe(Fixture.run({ pattern }))
  )
})

describe("doubles, streams", () => {
  it.live("E27 the same message in the stream twice, by another hand: both come, under one id", () =>
    Effect.gen(function* () {
      const { join, redis, server } = yield* Fixture.make
      const member = yield* join(server.url)
      for (let i = 0; i < 2; i++) {
        yield* ask(() => redis.xadd(keys.stream, "*", "payload", '{"act":"work"}', "id", "double"))
      }
      yield* member.happens("Settled", 2)
      assert.deepStrictEqual(
        member.recorder.events.flatMap(({ fact }) => (fact._tag === "Started" ? [[fact.id, fact.attempt]] : [])),
        [
          ["double", 1],
          ["double", 1]
        ]
      )
    }).pipe(Fixture.run())
  )
})

describe("this file", () => {
  it.live("speaks of keys that there are", () =>
    Effect.gen(function* () {
      const { join, publish, redis, server, verdict } = yield* Fixture.make
      // The server tells of every key that is touched: some are there only for a moment.
      const found = new Set<string>()
      const witness = yield* client(server.url)
      witness.on("pmessage", (_pattern, channel: string) => found.add(channel.slice(channel.indexOf(":") + 1)))
      yield* ask(async () => {
        await redis.config("SET", "notify-keyspace-events", "KA")
        await witness.psubscribe("__keyspace@0__:*")
      })
      yield* join(server.url)
      yield* publish([
        ["retry", { act: "fail", times: 1 }],
        ["dead", { act: "fail" }]
      ])
      yield* verdict()
      yield* ask(() => redis.set("the end", ""))
      yield* Effect.sync(() => found.has("the end")).pipe(
        Effect.repeat({ until: (heard) => heard, schedule: Schedule.spaced("10 millis") })
      )
      const unused = new Set([keys.delayed, keys.delayedBodies, keys.released])
      for (const key of Object.values(keys)) if (!unused.has(key)) assert.isTrue(found.has(key), key)
    }).pipe(Fixture.run())
  )
})
