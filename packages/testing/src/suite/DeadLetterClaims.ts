/**
 * How dead letters are handed to hooks: each to one consumer at a time, until it is confirmed.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Fiber, Option } from "effect"
import { Settlement, type Transport } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, settle } from "./Fixture.ts"

const dead = Settlement.deadLetter("Broken", "cause")

const claiming = ({ setting, topic, transport: { claimDeadLetters } }: Fixture["Service"]) => {
  assert(claimDeadLetters !== undefined, "the transport hands out dead letters")
  return (more: Partial<Transport.DeadLetterClaim> = {}) =>
    claimDeadLetters({
      topic,
      group: "g",
      handled: [],
      held: [],
      limit: 10,
      lease: setting.safeLease,
      from: undefined,
      ...more
    })
}

/** Claims, and returns the bodies and the entries of what it got. */
const claimed = (claim: ReturnType<typeof claiming>, more?: Partial<Transport.DeadLetterClaim>) =>
  Effect.map(claim(more), ({ letters }) => ({
    bodies: letters.map(({ body }) => String(body)),
    entries: letters.map(({ entry }) => entry)
  }))

export const deadLetterClaims = [
  check(
    "a consumer with hooks is told of dead letters that none has claimed",
    ["deadLetters", "deadLetterHooks"],
    Effect.fnUntraced(function* (fixture) {
      const claim = claiming(fixture)
      const { receiver } = yield* fixture.audience("g", claim())
      const { unclaimed } = receiver
      // Then hooks ask from time to time.
      if (unclaimed === undefined) return
      yield* claim()
      const told = yield* Effect.forkChild(unclaimed, { startImmediately: true })
      yield* fixture.publish("a")
      yield* settle(receiver, [yield* fixture.one(receiver)], dead)
      yield* fixture.within("it is told", Fiber.join(told))
      assert.deepStrictEqual((yield* claimed(claim)).bodies, ["a"])
    })
  ),

  check(
    "a dead letter is claimed by one hook, by another once it is given up, and by none once it was handled",
    ["deadLetters", "deadLetterHooks"],
    Effect.fnUntraced(function* (fixture) {
      const claim = claiming(fixture)
      const { receiver } = yield* fixture.audience("g", fixture.publish("before"))
      const die = Effect.fnUntraced(function* (count: number) {
        yield* settle(receiver, yield* fixture.take(receiver, count), dead)
      })
      yield* die(1)
      assert.deepStrictEqual((yield* claimed(claim)).bodies, [], "a hook begins with what dies later")
      yield* fixture.publish("a", "b", "c")
      yield* die(3)
      const first = yield* claimed(claim, { limit: 2 })
      assert.lengthOf(first.bodies, 2)
      const second = yield* claimed(claim)
      assert.deepStrictEqual([...first.bodies, ...second.bodies].sort(), ["a", "b", "c"])
      assert.deepStrictEqual((yield* claimed(claim)).bodies, [])
      const [one = "", two = ""] = first.entries
      assert.deepStrictEqual(
        yield* claimed(claim, { handled: [one], held: [two], limit: 0, lease: Duration.zero }),
        { bodies: [], entries: [] },
        "what is given up goes to the next who asks"
      )
      assert.deepStrictEqual((yield* claimed(claim)).entries, [two])
      const all = [...first.entries, ...second.entries]
      assert.deepStrictEqual((yield* claimed(claim, { handled: all, lease: Duration.zero })).bodies, [])
      assert.deepStrictEqual((yield* claimed(claim, { held: all })).bodies, [], "handled once and for all")
    })
  ),

  check(
    "a claim on a dead letter lasts while it is renewed, and a letter that is gone is passed over",
    ["deadLetters", "deadLetterHooks"],
    Effect.fnUntraced(function* (fixture) {
      const claim = claiming(fixture)
      const { inspector, setting, topic } = fixture
      const { receiver } = yield* fixture.audience("g", claim())
      yield* claim()
      yield* fixture.publish("a", "b")
      yield* settle(receiver, yield* fixture.take(receiver, 2), dead)
      const { lease } = setting
      const first = yield* claimed(claim, { lease })
      assert.lengthOf(first.bodies, 2)
      const [kept = "", lost = ""] = first.entries
      const half = Duration.divideUnsafe(lease, 2)
      yield* fixture.pass(half)
      yield* claim({ held: [kept], limit: 0 })
      yield* fixture.pass(Duration.sum(half, Duration.millis(1)))
      const expired = yield* claimed(claim, { lease: Duration.zero })
      assert.deepStrictEqual(expired.entries, [lost])
      yield* inspector.discard(topic, "g", [lost])
      assert.deepStrictEqual((yield* claimed(claim)).bodies, [])
      const left = yield* inspector.deadLetters(topic, "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(
        left.map(({ entry }) => entry),
        [kept],
        "claiming takes nothing away"
      )
    })
  )
]
