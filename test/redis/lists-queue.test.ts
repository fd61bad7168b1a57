import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Exit, Fiber, Layer, Option, Random, References, Scope } from "effect"
import { Inspector, type Message, Settlement, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisInspector, RedisLists } from "waybill/redis"
import { becomes, client, type Draft, outgoing } from "./Fixture.ts"

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

/** A queue `t` under a prefix of its own, and a plain client beside it. */
const fixture = Effect.fnUntraced(function* (options: RedisLists.Options & { readonly url?: string } = {}) {
  const server = yield* RedisServer.RedisServer
  const prefix = `queue${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
  const { url = server.url, ...rest } = options
  const context = yield* Layer.build(
    RedisLists.layer({ prefix, ...rest }).pipe(Layer.provideMerge(IoRedis.layer({ url })))
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  const transport = Context.get(context, Transport.AtMostOnce)
  const redis = yield* client(server.url)
  return {
    transport,
    inspector: Context.get(context, Inspector.Inspector),
    redis,
    key: (name: string) => `{${prefix}:t}:${name}`,
    publish: (first: Draft | string, ...others: ReadonlyArray<Draft | string>) =>
      transport.publish("t", [outgoing(first), ...others.map(outgoing)]),
    join: (subscription: Partial<Transport.Subscription> = {}) =>
      transport
        .receive({
          topic: "t",
          group: "g",
          start: "earliest",
          lease: Duration.seconds(10),
          maxDeliveries: 5,
          shutdown: Duration.seconds(2),
          ...subscription
        })
        .pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  }
})

const bodiesOf = (messages: ReadonlyArray<{ readonly body: Message.Body }>) => messages.map(({ body }) => String(body))

const prioritised = (body: string, priority?: string): Draft => ({
  body,
  headers: priority === undefined ? {} : { priority }
})

describe("who is next", () => {
  it.live.each([
    ["fifo", ["a", "b", "c", "d", "e"]],
    ["lifo", ["e", "d", "c", "b", "a"]],
    ["priority", ["c", "e", "a", "d", "b"]]
  ] as Array<["fifo" | "lifo" | "priority", Array<string>]>)("%s", ([order, expected]) =>
    Effect.gen(function* () {
      const { join, publish } = yield* fixture({ order })
      yield* publish(
        prioritised("a"),
        prioritised("b", "low"),
        prioritised("c", "high"),
        prioritised("d", "normal"),
        prioritised("e", "high")
      )
      const receiver = yield* join()
      assert.deepStrictEqual(bodiesOf(yield* receiver.take(10)), expected)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live.each([
    ["fifo", ["a", "b", "c"]],
    ["lifo", ["c", "b", "a"]],
    ["priority", ["a", "b", "c"]]
  ] as Array<["fifo" | "lifo" | "priority", Array<string>]>)(
    "%s: what a retired group has not settled goes to the next one, before everything else, as new",
    ([order, expected]) =>
      Effect.gen(function* () {
        const { inspector, join, key, publish, redis } = yield* fixture({ order })
        yield* publish("a", "b", "c")
        const scope = yield* Scope.make()
        const receiver = yield* Scope.provide(join(), scope)
        // One is held, one waits for a retry, and one was never taken.
        const [first, second] = yield* receiver.take(2)
        assert(first !== undefined && second !== undefined)
        yield* receiver.settle([[second, Settlement.retry(Duration.hours(1), "again")]])
        yield* Scope.close(scope, Exit.void)
        yield* inspector.retire("t", "g")
        const left = yield* Effect.promise(() => redis.keys(`${key("group")}:*`))
        assert.deepStrictEqual(left, [])
        const next = yield* join({ group: "next" })
        const taken = yield* next.take(10)
        assert.deepStrictEqual(bodiesOf(taken), expected)
        assert.deepStrictEqual(
          taken.map(({ attempt }) => attempt),
          [1, 1, 1]
        )
      }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live.each(["lists", "exactly-once"] as const)(
    "case A13: the order belongs to the topic: who asks for another one is refused, on %s",
    (pattern) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const layers = { lists: RedisLists.layer, "exactly-once": RedisExactlyOnce.layer }
        const prefix = `orders-${pattern}`
        const program = Effect.fnUntraced(function* (order: RedisLists.Options["order"] | undefined) {
          const context = yield* Layer.build(
            layers[pattern](order === undefined ? { prefix } : { prefix, order }).pipe(
              Layer.provide(IoRedis.layer({ url })),
              Layer.fresh
            )
          ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
          const transport = Context.get(context, Transport.AtMostOnce)
          return {
            inspector: Context.get(context, Inspector.Inspector),
            publish: (topic: string, body: string, priority = "normal") =>
              transport.publish(topic, [outgoing(prioritised(body, priority))]),
            join: (topic: string) =>
              transport.receive({
                topic,
                group: "g",
                start: "earliest",
                lease: Duration.seconds(10),
                maxDeliveries: 5,
                shutdown: Duration.seconds(2)
              })
          }
        })
        const redis = yield* client(url)
        const orderOf = (topic: string) => Effect.promise(() => redis.hget(`{${prefix}:${topic}}:meta`, "order"))
        const fifo = yield* program(undefined)
        const lifo = yield* program("lifo")
        const any = yield* program("any")
        const refusal = (effect: Effect.Effect<unknown, Transport.TransportError, Scope.Scope>) =>
          Effect.map(Effect.flip(Effect.scoped(effect)), ({ reason }) => reason)
        const conflict = (expected: string, found: string) =>
          ({
            _tag: "TopicConflict",
            expected: `a queue in the order ${expected}`,
            found: `a queue in the order ${found}`
          }) as const

        // Published to first, and received from first.
        yield* lifo.publish("published", "1")
        assert.strictEqual(yield* orderOf("published"), "lifo")
        assert.deepInclude(yield* refusal(fifo.publish("published", "2")), conflict("fifo", "lifo"))
        assert.deepInclude(yield* refusal(fifo.join("published")), conflict("fifo", "lifo"))
        yield* fifo.join("received")
        assert.strictEqual(yield* orderOf("received"), "fifo")
        assert.deepInclude(yield* refusal(lifo.join("received")), conflict("lifo", "fifo"))
        assert.deepInclude(yield* refusal(lifo.publish("received", "2")), conflict("lifo", "fifo"))
        assert.strictEqual((yield* lifo.inspector.describe("published")).depth, 1)

        // Programs with any order record none: the first that asks for one does. Until then messages are sorted by urgency, and
        // those are taken most urgent first, in that order among the equally urgent. What follows is taken in that order alone.
        const unordered = [
          { order: "fifo", member: fifo, other: "lifo", before: ["2", "3", "1", "4"], after: ["5", "6", "7"] },
          { order: "lifo", member: lifo, other: "fifo", before: ["3", "2", "4", "1"], after: ["7", "6", "5"] },
          {
            order: "priority",
            member: yield* program("priority"),
            other: "fifo",
            before: ["2", "3", "1", "4"],
            after: ["6", "5", "7"]
          }
        ] as const
        for (const { after, before, member, order, other } of unordered) {
          const topic = `unordered-${order}`
          for (const [body, priority] of [
            ["1", "low"],
            ["2", "high"],
            ["3", "high"],
            ["4", "low"]
          ] as const) {
            yield* any.publish(topic, body, priority)
          }
          assert.strictEqual(yield* orderOf(topic), null)
          const receiver = yield* member.join(topic)
          assert.strictEqual(yield* orderOf(topic), order)
          assert.deepInclude(yield* refusal({ fifo, lifo }[other].join(topic)), conflict(other, order))
          assert.deepStrictEqual(bodiesOf(yield* receiver.take(10)), [...before])
          for (const [body, priority] of [
            ["5", "low"],
            ["6", "high"],
            ["7", "low"]
          ] as const) {
            yield* any.publish(topic, body, priority)
          }
          assert.deepStrictEqual(bodiesOf(yield* receiver.take(10)), [...after])
        }

        // A tool need not know it, and an inspector of every pattern reads it.
        yield* any.publish("published", "2", "high")
        yield* any.publish("published", "3", "low")
        const all = Context.get(
          yield* Layer.build(RedisInspector.layer({ prefix }).pipe(Layer.provide(IoRedis.layer({ url })))),
          Inspector.Inspector
        )
        for (const inspector of [lifo.inspector, fifo.inspector, any.inspector, all]) {
          const listed = yield* inspector.messages("published", { after: Option.none(), limit: 10 })
          assert.deepStrictEqual(bodiesOf(listed), ["3", "2", "1"])
        }
        const receiver = yield* any.join("published")
        assert.deepStrictEqual(bodiesOf(yield* receiver.take(10)), ["3", "2", "1"])
      }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a delayed message takes its place by priority when it is due", () =>
    Effect.gen(function* () {
      const { inspector, join, publish } = yield* fixture({ order: "priority" })
      const due = { _tag: "After", delay: Duration.millis(1) } as const
      yield* publish("a", { ...prioritised("b", "high"), due })
      yield* inspector.pause("t", "g")
      const receiver = yield* join()
      yield* becomes(
        "delayed",
        Effect.map(inspector.describe("t"), ({ delayed }) => delayed),
        0
      )
      yield* inspector.resume("t", "g")
      assert.deepStrictEqual(bodiesOf(yield* receiver.take(10)), ["b", "a"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("what comes back goes first, whatever the order", () =>
    Effect.gen(function* () {
      const { join, publish } = yield* fixture({ order: "lifo" })
      const receiver = yield* join()
      yield* publish("old")
      const [old] = yield* receiver.take(1)
      yield* publish("new")
      yield* receiver.settle([[old, Settlement.release]])
      assert.deepStrictEqual(bodiesOf(yield* receiver.take(2)), ["old", "new"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("one group", () => {
  it.live("another group is refused, and told which group owns the queue", () =>
    Effect.gen(function* () {
      const { join } = yield* fixture()
      yield* join({ group: "first" })
      const error = yield* Effect.flip(join({ group: "second" }))
      assert.strictEqual(error.reason._tag, "TopicConflict")
      assert.include(error.message, "first")
      assert.include(error.message, "second")
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("notifications", () => {
  it.live("wake a waiting consumer, long before its next poll", () =>
    Effect.gen(function* () {
      const { join, publish } = yield* fixture({ pollInterval: "1 hour" })
      const receiver = yield* join({ lease: Duration.hours(1) })
      const waiting = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* publish("a")
      assert.deepStrictEqual(bodiesOf(yield* Effect.timeout(Fiber.join(waiting), "30 seconds")), ["a"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("one that is lost costs at most one poll interval", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis } = yield* fixture({ pollInterval: "300 millis" })
      const receiver = yield* join({ lease: Duration.hours(1) })
      // Nobody is told of anything from here on.
      const deaf = yield* Effect.forkScoped(
        Effect.forever(
          Effect.delay(
            Effect.promise(() => redis.call("CLIENT", "KILL", "TYPE", "pubsub")),
            "1 millis"
          )
        )
      )
      for (let i = 0; i < 3; i++) {
        const waiting = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
        // A foreign hand, which announces nothing.
        yield* i === 0 ? publish("a") : Effect.promise(() => redis.rpush(key("inbox"), "a"))
        const [taken] = yield* Effect.timeout(Fiber.join(waiting), "30 seconds")
        yield* receiver.settle([[taken, Settlement.ack]])
      }
      yield* Fiber.interrupt(deaf)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )

  it.live("a consumer without permission to subscribe polls", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const admin = yield* client(server.url)
      yield* Effect.promise(() =>
        admin.call("ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "&*", "+@all", "-subscribe", "-publish")
      )
      const { join, publish } = yield* fixture({
        url: `redis://app:secret@127.0.0.1:${server.port}`,
        pollInterval: "200 millis"
      })
      const receiver = yield* join()
      yield* publish("a")
      assert.deepStrictEqual(bodiesOf(yield* receiver.take(1)), ["a"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("an answer that never comes", () => {
  it.live("what it brought is handed back and comes again, no attempt counted", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const { inspector, join, publish } = yield* fixture({ url: proxy.url })
      const receiver = yield* join()
      yield* inspector.pause("t", "g")
      yield* publish("a", "b", "c")
      const waiting = yield* Effect.forkChild(receiver.take(3), { startImmediately: true })
      yield* proxy.dropReply("EVALSHA")
      yield* inspector.resume("t", "g")
      const taken = yield* Fiber.join(waiting)
      assert.deepStrictEqual(bodiesOf(taken), ["a", "b", "c"])
      assert.isTrue(taken.every(({ attempt }) => attempt === 1))
      const [first, ...others] = taken.map((delivery) => [delivery, Settlement.ack] as const)
      assert.deepStrictEqual(yield* receiver.settle([first!, ...others]), ["Settled", "Settled", "Settled"])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("a foreign producer", () => {
  it.live("pushes into the inbox with one command, and a plain client can tell what became of it", () =>
    Effect.gen(function* () {
      const { inspector, join, key, redis } = yield* fixture({ order: "priority" })
      yield* Effect.promise(() => redis.rpush(key("inbox"), "plain"))
      yield* Effect.promise(() =>
        redis.rpush(key("inbox"), 'waybill:1 {"id":"o-1","key":"k","v":2,"headers":{"priority":"high"}}\nurgent')
      )
      assert.strictEqual((yield* inspector.describe("t")).depth, 2)
      const receiver = yield* join()
      const [urgent, plain] = yield* receiver.take(2)
      assert.deepInclude(urgent, { id: "o-1", key: "k", version: 2, body: "urgent" })
      assert.deepInclude(plain, { body: "plain", version: 1, attempt: 1 })
      yield* receiver.settle([
        [urgent, Settlement.ack],
        [plain!, Settlement.ack]
      ])
      assert.strictEqual(yield* Effect.promise(() => redis.hlen(key("bodies"))), 0)
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})

describe("leaving", () => {
  it.live("leaves nothing behind but what it did not settle, and that is free at once", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis } = yield* fixture()
      const scope = yield* Scope.make()
      const receiver = yield* Scope.provide(join(), scope)
      yield* publish("a", "b", "c")
      const [a] = yield* receiver.take(3)
      yield* receiver.settle([[a, Settlement.ack]])
      yield* Scope.close(scope, Exit.void)
      const left = yield* Effect.promise(() => redis.keys(key("group:g:*")))
      assert.deepStrictEqual(
        left.toSorted(),
        ["marks", "returned", "state"].map((name) => key(`group:g:${name}`))
      )
      // Since when the group has had no consumer.
      assert.deepStrictEqual(yield* Effect.promise(() => redis.hkeys(key("group:g:state"))), ["left"])
      const next = yield* (yield* join()).take(2)
      assert.deepStrictEqual(bodiesOf(next), ["b", "c"])
      assert.deepStrictEqual(
        next.map(({ attempt, fence }) => [attempt, fence]),
        [
          [1, 2],
          [1, 2]
        ]
      )
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})
