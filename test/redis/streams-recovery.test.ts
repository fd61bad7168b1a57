/**
 * What is lost and found: groups that vanish, answers that never come, consumers that die or stand still, keys that are
 * not ours. Receivers live on, and each message is settled once.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, freeze, RedisServer } from "@waybill/testing"
import { Duration, Effect, Exit, Fiber, Layer, Result, Schedule, Scope } from "effect"
import { Settlement, type Transport } from "waybill"
import * as Fixture from "./Fixture.ts"

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

/** The order of stream ids. */
const precedes = (a: string, b: string): boolean => {
  const [[x = 0, i = 0], [y = 0, j = 0]] = [a.split("-").map(Number), b.split("-").map(Number)]
  return x !== y ? x < y : i < j
}

const bodies = (deliveries: ReadonlyArray<{ readonly body: unknown }>) =>
  deliveries.map(({ body }) => String(body)).sort()

it.live("a member at rest sends its heartbeat, and claims nothing while no other consumer holds anything", () =>
  Effect.gen(function* () {
    const { blocked, join, publish, redis, take } = yield* Fixture.make({ pollInterval: 50 })
    const receiver = yield* join()
    yield* publish("held")
    yield* take(receiver, 1)
    yield* Effect.forkChild(receiver.take(1))
    yield* blocked
    const counts = Effect.promise(async () => {
      const stats = await redis.info("commandstats")
      return ["zadd", "xpending"].map((name) =>
        Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0)
      )
    })
    yield* Effect.promise(() => redis.config("RESETSTAT"))
    yield* Fixture.becomes(
      "ten heartbeats",
      Effect.map(counts, ([beats = 0]) => beats >= 10),
      true
    )
    const [beats = 0, looks = 0] = yield* counts
    // A heartbeat looks at the stream and at the retry stream. So does a claim: one to begin with, and one each half lease.
    assert.isBelow(looks, 3 * beats)
  }).pipe(Effect.scoped, Effect.provide(servers))
)

