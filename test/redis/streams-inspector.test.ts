/**
 * Figures and steering on Redis, where others write too: what the suite for all transports cannot ask.
 */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Duration, Effect, Fiber, Option } from "effect"
import { type Inspector, Settlement } from "waybill"
import * as Fixture from "./Fixture.ts"

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("inspecting streams", (it) => {
  it.effect("a topic and a group that others made are described", () =>
    Effect.gen(function* () {
      const { group, inspector, key, redis } = yield* Fixture.make()
      yield* Effect.promise(async () => {
        for (const body of ["a", "b", "c"]) await redis.xadd(key("stream"), "*", "payload", body)
        await redis.xgroup("CREATE", key("stream"), "g", "0")
        await redis.xreadgroup("GROUP", "g", "by-hand", "COUNT", 1, "STREAMS", key("stream"), ">")
      })
      const { depth, pattern } = yield* inspector.describe("t")
      assert.deepStrictEqual({ depth, pattern }, { depth: 3, pattern: "streams" })
      const { consumers, lag, pending } = yield* group()
      assert.deepStrictEqual({ consumers, lag, pending }, { consumers: [], lag: 2, pending: 1 })
    })
  )

  it.effect("a limit on the length is known once a consumer has joined with it, until one joins without", () =>
    Effect.gen(function* () {
      const { inspector, join, prefix } = yield* Fixture.make({ retention: { maxLength: 1000 } })
      const retention = Effect.map(inspector.describe("t"), ({ retention }) => retention)
      assert.strictEqual(yield* retention, "settled")
      yield* join()
      assert.strictEqual(yield* retention, "length")
      yield* (yield* Fixture.make({ prefix })).join({ group: "other" })
      assert.strictEqual(yield* retention, "settled")
    })
  )

  it.effect("there is nothing in front of the first position there is, and nothing behind the last one", () =>
    Effect.gen(function* () {
      const { inspector, publish } = yield* Fixture.make()
      yield* publish("a", "b")
      const read = (page: Inspector.Page | Inspector.BackwardPage) =>
        Effect.map(inspector.messages("t", page), (all) => all.map(({ body }) => body))
      const after = (position: string) => read({ after: Option.some(position), limit: 10 })
      const before = (position: string) => read({ before: Option.some(position), limit: 10 })
      const last = "18446744073709551615"
      assert.deepStrictEqual(yield* before("0"), [])
      assert.deepStrictEqual(yield* before("0-0"), [])
      assert.deepStrictEqual(yield* before(`${last}-${last}`), ["a", "b"])
      assert.deepStrictEqual(yield* before(last), ["a", "b"])
      assert.deepStrictEqual(yield* after("0-0"), ["a", "b"])
      assert.deepStrictEqual(yield* after(last), [])
      assert.deepStrictEqual(yield* after(`${last}-${last}`), [])
    })
  )

  it.effect("the lag is right at every position, after trimming too", () =>
    Effect.gen(function* () {
      const { group, join, publish, settle, take } = yield* Fixture.make({ pollInterval: "20 millis" })
      yield* join({ group: "behind" })
      const receiver = yield* join()
      yield* publish("first", ...Array.from({ length: 199 }, (_, i) => String(i)))
      for (let read = 0; read < 200; read += 20) {
        assert.strictEqual((yield* group()).lag, 200 - read)
        yield* settle(receiver, yield* take(receiver, 20))
        yield* Effect.sleep(30)
      }
      assert.strictEqual((yield* group()).lag, 0)
      assert.strictEqual((yield* group("behind")).lag, 200)
      yield* publish("one more")
      assert.strictEqual((yield* group()).lag, 1)
    })
  )

  it.effect("the age of the oldest delivery goes on while its lease is renewed", () =>
    Effect.gen(function* () {
      const { group, join, publish, take } = yield* Fixture.make({ pollInterval: "50 millis" })
      const receiver = yield* join({ lease: Duration.seconds(2) })
      assert.strictEqual((yield* group()).oldestPendingMillis, 0)
      yield* publish("slow")
      yield* take(receiver, 1)
      yield* Effect.sleep(2500)
      const { consumers, oldestPendingMillis } = yield* group()
      assert.isAtLeast(oldestPendingMillis, 2400)
      assert.isBelow(oldestPendingMillis, 60_000)
      assert.deepStrictEqual(
        consumers.map(({ consumer, pending }) => [consumer, pending]),
        [[receiver.consumer, 1]]
      )
    })
  )

  it.effect("the cap of the dead letters drops the oldest, counts them and says so", () =>
    Effect.gen(function* () {
      const { group, happens, join, letters, publish, settle, take } = yield* Fixture.make({
        deadLetters: { maxCount: 3 }
      })
      const receiver = yield* join()
      yield* publish("a", "b", "c", "d", "e")
      yield* settle(receiver, yield* take(receiver, 5), Settlement.deadLetter("Bad", "cause"))
      assert.strictEqual((yield* happens("DeadLettersDropped")).count, 2)
      assert.deepStrictEqual(
        (yield* letters).map(({ body }) => body),
        ["c", "d", "e"]
      )
      assert.strictEqual((yield* group()).deadLettersDropped, 2)
    })
  )

  it.effect("dead letters that are too old are dropped when others come", () =>
    Effect.gen(function* () {
      const { join, letters, publish, settle, take } = yield* Fixture.make({ deadLetters: { maxAge: "200 millis" } })
      const receiver = yield* join()
      const deadLetter = Effect.fnUntraced(function* (body: string) {
        yield* publish(body)
        yield* settle(receiver, yield* take(receiver, 1), Settlement.deadLetter("Bad", "cause"))
      })
      yield* deadLetter("old")
      yield* Effect.sleep(300)
      yield* deadLetter("new")
      assert.deepStrictEqual(
        (yield* letters).map(({ body }) => body),
        ["new"]
      )
    })
  )

  it.effect("a group that another program pauses takes nothing new within the poll interval, and resumes", () =>
    Effect.gen(function* () {
      const { happens, join, prefix, publish, take } = yield* Fixture.make({ pollInterval: "50 millis" })
      const operator = yield* Fixture.make({ prefix })
      const receiver = yield* join()
      const fiber = yield* Effect.forkChild(take(receiver, 1), { startImmediately: true })
      yield* operator.inspector.pause("t", "g")
      yield* happens("ConsumerPaused")
      yield* publish("a")
      yield* Effect.sleep(200)
      assert.isUndefined(fiber.pollUnsafe())
      yield* operator.inspector.resume("t", "g")
      assert.deepStrictEqual(
        (yield* Fiber.join(fiber)).map(({ body }) => body),
        ["a"]
      )
      yield* happens("ConsumerResumed")
    })
  )

  it.effect("redriving what is no dead letter, by whatever name, does nothing", () =>
    Effect.gen(function* () {
      const { inspector, join } = yield* Fixture.make()
      yield* join()
      assert.strictEqual(yield* inspector.redrive("t", "g", ["", "-", "0-1", "x", "1; DEL", "*"]), 0)
      assert.strictEqual(yield* inspector.discard("t", "g", ["", "+", "0-1"]), 0)
      assert.deepStrictEqual(yield* inspector.deadLetters("t", "no such group", { after: Option.none(), limit: 1 }), [])
    })
  )

  it.effect("a thousand dead letters are redriven in one call", () =>
    Effect.gen(function* () {
      const { group, inspector, join, letters, publish, settle, take } = yield* Fixture.make()
      const receiver = yield* join()
      yield* publish("0", ...Array.from({ length: 999 }, (_, i) => String(i + 1)))
      yield* settle(receiver, yield* take(receiver, 1000), Settlement.deadLetter("Bad", "cause"))
      const entries: Array<string> = []
      while (entries.length < 1000) {
        const page = yield* inspector.deadLetters("t", "g", {
          after: Option.fromNullishOr(entries.at(-1)),
          limit: 100
        })
        entries.push(...page.map(({ entry }) => entry))
      }
      assert.strictEqual(yield* inspector.redrive("t", "g", entries), 1000)
      assert.deepStrictEqual(yield* letters, [])
      const bodies = (yield* take(receiver, 1000)).map(({ body }) => Number(body))
      assert.deepStrictEqual(
        bodies,
        Array.from({ length: 1000 }, (_, i) => i)
      )
      assert.strictEqual((yield* group()).pending, 1000)
    })
  )
})
