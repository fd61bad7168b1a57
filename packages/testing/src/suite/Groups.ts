/**
 * Who receives a message: every group, one receiver in it; and the promises of taking.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { type Delivery, Settlement } from "waybill"
import { check } from "./Check.ts"
import { bodies, joinAndLeave, settle, settled, sortedBodies } from "./Fixture.ts"

const numbered = (count: number) => Array.from({ length: count }, (_, i) => String(i).padStart(3, "0"))

export const groups = [
  check(
    "a group that starts at the earliest gets what was stored before it",
    ["history"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.publish("before")
      const receiver = yield* fixture.join("g", { start: "earliest" })
      yield* fixture.publish("after")
      assert.deepStrictEqual(sortedBodies(yield* fixture.take(receiver, 2)), ["after", "before"])
    })
  ),

  check(
    "a group that starts at the latest gets what comes after it, and nothing else",
    [],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.publish("before")
      const receiver = yield* fixture.join("g", { start: "latest" })
      yield* fixture.publish("after")
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 1)), ["after"])
    })
  ),

  check(
    "a group that exists goes on where it was, whatever start is asked for",
    ["history", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const { leave, receiver } = yield* joinAndLeave(fixture, "g")
      yield* fixture.publish("done")
      yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.ack)
      yield* leave
      yield* fixture.publish("while the group had no receiver")
      const next = yield* fixture.join("g", { start: "latest" })
      assert.deepStrictEqual(bodies(yield* fixture.take(next, 1)), ["while the group had no receiver"])
    })
  ),

  check(
    "case D5: a group that comes later begins with the oldest message that some group has not settled",
    ["groups", "history", "trimming"],
    Effect.fnUntraced(function* (fixture) {
      const depth = Effect.map(fixture.inspector.describe(fixture.topic), ({ depth }) => depth)
      yield* fixture.publish("1", "2", "3")
      const one = yield* fixture.join("one")
      const [a, b, c] = yield* fixture.take(one, 3)
      assert(a !== undefined && b !== undefined && c !== undefined)
      yield* settle(one, [a, c], Settlement.ack)
      yield* fixture.becomes("the first is dropped, the last behind the second not", depth, 2)
      const two = yield* fixture.join("two")
      const both = yield* fixture.take(two, 2)
      assert.deepStrictEqual(bodies(both), ["2", "3"])
      yield* settle(two, both, Settlement.ack)
      yield* settle(one, [b], Settlement.ack)
      yield* fixture.becomes("nothing is left", depth, 0)
      const three = yield* fixture.join("three")
      yield* fixture.publish("4")
      assert.deepStrictEqual(bodies(yield* fixture.take(three, 1)), ["4"])
    })
  ),

  check(
    "every group gets every message",
    ["groups"],
    Effect.fnUntraced(function* (fixture) {
      const receivers = yield* Effect.forEach(["g1", "g2", "g3"], (group) => fixture.join(group))
      yield* fixture.publish("a", "b", "c")
      for (const receiver of receivers) {
        const deliveries = yield* fixture.take(receiver, 3)
        assert.deepStrictEqual(sortedBodies(deliveries), ["a", "b", "c"])
        yield* settle(receiver, deliveries, Settlement.ack)
      }
    })
  ),

  check(
    "what one group does with a message is nothing to another",
    ["groups", "retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const one = yield* fixture.join("one")
      const two = yield* fixture.join("two")
      yield* fixture.publish("a")
      yield* settle(one, yield* fixture.take(one, 1), Settlement.deadLetter("Broken", "cause"))
      const delivery = yield* fixture.one(two)
      assert.strictEqual(delivery.attempt, 1)
      assert.deepStrictEqual(yield* settle(two, [delivery], Settlement.ack), ["Settled"])
      yield* fixture.becomes("figures of two", fixture.figures("two"), {
        lag: 0,
        pending: 0,
        waiting: 0,
        deadLetters: 0
      })
      yield* fixture.becomes("figures of one", fixture.figures("one"), {
        lag: 0,
        pending: 0,
        waiting: 0,
        deadLetters: 1
      })
    })
  ),

  check(
    "receivers of a group share its messages, each message to one of them",
    ["sharing"],
    Effect.fnUntraced(function* (fixture) {
      const receivers = yield* Effect.forEach(["a", "b", "c"], () => fixture.join("g"))
      assert.strictEqual(
        new Set(receivers.map((receiver) => receiver.consumer)).size,
        3,
        "consumers have names of their own"
      )
      const sent = numbered(60)
      const taken: Array<Delivery.Delivery> = []
      const fibers = yield* Effect.forEach(receivers, (receiver) =>
        Effect.forkChild(
          Effect.forever(
            Effect.gen(function* () {
              const deliveries = yield* receiver.take(4)
              taken.push(...deliveries)
              yield* settle(receiver, deliveries, Settlement.ack)
            })
          )
        )
      )
      yield* Effect.forEach(sent, (body) => fixture.publish(body))
      yield* fixture.becomes("figures", fixture.figures("g"), { lag: 0, pending: 0, waiting: 0, deadLetters: 0 })
      yield* Fiber.interruptAll(fibers)
      assert.deepStrictEqual(sortedBodies(taken), sent)
    })
  ),

  check(
    "a waiting take wakes up when something is published",
    [],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
      assert.isUndefined(fiber.pollUnsafe(), "there is nothing to take yet")
      yield* fixture.publish("a")
      assert.deepStrictEqual(bodies(yield* fixture.within("the message", Fiber.join(fiber))), ["a"])
    })
  ),

  check(
    "a group with a filter gets what it wants, and has passed the rest",
    ["filters"],
    Effect.fnUntraced(function* (fixture) {
      const only = { key: ["a", "b"], headers: { type: ["Placed", "Paid"], "x-y": ['%, "{}'] } }
      const draft = (body: string, key?: string, type?: string) => ({
        body,
        key,
        headers: { ...(type !== undefined && { type }), "x-y": '%, "{}' }
      })
      yield* fixture.publish(
        draft("wanted 1", "a", "Placed"),
        draft("of another type", "a", "Cancelled"),
        draft("of no type", "a"),
        draft("of another key", "c", "Placed"),
        draft("of no key", undefined, "Placed"),
        { ...draft("of no header"), key: "a", headers: { type: "Placed" } },
        draft("wanted 2", "b", "Paid")
      )
      const receiver = yield* fixture.join("g", { only })
      const first = yield* fixture.take(receiver, 2)
      assert.deepStrictEqual(bodies(first), ["wanted 1", "wanted 2"])
      // What comes back has been wanted before.
      yield* settle(receiver, first, Settlement.retry(Duration.zero, "again"))
      yield* settle(receiver, yield* fixture.take(receiver, 2), Settlement.ack)
      const next = yield* Effect.forkChild(receiver.take(5), { startImmediately: true })
      for (let i = 0; i < 5; i++) yield* fixture.publish(draft("of another type", "a", "Cancelled"))
      yield* fixture.publish({ ...draft("wanted later", "a", "Paid"), due: { _tag: "After", delay: fixture.delay } })
      yield* fixture.publish(draft("wanted 3", "a", "Paid"))
      const third = yield* fixture.within("the next one", Fiber.join(next))
      assert.deepStrictEqual(bodies(third), ["wanted 3"])
      yield* settle(receiver, [...third, yield* fixture.one(receiver)], Settlement.ack)
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
      const all = yield* fixture.join("all", { start: "latest" })
      yield* fixture.publish(draft("of another type", "a", "Cancelled"))
      assert.deepStrictEqual(bodies([yield* fixture.one(all)]), ["of another type"])
    })
  ),

  check(
    "members of a group that want different messages are refused, while one of them lives",
    ["filters"],
    Effect.fnUntraced(function* (fixture) {
      const only = { headers: { type: ["a", "b"], other: ["c"] } }
      const { leave } = yield* joinAndLeave(fixture, "g", { only })
      for (const other of [undefined, { key: [] }, { headers: { type: ["a"] } }]) {
        const refused = yield* Effect.flip(fixture.join("g", { only: other }))
        assert.strictEqual(refused.reason._tag, "TopicConflict")
      }
      const same = yield* joinAndLeave(fixture, "g", { only: { headers: { other: ["c"], type: ["b", "a"] } } })
      yield* leave
      yield* same.leave
      yield* fixture.publish({ body: "a", headers: { type: "a" } }, { body: "z", headers: { type: "z" } })
      const next = yield* fixture.join("g", { only: { headers: { type: ["z"] } } })
      assert.deepStrictEqual(bodies([yield* fixture.one(next)]), ["z"])
    })
  ),

  check(
    "interrupting a take loses nothing, whenever it comes",
    [],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const sent = numbered(30)
      const arrived: Array<Delivery.Delivery> = []
      for (const [turns, body] of sent.entries()) {
        const fiber = yield* Effect.forkChild(
          Effect.uninterruptibleMask((restore) =>
            Effect.map(restore(receiver.take(5)), (deliveries) => void arrived.push(...deliveries))
          ),
          { startImmediately: true }
        )
        yield* fixture.publish(body)
        // A different moment each time: before the take has heard of the message, while it hears, and after.
        for (let i = 0; i < turns % 6; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }
      if (arrived.length < sent.length) arrived.push(...(yield* fixture.take(receiver, sent.length - arrived.length)))
      assert.deepStrictEqual(sortedBodies(arrived), sent)
    })
  )
]
