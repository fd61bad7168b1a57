/** Single messages by their ids: what was found is the message that was asked for, and nothing that is in use disappears. */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Clock, Context, Duration, Effect, Layer, Option, References } from "effect"
import { type Delivery, Inspector, type Message, Settlement, Transport } from "waybill"
import { IoRedis, RedisKeyspace, RedisStreams } from "waybill/redis"
import { becomes, client, make, outgoing } from "./Fixture.ts"

const due = { _tag: "After", delay: Duration.hours(1) } as const

const patterns = {
  RedisStreams: (prefix: string) => RedisStreams.layer({ prefix }),
  RedisKeyspace: (prefix: string) => RedisKeyspace.layer({ prefix, ttl: "1 hour", notifications: "enable" })
}

layer(RedisServer.layer(), { excludeTestServices: true })("messages by id", (it) => {
  for (const [name, layerOf] of Object.entries(patterns)) {
    it.effect(`${name}: a publisher's own id finds the message for as long as it is stored, after its window too`, () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const redis = yield* client(url)
        const prefix = `own${name}`
        const context = yield* Layer.build(layerOf(prefix).pipe(Layer.provide(IoRedis.layer({ url })))).pipe(
          Effect.provideService(References.MinimumLogLevel, "None")
        )
        const transport = Context.get(context, Transport.AtMostOnce)
        const inspector = Context.get(context, Inspector.Inspector)
        const publish = (id: string, due?: Message.Due) => transport.publish("t", [outgoing({ body: id, id, due })])
        const receiver = yield* transport.receive({
          topic: "t",
          group: "g",
          start: "earliest",
          lease: Duration.seconds(10),
          maxDeliveries: 5,
          shutdown: Duration.seconds(2)
        })
        const take = Effect.fnUntraced(function* (count: number) {
          const taken = new Map<string, Delivery.Delivery>()
          while (taken.size < count) for (const one of yield* receiver.take(count - taken.size)) taken.set(one.id, one)
          return (id: string) => taken.get(id)!
        })
        const place = (id: string) =>
          Effect.map(inspector.message("t", id), (found) => {
            if (Option.isNone(found)) return "none"
            assert.strictEqual(found.value.body, id)
            return found.value.dueAt === undefined ? found.value.groups[0]?._tag : "delayed"
          })
        const forget = Effect.promise(async () => redis.del(...(await redis.keys(`{${prefix}:t}:seen:*`))))
        yield* publish("late", due)
        yield* publish("held")
        const held = (yield* take(1))("held")
        yield* publish("ready")
        assert.strictEqual(yield* forget, 3)
        const places = Effect.forEach(["late", "held", "ready"], place)
        assert.deepStrictEqual(yield* places, ["delayed", "Pending", "Ready"])
        yield* inspector.runNow("t", "late")
        const others = yield* take(2)
        yield* receiver.settle([
          [held, Settlement.retry(Duration.hours(1), "later")],
          [others("late"), Settlement.deadLetter("Broken", "cause")]
        ])
        assert.deepStrictEqual(yield* places, ["Dead", "Waiting", "Pending"])
        const [letter] = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 1 })
        yield* inspector.redrive("t", "g", [letter!.entry])
        yield* receiver.settle([[others("ready"), Settlement.ack]])
        const late = (yield* take(1))("late")
        assert.strictEqual(yield* place("late"), "Pending")
        yield* inspector.removeMessage("t", "held")
        yield* receiver.settle([[late, Settlement.ack]])
        assert.include(["none", "Settled"], yield* place("held"))
        // On keyspace it follows the expiry of the messages.
        if (name === "RedisKeyspace") return
        const indexed = Effect.promise(() => redis.zcard(`{${prefix}:t}:own-ids`))
        yield* becomes("the index", indexed, 0)
      }).pipe(Effect.scoped)
    )
  }

  it.effect("another message under the same number of a delayed one is not found, nor removed", () =>
    Effect.gen(function* () {
      const { inspector, publish } = yield* make()
      const [receipt] = yield* publish({ body: "a", due })
      const wrong = receipt!.id.replace(/^\d+/, (millis) => String(Number(millis) + 1))
      assert.isTrue(Option.isNone(yield* inspector.message("t", wrong)))
      const { reason } = yield* Effect.flip(inspector.changePriority("t", receipt!.id, "high"))
      assert.strictEqual(reason._tag, "NotOffered")
      for (const steer of [inspector.removeMessage, inspector.runNow]) {
        assert.strictEqual((yield* Effect.flip(steer("t", wrong))).reason._tag, "MessageNotFound")
      }
      assert.strictEqual((yield* Effect.orDie(inspector.describe("t"))).delayed, 1)
      // The marker of an id outlives the topic, whose numbers begin anew.
      yield* publish({ body: "x", id: "x", due })
      yield* inspector.remove("t", { force: true })
      yield* publish({ body: "1", id: "n1", due }, { body: "2", id: "n2", due })
      assert.isTrue(Option.isNone(yield* inspector.message("t", "x")))
    }).pipe(Effect.scoped)
  )

  it.effect("of the entries that share a place in an index, none is taken for another", () =>
    Effect.gen(function* () {
      const { groupKey, inspector, join, letters, publish, redis, settle, take } = yield* make()
      const receiver = yield* join()
      // The server's clock went back: the entries of a millisecond have reached large numbers.
      const at = (yield* Clock.currentTimeMillis) + 60_000
      yield* Effect.promise(() => redis.xadd(groupKey("dead"), `${at}-2046`, "payload", "foreign"))
      yield* publish({ body: "a", id: "one" }, { body: "a", id: "two" })
      yield* settle(receiver, yield* take(receiver, 2), Settlement.deadLetter("Broken", "cause"))
      const ids = Effect.map(letters, (letters) => letters.map(({ id }) => id))
      yield* Effect.ignore(inspector.removeMessage("t", "two"))
      assert.deepStrictEqual(yield* ids, [`${at}-2046`, "one", "two"])
      yield* inspector.removeMessage("t", "one")
      assert.deepStrictEqual(yield* ids, [`${at}-2046`, "two"])
    }).pipe(Effect.scoped)
  )

  it.effect("the index of dead letters forgets those that were discarded, and no others", () =>
    Effect.gen(function* () {
      const { groupKey, inspector, join, letters, publish, redis, settle, take } = yield* make()
      const receiver = yield* join()
      const ids = ["a", "b", "c", "b"]
      for (const id of ids) {
        yield* publish({ body: "a", id, unique: "until-settled" })
        yield* settle(receiver, yield* take(receiver, 1), Settlement.deadLetter("Broken", "cause"))
      }
      const [, second, third] = yield* letters
      assert.strictEqual(yield* inspector.discard("t", "g", [second!.entry, third!.entry]), 2)
      const index = yield* Effect.promise(() => redis.zrange(groupKey("dead-ids"), "0", "-1"))
      assert.sameMembers(index, ["a", "b"])
    }).pipe(Effect.scoped)
  )

  it.effect("the index of dead letters forgets all those that became too old at once", () =>
    Effect.gen(function* () {
      const { groupKey, join, publish, redis, settle, take } = yield* make()
      const receiver = yield* join()
      const old = Array.from({ length: 3500 }, (_, i) => i + 1)
      yield* Effect.promise(async () => {
        // In one step: a heartbeat drops old letters too.
        const letters = redis.multi()
        for (const i of old) letters.xadd(groupKey("dead"), `${i}-0`, "payload", "old")
        for (const i of old) letters.zadd(groupKey("dead-ids"), i * 2048, `old-${i}`)
        await letters.exec()
      })
      yield* publish({ body: "a", id: "new" })
      yield* settle(receiver, yield* take(receiver, 1), Settlement.deadLetter("Broken", "cause"))
      const index = yield* Effect.promise(() => redis.zrange(groupKey("dead-ids"), "0", "-1"))
      assert.deepStrictEqual(index, ["new"])
    }).pipe(Effect.scoped)
  )

  it.effect("a message in its second attempt is still found after a purge", () =>
    Effect.gen(function* () {
      const { inspector, join, publish, settle, take } = yield* make()
      const receiver = yield* join()
      yield* publish({ body: "a", id: "held" }, { body: "a", id: "waits" })
      const [held, waits] = yield* take(receiver, 2)
      yield* settle(receiver, [held!], Settlement.retry(Duration.zero, "cause"))
      yield* take(receiver, 1)
      yield* settle(receiver, [waits!], Settlement.retry(Duration.hours(1), "cause"))
      yield* inspector.purge("t")
      const places = (id: string) =>
        Effect.map(inspector.message("t", id), (found) =>
          Option.map(found, ({ groups }) => groups.map(({ _tag }) => _tag))
        )
      assert.deepStrictEqual(yield* places("held"), Option.some(["Pending"]))
      assert.strictEqual((yield* Effect.flip(inspector.removeMessage("t", "held"))).reason._tag, "MessageInUse")
      assert.notDeepEqual(yield* places("waits"), Option.some(["Waiting"]))
    }).pipe(Effect.scoped)
  )

  it.effect("a message is in use by a group that the caller has not seen yet", () =>
    Effect.gen(function* () {
      const { inspector, join, key, publish, redis, take } = yield* make()
      const receiver = yield* join()
      const [receipt] = yield* publish("a")
      yield* take(receiver, 1)
      // As if it had joined after the groups were listed; the groups of other programs are not registered.
      yield* Effect.promise(() => redis.srem(key("groups"), "g"))
      const { reason } = yield* Effect.flip(inspector.removeMessage("t", receipt!.id))
      assert.strictEqual(reason._tag, "MessageInUse")
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(key("stream"))), 1)
    }).pipe(Effect.scoped)
  )

  it.effect(
    "a consumer is told by its second heartbeat at the latest that a delivery was cancelled, and within a second",
    () =>
      Effect.gen(function* () {
        const { groupKey, inspector, join, publish, redis, take } = yield* make()
        const receiver = yield* join()
        const { cancelled, consumer } = receiver
        assert(cancelled !== undefined)
        const receipts = yield* publish("a", "b", "c")
        yield* take(receiver, 3)
        const expiry = Effect.promise(() => redis.zscore(groupKey("consumers"), consumer))
        const waits: Array<number> = []
        for (const { id } of receipts) {
          const heartbeats = new Set<string | null>()
          const began = yield* Clock.currentTimeMillis
          yield* inspector.cancel("t", id)
          const told = yield* Effect.forkChild(cancelled)
          while (told.pollUnsafe() === undefined) {
            heartbeats.add(yield* expiry)
            yield* Effect.sleep(10)
          }
          waits.push((yield* Clock.currentTimeMillis) - began)
          // The one before, one that was under way, and the one that told.
          assert.isAtMost(heartbeats.size, 3)
        }
        // On a busy machine one of them may be late.
        assert.isAtMost(Math.min(...waits), 1000)
      }).pipe(Effect.scoped)
  )
})
