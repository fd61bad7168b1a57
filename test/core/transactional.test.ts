import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Metric, Option, Schedule, Schema, Stream } from "effect"
import { Commit, Consumer, Producer, RetryPolicy, Settlement, Topic } from "waybill"
import * as Instruments from "../../packages/waybill/src/internal/Instruments.ts"
import * as Replay from "../../packages/waybill/src/internal/Replay.ts"
import * as Routing from "../../packages/waybill/src/internal/Routing.ts"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, until } from "./Running.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Numbers = Topic.make("t", { payload: Schema.Int, guarantee: "transactional" })
const total = Commit.counter("total")
const source = Consumer.make(Numbers, { group: "g" })
const adding = source.pipe(Consumer.transactional((n) => Effect.succeed(Commit.make({ writes: [total.add(n)] }))))

describe("Consumer.transactional", () => {
  it.effect("settles with the commit that the handler returned, with the message's own ack", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(adding, transport.layer)
      transport.deliver(1, 2, "rubbish")
      yield* until("three settled", () => transport.settled.length === 3)
      const settlements = transport.settled.map(([, settlement]) => settlement)
      assert.deepStrictEqual(settlements.slice(0, 2), [
        Settlement.commit(Commit.make({ writes: [total.add(1)] })),
        Settlement.commit(Commit.make({ writes: [total.add(2)] }))
      ])
      assert.deepInclude(settlements[2], { _tag: "DeadLetter", reason: "DecodeFailure" })
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("keeps the commit under a timeout", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(adding.pipe(Consumer.timeout("1 second"), Consumer.orElse(Consumer.deadLetter())), transport.layer)
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 1)
      assert.deepStrictEqual(transport.settled[0]?.[1], Settlement.commit(Commit.make({ writes: [total.add(1)] })))
    })
  )

  it.effect("settles failures by their routes: nothing is committed", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const consumer = source.pipe(
        Consumer.transactional(() => Effect.fail(new Busy())),
        Consumer.onFailure({ Busy: Consumer.retry(Schedule.spaced("1 second")) })
      )
      yield* run(consumer, transport.layer)
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 1)
      assert.strictEqual(transport.settled[0]?.[1]._tag, "Retry")
    })
  )

  it.effect("a refused commit is a dead letter in the events, the metrics and the outcomes", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const refusal = Settlement.deadLetter("CommitRejected", "total is a hash")
      transport.refuse = ({ body }) => (body === "2" ? refusal : undefined)
      const outcomes: Array<Consumer.Outcome<Commit.Commit>> = []
      yield* Effect.forkScoped(
        Consumer.stream(adding).pipe(
          Stream.runForEach((outcome) => Effect.sync(() => outcomes.push(outcome))),
          Effect.provide(transport.layer)
        ),
        { startImmediately: true }
      )
      transport.deliver(1, 2)
      yield* until("two outcomes", () => outcomes.length === 2)
      assert.deepStrictEqual(
        transport.events.flatMap((event) => (event._tag === "Settled" ? [event.settlement._tag] : [])),
        ["Ack", "DeadLetter"]
      )
      assert.deepStrictEqual(
        outcomes.map(({ settled, settlement, value }) => [settlement._tag, settled, Option.isSome(value)]),
        [
          ["Ack", "Settled", true],
          ["DeadLetter", "Settled", true]
        ]
      )
      const count = (outcome: Instruments.Outcome, reason?: string) =>
        Effect.map(Metric.value(Instruments.settled("t", "g", outcome, reason)), (s) => s.count)
      assert.deepStrictEqual(yield* Effect.all([count("ack"), count("dead_letter", "CommitRejected")]), [1, 1])
      assert.deepStrictEqual(transport.complaints(), [])
    }).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
  )

  it.effect("a condition that failed is a failure of the handler: its route decides, and the message comes again", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      transport.refuse = ({ attempt }) => (attempt === 1 ? new Commit.ConditionFailed({ key: "total" }) : undefined)
      transport.onEnd = (delivery, end) => {
        if (end === "Retry") transport.again(delivery, delivery.attempt + 1)
      }
      const consumer = source.pipe(
        Consumer.transactional((n) =>
          Effect.succeed(Commit.make({ conditions: [total.is(0)], writes: [total.set(n)] }))
        ),
        Consumer.onFailure({ ConditionFailed: ({ key }) => Consumer.retry(Schedule.spaced(key === "total" ? 20 : 1)) })
      )
      yield* run(consumer, transport.layer)
      transport.deliver(1)
      yield* until("two ends", () => transport.settled.length === 2)
      const [[, first], [, second]] = transport.settled as [
        (typeof transport.settled)[number],
        (typeof transport.settled)[number]
      ]
      assert.deepInclude(first, {
        _tag: "Retry",
        delay: Duration.millis(20),
        failure: { tag: "ConditionFailed", message: "the record total does not hold what the commit requires" }
      })
      assert.strictEqual(second._tag, "Ack")
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("tells the transport for how long its policies may bring a message again; others do not", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(source.pipe(Consumer.process(() => Effect.void)), transport.layer)
      yield* run(
        source.pipe(
          Consumer.transactional(() => Effect.fail(new Busy())),
          Consumer.onFailure({ Busy: Consumer.retry(Schedule.spaced("1 hour").pipe(Schedule.upTo({ times: 3 }))) })
        ),
        transport.layer
      )
      yield* quiet()
      assert.deepStrictEqual(
        transport.subscriptions.map(({ redelivery }) => redelivery),
        [undefined, Duration.hours(3)]
      )
    })
  )
})

