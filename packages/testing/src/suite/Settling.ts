/**
 * The four ways a delivery ends, and what they do to attempts and fences.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import { type Delivery, Settlement } from "waybill"
import { check } from "./Check.ts"
import { joinAndLeave, settle, settled, sortedBodies, toleranceMillis } from "./Fixture.ts"

const now = Settlement.retry(Duration.zero, "cause")

const assertNext = (before: Delivery.Delivery, after: Delivery.Delivery, attempt: number) => {
  assert.strictEqual(after.id, before.id)
  assert.strictEqual(after.body, before.body)
  assert.strictEqual(after.attempt, attempt, "attempt")
  assert.isAbove(after.fence, before.fence, "the fence grows with every delivery")
}

export const settling = [
  check(
    "case D1: the next delivery knows which rows have retried the message, how often and since when",
    ["retry"],
    Effect.fnUntraced(function* (fixture) {
      const { receiver } = yield* fixture.audience("g", fixture.publish("a"))
      const first = yield* fixture.one(receiver)
      assert.strictEqual(first.failures?.size, 0)
      const rows = [
        { name: "NoSlot", count: 1, since: 1_700_000_000_000 },
        { name: "Zürich, =;@ 100 %", count: 3, since: 1 },
        { name: "NoSlot", count: 2, since: 1_700_000_000_000 }
      ]
      let delivery = first
      for (const row of rows) {
        yield* settle(receiver, [delivery], Settlement.retry(Duration.zero, "cause", row))
        yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.release)
        delivery = yield* fixture.one(receiver)
      }
      assert.deepStrictEqual(
        delivery.failures,
        new Map([
          ["Zürich, =;@ 100 %", { count: 3, since: 1 }],
          ["NoSlot", { count: 2, since: 1_700_000_000_000 }]
        ])
      )
      assert.strictEqual(delivery.attempt, 4)
      // However many rows there are, what is kept of them is bounded.
      for (let i = 0; i < 40; i++) {
        const row = { name: `${i}${"x".repeat(500)}`, count: 1, since: 1 }
        yield* settle(receiver, [delivery], Settlement.retry(Duration.zero, "cause", row))
        delivery = yield* fixture.one(receiver)
      }
      assert.strictEqual(delivery.failures?.size, 32)
      yield* settle(receiver, [delivery], Settlement.ack)
    })
  ),

  check(
    "case D1: a redrive begins anew, also with the failures of each row",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const { receiver } = yield* fixture.audience("g", fixture.publish("a"))
      const row = { name: "NoSlot", count: 1, since: 1 }
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.retry(Duration.zero, "cause", row))
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.deadLetter("NoSlot", "cause"))
      const [letter] = yield* fixture.inspector.deadLetters(fixture.topic, "g", { after: Option.none(), limit: 1 })
      yield* fixture.inspector.redrive(fixture.topic, "g", [letter!.entry])
      assert.strictEqual((yield* fixture.one(receiver)).failures?.size, 0)
    })
  ),

  check(
    "a message that is set aside for its version comes back uncounted, and the group says why",
    ["redelivery", "retry"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const receiver = yield* fixture.join("g")
      yield* fixture.publish({ body: "a", version: 2 })
      const newer = Effect.map(inspector.describe(topic), ({ groups }) => groups[0]?.newer)
      let delivery = yield* fixture.one(receiver)
      assert.strictEqual(delivery.version, 2)
      assert.isUndefined(yield* newer)
      for (let count = 1; count <= 3; count++) {
        const row = { name: "^", count, since: 1 }
        const aside = { ...Settlement.retry(count === 3 ? fixture.delay : Duration.zero, "newer", row), newerThan: 1 }
        assert.deepStrictEqual(yield* settle(receiver, [delivery], aside), ["Settled"])
        if (count === 3) {
          const [waiting] = yield* inspector.waiting(topic, "g", { after: Option.none(), limit: 1 })
          assert.deepInclude(waiting, { attempts: 0, attemptLog: [], cause: "newer", version: 2 })
        }
        const next = yield* fixture.one(receiver)
        assertNext(delivery, next, 1)
        assert.deepStrictEqual(next.failures, new Map([["^", { count, since: 1 }]]))
        delivery = next
      }
      assert.strictEqual(yield* newer, "newer")
      // From here on attempts count as ever.
      yield* settle(receiver, [delivery], now)
      assertNext(delivery, yield* fixture.one(receiver), 2)
    })
  ),

  check(
    "the last ten attempts are kept with what waits and with the dead letter, and a redrive begins anew",
    ["redelivery", "retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const page = { after: Option.none(), limit: 1 }
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("a")
      const tag = "Zürich, =;@|% 1+1"
      for (let attempt = 1; attempt <= 12; attempt++) {
        const message = `the ${attempt}. of\u00a0many, =;@|%\n${"🚚".repeat(attempt * 8)}`
        const again = Settlement.retry(attempt === 12 ? fixture.delay : Duration.zero, "cause", undefined, {
          tag,
          message
        })
        yield* settle(receiver, [yield* fixture.one(receiver)], again)
      }
      const [waiting] = yield* inspector.waiting(topic, "g", page)
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.deadLetter("Broken", "broken"))
      const [letter] = yield* inspector.deadLetters(topic, "g", page)
      for (const [log, last] of [
        [waiting!.attemptLog, 12],
        [letter!.attemptLog, 13]
      ] as const) {
        assert.deepStrictEqual(
          log.map(({ attempt }) => attempt),
          Array.from({ length: 10 }, (_, i) => last - 9 + i)
        )
        for (const { attempt, consumer, endedAt, message, tag: kept } of log) {
          assert.strictEqual(consumer, receiver.consumer)
          assert.closeTo(endedAt, letter!.diedAt, 60_000)
          if (attempt === 13) continue
          assert.strictEqual(kept, tag)
          assert.match(message, new RegExp(`^the ${attempt}\\. of many, =;@\\|% 🚚+(\\.\\.\\.)?$`, "u"))
        }
      }
      assert.deepStrictEqual(letter!.attemptLog.slice(0, 9), waiting!.attemptLog.slice(1))
      yield* inspector.redrive(topic, "g", [letter!.entry])
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.deadLetter("Again", "again"))
      const [after] = yield* inspector.deadLetters(topic, "g", page)
      assert.deepStrictEqual(
        after?.attemptLog.map(({ attempt, tag }) => [attempt, tag]),
        [[1, "Again"]]
      )
    })
  ),

  check(
    "an acked message does not come again, to any receiver of the group",
    ["redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("a", "b")
      const deliveries = yield* fixture.take(receiver, 2)
      const [a, b] = deliveries.map((delivery) => delivery.handle ?? delivery)
      const answers = yield* receiver.settle([
        [a!, Settlement.ack],
        [b!, Settlement.ack]
      ])
      assert.deepStrictEqual(answers, ["Settled", "Settled"])
      yield* leave
      const next = yield* fixture.join("g")
      yield* fixture.publish("sentinel")
      assert.strictEqual((yield* fixture.one(next)).body, "sentinel")
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, pending: 1 })
    })
  ),

  check(
    "a retry counts the attempt and keeps the message as it was",
    ["retry"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish({ body: "a", headers: { h: "1" }, key: "k", version: 3 })
      const first = yield* fixture.one(receiver)
      assert.strictEqual(first.attempt, 1)
      yield* settle(receiver, [first], now)
      const second = yield* fixture.one(receiver)
      assertNext(first, second, 2)
      assert.deepStrictEqual({ ...second.headers }, { h: "1" })
      assert.strictEqual(second.key, "k")
      assert.strictEqual(second.version, 3)
      assert.strictEqual(second.publishedAt, first.publishedAt)
      yield* settle(receiver, [second], now)
      assertNext(second, yield* fixture.one(receiver), 3)
    })
  ),

  check(
    "a retry does not come before its delay has passed",
    ["retry"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("a")
      const first = yield* fixture.one(receiver)
      const [second, millis] = yield* fixture.elapsed(
        Effect.andThen(settle(receiver, [first], Settlement.retry(fixture.delay, "cause")), fixture.one(receiver))
      )
      assertNext(first, second, 2)
      assert.isAtLeast(millis, Duration.toMillis(fixture.delay) - toleranceMillis)
    })
  ),

  check(
    "retries come in the order they are due, and hold up nothing else",
    ["retry", "order"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("far", "late", "early")
      const [far, late, early] = yield* fixture.take(receiver, 3)
      assert(far !== undefined && late !== undefined && early !== undefined)
      // Only messages that are not due for hours are certain to come after one published now.
      yield* settle(receiver, [far], Settlement.retry(Duration.hours(5), "cause"))
      yield* fixture.publish("new")
      const next = yield* fixture.one(receiver)
      assert.deepStrictEqual([next.body, next.attempt], ["new", 1])
      yield* receiver.settle([
        [late, Settlement.retry(Duration.times(fixture.delay, 2), "cause")],
        [early, Settlement.retry(fixture.delay, "cause")]
      ])
      const again = [yield* fixture.one(receiver), yield* fixture.one(receiver)]
      assert.deepStrictEqual(
        again.map(({ attempt, body }) => [body, attempt]),
        [
          ["early", 2],
          ["late", 2]
        ]
      )
    })
  ),

  check(
    "a release does not count the attempt, and others may have the message at once",
    ["redelivery", "sharing"],
    Effect.fnUntraced(function* (fixture) {
      const one = yield* fixture.join("g")
      yield* fixture.publish("a")
      const first = yield* fixture.one(one)
      yield* settle(one, [first], now)
      const second = yield* fixture.one(one)
      assertNext(first, second, 2)
      const two = yield* fixture.join("g")
      assert.deepStrictEqual(yield* settle(one, [second], Settlement.release), ["Settled"])
      assertNext(second, yield* fixture.one(two), 2)
    })
  ),

  ...(
    [
      ["a retry", now, 2],
      ["a retry with a delay", undefined, 2],
      ["a release", Settlement.release, 1]
    ] as const
  ).map(([name, settlement, attempt]) =>
    check(
      `${name} wakes up a receiver that waits`,
      ["redelivery", "sharing"],
      Effect.fnUntraced(function* (fixture) {
        const one = yield* fixture.join("g")
        yield* fixture.publish("a")
        const first = yield* fixture.one(one)
        const two = yield* fixture.join("g")
        const fiber = yield* Effect.forkChild(two.take(1), { startImmediately: true })
        yield* Effect.yieldNow
        yield* settle(one, [first], settlement ?? Settlement.retry(fixture.delay, "cause"))
        const [second] = yield* fixture.within("the message", Fiber.join(fiber))
        assertNext(first, second, attempt)
      })
    )
  ),

  check(
    "a receiver that leaves wakes up one that waits",
    ["redelivery", "sharing"],
    Effect.fnUntraced(function* (fixture) {
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("a")
      const first = yield* fixture.one(receiver)
      const two = yield* fixture.join("g")
      const fiber = yield* Effect.forkChild(two.take(1), { startImmediately: true })
      yield* leave
      const [second] = yield* fixture.within("the message", Fiber.join(fiber))
      assertNext(first, second, 1)
    })
  ),

  check(
    "leaving a group releases what was taken and not settled, and only that",
    ["redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("a", "b", "c", "d")
      const taken = yield* fixture.take(receiver, 3)
      yield* settle(receiver, taken.slice(0, 1), Settlement.ack)
      yield* fixture.within("leaving", leave)
      const next = yield* fixture.join("g")
      const deliveries = yield* fixture.take(next, 3)
      assert.deepStrictEqual(
        sortedBodies([...deliveries, ...taken.slice(0, 1)]),
        ["a", "b", "c", "d"],
        "each message once"
      )
      for (const delivery of deliveries) {
        const before = taken.find((candidate) => candidate.id === delivery.id)
        if (before === undefined) assert.strictEqual(delivery.attempt, 1)
        else assertNext(before, delivery, 1)
      }
    })
  ),

  check(
    "settlements of one call may differ, and its answers stand in the same order",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("ack", "retry", "die", "release")
      const deliveries = yield* fixture.take(receiver, 4)
      const by = (body: string) => {
        const found = deliveries.find((delivery) => delivery.body === body)
        assert(found !== undefined)
        return found
      }
      yield* settle(receiver, [by("ack")], Settlement.ack)
      const answers = yield* receiver.settle([
        [by("retry"), Settlement.retry(fixture.delay, "cause")],
        [by("die"), Settlement.deadLetter("Broken", "cause")],
        [by("release"), Settlement.release]
      ])
      assert.deepStrictEqual(answers, ["Settled", "Settled", "Settled"])
      // The order is not promised: the delay may be over before the first is taken.
      const again = yield* fixture.take(receiver, 2)
      assert.deepStrictEqual(again.map(({ attempt, body }) => [body, attempt]).toSorted(), [
        ["release", 1],
        ["retry", 2]
      ])
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, pending: 2, deadLetters: 1 })
    })
  ),

  ...(
    [
      ["an ack", Settlement.ack, settled],
      ["a retry", Settlement.retry(Duration.hours(5), "cause"), { ...settled, waiting: 1 }],
      ["a dead letter", Settlement.deadLetter("Broken", "cause"), { ...settled, deadLetters: 1 }]
    ] as const
  ).map(([name, settlement, figures]) =>
    check(
      `${name} that is repeated changes nothing`,
      ["retry", "deadLetters"],
      Effect.fnUntraced(function* (fixture) {
        const receiver = yield* fixture.join("g")
        yield* fixture.publish("a")
        const delivery = yield* fixture.one(receiver)
        assert.deepStrictEqual(yield* settle(receiver, [delivery], settlement), ["Settled"])
        yield* fixture.becomes("figures", fixture.figures("g"), figures)
        yield* settle(receiver, [delivery], settlement)
        assert.deepStrictEqual(yield* fixture.figures("g"), figures)
        yield* fixture.publish("sentinel")
        assert.strictEqual((yield* fixture.one(receiver)).body, "sentinel")
      })
    )
  ),

  check(
    "a release that is repeated does not take the message from its next owner",
    ["redelivery", "sharing"],
    Effect.fnUntraced(function* (fixture) {
      const one = yield* fixture.join("g")
      const two = yield* fixture.join("g")
      yield* fixture.publish("a")
      const first = yield* fixture.one(one)
      yield* settle(one, [first], Settlement.release)
      const second = yield* fixture.one(two)
      yield* settle(one, [first], Settlement.release)
      assert.deepStrictEqual(yield* settle(two, [second], Settlement.ack), ["Settled"])
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  ),

  check(
    "a settlement that comes after another one of the same delivery is too late",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("a")
      const delivery = yield* fixture.one(receiver)
      yield* settle(receiver, [delivery], Settlement.ack)
      for (const late of [now, Settlement.deadLetter("Late", "cause"), Settlement.release]) {
        assert.deepStrictEqual(yield* settle(receiver, [delivery], late), ["Stale"])
      }
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  )
]
