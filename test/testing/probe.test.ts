import { assert, describe, it } from "@effect/vitest"
import { Probe } from "@waybill/testing"
import { Effect, Fiber, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}
class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}

const Charge = Topic.make("charges", { payload: Schema.Struct({ cents: Schema.Int }) })

const calls: Array<number> = []

/** Busy on the first attempt; declines what is too much; the rest goes through. */
const Charging = Consumer.make(Charge, { group: "charging", concurrency: 8 }).pipe(
  Consumer.process(({ cents }, { attempt }) => {
    calls.push(cents)
    return cents > 1000
      ? Effect.fail(new Declined({ code: "limit" }))
      : cents > 100 && attempt === 1
        ? Effect.fail(new Busy())
        : Effect.void
  }),
  Consumer.onFailure({
    Busy: Consumer.retry(Schedule.spaced("1 day").pipe(Schedule.upTo({ times: 3 }))),
    Declined: (error) => Consumer.deadLetter(error.code)
  }),
  Consumer.layer
)

const TestLayer = Charging.pipe(
  Layer.provideMerge(Probe.layer),
  Layer.provideMerge(MemoryStreams.layer()),
  Layer.provideMerge(Layer.effectDiscard(Effect.sync(() => (calls.length = 0))))
)

describe("Probe", () => {
  it.effect("answers settlements one after the other, each one once", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      yield* Producer.publish(Charge, { cents: 1 }, { id: "small" })
      const small = yield* probe.settled
      assert.strictEqual(small.delivery.id, "small")
      assert.strictEqual(small.settlement._tag, "Ack")
      assert.isFalse(small.stale)
      yield* Producer.publish(Charge, { cents: 5000 }, { id: "large" })
      const large = yield* probe.settled
      assert.strictEqual(large.delivery.id, "large")
      assert.strictEqual(large.settlement._tag, "DeadLetter")
    }).pipe(Effect.provide(TestLayer))
  )

  it.effect("after a settlement the clock can be moved: the next attempt is on its way", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      yield* Producer.publish(Charge, { cents: 500 })
      assert.strictEqual((yield* probe.settled).settlement._tag, "Retry")
      yield* TestClock.adjust("23 hours")
      assert.strictEqual(calls.length, 1)
      yield* TestClock.adjust("1 hour")
      const again = yield* probe.settled
      assert.strictEqual(again.settlement._tag, "Ack")
      assert.strictEqual(again.delivery.attempt, 2)
    }).pipe(Effect.provide(TestLayer))
  )

  it.effect("lists what was published, duplicates too, and what died", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      yield* Producer.publishAll(Charge, [{ cents: 1 }, { cents: 5000 }], ({ cents }) => ({ id: `c${cents}` }))
      yield* Producer.publish(Charge, { cents: 1 }, { id: "c1" })
      assert.deepStrictEqual(
        (yield* probe.published).map(({ message, receipt, topic }) => [topic, message.body, receipt._tag, receipt.id]),
        [
          ["charges", '{"cents":1}', "Stored", "c1"],
          ["charges", '{"cents":5000}', "Stored", "c5000"],
          ["charges", '{"cents":1}', "Duplicate", "c1"]
        ]
      )
      yield* probe.settled
      yield* probe.settled
      const letters = yield* probe.deadLetters
      assert.deepStrictEqual(
        letters.map(({ delivery, reason }) => [delivery.id, reason]),
        [["c5000", "limit"]]
      )
      assert.include(letters[0]?.cause, "Declined")
    }).pipe(Effect.provide(TestLayer))
  )

  it.effect("finds events by tag and by what they say, whether they come before or after the question", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      const inspector = yield* Inspector.Inspector
      const started = yield* probe.event("ConsumerStarted")
      assert.strictEqual(started.group, "charging")
      const waiting = yield* Effect.forkChild(probe.event("ConsumerResumed"), { startImmediately: true })
      yield* inspector.pause("charges", "charging")
      yield* inspector.resume("charges", "charging")
      assert.strictEqual((yield* Fiber.join(waiting)).topic, "charges")
      assert.strictEqual((yield* probe.event("ConsumerPaused")).topic, "charges")

      yield* Producer.publishAll(Charge, [{ cents: 1 }, { cents: 2 }, { cents: 3 }], ({ cents }) => ({
        id: `c${cents}`
      }))
      const second = yield* probe.event("Settled", ({ delivery }) => delivery.id === "c2")
      assert.strictEqual(second.delivery.id, "c2")
      assert.strictEqual((yield* probe.settled).delivery.id, "c1")
      assert.strictEqual((yield* probe.settled).delivery.id, "c3")
      assert.isAtLeast((yield* probe.events).length, 7)
    }).pipe(Effect.provide(TestLayer))
  )

  it.effect("a question that was given up takes no event from the next one", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      const impatient = yield* Effect.forkChild(probe.settled, { startImmediately: true })
      yield* Fiber.interrupt(impatient)
      yield* Producer.publish(Charge, { cents: 1 })
      assert.strictEqual((yield* probe.settled).settlement._tag, "Ack")
    }).pipe(Effect.provide(TestLayer))
  )

  it.effect("says what happened instead when it waits in vain", () =>
    Effect.gen(function* () {
      const probe = yield* Probe.Probe
      yield* Producer.publish(Charge, { cents: 500 })
      const defect = yield* Effect.flip(
        Effect.catchDefect(
          probe.event("Settled", ({ settlement }) => settlement._tag === "Ack"),
          Effect.fail
        )
      )
      assert.match(
        String(defect),
        /timed out waiting for Settled; so far: 1 ConsumerStarted, 1 Published, 1 Settled \(Retry\)/
      )
    }).pipe(Effect.provide(TestLayer))
  )

  it.effect("a consumer can stop while its handlers sleep, so that a failed test ends with its failure", () => {
    const Asleep = Consumer.make(Charge, { group: "asleep", concurrency: 2 }).pipe(
      Consumer.process(() => Effect.sleep("1 day")),
      Consumer.layer
    )
    return Effect.gen(function* () {
      const failure = yield* Effect.gen(function* () {
        yield* Producer.publishAll(Charge, [{ cents: 1 }, { cents: 2 }, { cents: 3 }])
        yield* (yield* Probe.Probe).event("ConsumerStarted")
        return yield* Effect.fail("the assertion")
      }).pipe(Effect.provide(Asleep.pipe(Layer.provideMerge(Probe.layer))), Effect.flip)
      assert.strictEqual(failure, "the assertion")
      const [group] = (yield* (yield* Inspector.Inspector).describe("charges")).groups
      assert.deepStrictEqual(group?.consumers, [])
      assert.strictEqual((group?.waiting ?? 0) + (group?.lag ?? 0), 3, "all three were handed back")
    }).pipe(Effect.provide(MemoryStreams.layer()))
  })
})
