/**
 * What happens to messages whose consumer stands still or dies, and to a consumer that comes back late.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Option, Scope } from "effect"
import { Settlement } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, bodies, settle, settled, sortedBodies } from "./Fixture.ts"

/** A frozen receiver that holds one message, and another that has taken the message over. */
const takeover = Effect.fnUntraced(function* (fixture: Fixture["Service"]) {
  const lease = { lease: fixture.setting.lease }
  const one = yield* fixture.join("g", lease)
  yield* fixture.publish("a")
  const first = yield* fixture.one(one)
  const frozen = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  yield* Scope.provide(fixture.setting.freeze(one), frozen)
  const two = yield* fixture.join("g", lease)
  const second = yield* fixture.one(two)
  return { one, two, first, second, wakeUp: Scope.close(frozen, Exit.void) }
})

export const outages = [
  check(
    "a living receiver keeps what it holds for longer than the lease",
    ["redelivery", "sharing"],
    Effect.fnUntraced(function* (fixture) {
      const one = yield* fixture.join("g")
      yield* fixture.publish("slow")
      const slow = yield* fixture.one(one)
      const two = yield* fixture.join("g")
      const fiber = yield* Effect.forkChild(two.take(10), { startImmediately: true })
      yield* fixture.pass(Duration.times(fixture.setting.safeLease, 2.5))
      assert.isUndefined(fiber.pollUnsafe(), "nothing for the other one")
      yield* fixture.publish("sentinel")
      const taken = yield* fixture.within("the sentinel", Fiber.join(fiber))
      assert.deepStrictEqual(sortedBodies(taken), ["sentinel"])
      assert.deepStrictEqual(yield* settle(one, [slow], Settlement.ack), ["Settled"])
    })
  ),

  check(
    "what a silent receiver holds goes to another one, the attempt counted",
    ["redelivery", "sharing", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const { first, second } = yield* takeover(fixture)
      assert.strictEqual(second.id, first.id)
      assert.strictEqual(second.body, "a")
      assert.strictEqual(second.attempt, 2)
      assert.isAbove(second.fence, first.fence)
    })
  ),

  ...(
    [
      ["retry", Settlement.retry(Duration.zero, "late")],
      ["dead letter", Settlement.deadLetter("Late", "late")],
      ["release", Settlement.release],
      ["ack", Settlement.ack]
    ] as const
  ).map(([name, settlement]) =>
    check(
      `a ${name} by the former owner is stale and changes nothing`,
      ["redelivery", "sharing", "freeze", ...(name === "ack" ? (["fencedAck"] as const) : [])],
      Effect.fnUntraced(function* (fixture) {
        const { first, one, second, two } = yield* takeover(fixture)
        assert.deepStrictEqual(yield* settle(one, [first], settlement), ["Stale"])
        yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, pending: 1 })
        assert.deepStrictEqual(yield* settle(two, [second], Settlement.ack), ["Settled"])
        yield* fixture.becomes("figures", fixture.figures("g"), settled)
      })
    )
  ),

  check(
    "an ack of a repeated delivery by the former owner is stale and changes nothing",
    ["redelivery", "sharing", "freeze", "retry", "fencedAck"],
    Effect.fnUntraced(function* (fixture) {
      const lease = { lease: fixture.setting.lease }
      const one = yield* fixture.join("g", lease)
      yield* fixture.publish("a")
      yield* settle(one, [yield* fixture.one(one)], Settlement.retry(Duration.zero, "again"))
      const first = yield* fixture.one(one)
      yield* fixture.setting.freeze(one)
      const two = yield* fixture.join("g", lease)
      const second = yield* fixture.one(two)
      assert.deepStrictEqual(yield* settle(one, [first], Settlement.ack), ["Stale"])
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, pending: 1 })
      assert.deepStrictEqual(yield* settle(two, [second], Settlement.ack), ["Settled"])
    })
  ),

  check(
    "a receiver that comes back learns what it has lost",
    ["redelivery", "sharing", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const { first, one, wakeUp } = yield* takeover(fixture)
      yield* wakeUp
      const lost = yield* fixture.within("the loss", one.lost)
      assert.deepStrictEqual(
        lost.map(({ fence, id, receipt }) => ({ fence, id, receipt })),
        [{ fence: first.fence, id: first.id, receipt: first.receipt }]
      )
    })
  ),

  check(
    "a message that too many consumers died with becomes a dead letter that no one sees again",
    ["redelivery", "sharing", "freeze", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const terms = { lease: fixture.setting.lease, maxDeliveries: 2 }
      yield* fixture.publish("poison")
      const dead: Array<string> = []
      for (const attempt of [1, 2]) {
        const receiver = yield* fixture.join("g", terms)
        assert.strictEqual((yield* fixture.one(receiver)).attempt, attempt)
        yield* fixture.setting.freeze(receiver)
        dead.push(receiver.consumer)
      }
      const receiver = yield* fixture.join("g", terms)
      const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
      assert.isUndefined(fiber.pollUnsafe(), "nothing was handed out")
      yield* fixture.publish("sentinel")
      assert.deepStrictEqual(sortedBodies(yield* fixture.within("the sentinel", Fiber.join(fiber))), ["sentinel"])
      const [letter] = yield* fixture.inspector.deadLetters(fixture.topic, "g", {
        after: Option.none(),
        limit: 10
      })
      assert.strictEqual(letter?.reason, "CrashLoop")
      assert.strictEqual(letter?.body, "poison")
      assert.strictEqual(letter?.attempts, 2)
      assert.deepStrictEqual(
        letter?.attemptLog.map(({ attempt, consumer, tag }) => [attempt, consumer, tag]),
        dead.map((consumer, i) => [i + 1, consumer, "ConsumerDied"])
      )
    })
  ),

  check(
    "an attempt of a consumer that died stands among the others",
    ["redelivery", "retry", "sharing", "freeze", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const terms = { lease: fixture.setting.lease }
      yield* fixture.publish("a")
      const first = yield* fixture.join("g", terms)
      yield* settle(first, [yield* fixture.one(first)], Settlement.retry(Duration.zero, "busy"))
      yield* fixture.one(first)
      yield* fixture.setting.freeze(first)
      const second = yield* fixture.join("g", terms)
      // A release is not an attempt, and keeps the lines of the others.
      yield* settle(second, [yield* fixture.one(second)], Settlement.release)
      yield* settle(second, [yield* fixture.one(second)], Settlement.retry(Duration.zero, "busy again"))
      yield* settle(second, [yield* fixture.one(second)], Settlement.deadLetter("Broken", "broken"))
      const page = { after: Option.none(), limit: 10 }
      const [letter] = yield* fixture.inspector.deadLetters(fixture.topic, "g", page)
      assert.deepStrictEqual(
        letter?.attemptLog.map(({ attempt, consumer, message, tag }) => [attempt, consumer, tag, message]),
        [
          [1, first.consumer, "Retry", "busy"],
          [2, first.consumer, "ConsumerDied", "its consumer died or stalled"],
          [3, second.consumer, "Retry", "busy again"],
          [4, second.consumer, "Broken", "broken"]
        ]
      )
      const times = letter!.attemptLog.map(({ endedAt }) => endedAt)
      assert.deepStrictEqual(times, times.toSorted())
    })
  ),

  check(
    "case F2: deaths count on through retries and releases until the limit, and a redrive begins anew",
    ["redelivery", "retry", "sharing", "freeze", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const terms = { lease: fixture.setting.lease, maxDeliveries: 3 }
      yield* fixture.publish("poison")
      for (const attempts of [5, 5]) {
        for (const death of [1, 2, 3]) {
          const receiver = yield* fixture.join("g", terms)
          if (death > 1) {
            yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.release)
            yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.retry(fixture.delay, "cause"))
          }
          yield* fixture.one(receiver)
          yield* fixture.setting.freeze(receiver)
        }
        const receiver = yield* fixture.join("g", terms)
        const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
        yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
        assert.isUndefined(fiber.pollUnsafe(), "nothing was handed out")
        yield* Fiber.interrupt(fiber)
        yield* fixture.setting.freeze(receiver)
        const [letter] = yield* fixture.inspector.deadLetters(fixture.topic, "g", { after: Option.none(), limit: 10 })
        assert.deepInclude(letter, { reason: "CrashLoop", body: "poison", attempts })
        yield* fixture.inspector.redrive(fixture.topic, "g", [letter!.entry])
      }
    })
  ),

  check(
    "case A8: messages of a consumer killed by another cause continue as they were, until few deaths are left",
    ["redelivery", "sharing", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const terms = { lease: fixture.setting.lease, maxDeliveries: 5 }
      const count = 9
      yield* fixture.publish("0", ...Array.from({ length: count - 1 }, (_, i) => String(i + 1)))
      for (const together of [9, 9, 9, 8]) {
        const receiver = yield* fixture.join("g", terms)
        const taken = yield* fixture.take(receiver, together)
        assert.strictEqual(new Set(bodies(taken)).size, together)
        yield* fixture.setting.freeze(receiver)
      }
      // Eight of them may die once more. Each is alone, whatever the order.
      const receiver = yield* fixture.join("g", terms)
      const seen: Array<string> = []
      while (seen.length < count) {
        const taken = yield* fixture.within("the next one", receiver.take(10))
        assert.strictEqual(taken.length, 1)
        seen.push(...sortedBodies(taken))
        yield* settle(receiver, taken, Settlement.ack)
      }
      assert.strictEqual(new Set(seen).size, count)
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  ),

  check(
    "case A8: the one that kills is found in as many deaths as it may cause, and takes no other along",
    ["redelivery", "sharing", "freeze", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const terms = { lease: fixture.setting.lease, maxDeliveries: 5 }
      const innocent = Array.from({ length: 20 }, (_, i) => `innocent ${i}`)
      yield* fixture.publish("innocent", ...innocent.slice(1, 9), "poison", ...innocent.slice(9))
      let deaths = 0
      let acked = 0
      while (acked < innocent.length) {
        const receiver = yield* fixture.join("g", terms)
        for (let alive = true; alive && acked < innocent.length;) {
          const taken = yield* fixture.within("the rest", receiver.take(100))
          alive = !bodies(taken).includes("poison")
          if (!alive) {
            deaths++
            yield* fixture.setting.freeze(receiver)
          } else {
            acked += taken.length
            yield* settle(receiver, taken, Settlement.ack)
          }
        }
      }
      while (deaths < 5) {
        const receiver = yield* fixture.join("g", terms)
        assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 1)), ["poison"])
        deaths++
        yield* fixture.setting.freeze(receiver)
      }
      assert.strictEqual(deaths, 5)
      const receiver = yield* fixture.join("g", terms)
      yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
      const [letter] = yield* fixture.inspector.deadLetters(fixture.topic, "g", { after: Option.none(), limit: 10 })
      assert.deepInclude(letter, { reason: "CrashLoop", body: "poison", attempts: 5 })
    })
  )
]