describe("groups that vanish", () => {
  for (const [name, waiting] of [
    ["with a blocked read", true],
    ["between reads", false]
  ] as const) {
    it.live(`FLUSHALL ${name}: the group is made again, said once, and what is published next arrives`, () =>
      Effect.gen(function* () {
        const { events, happens, inspector, join, publish, redis, settle, take } = yield* Fixture.make()
        const receiver = yield* join()
        yield* publish("before")
        yield* settle(receiver, yield* take(receiver, 1))
        const fiber = yield* Effect.forkChild(waiting ? take(receiver, 1) : Effect.succeed([]), {
          startImmediately: true
        })
        yield* Effect.sleep(50)
        yield* Effect.promise(() => redis.flushall())
        yield* happens("GroupRecreated")
        yield* publish("after")
        const taken = [...(yield* Fiber.join(fiber))]
        if (!waiting) taken.push(...(yield* take(receiver, 1)))
        assert.deepStrictEqual(bodies(taken), ["after"])
        assert.deepStrictEqual(yield* settle(receiver, taken), ["Settled"])
        yield* Effect.sleep(1100)
        assert.strictEqual(events.filter(({ _tag }) => _tag === "GroupRecreated").length, 1)
        assert.deepStrictEqual(yield* inspector.topics, ["t"])
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }

  it.live("published between the FLUSHALL and its discovery: it is not missed", () =>
    Effect.gen(function* () {
      const { join, publish, redis, settle, take } = yield* Fixture.make()
      const receiver = yield* join({ start: "latest" })
      yield* publish("before")
      yield* settle(receiver, yield* take(receiver, 1))
      yield* Effect.promise(() => redis.flushall())
      yield* publish("in between")
      assert.deepStrictEqual(bodies(yield* take(receiver, 1)), ["in between"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("case A7: XGROUP DESTROY: what is held stays with its consumer, what was settled does not come again", () =>
    Effect.gen(function* () {
      const { happens, join, key, publish, redis, settle, take } = yield* Fixture.make()
      const receiver = yield* join()
      const other = yield* join({ group: "keeps everything in the stream" })
      yield* publish("settled", "held", "unread")
      const [settled, held] = yield* take(receiver, 2)
      yield* settle(receiver, [settled!])
      // The position to start from is noted with each beat: in front of what is held, and so behind what is settled.
      const mark = Effect.promise(async () => (await redis.hget(`${key("group")}:g:state`, "mark")) ?? "0-0")
      yield* Fixture.becomes(
        "the settled one is behind the mark",
        Effect.map(mark, (at) => !precedes(at, settled!.id)),
        true
      )
      yield* Effect.promise(() => redis.xgroup("DESTROY", key("stream"), "g"))
      yield* happens("GroupRecreated")
      const unread = yield* take(receiver, 1)
      assert.deepStrictEqual(bodies(unread), ["unread"])
      assert.deepStrictEqual(yield* settle(receiver, [...unread, held!]), ["Settled", "Settled"])
      assert.strictEqual((yield* take(other, 3)).length, 3)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("FLUSHALL under a handler: nobody else has the message, so it is worked on, and may still be retried", () =>
    Effect.gen(function* () {
      const { happens, join, letters, publish, redis, settle, take } = yield* Fixture.make()
      const receiver = yield* join()
      yield* publish("acked", { body: "retried", id: "r", headers: { h: "1" } }, "rejected", "released")
      const [acked, retried, rejected, released] = yield* take(receiver, 4)
      yield* Effect.promise(() => redis.flushall())
      yield* happens("GroupRecreated")
      yield* Effect.sleep(1200)
      assert.deepStrictEqual(yield* settle(receiver, [acked!]), ["Settled"])
      assert.deepStrictEqual(yield* settle(receiver, [retried!], Settlement.retry(Duration.zero, "x")), ["Settled"])
      assert.deepStrictEqual(yield* settle(receiver, [rejected!], Settlement.deadLetter("Bad", "x")), ["Settled"])
      assert.deepStrictEqual(yield* settle(receiver, [released!], Settlement.release), ["Settled"])
      const again = yield* take(receiver, 2)
      assert.deepStrictEqual(
        again
          .map(({ attempt, body, headers, id }) => ({ attempt, body, headers, id }))
          .sort((a, b) => b.attempt - a.attempt),
        [
          { attempt: 2, body: "retried", headers: { h: "1" }, id: "r" },
          { attempt: 1, body: "released", headers: {}, id: released!.id }
        ]
      )
      assert.deepStrictEqual(bodies(yield* letters), ["rejected"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a server that restarts empty is taken back into use", () =>
    Effect.gen(function* () {
      const { happens, join, publish, server, take } = yield* Fixture.make()
      const receiver = yield* join()
      yield* publish("before")
      yield* take(receiver, 1)
      const fiber = yield* Effect.forkChild(Effect.retry(take(receiver, 1), Schedule.spaced("20 millis")), {
        startImmediately: true
      })
      yield* server.kill
      yield* server.start
      yield* happens("GroupRecreated")
      yield* happens("Disconnected")
      yield* happens("Reconnected")
      yield* publish("after")
      assert.deepStrictEqual(bodies(yield* Fiber.join(fiber)), ["after"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("answers that never come", () => {
  it.live("deliveries of a read whose reply was lost are found, once each", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const { group, join, publish, settle, take } = yield* Fixture.make({ url: proxy.url })
      const receiver = yield* join()
      yield* publish("a", "b", "c")
      const snapped = yield* proxy.dropReply("XREADGROUP")
      const taken = yield* take(receiver, 3)
      yield* snapped
      assert.deepStrictEqual(bodies(taken), ["a", "b", "c"])
      assert.deepStrictEqual(yield* settle(receiver, taken), ["Settled", "Settled", "Settled"])
      assert.strictEqual((yield* group()).pending, 0)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  for (const [name, settlement] of [
    ["ack", Settlement.ack],
    ["retry", Settlement.retry(Duration.zero, "again")],
    ["dead letter", Settlement.deadLetter("Bad", "cause")],
    ["release", Settlement.release]
  ] as const) {
    it.live(`a ${name} whose reply was lost is done once, and said to be done`, () =>
      Effect.gen(function* () {
        const proxy = yield* FaultProxy.FaultProxy
        const { group, join, publish, settle, take } = yield* Fixture.make({ url: proxy.url })
        const receiver = yield* join({ lease: Duration.seconds(60) })
        yield* publish("a")
        const deliveries = yield* take(receiver, 1)
        const snapped = yield* proxy.dropReply(name === "ack" ? "XACK" : "EVALSHA")
        assert.deepStrictEqual(yield* settle(receiver, deliveries, settlement), ["Settled"])
        yield* snapped
        yield* Fixture.becomes(
          "figures",
          Effect.map(group(), (info) => [info.lag, info.pending, info.waiting, info.deadLetters]),
          { ack: [0, 0, 0, 0], retry: [0, 0, 1, 0], "dead letter": [0, 0, 0, 1], release: [0, 0, 1, 0] }[name]
        )
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }
})

describe("consumers that die or stand still", () => {
  it.live("what a dead consumer held is taken over, and the consumer is forgotten", () =>
    Effect.gen(function* () {
      const { happens, join, key, publish, redis, settle, take } = yield* Fixture.make()
      const short = Duration.millis(400)
      const dead = yield* join({ lease: short })
      yield* publish("a", "b")
      const held = yield* take(dead, 2)
      yield* freeze(dead)
      const living = yield* join({ lease: short })
      const taken = yield* take(living, 2)
      assert.deepStrictEqual(bodies(taken), ["a", "b"])
      const claimed = yield* happens("Claimed")
      assert.deepStrictEqual(claimed.from, [dead.consumer])
      assert.strictEqual(claimed.count, 2)
      assert.deepStrictEqual(yield* settle(dead, held), ["Stale", "Stale"])
      assert.deepStrictEqual(yield* settle(living, taken), ["Settled", "Settled"])
      yield* Fixture.becomes(
        "consumers",
        Effect.promise(async () => {
          // The shape of the reply: one flat list a consumer, its name second.
          const rows = (await redis.xinfo("CONSUMERS", key("stream"), "g")) as ReadonlyArray<ReadonlyArray<unknown>>
          return rows.map((row) => row[1])
        }),
        [living.consumer]
      )
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("what somebody read by hand and forgot is taken over after the lease, and not before", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis, take } = yield* Fixture.make()
      const receiver = yield* join({ lease: Duration.millis(600) })
      yield* publish("a")
      const start = performance.now()
      yield* Effect.promise(() => redis.xreadgroup("GROUP", "g", "by-hand", "STREAMS", key("stream"), ">"))
      const [delivery] = yield* take(receiver, 1)
      assert.isAtLeast(performance.now() - start, 500)
      assert.strictEqual(delivery?.attempt, 2)
      assert.strictEqual(delivery?.fence, 2)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a message that kills its consumers becomes a dead letter unseen, and that is reported", () =>
    Effect.gen(function* () {
      const { happens, join, letters, publish, take } = yield* Fixture.make()
      const terms = { lease: Duration.millis(300), maxDeliveries: 2 }
      yield* publish({ body: "poison", id: "p" })
      for (let i = 0; i < 2; i++) {
        const dead = yield* join(terms)
        yield* take(dead, 1)
        yield* freeze(dead)
      }
      const receiver = yield* join(terms)
      yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* Fixture.becomes(
        "letters",
        Effect.map(letters, (found) => found.map(({ attempts, body, id, reason }) => ({ attempts, body, id, reason }))),
        [{ attempts: 2, body: "poison", id: "p", reason: "CrashLoop" }]
      )
      assert.strictEqual((yield* happens("Settled")).delivery.id, "p")
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a message that somebody cut off is reported, and its handler may still settle it", () =>
    Effect.gen(function* () {
      const { happens, join, key, letters, publish, redis, settle, take } = yield* Fixture.make()
      const terms = { lease: Duration.millis(600) }
      const one = yield* join(terms)
      yield* publish("retried", "rejected", "abandoned")
      const [retried, rejected] = yield* take(one, 3)
      yield* Effect.promise(() => redis.xtrim(key("stream"), "MAXLEN", 0))
      yield* Effect.sleep(700)
      assert.deepStrictEqual(yield* settle(one, [retried!], Settlement.retry(Duration.zero, "x")), ["Settled"])
      assert.deepStrictEqual(yield* settle(one, [rejected!], Settlement.deadLetter("Bad", "x")), ["Settled"])
      assert.deepStrictEqual(bodies(yield* take(one, 1)), ["retried"])
      assert.deepStrictEqual(bodies(yield* letters), ["rejected"])
      yield* freeze(one)
      const two = yield* join(terms)
      yield* Effect.forkChild(two.take(1), { startImmediately: true })
      const truncated = yield* happens("Truncated")
      assert.strictEqual(truncated.count, 1)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a consumer that asks after losing its buffer to others gets what comes next", () =>
    Effect.gen(function* () {
      const { blocked, group, join, publish, settle, take } = yield* Fixture.make()
      const lease = Duration.millis(600)
      const receiver = yield* join({ lease })
      // A read that is asked for and then not waited for fills the buffer.
      const asked = yield* Effect.forkChild(receiver.take(5), { startImmediately: true })
      yield* blocked
      yield* Fiber.interrupt(asked)
      yield* publish("a", "b", "c")
      yield* Fixture.becomes(
        "delivered",
        Effect.map(group(), ({ pending }) => pending),
        3
      )
      const stand = yield* Scope.make()
      yield* Scope.provide(freeze(receiver), stand)
      const successor = yield* join({ lease })
      yield* settle(successor, yield* take(successor, 3))
      const waiting = yield* Effect.forkChild(receiver.take(5), { startImmediately: true })
      yield* Scope.close(stand, Exit.void)
      // Long enough for the buffer to be found lost; nobody can be asked whether it has been.
      yield* Effect.sleep(1500)
      yield* publish("d")
      assert.deepStrictEqual(bodies(yield* Effect.timeout(Fiber.join(waiting), "20 seconds")), ["d"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("what lies untaken for too long is given to others", () =>
    Effect.gen(function* () {
      const { blocked, join, publish, take } = yield* Fixture.make()
      const terms = { lease: Duration.millis(900) }
      const hoarder = yield* join(terms)
      // The read goes on after its taker is gone, and gets the message.
      const fiber = yield* Effect.forkChild(hoarder.take(1), { startImmediately: true })
      yield* blocked
      yield* Fiber.interrupt(fiber)
      yield* publish("a")
      const [delivery] = yield* take(yield* join(terms), 1)
      assert.strictEqual(delivery?.attempt, 1)
      assert.strictEqual(delivery?.fence, 2)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("keys that are not ours", () => {
  const topicKeys = ["stream", "meta", "groups", "delayed", "delayed-bodies"]
  const groupKeys = ["retry", "waiting", "waiting-bodies", "dead", "consumers", "released", "state"]
  const wrongKeyOf = (result: Result.Result<unknown, Transport.TransportError>) =>
    Result.isFailure(result) && result.failure.reason._tag === "WrongKeyType"
      ? result.failure.reason.key
      : `no WrongKeyType in ${JSON.stringify(result)}`

  it.live("each is named when a consumer joins", () =>
    Effect.gen(function* () {
      for (const name of [...topicKeys, ...groupKeys]) {
        const { groupKey, join, key, redis } = yield* Fixture.make()
        const wrong = topicKeys.includes(name) ? key(name) : groupKey(name)
        yield* Effect.promise(() => redis.lpush(wrong, "x"))
        const receiver = yield* Effect.result(join())
        const result = Result.isFailure(receiver) ? receiver : yield* Effect.result(receiver.success.take(1))
        assert.strictEqual(wrongKeyOf(result), wrong)
      }
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("each is named to a consumer that runs, which goes on when it is gone", () =>
    Effect.gen(function* () {
      for (const name of [...topicKeys, ...groupKeys]) {
        const { groupKey, join, key, publish, redis, take } = yield* Fixture.make()
        const wrong = topicKeys.includes(name) ? key(name) : groupKey(name)
        // What only trimming and joining read, only they can complain of.
        if (name === "meta" || name === "groups") continue
        const receiver = yield* join()
        const fiber = yield* Effect.forkChild(Effect.result(receiver.take(1)), { startImmediately: true })
        yield* Effect.promise(() => redis.multi().del(wrong).lpush(wrong, "x").exec())
        assert.strictEqual(wrongKeyOf(yield* Fiber.join(fiber)), wrong)
        yield* Effect.promise(() => redis.del(wrong))
        yield* publish("after")
        assert.deepStrictEqual(
          bodies(yield* Effect.retry(take(receiver, 1), Schedule.spaced("20 millis"))),
          ["after"],
          name
        )
      }
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("each is named to a publisher, and nothing is stored", () =>
    Effect.gen(function* () {
      for (const name of ["stream", "meta", "delayed", "delayed-bodies"]) {
        const { key, publish, redis } = yield* Fixture.make()
        yield* Effect.promise(() => redis.lpush(key(name), "x"))
        const result = yield* Effect.result(
          publish("a", { body: "b", due: { _tag: "After", delay: Duration.hours(1) } })
        )
        assert.strictEqual(wrongKeyOf(result), key(name))
        assert.deepStrictEqual(yield* Effect.promise(() => redis.keys(key("*"))), [key(name)])
      }
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("each is named to who settles, and nothing is half done", () =>
    Effect.gen(function* () {
      for (const name of ["waiting", "waiting-bodies", "dead", "released", "state"]) {
        const { groupKey, join, key, publish, redis, settle, take } = yield* Fixture.make()
        const receiver = yield* join()
        yield* publish("a")
        const taken = yield* take(receiver, 1)
        yield* Effect.promise(() => redis.multi().del(groupKey(name)).lpush(groupKey(name), "x").exec())
        const settlement = name === "dead" ? Settlement.deadLetter("Bad", "x") : Settlement.retry(Duration.zero, "x")
        assert.strictEqual(wrongKeyOf(yield* Effect.result(settle(receiver, taken, settlement))), groupKey(name))
        const [pending] = yield* Effect.promise(() => redis.xpending(key("stream"), "g"))
        assert.strictEqual(pending, 1)
        yield* Effect.promise(() => redis.del(groupKey(name)))
        assert.deepStrictEqual(yield* settle(receiver, taken, settlement), ["Settled"])
      }
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("what an older build leaves under released", () => {
  it.live("is gone as soon as the group has nothing pending", () =>
    Effect.gen(function* () {
      const { groupKey, join, publish, redis, settle, take } = yield* Fixture.make({ pollInterval: "20 millis" })
      const receiver = yield* join()
      yield* publish("a")
      const taken = yield* take(receiver, 1)
      // It took the entry over from a consumer that had died, and settled it: what is noted of that death it does not know.
      yield* Effect.promise(() => redis.hset(groupKey("released"), "!01-1", "0;0;;|1,c,ConsumerDied,@1"))
      yield* settle(receiver, taken)
      yield* Fixture.becomes(
        "released",
        Effect.promise(() => redis.exists(groupKey("released"))),
        0
      )
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("leaving", () => {
  it.live("leaves nothing behind but what it did not settle, and that is free at once", () =>
    Effect.gen(function* () {
      const { groupKey, join, joinAndLeave, key, publish, redis, settle, take } = yield* Fixture.make()
      const { leave, receiver } = yield* joinAndLeave()
      yield* publish("a", "b", "c")
      const [a] = yield* take(receiver, 2)
      yield* settle(receiver, [a!])
      yield* leave
      assert.deepStrictEqual(yield* Effect.promise(() => redis.zrange(groupKey("consumers"), "0", "-1")), [])
      const rows = yield* Effect.promise(() => redis.xpending(key("stream"), "g", "-", "+", 10))
      // One row an entry, its owner second.
      assert.deepStrictEqual(
        rows.map((row) => (row as ReadonlyArray<unknown>)[1]),
        ["(released)"]
      )
      const clients = yield* Effect.promise(async () => String(await redis.client("LIST")))
      assert.notInclude(clients, "reader:")
      const taken = yield* take(yield* join(), 2)
      assert.deepStrictEqual(bodies(taken), ["b", "c"])
      assert.deepStrictEqual(
        taken.map(({ attempt }) => attempt),
        [1, 1]
      )
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  for (const [name, act] of [
    ["is silent", "pause"],
    ["is gone", "kill"]
  ] as const) {
    it.live(`returns in time when the server ${name}`, () =>
      Effect.gen(function* () {
        const { joinAndLeave, publish, server, take } = yield* Fixture.make()
        const { leave, receiver } = yield* joinAndLeave({ shutdown: Duration.seconds(1) })
        yield* publish("a")
        yield* take(receiver, 1)
        const waiting = yield* Effect.forkChild(Effect.result(receiver.take(1)), { startImmediately: true })
        yield* Effect.sleep(50)
        yield* server[act]
        const start = performance.now()
        yield* leave
        // Waiting for the deadline of a command would take five.
        assert.isBelow(performance.now() - start, 4500)
        assert.isTrue(Result.isFailure(yield* Fiber.join(waiting)), "whoever waits is told")
        yield* server.resume
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }
})
