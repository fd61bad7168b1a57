import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Duration, Effect, Exit, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { Inspector, type Message, Settlement, Transport } from "waybill"
import { MemoryLists } from "waybill/memory"

const outgoing = (body: string, more: Partial<Message.Outgoing> = {}): Message.Outgoing => ({
  id: undefined,
  body,
  headers: {},
  key: undefined,
  version: 1,
  due: undefined,
  ...more
})

const publish = (first: Message.Outgoing, ...rest: ReadonlyArray<Message.Outgoing>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) => transport.publish("t", [first, ...rest]))

const join = (group: string, options?: Partial<Transport.Subscription>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) =>
    transport.receive({
      topic: "t",
      group,
      start: "earliest",
      lease: Duration.seconds(30),
      maxDeliveries: 5,
      shutdown: Duration.seconds(1),
      ...options
    })
  )

const bodies = (receiver: Transport.Receiver, max = 10) =>
  Effect.map(receiver.take(max), (deliveries) => deliveries.map((delivery) => delivery.body))

describe("MemoryLists", () => {
  it.effect("hands out the newest first when told to, and what comes back before it", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      yield* publish(outgoing("1"), outgoing("2"), outgoing("3"))
      const [third] = yield* receiver.take(1)
      yield* publish(outgoing("4"))
      yield* receiver.settle([[third, Settlement.release]])
      assert.deepStrictEqual(yield* bodies(receiver), ["3", "4", "2", "1"])
    }).pipe(Effect.provide(MemoryLists.layer({ order: "lifo" })))
  )

  it.effect("hands out by priority when told to, the oldest first in each", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      const of = (priority: string, body: string) => outgoing(body, { headers: { priority } })
      yield* publish(of("low", "l1"), outgoing("n1"), of("high", "h1"), of("low", "l2"), of("urgent!", "n2"))
      yield* publish(of("high", "h2"), of("normal", "n3"))
      assert.deepStrictEqual(yield* bodies(receiver), ["h1", "h2", "n1", "n2", "n3", "l1", "l2"])
    }).pipe(Effect.provide(MemoryLists.layer({ order: "priority" })))
  )

  it.effect.each([
    ["fifo", ["a", "b", "c"]],
    ["lifo", ["c", "b", "a"]],
    ["priority", ["a", "b", "c"]]
  ] as Array<["fifo" | "lifo" | "priority", Array<string>]>)(
    "%s: what a retired group has not settled goes to the next one, before everything else, as new",
    ([order, expected]) =>
      Effect.gen(function* () {
        const scope = yield* Scope.make()
        const receiver = yield* Scope.provide(join("g"), scope)
        yield* publish(outgoing("a"), outgoing("b"), outgoing("c"))
        const [, second] = yield* receiver.take(2)
        assert(second !== undefined)
        yield* receiver.settle([[second, Settlement.retry(Duration.hours(1), "again")]])
        yield* Scope.close(scope, Exit.void)
        yield* (yield* Inspector.Inspector).retire("t", "g")
        const taken = yield* (yield* join("next")).take(10)
        assert.deepStrictEqual(
          taken.map(({ attempt, body }) => `${String(body)}${attempt}`),
          expected.map((body) => `${body}1`)
        )
      }).pipe(Effect.scoped, Effect.provide(MemoryLists.layer({ order })))
  )

  it.effect("does not look at priorities unless told to", () =>
    Effect.gen(function* () {
      yield* publish(outgoing("1"), outgoing("2", { headers: { priority: "high" } }))
      assert.deepStrictEqual(yield* Effect.flatMap(join("g"), bodies), ["1", "2"])
    }).pipe(Effect.provide(MemoryLists.layer()))
  )

  it.effect("keeps the order of a long queue that grows while it is drained from both ends of time", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      let published = 0
      const stack: Array<string> = []
      for (let round = 0; round < 200; round++) {
        const [first = "", ...rest] = Array.from({ length: 50 }, () => String(published++))
        stack.push(first, ...rest)
        yield* publish(outgoing(first), ...rest.map((body) => outgoing(body)))
        const batch = yield* receiver.take(round < 100 ? 30 : 70)
        yield* receiver.settle(Arr.map(batch, (delivery) => [delivery, Settlement.ack]))
        for (const delivery of batch) assert.strictEqual(delivery.body, stack.pop())
      }
      assert.deepStrictEqual(stack, [])
    }).pipe(Effect.provide(MemoryLists.layer({ order: "lifo" })))
  )

  it.effect("belongs to the first group that joins, for as long as the topic is there", () =>
    Effect.gen(function* () {
      yield* publish(outgoing("a"))
      yield* Effect.scoped(join("one"))
      const error = yield* Effect.flip(join("two"))
      assert.strictEqual(error.operation, "receive")
      assert.strictEqual(
        error.message,
        "receive on topic t: topic t is a queue of the group one in the store, but this program opens it as a queue of the group two (a queue has one group)"
      )
      assert.deepStrictEqual(yield* Effect.flatMap(join("one"), bodies), ["a"])
      const inspector = yield* Inspector.Inspector
      assert.deepStrictEqual(
        (yield* inspector.describe("t")).groups.map(({ group }) => group),
        ["one"]
      )
    }).pipe(Effect.provide(MemoryLists.layer()))
  )

  it.effect("drops what nobody will read when its first group starts behind it", () =>
    Effect.gen(function* () {
      yield* publish(outgoing("a", { headers: { priority: "low" } }), outgoing("b"))
      const receiver = yield* join("g", { start: "latest" })
      yield* publish(outgoing("c"))
      assert.deepStrictEqual(yield* bodies(receiver), ["c"])
    }).pipe(Effect.provide(MemoryLists.layer({ order: "priority" })))
  )

  it.effect("a message that is due joins the queue then", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      const delay = (seconds: number) => ({ due: { _tag: "After", delay: Duration.seconds(seconds) } as const })
      yield* publish(outgoing("late", delay(2)), outgoing("early", delay(1)), outgoing("now"))
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* bodies(receiver), ["late", "early", "now"])
    }).pipe(Effect.provide(MemoryLists.layer({ order: "lifo" })))
  )

  it.effect("an operator sees what is next, and counts what is not settled", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const receiver = yield* join("g")
      yield* publish(outgoing("1"), outgoing("2"), outgoing("3"), outgoing("4"), outgoing("5"))
      const [fifth, fourth] = yield* receiver.take(2)
      yield* receiver.settle([[fifth, Settlement.retry(Duration.hours(1), "")]])
      const first = yield* inspector.messages("t", { after: Option.none(), limit: 2 })
      const rest = yield* inspector.messages("t", { after: Option.fromNullishOr(first[1]?.position), limit: 2 })
      assert.deepStrictEqual(
        [...first, ...rest].map(({ body }) => body),
        ["3", "2", "1"]
      )
      const { depth, groups } = yield* inspector.describe("t")
      assert.deepStrictEqual([depth, groups[0]?.lag, groups[0]?.pending, groups[0]?.waiting], [5, 3, 1, 1])
      assert(fourth !== undefined)
      yield* receiver.settle([[fourth, Settlement.ack]])
      assert.strictEqual((yield* inspector.describe("t")).depth, 4)
    }).pipe(Effect.provide(MemoryLists.layer({ order: "lifo" })))
  )
})
