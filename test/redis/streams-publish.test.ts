/**
 * Publishing: a success is in the store once, a failure says whether it may be, and nobody waits longer than asked.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Duration, Effect, Fiber, Layer, Random, Result } from "effect"
import type { Redis } from "ioredis"
import { RedisStreams } from "waybill/redis"
import { drawing } from "../faults/Verdict.ts"
import * as Fixture from "./Fixture.ts"

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

/** Returns after two more heartbeats of the consumer: one that is under way now may have begun before. */
const twoHeartbeats = (redis: Redis, consumers: string, consumer: string) => {
  const expiry = Effect.promise(() => redis.zscore(consumers, consumer))
  const one = Effect.flatMap(expiry, (before) =>
    Effect.repeat(Effect.delay(expiry, 5), { until: (after) => after !== before })
  )
  return Effect.andThen(one, one)
}

const fixture = Effect.fnUntraced(function* (options: Fixture.Options = {}) {
  const proxy = yield* FaultProxy.FaultProxy
  return { ...(yield* Fixture.make({ url: proxy.url, ...options })), proxy }
})

describe("publishing on streams", () => {
  it.live("a batch whose reply was lost is stored once, and the caller gets its receipts", () =>
    Effect.gen(function* () {
      const { key, proxy, publish, redis } = yield* fixture()
      yield* publish("before")
      const snapped = yield* proxy.dropReply("EVALSHA")
      const receipts = yield* publish("a", { body: "b", id: "b" }, "c")
      yield* snapped
      const entries = yield* Effect.promise(() => redis.xrange(key("stream"), "-", "+"))
      assert.deepStrictEqual(
        entries.map(([, fields]) => fields?.[1]),
        ["before", "a", "b", "c"]
      )
      assert.deepStrictEqual(receipts, [
        { _tag: "Stored", id: entries[1]![0] },
        { _tag: "Stored", id: "b" },
        { _tag: "Stored", id: entries[3]![0] }
      ])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a batch that was cut off on its way is stored once", () =>
    Effect.gen(function* () {
      const { key, proxy, publish, redis } = yield* fixture()
      yield* publish("before")
      for (const bytes of [1, 40, 150, 300]) {
        const snapped = yield* proxy.cutAfter(bytes, "requests")
        yield* publish(`cut after ${bytes}`)
        yield* snapped
      }
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(key("stream"))), 5)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("many publishers under a rain of resets: every success is stored once, in the order of its publisher", () =>
    Effect.gen(function* () {
      const { key, proxy, publish, redis } = yield* fixture({ publishTimeout: "20 seconds" })
      // It ends: on a slow machine no connection may live for long enough in between to carry a batch.
      const rain = yield* Effect.forkChild(
        Effect.repeat(Effect.andThen(Effect.sleep(23), proxy.reset), { times: 100 }),
        {
          startImmediately: true
        }
      )
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, publisher) => publisher),
        Effect.fnUntraced(function* (publisher) {
          for (let i = 0; i < 40; i++) yield* publish(`${publisher}:${i}`)
        }),
        { concurrency: "unbounded" }
      )
      yield* Fiber.interrupt(rain)
      const stored = (yield* Effect.promise(() => redis.xrange(key("stream"), "-", "+"))).map(
        ([, fields]) => fields![1]!
      )
      assert.strictEqual(stored.length, 800)
      for (let publisher = 0; publisher < 20; publisher++) {
        const own = stored.filter((body) => body.startsWith(`${publisher}:`))
        assert.deepStrictEqual(
          own,
          Array.from({ length: 40 }, (_, i) => `${publisher}:${i}`)
        )
      }
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("with the server gone it fails in time, and what was never sent is said to be so", () =>
    Effect.gen(function* () {
      const { proxy, publish } = yield* fixture({ publishTimeout: "700 millis" })
      yield* publish("before")
      yield* proxy.blackhole
      const start = performance.now()
      const first = yield* Effect.forkChild(Effect.result(publish("sent")), { startImmediately: true })
      yield* Effect.sleep(100)
      const second = yield* Effect.forkChild(Effect.result(publish("queued")), { startImmediately: true })
      const results = [yield* Fiber.join(first), yield* Fiber.join(second)]
      // Without a limit of its own it would be five seconds.
      assert.isBelow(performance.now() - start, 4500)
      const reasons = results.map((result) => (Result.isFailure(result) ? result.failure.reason : undefined))
      assert.deepStrictEqual(
        reasons.map((reason) => (reason?._tag === "Disconnected" ? reason.ambiguous : reason?._tag)),
        [true, false]
      )
      yield* proxy.pass
      yield* publish("after")
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("whoever publishes when the layer closes is told", () =>
    Effect.gen(function* () {
      const fibers = yield* Effect.scoped(
        Effect.gen(function* () {
          const { proxy, publish } = yield* fixture()
          yield* publish("before")
          yield* proxy.blackhole
          const sent = yield* Effect.forkDetach(Effect.result(publish("sent")), { startImmediately: true })
          yield* Effect.sleep(50)
          const queued = yield* Effect.forkDetach(Effect.result(publish("queued")), { startImmediately: true })
          return [sent, queued]
        })
      )
      const told: Array<unknown> = []
      for (const fiber of fibers) {
        const result = yield* Fiber.join(fiber)
        const reason = Result.isFailure(result) ? result.failure.reason : undefined
        told.push(reason?._tag === "Disconnected" ? reason.ambiguous : reason?._tag)
      }
      assert.deepStrictEqual(told, [true, false])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a batch that was given up is not stored after a later one", () =>
    Effect.gen(function* () {
      const { key, publish, redis, server } = yield* fixture({ publishTimeout: "300 millis" })
      yield* publish("before")
      yield* server.pause
      const given = yield* Effect.result(publish("given up"))
      assert.isTrue(Result.isFailure(given))
      yield* server.resume
      yield* Effect.retry(publish("after"), { times: 20 })
      const bodies = (yield* Effect.promise(() => redis.xrange(key("stream"), "-", "+"))).map(
        ([, fields]) => fields![1]
      )
      assert.include([["before", "after"].join(), ["before", "given up", "after"].join()], bodies.join())
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("an id is remembered for the window and not for longer", () =>
    Effect.gen(function* () {
      const { key, publish, redis } = yield* fixture({ deduplicationWindow: "1 hour" })
      const tags = Effect.map(publish({ body: "x", id: "a" }), ([receipt]) => receipt?._tag)
      const left = Effect.promise(() => redis.pttl(key("seen:a")))
      assert.strictEqual(yield* tags, "Stored")
      const before = yield* left
      assert.isAtMost(before, 3_600_000)
      assert.isAbove(before, 3_000_000)
      assert.strictEqual(yield* tags, "Duplicate")
      // A duplicate does not prolong it. The end of the hour is the server's to keep: it is brought near by hand.
      assert.isAtMost(yield* left, before)
      yield* Effect.promise(() => redis.pexpire(key("seen:a"), 1))
      yield* Fixture.becomes("the hour", left, -2)
      assert.strictEqual(yield* tags, "Stored")
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a message id may be delayed twice when its window has passed, and both are delivered", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis, take } = yield* fixture({ deduplicationWindow: "50 millis" })
      const due = { _tag: "After", delay: Duration.millis(400) } as const
      yield* publish({ body: "one", id: "a", due })
      yield* Fixture.becomes(
        "the window",
        Effect.promise(() => redis.exists(key("seen:a"))),
        0
      )
      yield* publish({ body: "two", id: "a", due })
      const taken = yield* take(yield* join(), 2)
      assert.deepStrictEqual(
        taken.map(({ body, id }) => [id, body]),
        [
          ["a", "one"],
          ["a", "two"]
        ]
      )
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("out of memory: publishers are refused with nothing stored, consumers drain, and then it goes on", () =>
    Effect.gen(function* () {
      const { group, join, key, letters, publish, redis, settle, take } = yield* fixture()
      yield* publish("a", "b", "c", { body: "late", due: { _tag: "After", delay: Duration.millis(500) } })
      yield* Effect.promise(() => redis.config("SET", "maxmemory", "1mb"))
      const refused = yield* Effect.result(publish("refused", { body: "refused", id: "refused" }))
      assert(Result.isFailure(refused))
      assert.strictEqual(refused.failure.reason._tag === "Refused" && refused.failure.reason.code, "OOM")
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(key("stream"))), 3)
      const receiver = yield* join()
      const [a, b, c] = yield* take(receiver, 3)
      yield* settle(receiver, [a!])
      yield* settle(receiver, [b!], { _tag: "Retry", delay: Duration.millis(50), cause: "again" })
      yield* settle(receiver, [c!], { _tag: "DeadLetter", reason: "Bad", cause: "cause" })
      const rest = yield* take(receiver, 2)
      assert.deepStrictEqual(rest.map(({ body }) => body).sort(), ["b", "late"])
      yield* settle(receiver, rest)
      assert.strictEqual((yield* letters).length, 1)
      assert.strictEqual((yield* group()).pending, 0)
      yield* Effect.promise(() => redis.config("SET", "maxmemory", "0"))
      assert.strictEqual((yield* publish({ body: "refused", id: "refused" }))[0]?._tag, "Stored")
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a call larger than a batch is stored whole", () =>
    Effect.gen(function* () {
      const { key, redis, transport } = yield* fixture({ publishTimeout: "1 minute" })
      const messages = Array.from({ length: 60_000 }, (_, i) => Fixture.outgoing(String(i)))
      const receipts = yield* transport.publish("t", [Fixture.outgoing("first"), ...messages])
      assert.strictEqual(receipts.length, 60_001)
      assert.strictEqual(new Set(receipts.map(({ id }) => id)).size, 60_001)
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(key("stream"))), 60_001)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a lossy length keeps about so many, and tells the group what it never saw", () =>
    Effect.gen(function* () {
      const { events, group, happens, inspector, join, key, publish, redis, settle, take } = yield* fixture({
        retention: { maxLength: 1000 }
      })
      const receiver = yield* join()
      yield* publish("first")
      yield* settle(receiver, yield* take(receiver, 1))
      for (let i = 0; i < 5; i++) yield* publish("x", ...Array.from({ length: 999 }, () => "x"))
      const left = yield* Effect.promise(() => redis.xlen(key("stream")))
      assert.isBelow(left, 1200)
      assert.isAtLeast(left, 1000)
      const { count } = yield* happens("Truncated")
      assert.strictEqual(count, 5000 - left)
      assert.strictEqual((yield* group()).lag, left)
      yield* settle(receiver, yield* take(receiver, 500))
      assert.strictEqual((yield* group()).lag, left - 500)
      yield* settle(receiver, yield* take(receiver, left - 500))
      // It is confirmed by a heartbeat, which would tell.
      yield* inspector.pause("t", "g")
      assert.strictEqual(events.filter(({ _tag }) => _tag === "Truncated").length, 1)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a lossy age drops what is older, and tells the group what it never saw", () =>
    Effect.gen(function* () {
      const { happens, join, key, publish, redis } = yield* fixture({
        retention: { maxAge: "1 hour" },
        pollInterval: "20 millis"
      })
      yield* Effect.promise(async () => {
        for (let i = 1; i <= 5; i++) await redis.xadd(key("stream"), `${i}-0`, "payload", "old")
        await redis.xgroup("CREATE", key("stream"), "g", "0", "ENTRIESREAD", 0)
      })
      yield* publish("new")
      yield* join()
      yield* Fixture.becomes(
        "length",
        Effect.promise(() => redis.xlen(key("stream"))),
        1
      )
      assert.strictEqual((yield* happens("Truncated")).count, 5)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("what is too old is reported also when nothing else is stored", () =>
    Effect.gen(function* () {
      const { happens, join, key, redis } = yield* fixture({
        retention: { maxAge: "1 hour" },
        pollInterval: "20 millis"
      })
      yield* Effect.promise(async () => {
        for (let i = 1; i <= 3; i++) await redis.xadd(key("stream"), `${i}-0`, "payload", "old")
        await redis.xgroup("CREATE", key("stream"), "g", "0", "ENTRIESREAD", 0)
      })
      yield* join()
      assert.strictEqual((yield* happens("Truncated")).count, 3)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("what is cut off is counted also for groups that were moved, began at a time, or lost a single message", () =>
    Effect.gen(function* () {
      const { events, inspector, join, joinAndLeave, key, publish, redis, settle, take } = yield* fixture({
        retention: { maxLength: 300 },
        pollInterval: "20 millis"
      })
      const hundred = publish("x", ...Array.from({ length: 99 }, () => "x"))
      const early = yield* hundred
      yield* Effect.sleep(5)
      const late = yield* hundred
      const { leave, receiver } = yield* joinAndLeave({ group: "moved" })
      yield* settle(receiver, yield* take(receiver, 200))
      yield* leave
      yield* inspector.move("t", "moved", { after: early[99]!.id })
      yield* (yield* joinAndLeave({ group: "timed", start: { at: Number(late[0]!.id.split("-")[0]) } })).leave
      yield* (yield* joinAndLeave({ group: "first" })).leave
      yield* inspector.removeMessage("t", early[0]!.id)
      yield* inspector.removeMessage("t", late[50]!.id)
      for (let i = 0; i < 5; i++) yield* hundred
      const stored = yield* Effect.promise(() => redis.xlen(key("stream")))
      const expected = { first: 698 - stored, moved: 599 - stored, timed: 599 - stored }
      for (const group of Object.keys(expected)) yield* join({ group })
      yield* Fixture.becomes(
        "what was reported",
        Effect.sync(() =>
          Object.fromEntries(
            events
              .flatMap((event) => (event._tag === "Truncated" ? [[event.group, event.count] as const] : []))
              .toSorted(([a], [b]) => a.localeCompare(b))
          )
        ),
        expected
      )
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a message that is removed does not count as cut off, and the lag stays exact", () =>
    Effect.gen(function* () {
      const { events, group, inspector, join, joinAndLeave, key, publish, redis, settle, take } = yield* fixture({
        pollInterval: "20 millis"
      })
      const { leave } = yield* joinAndLeave()
      yield* leave
      const receipts = yield* publish("x", ...Array.from({ length: 99 }, () => "x"))
      yield* inspector.removeMessage("t", receipts[50]!.id)
      yield* inspector.removeMessage("t", receipts[0]!.id)
      assert.strictEqual((yield* group()).lag, 98)
      yield* inspector.pause("t", "g")
      const receiver = yield* join()
      const heartbeats = twoHeartbeats(redis, key("group:g:consumers"), receiver.consumer)
      yield* heartbeats
      yield* inspector.resume("t", "g")
      yield* settle(receiver, yield* take(receiver, 98))
      yield* heartbeats
      assert.isFalse(events.some(({ _tag }) => _tag === "Truncated"))
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("what is stored before the time at which a group begins does not count as cut off", () =>
    Effect.gen(function* () {
      const { events, group, join, key, publish, redis, take } = yield* fixture({ pollInterval: "20 millis" })
      const time = Effect.promise(() => redis.time()).pipe(Effect.map(([seconds]) => Number(seconds)))
      const start = (yield* time) + 2
      const receiver = yield* join({ start: { at: start * 1000 } })
      yield* publish("early", "early")
      assert.strictEqual((yield* group()).lag, 0)
      yield* Effect.repeat(Effect.delay(time, "20 millis"), { until: (now) => now >= start })
      yield* publish("then")
      assert.deepStrictEqual(
        (yield* take(receiver, 1)).map(({ body }) => body),
        ["then"]
      )
      yield* twoHeartbeats(redis, key("group:g:consumers"), receiver.consumer)
      assert.isFalse(events.some(({ _tag }) => _tag === "Truncated"))
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a topic has its own window and retention", () =>
    Effect.gen(function* () {
      const { inspector, join, key, publish, redis } = yield* fixture({
        deduplicationWindow: "1 hour",
        topics: { t: { deduplicationWindow: "1 minute", retention: { maxLength: 100, keep: "unsettled" } } }
      })
      yield* publish({ body: "a", id: "a" })
      assert.isAtMost(yield* Effect.promise(() => redis.pttl(key("seen:a"))), 60_000)
      yield* join()
      assert.strictEqual((yield* inspector.describe("t")).retention, "history")
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a number of bytes bounds the memory of the stream", () =>
    Effect.gen(function* () {
      const { key, publish, redis } = yield* fixture({ retention: { maxBytes: 100_000 } })
      for (let i = 0; i < 10; i++) yield* publish("x", ...Array.from({ length: 499 }, () => "x".repeat(100)))
      const used = yield* Effect.promise(() => redis.memory("USAGE", key("stream")))
      assert.isAtLeast(used ?? 0, 70_000)
      assert.isAtMost(used ?? 0, 130_000)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("the bytes are those of small and large messages together, in whatever order they come", () =>
    Effect.gen(function* () {
      const { key, publish, redis } = yield* fixture({ retention: { maxBytes: 1_000_000 } })
      const small = publish("x", ...Array.from({ length: 499 }, () => "x"))
      const large = publish("x".repeat(100_000))
      const length = Effect.promise(() => redis.xlen(key("stream")))
      for (let i = 0; i < 6; i++) yield* large
      for (let i = 0; i < 5; i++) yield* small
      assert.strictEqual(yield* length, 2506)
      for (let i = 0; i < 30; i++) yield* large
      const used = yield* Effect.promise(() => redis.memory("USAGE", key("stream"), "SAMPLES", 0))
      assert.isAtMost(used ?? 0, 1_100_000)
      assert.isAtLeast(used ?? 0, 600_000)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a consumer that may not measure the bytes does not join", () =>
    Effect.gen(function* () {
      const { redis } = yield* fixture()
      yield* Effect.promise(() => redis.acl("SETUSER", "blind", "on", ">secret", "~*", "&*", "+@all", "-memory|usage"))
      const { host } = new URL((yield* RedisServer.RedisServer).url)
      const blind = yield* fixture({ url: `redis://blind:secret@${host}`, retention: { maxBytes: 1000 } })
      const { reason } = yield* Effect.flip(blind.join())
      assert.deepInclude({ ...reason }, { _tag: "NotPermitted", command: "memory|usage" })
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a history keeps about so many that are settled, and all that are not", () =>
    Effect.gen(function* () {
      const { events, join, joinAndLeave, key, publish, redis, settle, take } = yield* fixture({
        retention: { maxLength: 300, keep: "unsettled" },
        pollInterval: "20 millis"
      })
      const length = Effect.promise(() => redis.xlen(key("stream")))
      const { leave } = yield* joinAndLeave({ group: "slow" })
      yield* leave
      const receiver = yield* join()
      for (let i = 0; i < 2; i++) yield* publish("x", ...Array.from({ length: 499 }, () => "x"))
      yield* settle(receiver, yield* take(receiver, 1000))
      const slow = yield* join({ group: "slow" })
      assert.strictEqual(yield* length, 1000)
      yield* settle(slow, yield* take(slow, 1000))
      yield* Fixture.becomes(
        "about as many as the limit",
        Effect.map(length, (length) => length >= 300 && length <= 400),
        true
      )
      const late = yield* join({ group: "late" })
      assert.isAtLeast((yield* take(late, 300)).length, 300)
      assert.isFalse(events.some(({ _tag }) => _tag === "Truncated"))
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live.each(["joined", "away"] as const)(
    "case A12: lag is what is stored and unread, whatever was cut off, the group %s meanwhile",
    (member) =>
      Effect.gen(function* () {
        const draw = yield* drawing(`lag, ${member}`)
        const count = (below: number) => draw(Random.nextIntBetween(1, below))
        const maxLength = 600
        const { events, group, join, joinAndLeave, key, publish, redis, settle, take } = yield* fixture({
          retention: { maxLength }
        })
        const { leave, receiver: first } = yield* joinAndLeave()
        let receiver = first
        let published = 0
        let read = 0
        const publishSome = Effect.fnUntraced(function* (some: number) {
          yield* publish("x", ...Array.from({ length: some - 1 }, () => "x"))
          published += some
        })
        const readSome = Effect.fnUntraced(function* (some: number) {
          yield* settle(receiver, yield* take(receiver, some))
          read += some
        })
        const told = () => events.reduce((sum, event) => (event._tag === "Truncated" ? sum + event.count : sum), 0)
        yield* publishSome(yield* count(200))
        if (yield* draw(Random.nextBoolean)) yield* readSome(1)
        if (member === "away") yield* leave
        for (let round = 0; round < 6; round++) {
          yield* publishSome(yield* count(1500))
          if (yield* draw(Random.nextBoolean)) yield* publishSome(yield* count(1500))
          const stored = yield* Effect.promise(() => redis.xlen(key("stream")))
          if (round === 1 && member === "away") receiver = yield* join()
          const before = (yield* group()).lag
          if (published > 1500) assert.isAtMost(before, stored)
          if (round === 0 && member === "away") continue
          const some = Math.min(before, yield* count(100))
          yield* readSome(some)
          assert.strictEqual((yield* group()).lag, before - some)
        }
        // To the end, where everything shows.
        const left = (yield* group()).lag
        yield* readSome(left)
        assert.strictEqual((yield* group()).lag, 0)
        yield* Fixture.becomes("told", Effect.sync(told), published - read)
      }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live(
    "case A12: what another program cut off while nobody was there is told, and lag is right from the first read",
    () =>
      Effect.gen(function* () {
        const { group, happens, join, joinAndLeave, key, publish, redis, settle, take } = yield* Fixture.make()
        const { leave, receiver } = yield* joinAndLeave()
        yield* publish("first")
        yield* settle(receiver, yield* take(receiver, 1))
        yield* leave
        yield* publish("x", ...Array.from({ length: 3500 - 1 }, () => "x"))
        const cut = 3500 - 601
        assert.strictEqual(yield* Effect.promise(() => redis.xtrim(key("stream"), "MAXLEN", 601)), cut)
        assert.strictEqual((yield* group()).lag, 601)
        const late = yield* join()
        yield* settle(late, yield* take(late, 100))
        assert.strictEqual((yield* group()).lag, 501)
        assert.strictEqual((yield* happens("Truncated")).count, cut)
      }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a user who may not write all of it writes none of it", () =>
    Effect.gen(function* () {
      const { key, redis, server } = yield* Fixture.make()
      yield* Effect.promise(() => redis.acl("SETUSER", "poor", "on", ">pw", "~*", "&*", "+@all", "-set"))
      const poor = new URL(server.url)
      poor.username = "poor"
      poor.password = "pw"
      const theirs = yield* Fixture.make({ url: poor.href })
      const result = yield* Effect.result(theirs.publish("a", "b"))
      assert.isTrue(Result.isFailure(result) && result.failure.reason._tag === "NotPermitted")
      assert.strictEqual(yield* Effect.promise(() => redis.exists(key("stream"), theirs.key("stream"))), 0)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it("options that a script could only fail on half way are refused before there is a layer", () => {
    assert.throws(() => RedisStreams.layer({ deduplicationWindow: 0 }), "deduplicationWindow")
    assert.throws(() => RedisStreams.layer({ retention: { maxLength: 1.5 } }), "maxLength")
    assert.throws(() => RedisStreams.layer({ retention: { maxBytes: 0 } }), "maxBytes")
    assert.throws(() => RedisStreams.layer({ retention: { maxAge: 0 } }), "maxAge")
    assert.throws(() => RedisStreams.layer({ retention: {} }), "retention needs maxLength, maxAge or maxBytes")
    assert.throws(() => RedisStreams.layer({ deadLetters: { maxCount: 0 } }), "maxCount")
    RedisStreams.layer({ deduplicationWindow: Duration.infinity, deadLetters: { maxAge: "Infinity" } })
  })
})
