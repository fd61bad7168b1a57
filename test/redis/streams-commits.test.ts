/**
 * Commits on streams, where Redis shows: what the keys look like, what comes after the memory of published ids has passed, lost
 * answers, missing permissions and a server without memory.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Duration, Effect, Fiber, Layer } from "effect"
import { Commit, Settlement, type Transport } from "waybill"
import * as Fixture from "./Fixture.ts"

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

const total = Commit.counter("total")
const one = Settlement.commit(Commit.make({ writes: [total.add(1)] }))

const reasons = (answers: ReadonlyArray<Transport.Settled>) =>
  answers.map((answer) => (typeof answer === "object" && answer._tag === "DeadLetter" ? answer.reason : answer))

describe("commits on streams", () => {
  it.live("a record is kept beside its topic under a plain name, and the marker expires", () =>
    Effect.gen(function* () {
      const { group, groupKey, join, key, publish, redis, settle, take } = yield* Fixture.make({
        marker: "40 days",
        deadLetters: { maxAge: "1 day" }
      })
      const receiver = yield* join()
      yield* publish({ body: "a", id: "my-id" })
      assert.deepStrictEqual(yield* settle(receiver, yield* take(receiver, 1), one), ["Settled"])
      assert.strictEqual(yield* Effect.promise(() => redis.get(key("data:total"))), "1")
      assert.strictEqual(yield* Effect.promise(() => redis.get(groupKey("done:my-id"))), "1")
      const days = (yield* Effect.promise(() => redis.pttl(groupKey("done:my-id")))) / (24 * 60 * 60 * 1000)
      assert.isTrue(days > 39.9 && days <= 40)
      assert.deepInclude(yield* group(), { pending: 0, lag: 0 })
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live("the messages of a commit are stored within the limits of their own topic", () =>
    Effect.gen(function* () {
      const { join, inspector, settle, take, transport } = yield* Fixture.make({
        topics: { "x/short": { retention: { maxLength: 10 } } }
      })
      const bodies = ["m", ...Array.from({ length: 499 }, () => "m")] as const
      const fill = (topic: string) =>
        transport.publish(topic, [Fixture.outgoing(bodies[0]), ...bodies.slice(1).map(Fixture.outgoing)])
      const depth = (topic: string) => Effect.map(inspector.describe(topic), ({ depth }) => depth)
      const to = (topic: string) =>
        Settlement.commit(Commit.make({ messages: bodies.map((body) => ({ topic, message: Fixture.outgoing(body) })) }))
      yield* fill("x/long")
      const short = yield* join({ topic: "x/short" })
      yield* transport.publish("x/short", [Fixture.outgoing("a")])
      const both = Commit.make({
        messages: ["x/long", "x/short"].map((topic) => ({ topic, message: Fixture.outgoing("a") }))
      })
      yield* settle(short, yield* take(short, 1), Settlement.commit(both))
      assert.strictEqual(yield* depth("x/long"), 501)
      yield* settle(short, yield* take(short, 1), to("x/long"))
      assert.strictEqual(yield* depth("x/long"), 1001)
      const long = yield* join({ topic: "x/long" })
      yield* settle(long, yield* take(long, 1), to("x/short"))
      assert.isBelow(yield* depth("x/short"), 200)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live("an id that is stored twice, after the window for published ids, is applied once", () =>
    Effect.gen(function* () {
      const { group, join, key, publish, read, redis, settle, take } = yield* Fixture.make({ deduplicationWindow: 1 })
      const receiver = yield* join()
      for (let i = 0; i < 3; i++) {
        yield* publish({ body: `${i}`, id: "same" })
        yield* Fixture.becomes(
          "forgotten",
          Effect.promise(() => redis.exists(key("seen:same"))),
          0
        )
      }
      const [first, ...others] = yield* take(receiver, 3)
      assert.deepStrictEqual(yield* settle(receiver, [first!], one), ["Settled"])
      assert.deepStrictEqual(yield* settle(receiver, others, one), ["Settled", "Settled"])
      assert.strictEqual(yield* read(total.value), 1)
      assert.deepInclude(yield* group(), { pending: 0 })
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  for (const [inOrder, calls] of [
    [true, 1],
    [false, 2]
  ] as const) {
    it.live(`of a consumer ${inOrder ? "in" : "without"} order travel in ${calls} calls at a time`, () =>
      Effect.gen(function* () {
        const proxy = yield* FaultProxy.FaultProxy
        const { inspector, join, publish, read, server, settle, take } = yield* Fixture.make({ url: proxy.url })
        const receiver = yield* join({ inOrder, lease: Duration.minutes(1) })
        yield* publish("first", ...Array.from({ length: 300 }, (_, i) => `${i}`))
        const [first, ...others] = yield* take(receiver, 301)
        // From here on the server knows the script.
        yield* settle(receiver, [first!], one)
        const sent = (command: string) => Effect.map(proxy.commands, (counts) => counts.get(command) ?? 0)
        const before = yield* sent("EVALSHA")
        yield* server.pause
        const settling = yield* Effect.forkChild(settle(receiver, others, one), { startImmediately: true })
        const looking = yield* Effect.forkChild(inspector.topics, { startImmediately: true })
        // The connection carries it behind all that was sent before it.
        yield* Fixture.becomes("the question was sent", sent("SMEMBERS"), 1)
        assert.strictEqual((yield* sent("EVALSHA")) - before, calls)
        yield* server.resume
        assert.isTrue((yield* Fiber.join(settling)).every((answer) => answer === "Settled"))
        yield* Fiber.join(looking)
        assert.strictEqual(yield* read(total.value), 301)
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }

  it.live("a commit whose answer was lost is applied once, and is settled", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const { group, join, publish, read, settle, take } = yield* Fixture.make({ url: proxy.url })
      const receiver = yield* join({ lease: Duration.minutes(1) })
      for (let i = 1; i <= 5; i++) {
        yield* publish("a", "b")
        const deliveries = yield* take(receiver, 2)
        const snapped = yield* proxy.dropReply("EVALSHA")
        assert.deepStrictEqual(yield* settle(receiver, deliveries, one), ["Settled", "Settled"])
        yield* snapped
        assert.strictEqual(yield* read(total.value), 2 * i)
      }
      assert.deepInclude(yield* group(), { pending: 0, deadLetters: 0 })
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("one whose condition failed and whose answer was lost is asked again, and can still be settled", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const { group, join, publish, read, settle, take } = yield* Fixture.make({ url: proxy.url })
      const receiver = yield* join({ lease: Duration.minutes(1) })
      yield* publish("a")
      const deliveries = yield* take(receiver, 1)
      const when = (value: number) =>
        Settlement.commit(Commit.make({ conditions: [total.is(value)], writes: [total.add(1)] }))
      const snapped = yield* proxy.dropReply("EVALSHA")
      const [answer] = yield* settle(receiver, deliveries, when(7))
      yield* snapped
      assert.deepInclude(answer, { _tag: "ConditionFailed", key: "total" })
      assert.deepInclude(yield* group(), { pending: 1 })
      assert.deepStrictEqual(yield* settle(receiver, deliveries, when(0)), ["Settled"])
      assert.strictEqual(yield* read(total.value), 1)
      assert.deepInclude(yield* group(), { pending: 0, deadLetters: 0 })
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a refused one whose answer was lost is one dead letter", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const { group, join, letters, publish, settle, take } = yield* Fixture.make({ url: proxy.url })
      const receiver = yield* join({ lease: Duration.minutes(1) })
      yield* publish("first")
      yield* settle(receiver, yield* take(receiver, 1), one)
      for (const writes of [
        [Commit.hash("total").set("a", 1)],
        [Commit.text("x").set("1"), Commit.hash("x").set("a", 1)]
      ]) {
        yield* publish("a")
        const deliveries = yield* take(receiver, 1)
        const snapped = yield* proxy.dropReply("EVALSHA")
        const answers = yield* settle(receiver, deliveries, Settlement.commit(Commit.make({ writes })))
        yield* snapped
        assert.match(String(reasons(answers)[0]), /CommitRejected|PartialCommit/)
      }
      assert.deepStrictEqual(
        (yield* letters).map(({ reason }) => reason),
        ["CommitRejected", "PartialCommit"]
      )
      assert.deepInclude(yield* group(), { pending: 0 })
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("the marker of a refused one begins again each time that it comes back", () =>
    Effect.gen(function* () {
      const { groupKey, inspector, join, letters, publish, read, redis, settle, take } = yield* Fixture.make()
      const receiver = yield* join()
      const partly = Settlement.commit(Commit.make({ writes: [total.add(1), Commit.hash("total").set("a", 1)] }))
      yield* publish({ body: "a", id: "a" })
      assert.deepStrictEqual(reasons(yield* settle(receiver, yield* take(receiver, 1), partly)), ["PartialCommit"])
      yield* Effect.promise(() => redis.pexpire(groupKey("done:a"), 60_000))
      yield* inspector.redrive("t", "g", [(yield* letters)[0]!.entry])
      assert.deepStrictEqual(reasons(yield* settle(receiver, yield* take(receiver, 1), one)), ["PartialCommit"])
      assert.isAbove(yield* Effect.promise(() => redis.pttl(groupKey("done:a"))), 60_000)
      assert.strictEqual(yield* read(total.value), 1)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live("what the user may not do is refused before anything is written", () =>
    Effect.gen(function* () {
      const { port, url } = yield* RedisServer.RedisServer
      const admin = yield* Fixture.client(url)
      yield* Effect.promise(() => admin.call("ACL", "SETUSER", "clerk", "on", ">pw", "~*", "&*", "+@all", "-lpush"))
      const { join, letters, publish, read, settle, take } = yield* Fixture.make({
        url: `redis://clerk:pw@127.0.0.1:${port}`
      })
      const receiver = yield* join()
      yield* publish("a")
      const commit = Commit.make({ writes: [total.add(1), Commit.list("events").prepend("a")] })
      const answers = yield* settle(receiver, yield* take(receiver, 1), Settlement.commit(commit))
      assert.deepStrictEqual(reasons(answers), ["CommitRejected"])
      assert.include((yield* letters)[0]?.cause, "NOPERM")
      assert.strictEqual(yield* read(total.value), 0)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live.each(["done:b", "released"])("a foreign value under %s is named, and nothing is applied", (name) =>
    Effect.gen(function* () {
      const { group, groupKey, join, publish, read, redis, settle, take } = yield* Fixture.make()
      const receiver = yield* join()
      yield* publish({ body: "a", id: "a" }, { body: "b", id: "b" })
      const deliveries = yield* take(receiver, 2)
      const foreign = groupKey(name)
      yield* Effect.promise(() => redis.zadd(foreign, 1, "foreign"))
      const { reason } = yield* Effect.flip(settle(receiver, deliveries, one))
      assert.deepInclude(reason, { _tag: "WrongKeyType", key: foreign })
      assert.strictEqual(yield* read(total.value), 0)
      yield* Effect.promise(() => redis.del(foreign))
      assert.deepStrictEqual(yield* settle(receiver, deliveries, one), ["Settled", "Settled"])
      assert.strictEqual(yield* read(total.value), 2)
      assert.deepInclude(yield* group(), { pending: 0, deadLetters: 0 })
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live("a server without memory applies nothing until it has some", () =>
    Effect.gen(function* () {
      const { join, publish, read, redis, settle, take } = yield* Fixture.make()
      const receiver = yield* join()
      yield* publish("a", "b")
      const deliveries = yield* take(receiver, 2)
      yield* Effect.promise(() => redis.config("SET", "maxmemory", "1mb"))
      const settling = yield* Effect.forkChild(settle(receiver, deliveries, one), { startImmediately: true })
      yield* Effect.sleep(300)
      assert.isUndefined(settling.pollUnsafe())
      assert.strictEqual(yield* read(total.value), 0)
      yield* Effect.promise(() => redis.config("SET", "maxmemory", "0"))
      assert.deepStrictEqual(yield* Fiber.join(settling), ["Settled", "Settled"])
      assert.strictEqual(yield* read(total.value), 2)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})
