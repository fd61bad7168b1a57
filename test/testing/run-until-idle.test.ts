import { assert, describe, it } from "@effect/vitest"
import { NeverIdle, Probe, runUntilIdle } from "@waybill/testing"
import { Clock, Duration, Effect, Layer, Schedule, Schema } from "effect"
import { Consumer, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Job = Topic.make("jobs", { payload: Schema.Struct({ name: Schema.String }) })
const Report = Topic.make("reports", { payload: Schema.Struct({ name: Schema.String }) })

const TestTransport = Probe.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))

const worker = <E extends Busy, R>(
  handler: (name: string, attempt: number) => Effect.Effect<unknown, E, R>,
  policy: Schedule.Schedule<unknown, E>,
  concurrency = 4
) =>
  Consumer.make(Job, { group: "workers", concurrency }).pipe(
    Consumer.process((job, delivery) => handler(job.name, delivery.attempt)),
    Consumer.orElse(Consumer.retry(policy)),
    Consumer.layer
  )

const busy = () => Effect.fail(new Busy())

const hours = (n: number) => Duration.toMillis(Duration.hours(n))

describe("runUntilIdle", () => {
  it.effect("returns at once when nothing was ever published", () =>
    Effect.gen(function* () {
      yield* runUntilIdle()
      assert.strictEqual(yield* Clock.currentTimeMillis, 0)
    }).pipe(Effect.provide(TestTransport))
  )

  it.effect("goes through every retry at the time it is due, and no further", () => {
    const calls: Array<number> = []
    const handler = () =>
      Effect.flatMap(Clock.currentTimeMillis, (now) => {
        calls.push(now)
        return Effect.fail(new Busy())
      })
    const policy = Schedule.exponential("1 hour").pipe(Schedule.upTo({ times: 3 }))
    return Effect.gen(function* () {
      yield* Producer.publish(Job, { name: "a" })
      yield* runUntilIdle()
      assert.deepStrictEqual(calls, [0, hours(1), hours(3), hours(7)])
      assert.strictEqual(yield* Clock.currentTimeMillis, hours(7))
      const [letter, ...others] = yield* (yield* Probe.Probe).deadLetters
      assert.strictEqual(letter?.reason, "Busy")
      assert.strictEqual(letter?.delivery.attempt, 4)
      assert.deepStrictEqual(others, [])
    }).pipe(Effect.provide(worker(handler, policy).pipe(Layer.provideMerge(TestTransport))))
  })

  it.effect("delivers what is delayed, each at its time", () => {
    const seen: Array<readonly [string, number]> = []
    const handler = (name: string) => Effect.map(Clock.currentTimeMillis, (now) => void seen.push([name, now]))
    return Effect.gen(function* () {
      yield* Producer.publishAll(Job, [{ name: "in two days" }, { name: "tomorrow" }, { name: "now" }], (_, i) =>
        i === 2 ? {} : { delay: `${2 - i} days` }
      )
      yield* runUntilIdle()
      assert.deepStrictEqual(seen, [
        ["now", 0],
        ["tomorrow", hours(24)],
        ["in two days", hours(48)]
      ])
    }).pipe(Effect.provide(worker(handler, Schedule.recurs(0)).pipe(Layer.provideMerge(TestTransport))))
  })

  it.effect("wakes handlers that sleep, and what they cause comes at its own time", () => {
    const log: Array<readonly [string, number]> = []
    const handler = (name: string, attempt: number) =>
      Effect.gen(function* () {
        yield* Effect.sleep(name === "slow" ? "3 days" : "10 minutes")
        log.push([`${name} ${attempt}`, yield* Clock.currentTimeMillis])
        if (name === "flaky" && attempt < 3) return yield* new Busy()
      })
    return Effect.gen(function* () {
      yield* Producer.publishAll(Job, [{ name: "slow" }, { name: "flaky" }])
      yield* runUntilIdle()
      const minutes = (n: number) => n * 60_000
      assert.deepStrictEqual(log, [
        ["flaky 1", minutes(10)],
        ["flaky 2", minutes(80)],
        ["flaky 3", minutes(150)],
        ["slow 1", hours(72)]
      ])
    }).pipe(Effect.provide(worker(handler, Schedule.spaced("1 hour")).pipe(Layer.provideMerge(TestTransport))))
  })

  it.effect("waits for retries that are due while the only worker sleeps", () => {
    let done = 0
    const handler = (name: string, attempt: number) =>
      name === "long"
        ? Effect.andThen(
            Effect.sleep("1 day"),
            Effect.sync(() => done++)
          )
        : attempt === 1
          ? Effect.fail(new Busy())
          : Effect.sync(() => done++)
    return Effect.gen(function* () {
      const names = Array.from({ length: 100 }, (_, i) => ({ name: `short ${i}` }))
      yield* Producer.publishAll(Job, [...names, { name: "long" }])
      yield* runUntilIdle()
      assert.strictEqual(done, 101)
    }).pipe(
      Effect.provide(
        worker(handler, Schedule.spaced("1 minute").pipe(Schedule.jittered), 1).pipe(Layer.provideMerge(TestTransport))
      )
    )
  })

  it.effect("follows a message from one topic to the next", () => {
    const reports: Array<string> = []
    const reporter = Consumer.make(Report, { group: "reporter" }).pipe(
      Consumer.process((report) => Effect.sync(() => void reports.push(report.name))),
      Consumer.layer
    )
    const handler = (name: string) => Effect.orDie(Producer.publish(Report, { name }, { delay: "1 week" }))
    return Effect.gen(function* () {
      yield* Producer.publish(Job, { name: "a" })
      yield* runUntilIdle()
      assert.deepStrictEqual(reports, ["a"])
    }).pipe(
      Effect.provide(
        Layer.mergeAll(worker(handler, Schedule.recurs(0)), reporter).pipe(Layer.provideMerge(TestTransport))
      )
    )
  })

  it.effect("says what still waits when a message is retried for ever", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Job, { name: "a" })
      const failure = yield* Effect.flip(runUntilIdle({ maxAttempts: 50 }))
      assert.instanceOf(failure, NeverIdle)
      assert.deepStrictEqual(failure.waiting, ["workers of jobs has lag 0, 0 with a handler, 1 waiting to be retried"])
    }).pipe(Effect.provide(worker(busy, Schedule.spaced("1 minute")).pipe(Layer.provideMerge(TestTransport))))
  )

  it.effect("says so when the retries have no delay at all", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Job, { name: "a" })
      const failure = yield* Effect.flip(runUntilIdle({ maxAttempts: 50 }))
      assert.instanceOf(failure, NeverIdle)
      assert.strictEqual(failure.reason, "retried without end")
    }).pipe(
      Effect.provide(worker(() => Effect.fail(new Busy()), Schedule.forever).pipe(Layer.provideMerge(TestTransport)))
    )
  )

  it.effect("says so when a handler never ends", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Job, { name: "a" })
      const failure = yield* Effect.flip(runUntilIdle())
      assert.instanceOf(failure, NeverIdle)
      assert.include(failure.message, "workers of jobs has lag 0, 1 with a handler")
    }).pipe(Effect.provide(worker(() => Effect.never, Schedule.recurs(0)).pipe(Layer.provideMerge(TestTransport))))
  )

  it.effect("says so when a group is paused, and when it has no consumer", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const transport = yield* Transport.AtMostOnce
      yield* Effect.scoped(
        transport.receive({
          topic: "jobs",
          group: "gone",
          start: "earliest",
          lease: Duration.seconds(1),
          maxDeliveries: 1,
          shutdown: Duration.seconds(1)
        })
      )
      yield* inspector.pause("jobs", "workers")
      yield* Producer.publish(Job, { name: "a" })
      const failure = yield* Effect.flip(runUntilIdle())
      assert.instanceOf(failure, NeverIdle)
      assert.deepStrictEqual([...failure.waiting].sort(), [
        "gone of jobs has lag 1, 0 with a handler, 0 waiting to be retried, and no consumer",
        "workers of jobs has lag 1, 0 with a handler, 0 waiting to be retried, and is paused"
      ])
    }).pipe(Effect.provide(worker(() => Effect.void, Schedule.recurs(0)).pipe(Layer.provideMerge(TestTransport))))
  )

  it.live("on the real clock it waits until everything is done", () => {
    const handler = (_: string, attempt: number) => (attempt < 3 ? Effect.fail(new Busy()) : Effect.void)
    return Effect.gen(function* () {
      yield* Producer.publishAll(Job, [{ name: "a" }, { name: "b" }])
      yield* runUntilIdle()
      const events = yield* (yield* Probe.Probe).events
      assert.strictEqual(events.filter((event) => event._tag === "Settled").length, 6)
    }).pipe(Effect.provide(worker(handler, Schedule.spaced("30 millis")).pipe(Layer.provideMerge(TestTransport))))
  })
})
