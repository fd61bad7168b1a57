/**
 * The promises about messages that become one: while the first of an id has not begun, those that follow replace it, and put it back
 * if they are told to.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import { Commit, type Message, Settlement, Topic } from "waybill"
import { check } from "./Check.ts"
import { bodies, type Fixture, settle } from "./Fixture.ts"

const hours = (count: number) => ({ _tag: "After", delay: Duration.hours(count) }) as const
const atOnce = { _tag: "After", delay: Duration.zero } as const

const debounce = Topic.debounce("1 hour", { limit: "90 minutes" })

/** The receipt of one more message of the id `x`, in short. */
const more = (fixture: Fixture["Service"], body: string, unique: Message.Unique, due?: Message.Due) =>
  Effect.map(fixture.publish({ body, id: "x", unique, due }), ([receipt]) =>
    [receipt?._tag, receipt?.state].join(" ").trimEnd()
  )

/** When the next delayed message is due. */
const due = ({ inspector, topic }: Fixture["Service"]) =>
  Effect.map(inspector.describe(topic), ({ delayed, nextDelayedAt = 0 }) => {
    assert.strictEqual(delayed, 1)
    return nextDelayedAt
  })

const minutes = (millis: number) => Math.round(millis / 60_000)

export const coalescing = [
  check(
    "coalescing: a delayed message is replaced by the next one of its id, keeps its time, and a new one begins after it",
    ["coalescing", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const delayed = { _tag: "After", delay: fixture.delay } as const
      const receipts = yield* fixture.publish(
        { body: "1", id: "x", unique: Topic.latest, due: delayed, headers: { h: "1" }, key: "k" },
        { body: "2", id: "x", unique: Topic.latest, due: hours(9), headers: { h: "2" } },
        { body: "other", id: "y", unique: Topic.latest, due: hours(9) }
      )
      assert.deepStrictEqual(receipts, [
        { _tag: "Stored", id: "x" },
        { _tag: "Replaced", id: "x", state: "delayed" },
        { _tag: "Stored", id: "y" }
      ])
      assert.strictEqual(
        yield* more(fixture, "first", Topic.throttle("1 minute", { keep: "first" })),
        "Duplicate delayed"
      )
      const one = yield* fixture.one(receiver)
      assert.deepStrictEqual(
        [one.body, one.id, one.headers, one.key, one.attempt],
        ["2", "x", { h: "2" }, undefined, 1]
      )
      assert.strictEqual(yield* more(fixture, "3", Topic.latest, delayed), "Stored")
      yield* settle(receiver, [one], Settlement.ack)
      assert.strictEqual(yield* more(fixture, "4", Topic.latest, delayed), "Replaced delayed")
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 1)), ["4"])
    })
  ),

  check(
    "debounce: a message is put back by each that follows, no further than the limit, and is due at once when one says so",
    ["coalescing", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      assert.strictEqual(yield* more(fixture, "1", debounce, hours(1)), "Stored")
      const first = yield* due(fixture)
      yield* fixture.pass(Duration.millis(20))
      // As if it came 20 minutes later.
      const later = { _tag: "At", epochMillis: first + 20 * 60_000 } as const
      assert.strictEqual(yield* more(fixture, "2", debounce, later), "Replaced delayed")
      assert.strictEqual(minutes((yield* due(fixture)) - first), 20)
      yield* more(fixture, "3", debounce, hours(9))
      assert.strictEqual(minutes((yield* due(fixture)) - first), 30, "the limit")
      yield* more(fixture, "4", Topic.throttle("5 hours"), hours(5))
      assert.strictEqual(minutes((yield* due(fixture)) - first), 30, "its time stays")
      yield* more(fixture, "5", Topic.debounce("1 hour"), hours(9))
      assert.isAbove(minutes((yield* due(fixture)) - first), 400, "without a limit")
      assert.strictEqual(yield* more(fixture, "6", debounce, atOnce), "Replaced delayed")
      const one = yield* fixture.one(receiver)
      assert.strictEqual(one.body, "6")
      assert.isAtMost(one.publishedAt, first - 60 * 60_000, "the time of the first counts")
    })
  ),

  check(
    "coalescing: a message is found by its id, while it is delayed and after that, and removing it lets a new one begin",
    ["coalescing", "delay", "lookup", "history"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const found = Effect.map(inspector.message(topic, "x"), (message) =>
        Option.match(message, {
          onNone: () => "none",
          onSome: ({ body, dueAt, groups }) => [body, dueAt === undefined ? groups[0]?._tag : "delayed"].join(" ")
        })
      )
      const receiver = yield* fixture.join("g")
      yield* more(fixture, "1", debounce, hours(1))
      yield* more(fixture, "2", debounce, hours(1))
      assert.strictEqual(yield* found, "2 delayed")
      yield* inspector.removeMessage(topic, "x")
      assert.strictEqual(yield* found, "none")
      assert.strictEqual(yield* more(fixture, "3", debounce, hours(1)), "Stored")
      yield* inspector.runNow(topic, "x")
      const one = yield* fixture.one(receiver)
      assert.strictEqual(yield* found, "3 Pending")
      yield* settle(receiver, [one], Settlement.retry(Duration.hours(1), "cause"))
      assert.strictEqual(yield* found, "3 Waiting")
    })
  ),

  check(
    "coalescing: a message of a queue is replaced until a consumer has it, and not after that",
    ["coalescing", "untilTaken", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.publish("before")
      const receipts = yield* fixture.publish(
        { body: "1", id: "x", unique: Topic.latest },
        { body: "2", id: "x", unique: Topic.latest }
      )
      assert.deepStrictEqual(receipts[1], { _tag: "Replaced", id: "x", state: "open" })
      assert.strictEqual(yield* more(fixture, "3", Topic.latest), "Replaced open")
      assert.strictEqual(yield* more(fixture, "first", Topic.throttle("1 hour", { keep: "first" })), "Duplicate open")
      assert.strictEqual(yield* more(fixture, "late", debounce, hours(1)), "Replaced open")
      assert.strictEqual(yield* more(fixture, "4", Topic.latest), "Replaced open")
      yield* fixture.publish("after")
      const receiver = yield* fixture.join("g")
      const taken = yield* fixture.take(receiver, 3)
      assert.sameMembers([...bodies(taken)], ["before", "4", "after"])
      assert.strictEqual(yield* more(fixture, "5", Topic.latest), "Stored")
      const again = Settlement.retry(Duration.zero, "cause")
      yield* settle(
        receiver,
        taken.filter(({ id }) => id === "x"),
        again
      )
      assert.sameMembers([...bodies(yield* fixture.take(receiver, 2))], ["4", "5"])
      assert.strictEqual(yield* more(fixture, "6", "until-settled"), "Stored")
      assert.strictEqual(yield* more(fixture, "7", Topic.latest), "Duplicate open", "that one may be in a handler")
    })
  ),

  check(
    "coalescing: a message that became due on a queue is replaced where it is",
    ["coalescing", "untilTaken", "delay", "history", "pause"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.inspector.pause(fixture.topic, "g")
      yield* more(fixture, "1", debounce, { _tag: "After", delay: fixture.delay })
      yield* fixture.pass(fixture.delay)
      yield* fixture.becomes(
        "the message",
        Effect.map(fixture.inspector.describe(fixture.topic), ({ delayed }) => delayed),
        0
      )
      assert.strictEqual(yield* more(fixture, "2", debounce), "Replaced open")
      yield* fixture.inspector.resume(fixture.topic, "g")
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 1)), ["2"])
    })
  ),

  check(
    "coalescing: the messages of a commit become one",
    ["coalescing", "transactional", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("a")
      const messages = ["1", "2"].map((body) => ({
        topic: fixture.topic,
        message: { id: "x", body, headers: {}, key: undefined, version: 1, due: hours(1), unique: debounce }
      }))
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.commit(Commit.make({ messages })))
      yield* due(fixture)
      assert.strictEqual(yield* more(fixture, "3", debounce, atOnce), "Replaced delayed")
      assert.strictEqual((yield* fixture.one(receiver)).body, "3")
    })
  )
]
