/**
 * Administering a topic: purging it, and moving and retiring its groups.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import { type Inspector, Settlement } from "waybill"
import { check } from "./Check.ts"
import {
  bodies,
  type Fixture,
  joinAndLeave,
  outgoing,
  settle,
  settled,
  sortedBodies,
  toleranceMillis
} from "./Fixture.ts"

/** Tries to retire a group; returns `retired`, or the obstacle. */
const retire = ({ inspector, topic }: Fixture["Service"], group: string) =>
  inspector.retire(topic, group).pipe(
    Effect.as("retired"),
    Effect.catchReason("TransportError", "TopicInUse", ({ found, group }) => Effect.succeed(`${found} of ${group}`))
  )

const groupsOf = ({ inspector, topic }: Fixture["Service"]) =>
  Effect.map(inspector.describe(topic), ({ groups }) => groups.map(({ group }) => group))

export const administering = [
  check(
    "a purged topic keeps its groups, their dead letters, and what consumers hold",
    ["history", "redelivery", "retry", "deadLetters", "delay"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("dead", "waits", "held", "new")
      const [dead, waits, held] = yield* fixture.take(receiver, 3)
      assert(dead !== undefined && waits !== undefined && held !== undefined)
      yield* receiver.settle([
        [dead, Settlement.deadLetter("Broken", "cause")],
        [waits, Settlement.retry(Duration.hours(1), "later")]
      ])
      yield* fixture.transport.publish(topic, [
        outgoing({ body: "later", due: { _tag: "After", delay: Duration.hours(1) } })
      ])
      yield* inspector.purge(topic)
      assert.deepStrictEqual(yield* fixture.figures("g"), { lag: 0, pending: 1, waiting: 0, deadLetters: 1 })
      assert.strictEqual((yield* inspector.describe(topic)).delayed, 0)
      yield* fixture.publish("anew")
      const anew = yield* fixture.one(receiver)
      assert.strictEqual(anew.body, "anew")
      assert.isUndefined(anew.gap, "what was purged is not reported as missed")
      assert.deepStrictEqual(yield* settle(receiver, [held, anew], Settlement.ack), ["Settled", "Settled"])
    })
  ),

  check(
    "a purged topic without consumers stores nothing, for groups that are there and for those to come",
    ["history", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const purge = Effect.gen(function* () {
        yield* fixture.publish("a", "b")
        yield* inspector.purge(topic)
        assert.strictEqual((yield* inspector.describe(topic)).depth, 0)
      })
      yield* purge
      const { leave, receiver: first } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("taken, and handed back")
      yield* fixture.one(first)
      yield* leave
      assert.strictEqual((yield* fixture.figures("g")).waiting, 1)
      yield* purge
      assert.deepStrictEqual(yield* fixture.figures("g"), settled)
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("c")
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 1)), ["c"])
      yield* inspector.purge(`${topic}-never`)
      assert.notInclude(yield* inspector.topics, `${topic}-never`)
    })
  ),

  check(
    "a group is moved once its consumers have left, and goes on from there",
    ["groups", "history", "redelivery", "positions"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      // It settles nothing, so everything stays.
      const { leave: leaveStill } = yield* joinAndLeave(fixture, "still")
      yield* leaveStill
      yield* fixture.publish("1", "2", "3", "4")
      const [one, two] = yield* inspector.messages(topic, { after: Option.none(), limit: 10 })
      assert(one !== undefined && two !== undefined)
      const move = (to: Inspector.Place) =>
        inspector
          .move(topic, "g", to)
          .pipe(
            Effect.catchReason("TransportError", "TopicInUse", ({ found, group }) =>
              Effect.succeed(`${found} of ${group}`)
            )
          )
      const lag = Effect.map(fixture.figures("g"), ({ lag }) => lag)
      assert.isFalse(yield* move("latest"), "there is no such group")
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      const [first, second] = yield* fixture.take(receiver, 2)
      assert(first !== undefined && second !== undefined)
      yield* settle(receiver, [first], Settlement.ack)
      yield* fixture.becomes("a living consumer", move("latest"), "consumers of g")
      yield* leave
      assert.isTrue(yield* move("latest"))
      assert.strictEqual(yield* lag, 0)
      // What it had taken is not skipped.
      const again = yield* joinAndLeave(fixture, "g")
      assert.deepStrictEqual(bodies(yield* fixture.take(again.receiver, 1)), ["2"])
      yield* again.leave
      assert.isTrue(yield* move({ after: one.position }))
      assert.deepStrictEqual(yield* fixture.figures("g"), { lag: 3, pending: 0, waiting: 0, deadLetters: 0 })
      const back = yield* joinAndLeave(fixture, "g")
      const rest = yield* fixture.take(back.receiver, 3)
      assert.deepStrictEqual(bodies(rest), ["2", "3", "4"])
      assert.deepStrictEqual(yield* settle(back.receiver, rest, Settlement.ack), ["Settled", "Settled", "Settled"])
      yield* back.leave
      assert.isTrue(yield* move("earliest"))
      assert.strictEqual(yield* lag, 4)
      assert.strictEqual((yield* inspector.describe(topic)).groups.length, 2)
    })
  ),

  check(
    "a group begins, or is moved, at the time at which something was stored",
    ["groups", "history", "redelivery", "positions"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const { leave: leaveStill } = yield* joinAndLeave(fixture, "still")
      yield* leaveStill
      yield* fixture.publish("before")
      yield* fixture.pass(fixture.delay)
      yield* fixture.publish("then")
      const [, then] = yield* inspector.messages(topic, { after: Option.none(), limit: 10 })
      assert(then !== undefined)
      const at = then.publishedAt
      const { leave, receiver } = yield* joinAndLeave(fixture, "g", { start: { at } })
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 1)), ["then"])
      yield* leave
      const late = yield* joinAndLeave(fixture, "late", { start: { at: at + 1 } })
      yield* late.leave
      assert.strictEqual((yield* fixture.figures("late")).lag, 0)
      yield* inspector.move(topic, "late", { at })
      const again = yield* fixture.join("late")
      assert.deepStrictEqual(bodies(yield* fixture.take(again, 1)), ["then"])
      // A time to come.
      const { leave: leaveEarly } = yield* joinAndLeave(fixture, "early", { start: { at: at + 3_600_000 } })
      yield* leaveEarly
      yield* fixture.publish("until then")
      assert.strictEqual((yield* fixture.figures("early")).lag, 0)
      const typo = yield* Effect.flip(inspector.move(topic, "early", { after: "typo" }))
      assert.strictEqual(typo.reason._tag, "MessageNotFound")
      const never = yield* Effect.flip(inspector.move(topic, "early", { at: Number.NaN }))
      assert.strictEqual(never.reason._tag, "InvalidTime")
      const forever = yield* Effect.flip(inspector.reschedule(topic, "any", Infinity))
      assert.strictEqual(forever.reason._tag, "InvalidTime")
    })
  ),

  check(
    "a group is retired once its consumers have left, twice is once, and its name begins anew",
    [],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      for (const body of ["a", "b"]) {
        const { leave, receiver } = yield* joinAndLeave(fixture, "g")
        yield* fixture.becomes("a living consumer", retire(fixture, "g"), "consumers of g")
        assert.deepStrictEqual(yield* groupsOf(fixture), ["g"])
        yield* fixture.publish(body)
        yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.ack)
        yield* leave
        yield* inspector.pause(topic, "g")
        assert.strictEqual(yield* retire(fixture, "g"), "retired")
        assert.strictEqual(yield* retire(fixture, "g"), "retired")
        assert.deepStrictEqual(yield* groupsOf(fixture), [])
      }
      assert.include(yield* inspector.topics, topic)
    })
  ),

  check(
    "a retired group holds nothing back, and what other groups have is untouched",
    ["groups", "history", "redelivery", "retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const keeps = yield* fixture.join("keeps")
      const { leave, receiver } = yield* joinAndLeave(fixture, "old")
      yield* fixture.publish("dead", "waits", "held")
      yield* fixture
        .take(receiver, 3)
        .pipe(
          Effect.flatMap((deliveries) =>
            Effect.forEach(deliveries, (delivery) =>
              delivery.body === "held"
                ? Effect.void
                : settle(
                    receiver,
                    [delivery],
                    delivery.body === "dead"
                      ? Settlement.deadLetter("Broken", "cause")
                      : Settlement.retry(Duration.hours(1), "later")
                  )
            )
          )
        )
      yield* fixture.publish("new")
      yield* leave
      const held = yield* fixture.take(keeps, 2)
      yield* settle(keeps, held.slice(0, 1), Settlement.ack)
      yield* fixture.becomes("what it holds", fixture.figures("old"), {
        lag: 1,
        pending: 0,
        waiting: 2,
        deadLetters: 1
      })
      assert.strictEqual(yield* retire(fixture, "old"), "retired")
      assert.deepStrictEqual(yield* groupsOf(fixture), ["keeps"])
      const rest = [...held.slice(1), ...(yield* fixture.take(keeps, 2))]
      assert.deepStrictEqual(yield* settle(keeps, rest, Settlement.ack), ["Settled", "Settled", "Settled"])
      assert.deepStrictEqual(yield* inspector.deadLetters(topic, "old", { after: Option.none(), limit: 10 }), [])
      assert.deepStrictEqual(yield* inspector.waiting(topic, "old", { after: Option.none(), limit: 10 }), [])
    })
  ),

  check(
    "what only a retired group held back is dropped",
    ["groups", "history", "trimming"],
    Effect.fnUntraced(function* (fixture) {
      const depth = Effect.map(fixture.inspector.describe(fixture.topic), ({ depth }) => depth)
      const { leave } = yield* joinAndLeave(fixture, "old")
      const { leave: leaveToo, receiver } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("1", "2", "3")
      yield* settle(receiver, yield* fixture.take(receiver, 3), Settlement.ack)
      yield* Effect.andThen(leave, leaveToo)
      assert.strictEqual(yield* depth, 3)
      // No consumer is there to trim.
      assert.strictEqual(yield* retire(fixture, "old"), "retired")
      assert.strictEqual(yield* depth, 0)
    })
  ),

  check(
    "what is stored when the last group is retired is there for the next one",
    ["history"],
    Effect.fnUntraced(function* (fixture) {
      const { leave } = yield* joinAndLeave(fixture, "old")
      yield* fixture.publish("a", "b")
      yield* leave
      assert.strictEqual(yield* retire(fixture, "old"), "retired")
      const next = yield* fixture.join("next")
      assert.deepStrictEqual(sortedBodies(yield* fixture.take(next, 2)), ["a", "b"])
    })
  ),

  check(
    "it is known for how long a group has had no consumer, whether the last one left or died",
    ["history", "redelivery", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, setting, topic } = fixture
      const unattended = Effect.map(inspector.describe(topic), ({ groups }) => groups[0]?.unattendedMillis ?? -1)
      const { leave } = yield* joinAndLeave(fixture, "g")
      assert.strictEqual(yield* unattended, -1)
      yield* leave
      const before = yield* unattended
      yield* fixture.pass(fixture.delay)
      assert.isAtLeast((yield* unattended) - before, Duration.toMillis(fixture.delay) - toleranceMillis)
      const dying = yield* fixture.join("g", { lease: setting.lease })
      assert.strictEqual(yield* unattended, -1)
      yield* setting.freeze(dying)
      const [, died] = yield* fixture.elapsed(
        fixture.becomes(
          "it is dead",
          Effect.map(Effect.andThen(fixture.pass(setting.lease), unattended), (millis) => millis >= 0),
          true
        )
      )
      // It is not counted from the time at which the first one left.
      assert.isAtMost(yield* unattended, died + toleranceMillis)
    })
  ),

  check(
    "what a dead consumer of a retired group held is lost to it",
    ["history", "redelivery", "sharing", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, setting, topic } = fixture
      const receiver = yield* fixture.join("old", { lease: setting.lease })
      yield* fixture.publish("a")
      const held = yield* fixture.one(receiver)
      yield* setting.freeze(receiver)
      yield* fixture.becomes(
        "no consumer is alive",
        Effect.andThen(
          fixture.pass(setting.lease),
          Effect.map(inspector.describe(topic), ({ groups }) => groups[0]?.consumers.length)
        ),
        0
      )
      assert.strictEqual(yield* retire(fixture, "old"), "retired")
      assert.deepStrictEqual(yield* groupsOf(fixture), [])
      const letter = Settlement.deadLetter("Broken", "cause")
      assert.deepStrictEqual(yield* settle(receiver, [held], letter), ["Stale"])
    })
  )
]
