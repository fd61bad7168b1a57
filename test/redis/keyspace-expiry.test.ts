/**
 * What a group is told of messages that expired before it read them, and what an expiry does not take away.
 */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Duration, Effect, Fiber, Option } from "effect"
import { Settlement } from "waybill"
import { becomes } from "./Fixture.ts"
import { consume, make, settle, take } from "./KeyspaceFixture.ts"

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("expiry", (it) => {
  const numbered = (from: number, count: number) => Array.from({ length: count }, (_, i) => `${from + i}`)

  /** Publishes messages that live shortly, and waits until they are gone. */
  const lose = Effect.fnUntraced(function* (
    fixture: Effect.Success<ReturnType<typeof make>>,
    ...bodies: ReadonlyArray<string>
  ) {
    const brief = yield* fixture.another({ ttl: "1 millis" })
    const [first = "", ...rest] = bodies
    const receipts = yield* brief.publish(first, ...rest)
    const left = Effect.promise(() => fixture.redis.exists(...receipts.map(({ id }) => fixture.key(`message:#${id}`))))
    yield* becomes("all expired", left, 0)
  })

  it.effect("what expired before a group read it is a gap, counted and between which messages", () =>
    Effect.gen(function* () {
      const fixture = yield* make()
      const { events, join, joinAndLeave, publish } = fixture
      const early = yield* joinAndLeave()
      yield* publish("0")
      const [zero] = yield* take(early.receiver, 1)
      yield* settle(early.receiver, [zero!])
      yield* early.leave
      yield* lose(fixture, ...numbered(1, 7))
      yield* publish("8", "9")
      yield* lose(fixture, ...numbered(10, 3))
      yield* publish("13")
      const receiver = yield* join()
      const deliveries = yield* take(receiver, 3)
      assert.deepStrictEqual(
        deliveries.map(({ body, gap }) => [body, gap?.missed, gap?.reason]),
        [
          ["8", 7, "expired"],
          ["9", undefined, undefined],
          ["13", 3, "expired"]
        ]
      )
      assert.strictEqual(deliveries[2]?.gap?.after, deliveries[1]?.id)
      assert.strictEqual(deliveries[2]?.gap?.before, deliveries[2]?.id)
      const told = events.flatMap((event) => (event._tag === "Gap" ? [event.gap.missed] : []))
      assert.deepStrictEqual(told, [7, 3])
      assert.deepStrictEqual(yield* settle(receiver, deliveries), ["Settled", "Settled", "Settled"])
      // A group that comes now misses nothing: it was not there.
      const late = yield* take(yield* join({ group: "late" }), 4)
      assert.deepStrictEqual(
        late.map(({ body, gap }) => [body, gap]),
        ["0", "8", "9", "13"].map((body) => [body, undefined])
      )
    })
  )

  it.effect("a long row of expired messages is passed by in bounded steps, and counted to the last", () =>
    Effect.gen(function* () {
      const fixture = yield* make()
      const { join, joinAndLeave, publish } = fixture
      // It holds back the lowest number, so that the row has to be walked.
      yield* publish("first")
      const early = yield* joinAndLeave()
      assert.deepStrictEqual(yield* consume(early.receiver, 1), ["first"])
      yield* early.leave
      const brief = yield* fixture.another({ ttl: "1 millis" })
      for (let i = 0; i < 25; i++) yield* brief.publish("x", ...numbered(0, 999))
      yield* Effect.sleep(5)
      yield* publish("last")
      const [last] = yield* take(yield* join(), 1)
      assert.strictEqual(last?.body, "last")
      assert.strictEqual(last?.gap?.missed, 25_000)
    })
  )

  it.effect("a message that expires while it waits for its retry is a gap; one in hand can still be settled", () =>
    Effect.gen(function* () {
      const fixture = yield* make()
      const { inspector, join, key, publish, redis } = fixture
      const receiver = yield* join()
      const [a, b] = yield* publish("waits", { body: "in hand", headers: { h: "1" }, key: "k" })
      const [waits, inHand] = yield* take(receiver, 2)
      yield* settle(receiver, [waits!], Settlement.retry(Duration.millis(50), "cause"))
      yield* Effect.promise(() => redis.del(key(`message:#${a!.id}`), key(`message:#${b!.id}`)))
      assert.deepStrictEqual(yield* settle(receiver, [inHand!], Settlement.deadLetter("Broken", "cause")), ["Settled"])
      const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      const waiting = Effect.map(inspector.describe("t"), ({ groups }) => groups[0]?.waiting)
      yield* becomes("the retry was due, and there was nothing to hand out", waiting, 0)
      yield* publish("next")
      const [next] = yield* Fiber.join(fiber)
      assert.strictEqual(next.gap?.missed, 1)
      const letters = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(
        letters.map(({ body, headers, key, reason }) => [body, headers, key, reason]),
        [["in hand", { h: "1" }, "k", "Broken"]]
      )
      // It comes back although its key is gone.
      yield* inspector.redrive("t", "g", [letters[0]!.entry])
      const back = yield* take(receiver, 1)
      assert.strictEqual(back[0]?.body, "in hand")
      assert.strictEqual(back[0]?.attempt, 1)
      yield* settle(receiver, back)
      assert.deepStrictEqual(yield* Effect.promise(() => redis.keys("*:restored")), [])
    })
  )

  it.effect("what is delayed lives its time from when it is due", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis } = yield* make({ ttl: "1 minute" })
      yield* publish({ body: "late", due: { _tag: "After", delay: Duration.millis(50) } })
      const receiver = yield* join()
      const [late] = yield* take(receiver, 1)
      const left = yield* Effect.promise(() => redis.pttl(key(`message:#${late!.receipt}`)))
      assert.isAbove(left, 50_000)
      assert.isAtMost(left, 60_000)
    })
  )

  it.effect(
    "when the key with the numbers is lost, no group gets stuck: numbering resumes above all numbers handed out",
    () =>
      Effect.gen(function* () {
        const { join, key, publish, redis } = yield* make()
        const receiver = yield* join()
        yield* publish("a")
        assert.deepStrictEqual(yield* consume(receiver, 1), ["a"])
        const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
        yield* Effect.promise(() => redis.del(key("numbers")))
        yield* publish("b")
        const [b] = yield* Fiber.join(fiber)
        assert.strictEqual(b.body, "b")
        assert.deepStrictEqual(yield* settle(receiver, [b]), ["Settled"])
      })
  )
})