describe("the longest way of a message", () => {
  const longest = (route: Routing.Row<unknown>) =>
    Effect.map(Routing.longestRetry({ rows: new Map([["Busy", route]]), fallback: undefined }), Duration.toMillis)
  const standard = Effect.map(Replay.longest(RetryPolicy.standard, Duration.zero), Duration.toMillis)

  it.effect("is at least that of the standard policy, which interruption falls back to, with its greatest jitter", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* standard, (1 + 2 + 4 + 8 + 16 + 32 + 4 * 60) * 1200)
      assert.strictEqual(yield* longest(Consumer.deadLetter()), yield* standard)
      assert.strictEqual(yield* longest(() => Consumer.retry(Schedule.spaced("1 day"))), yield* standard)
    })
  )

  it.effect("adds up delays, each at least the lower bound of its route", () =>
    Effect.gen(function* () {
      const policy = Schedule.exponential("1 hour").pipe(Schedule.upTo({ times: 3 }))
      assert.strictEqual(yield* longest(Consumer.retry(policy)), 7 * 3_600_000)
      assert.strictEqual(yield* longest(Consumer.retry(policy, { after: "2 hours" })), 8 * 3_600_000)
    })
  )

  it.effect("has no end when the policy has none", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* longest(Consumer.retry(Schedule.spaced("1 second"))), Infinity)
    })
  )

  it.effect("goes as far as a policy does that reads the error", () =>
    Effect.gen(function* () {
      const policy = Schedule.spaced("1 day").pipe(
        Schedule.setInputType<{ readonly code: string }>(),
        Schedule.while(({ input }) => input.code !== "final")
      )
      assert.strictEqual(yield* longest(Consumer.retry(policy) as Routing.Row<unknown>), yield* standard)
    })
  )
})

describe("Commit", () => {
  it("writes what the commands of Redis say", () => {
    const { hash, list, set, sortedSet, text } = Commit
    const all = [
      total.set(1),
      text("t").set("a", { ttl: "1 second" }),
      text("t").set("a"),
      hash("h").set("f", 1),
      hash("h").increment("f", -2),
      hash("h").remove("f", "g"),
      set("s").add("a", "b"),
      sortedSet("z").set("a", -Infinity),
      list("l").keepLast(10),
      list("l").clear
    ]
    assert.deepStrictEqual(
      all.map(({ args, command, key, type }) => [type, command, key, ...args].join(" ")),
      [
        "string SET total 1",
        "string SET t a PX 1000",
        "string SET t a",
        "hash HSET h f 1",
        "hash HINCRBY h f -2",
        "hash HDEL h f g",
        "set SADD s a b",
        "zset ZADD z -inf a",
        "list LTRIM l -10 -1",
        "list DEL l"
      ]
    )
  })

  it.each([
    ["a fraction", () => total.add(0.5)],
    ["a number too large to count", () => total.set(2 ** 53)],
    ["a score that is none", () => Commit.sortedSet("z").set("a", NaN)],
    ["a ttl of nothing", () => Commit.text("t").set("a", { ttl: 0 })],
    ["an empty list", () => Commit.list("l").keepLast(0)],
    ["a name with white space", () => Commit.hash("a b")],
    ["a name with braces", () => Commit.hash("{a}")],
    ["too many writes", () => Commit.make({ writes: Array.from({ length: 1001 }, () => total.add(1)) })],
    ["too many conditions", () => Commit.make({ conditions: Array.from({ length: 1001 }, () => total.is(1)) })],
    ["a condition that writes", () => Commit.make({ conditions: [{ ...total.is(1), command: "DEL" as "GET" }] })],
    ["a condition on a fraction", () => total.is(0.5)],
    ["too many arguments", () => Commit.make({ writes: [Commit.set("s").add("a", ...Array(1000).fill("b"))] })]
  ])("throws on %s", (_, make) => {
    assert.throws(make)
  })

  it.effect("a message for a commit is like a published one, and is checked like it", () =>
    Effect.gen(function* () {
      const { message, topic } = yield* Producer.message(Numbers, 1, {
        id: "a",
        delay: "1 second",
        headers: { h: "x" }
      })
      assert.strictEqual(topic, "t")
      assert.deepInclude(message, { id: "a", body: "1", headers: { h: "x" } })
      assert.strictEqual((yield* Effect.flip(Producer.message(Numbers, 0.5)))._tag, "InvalidPayload")
    })
  )
})
