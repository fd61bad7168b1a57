/**
 * Who gets a message: every group, one receiver in it; and what taking promises.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { type Delivery, Settlement } from "waybill"
import { bodies, joinAndLeave, settle, sortedBodies } from "./Bench.ts"
import { check } from "./Check.ts"

const numbered = (count: number) => Array.from({ length: count }, (_, i) => String(i).padStart(3, "0"))

export const groups = [
  check(
    "a group that starts at the earliest gets what was stored before it",
    ["history"],
    Effect.fnUntraced(function* (bench) {
      yield* bench.publish("before")
      const receiver = yield* bench.join("g", { start: "earliest" })
      yield* bench.publish("after")
      assert.deepStrictEqual(sortedBodies(yield* bench.take(receiver, 2)), ["after", "before"])
    })
  ),

  check(
    "a group that starts at the latest gets what comes after it, and nothing else",
    [],
    Effect.fnUntraced(function* (bench) {
      yield* bench.publish("before")
      const receiver = yield* bench.join("g", { start: "latest" })
      yield* bench.publish("after")
      assert.deepStrictEqual(bodies(yield* bench.take(receiver, 1)), ["after"])
    })
  ),

  check(
    "a group that exists goes on where it was, whatever start is asked for",
    ["history", "redelivery"],
    Effect.fnUntraced(function* (bench) {
      const { leave, receiver } = yield* joinAndLeave(bench, "g")
      yield* bench.publish("done")
      yield* settle(receiver, yield* bench.take(receiver, 1), Settlement.ack)
      yield* leave
      yield* bench.publish("while nobody was there")
      const next = yield* bench.join("g", { start: "latest" })
      assert.deepStrictEqual(bodies(yield* bench.take(next, 1)), ["while nobody was there"])
    })
  ),

  check(
    "case D5: a group that comes later begins with the oldest message that some group has not settled",
    ["groups", "history", "trimming"],
    Effect.fnUntraced(function* (bench) {
      const depth = Effect.map(bench.inspector.describe(bench.topic), ({ depth }) => depth)
      yield* bench.publish("1", "2", "3")
      const one = yield* bench.join("one")
      const [a, b, c] = yield* bench.take(one, 3)
      assert(a !== undefined && b !== undefined && c !== undefined)
      yield* settle(one, [a, c], Settlement.ack)
      yield* bench.becomes("the first is dropped, the last behind the second not", depth, 2)
      const two = yield* bench.join("two")
      const both = yield* bench.take(two, 2)
      assert.deepStrictEqual(bodies(both), ["2", "3"])
      yield* settle(two, both, Settlement.ack)
      yield* settle(one, [b], Settlement.ack)
      yield* bench.becomes("nothing is left", depth, 0)
      const three = yield* bench.join("three")
      yield* bench.publish("4")
      assert.deepStrictEqual(bodies(yield* bench.take(three, 1)), ["4"])
    })
  ),

  check(
    "every group gets every message",
    ["groups"],
    Effect.fnUntraced(function* (bench) {
      const receivers = yield* Effect.forEach(["g1", "g2", "g3"], (group) => bench.join(group))
      yield* bench.publish("a", "b", "c")
      for (const receiver of receivers) {
        const deliveries = yield* bench.take(receiver, 3)
        assert.deepStrictEqual(sortedBodies(deliveries), ["a", "b", "c"])
        yield* settle(receiver, deliveries, Settlement.ack)
      }
    })
  ),

  check(
    "what one group does with a message is nothing to another",
    ["groups", "retry", "deadLetters"],
    Effect.fnUntraced(function* (bench) {
      const one = yield* bench.join("one")
      const two = yield* bench.join("two")
      yield* bench.publish("a")
      yield* settle(one, yield* bench.take(one, 1), Settlement.deadLetter("Broken", "cause"))
      const delivery = yield* bench.one(two)
      assert.strictEqual(delivery.attempt, 1)
      assert.deepStrictEqual(yield* settle(two, [delivery], Settlement.ack), ["Settled"])
      yield* bench.becomes("figures of two", bench.figures("two"), { lag: 0, pending: 0, waiting: 0, deadLetters: 0 })
      yield* bench.becomes("figures of one", bench.figures("one"), { lag: 0, pending: 0, waiting: 0, deadLetters: 1 })
    })
  ),

  check(
    "receivers of a group share its messages, each message to one of them",
    ["sharing"],
    Effect.fnUntraced(function* (bench) {
      const receivers = yield* Effect.forEach(["a", "b", "c"], () => bench.join("g"))
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
      yield* Effect.forEach(sent, (body) => bench.publish(body))
      yield* bench.becomes("figures", bench.figures("g"), { lag: 0, pending: 0, waiting: 0, deadLetters: 0 })
      yield* Fiber.interruptAll(fibers)
      assert.deepStrictEqual(sortedBodies(taken), sent)
    })
  ),

  check(
    "a waiting take wakes up when something is published",
    [],
    Effect.fnUntraced(function* (bench) {
      const receiver = yield* bench.join("g")
      const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
      assert.isUndefined(fiber.pollUnsafe(), "there is nothing to take yet")
      yield* bench.publish("a")
      assert.deepStrictEqual(bodies(yield* bench.within("the message", Fiber.join(fiber))), ["a"])
    })
  ),

  check(
    "interrupting a take loses nothing, whenever it comes",
    [],
    Effect.fnUntraced(function* (bench) {
      const receiver = yield* bench.join("g")
      const sent = numbered(30)
      const arrived: Array<Delivery.Delivery> = []
      for (const [turns, body] of sent.entries()) {
        const fiber = yield* Effect.forkChild(
          Effect.uninterruptibleMask((restore) =>
            Effect.map(restore(receiver.take(5)), (deliveries) => void arrived.push(...deliveries))
          ),
          { startImmediately: true }
        )
        yield* bench.publish(body)
        // Another moment each time: before the take has heard of the message, while it has, after it has.
        for (let i = 0; i < turns % 6; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }
      if (arrived.length < sent.length) arrived.push(...(yield* bench.take(receiver, sent.length - arrived.length)))
      assert.deepStrictEqual(sortedBodies(arrived), sent)
    })
  )
]
