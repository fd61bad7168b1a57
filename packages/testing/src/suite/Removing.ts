/**
 * Removing a topic: when it is allowed, and what goes with it.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Option, Scope } from "effect"
import { Commit, type Inspector, Settlement } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, bodies, joinAndLeave, outgoing, settle } from "./Fixture.ts"

const total = Commit.counter("total")

/** Tries to remove the topic; returns `removed`, or the obstacle. */
const attempt = ({ inspector, topic }: Fixture["Service"], options?: Inspector.RemoveOptions) =>
  inspector.remove(topic, options).pipe(
    Effect.as("removed"),
    Effect.catchReason("TransportError", "TopicInUse", (reason) => {
      assert.isTrue(reason.permanent && reason.topic === topic)
      return Effect.succeed(reason.group === undefined ? reason.found : `${reason.found} of ${reason.group}`)
    })
  )

export const removing = [
  check(
    "case B15: an emptied topic is removed, twice is once, and its next use makes it anew",
    [],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      for (const body of ["a", "b"]) {
        const { leave, receiver } = yield* joinAndLeave(fixture, "g")
        yield* fixture.publish(body)
        const deliveries = yield* fixture.take(receiver, 1)
        assert.deepStrictEqual(bodies(deliveries), [body])
        assert.include(yield* inspector.topics, topic)
        yield* settle(receiver, deliveries, Settlement.ack)
        yield* fixture.becomes("the consumer is in the way", attempt(fixture), "consumers of g")
        yield* leave
        yield* inspector.remove(topic)
        yield* inspector.remove(topic)
        assert.notInclude(yield* inspector.topics, topic)
        const { delayed, depth, groups } = yield* inspector.describe(topic)
        assert.deepStrictEqual({ delayed, depth, groups }, { delayed: 0, depth: 0, groups: [] })
      }
      // A topic that never existed counts as removed.
      yield* inspector.remove(`${topic}-never`)
      assert.notInclude(yield* inspector.topics, `${topic}-never`)
    })
  ),

  check(
    "case B15: whatever is unsettled keeps a topic, and is named",
    ["redelivery", "deadLetters", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const becomes = (expected: string) => fixture.becomes(expected, attempt(fixture), expected)
      yield* fixture.publish("a")
      yield* becomes("messages")
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      yield* becomes("messages of g")
      const first = yield* fixture.one(receiver)
      yield* becomes("pending of g")
      yield* settle(receiver, [first], Settlement.retry(Duration.zero, "again"))
      yield* becomes("waiting of g")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.deadLetter("Broken", "cause"))
      yield* becomes("deadLetters of g")
      yield* leave
      yield* becomes("deadLetters of g")
      const letters = yield* inspector.deadLetters(topic, "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(
        letters.map(({ body }) => body),
        ["a"],
        "what was refused has changed nothing"
      )
      yield* inspector.discard(
        topic,
        "g",
        letters.map(({ entry }) => entry)
      )
      assert.strictEqual(yield* attempt(fixture), "removed")
      yield* fixture.transport.publish(topic, [
        outgoing({ body: "b", due: { _tag: "After", delay: Duration.hours(1) } })
      ])
      yield* becomes("delayed")
    })
  ),

  check(
    "a topic is removed by force with what is unsettled, but not under a living consumer",
    ["redelivery", "deadLetters", "delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const force = attempt(fixture, { force: true })
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("dead", "held", "new")
      const dead = yield* fixture.one(receiver)
      yield* settle(receiver, [dead], Settlement.deadLetter("Broken", "cause"))
      yield* fixture.one(receiver)
      yield* fixture.transport.publish(topic, [
        outgoing({ body: "later", due: { _tag: "After", delay: Duration.hours(1) } })
      ])
      assert.strictEqual(yield* force, "consumers of g")
      yield* leave
      assert.notStrictEqual(yield* attempt(fixture), "removed")
      assert.strictEqual(yield* force, "removed")
      const { delayed, depth, groups } = yield* inspector.describe(topic)
      assert.deepStrictEqual({ delayed, depth, groups }, { delayed: 0, depth: 0, groups: [] })
      const next = yield* fixture.join("g")
      yield* fixture.publish("anew")
      assert.deepStrictEqual(bodies(yield* fixture.take(next, 1)), ["anew"])
    })
  ),

  check(
    "case B15: what a dead consumer holds keeps a topic, and a dead consumer that holds nothing does not",
    ["redelivery", "sharing", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
      const one = yield* fixture.join("g", { lease: fixture.setting.lease })
      yield* fixture.publish("a")
      const first = yield* fixture.one(one)
      yield* Scope.provide(fixture.setting.freeze(one), scope)
      yield* fixture.pass(fixture.setting.lease)
      yield* fixture.becomes(
        "no consumer is alive",
        Effect.map(fixture.inspector.describe(fixture.topic), ({ groups }) => groups[0]?.consumers.length),
        0
      )
      assert.strictEqual(yield* attempt(fixture), "pending of g")
      assert.deepStrictEqual(yield* settle(one, [first], Settlement.ack), ["Settled"])
      assert.strictEqual(yield* attempt(fixture), "removed")
    })
  ),

  check(
    "case B15: an id that was published stays known when its topic is removed",
    ["redelivery", "deduplication"],
    Effect.fnUntraced(function* (fixture) {
      const publishAndRemove = Effect.fnUntraced(function* () {
        const { leave, receiver } = yield* joinAndLeave(fixture, "g")
        const [receipt] = yield* fixture.publish({ body: "a", id: "a" })
        if (receipt?._tag === "Stored") yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.ack)
        yield* leave
        yield* fixture.inspector.remove(fixture.topic)
        return receipt?._tag
      })
      assert.strictEqual(yield* publishAndRemove(), "Stored")
      assert.strictEqual(yield* publishAndRemove(), "Duplicate")
    })
  ),

  check(
    "case B15: the records beside a topic stay when it is removed, and its next messages are new ones to its commits",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      for (const expected of [1, 2]) {
        const { leave, receiver } = yield* joinAndLeave(fixture, "g")
        yield* fixture.publish("a")
        const deliveries = yield* fixture.take(receiver, 1)
        yield* settle(receiver, deliveries, Settlement.commit(Commit.make({ writes: [total.add(1)] })))
        yield* leave
        yield* fixture.inspector.remove(fixture.topic)
        assert.strictEqual(yield* fixture.read(total.value), expected)
      }
    })
  )
]
