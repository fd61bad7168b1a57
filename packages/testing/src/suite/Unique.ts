/**
 * The promises about ids that belong to one message at a time: a second message of the id is not stored while the first has the id to
 * itself, and is stored in the moment in which it no longer has.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import { Commit, type Message, Settlement } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, settle } from "./Fixture.ts"

const now = Settlement.retry(Duration.zero, "cause")

/** The receipt of publishing the id once more, in short. */
const again = (fixture: Fixture["Service"], unique: Message.Unique = "until-settled") =>
  Effect.map(fixture.publish({ body: "again", id: "x", unique }), ([receipt]) =>
    receipt?._tag === "Duplicate" ? (receipt.state ?? "?") : receipt?._tag
  )

export const unique = [
  check(
    "unique until settled: an id is a duplicate until its message is acked or dead-lettered, and free in that step",
    ["untilSettled", "history"],
    Effect.fnUntraced(function* (fixture) {
      assert.strictEqual(yield* again(fixture), "Stored")
      assert.strictEqual(yield* again(fixture), "open", "while no group exists")
      const receiver = yield* fixture.join("g")
      const first = yield* fixture.one(receiver)
      assert.strictEqual(yield* again(fixture), "open", "in a handler")
      yield* settle(receiver, [first], now)
      assert.strictEqual(yield* again(fixture), "open", "between attempts")
      yield* settle(receiver, [yield* fixture.one(receiver)], now)
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.release)
      const last = yield* fixture.one(receiver)
      assert.strictEqual(yield* again(fixture), "open", "after retries and a release")
      yield* settle(receiver, [last], Settlement.ack)
      assert.strictEqual(yield* again(fixture), "Stored", "after the ack")
      assert.strictEqual(yield* again(fixture), "open")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.deadLetter("reason", "cause"))
      assert.strictEqual(yield* again(fixture), "Stored", "after it has died")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.ack)
      assert.strictEqual(yield* again(fixture), "Stored", "after an ack at the first attempt")
      const other = { body: "other", id: "x" }
      assert.strictEqual((yield* fixture.publish(other, other))[1]?._tag, "Duplicate", "the window counts for itself")
    })
  ),

  check(
    "unique until settled: an id is a duplicate while its message is delayed, and after that",
    ["untilSettled", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const due = { _tag: "After", delay: fixture.delay } as const
      const receiver = yield* fixture.join("g")
      yield* fixture.publish({ body: "late", id: "x", unique: "until-settled", due })
      assert.strictEqual(yield* again(fixture), "delayed")
      const late = yield* fixture.one(receiver)
      assert.strictEqual(late.body, "late")
      assert.strictEqual(yield* again(fixture), "open")
      yield* settle(receiver, [late], Settlement.ack)
      assert.strictEqual(yield* again(fixture), "Stored")
    })
  ),

  check(
    "unique until settled: an id is free once every group has settled its message, whichever is the last",
    ["untilSettled", "groups", "history"],
    Effect.fnUntraced(function* (fixture) {
      const one = yield* fixture.join("one")
      const two = yield* fixture.join("two")
      yield* again(fixture)
      yield* settle(one, [yield* fixture.one(one)], Settlement.ack)
      assert.strictEqual(yield* again(fixture), "open", "the other group has not seen it")
      const other = yield* fixture.one(two)
      assert.strictEqual(yield* again(fixture), "open", "the other group holds it")
      yield* settle(two, [other], now)
      assert.strictEqual(yield* again(fixture), "open", "the other group will retry it")
      yield* settle(two, [yield* fixture.one(two)], Settlement.ack)
      assert.strictEqual(yield* again(fixture), "Stored")
    })
  ),

  check(
    "unique until settled: a late settlement does not free the id of a newer message",
    ["untilSettled", "freeze", "redelivery", "history"],
    Effect.fnUntraced(function* (fixture) {
      const lease = fixture.setting.lease
      const late = yield* fixture.join("g", { lease })
      const other = yield* fixture.join("g")
      yield* again(fixture)
      const stale = yield* fixture.one(late)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* fixture.setting.freeze(late)
          yield* settle(other, [yield* fixture.one(other)], Settlement.ack)
          assert.strictEqual(yield* again(fixture), "Stored")
          yield* settle(late, [stale], Settlement.ack)
          assert.strictEqual(yield* again(fixture), "open")
        })
      )
    })
  ),

  check(
    "unique until settled: a commit frees the id of its message, and the messages of a commit have their ids to themselves",
    ["untilSettled", "transactional", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* again(fixture)
      const message = {
        id: "y",
        body: "y",
        headers: {},
        key: undefined,
        version: 1,
        due: undefined,
        unique: "until-settled"
      } as const
      const messages = [message, message].map((message) => ({ topic: fixture.topic, message }))
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.commit(Commit.make({ messages })))
      assert.strictEqual(yield* again(fixture), "Stored")
      const bodies = (yield* fixture.take(receiver, 2)).map(({ body }) => body)
      assert.deepStrictEqual(bodies, ["y", "again"])
    })
  ),

  check(
    "unique until settled: a message is found by its id, and removing it frees the id, between attempts too",
    ["untilSettled", "lookup", "history"],
    Effect.fnUntraced(function* (fixture) {
      yield* again(fixture)
      const found = yield* fixture.inspector.message(fixture.topic, "x")
      assert.strictEqual(Option.getOrUndefined(found)?.body, "again")
      yield* fixture.inspector.removeMessage(fixture.topic, "x")
      assert.strictEqual(yield* again(fixture), "Stored")
      const receiver = yield* fixture.join("g")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.retry(Duration.hours(1), "cause"))
      assert.strictEqual(yield* again(fixture), "open")
      yield* fixture.inspector.removeMessage(fixture.topic, "x")
      assert.strictEqual(yield* again(fixture), "Stored")
    })
  ),

  check(
    "unique until settled: purging a topic frees its ids, also of messages that are delayed or between attempts",
    ["untilSettled", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* again(fixture)
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.retry(Duration.hours(1), "cause"))
      const due = { _tag: "After", delay: Duration.hours(1) } as const
      const late = { body: "late", id: "late", unique: "until-settled", due } as const
      yield* fixture.publish(late)
      yield* fixture.inspector.purge(fixture.topic)
      assert.strictEqual(yield* again(fixture), "Stored")
      assert.strictEqual((yield* fixture.publish(late))[0]?._tag, "Stored")
    })
  ),

  check(
    "unique until taken: an id is a duplicate until a consumer has its message",
    ["untilTaken", "history"],
    Effect.fnUntraced(function* (fixture) {
      assert.strictEqual(yield* again(fixture, "until-taken"), "Stored")
      assert.strictEqual(yield* again(fixture, "until-taken"), "open")
      const receiver = yield* fixture.join("g")
      const first = yield* fixture.one(receiver)
      assert.strictEqual(yield* again(fixture, "until-taken"), "Stored")
      yield* settle(receiver, [first], Settlement.ack)
      yield* settle(receiver, [yield* fixture.one(receiver)], now)
      assert.strictEqual(yield* again(fixture, "until-taken"), "Stored", "between attempts")
    })
  )
]
