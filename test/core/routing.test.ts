import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, Option, Random, Ref, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type Delivery, RetryPolicy, Settlement } from "waybill"
import * as Replay from "../../packages/waybill/src/internal/Replay.ts"
import * as Routing from "../../packages/waybill/src/internal/Routing.ts"
import { deliveryOf } from "./FakeTransport.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", { retryAfterSeconds: Schema.Number }) {}
class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}

const attemptOf = (attempt: number) => deliveryOf({ id: "m-1", body: "{}", attempt, fence: attempt, receipt: "r-1" })

const routes = (rows: Record<string, Routing.Row<unknown>>, fallback?: Routing.Row<unknown>): Routing.Routes => ({
  rows: new Map(Object.entries(rows)),
  fallback
})

/** A settlement in few words. */
const short = (settlement: Settlement.Settlement): string => {
  switch (settlement._tag) {
    case "Retry":
      return `retry after ${Duration.toMillis(settlement.delay)}`
    case "DeadLetter":
      return `dead letter: ${settlement.reason}`
    default:
      return settlement._tag
  }
}

const doubling = Schedule.exponential("1 second")
const twice = Schedule.spaced("10 seconds").pipe(Schedule.upTo({ times: 2 }))
const retry = (policy: Schedule.Schedule<unknown, unknown>, after?: Duration.Input) =>
  Consumer.retry(policy, { after }) as Routing.Route<unknown>
const declined = Exit.fail(new Declined({ code: "stolen" }))
const busy = Exit.fail(new Busy({ retryAfterSeconds: 7 }))
const throwing = () => {
  throw new Error("the row is broken")
}
const broken = Schedule.spaced("1 second").pipe(Schedule.modifyDelay(() => Effect.die("the schedule is broken")))
const counting = Schedule.spaced("1 second").pipe(
  Schedule.modifyDelay(() => Effect.as(Effect.yieldNow, Duration.seconds(42)))
)
const byError = Schedule.spaced("1 second").pipe(
  Schedule.while(({ input }: { readonly input: unknown }) => input instanceof Busy && input.retryAfterSeconds < 8)
)
const interrupting = Schedule.spaced("1 second").pipe(Schedule.modifyDelay(() => Effect.interrupt))
const interrupted = Exit.failCause(Cause.interrupt(1))
const both = (left: Cause.Cause<unknown>, right: Cause.Cause<unknown>) => Exit.failCause(Cause.combine(left, right))

type Row = readonly [
  name: string,
  exit: Exit.Exit<unknown, unknown>,
  routes: Routing.Routes,
  attempt: number,
  settlement: string | RegExp
]

const table: ReadonlyArray<Row> = [
  ["success", Exit.succeed("value"), Routing.none, 1, "Ack"],
  ["success, with routes", Exit.void, routes({ Busy: Consumer.deadLetter() }), 1, "Ack"],
  ["a failure with a row", declined, routes({ Declined: Consumer.deadLetter() }), 1, "dead letter: Declined"],
  ["a reason of the row's own", declined, routes({ Declined: Consumer.deadLetter("card") }), 1, "dead letter: card"],
  ["an empty reason is none", declined, routes({ Declined: Consumer.deadLetter("") }), 1, "dead letter: Declined"],
  ["a failure that is fine", declined, routes({ Declined: Consumer.acknowledge }), 1, "Ack"],
  [
    "a row that reads the failure",
    declined,
    routes({ Declined: (error) => Consumer.deadLetter((error as Declined).code) }),
    1,
    "dead letter: stolen"
  ],
  [
    "a row that reads the delivery",
    declined,
    routes({ Declined: (_, { attempt, id }) => Consumer.deadLetter(`${id} at ${attempt}`) }),
    9,
    "dead letter: m-1 at 9"
  ],
  [
    "a failure whose tag has another row only",
    declined,
    routes({ Busy: Consumer.acknowledge }),
    1,
    "dead letter: Unrouted"
  ],
  ["a failure without any route", declined, Routing.none, 1, "dead letter: Unrouted"],
  ["a row before the fallback", declined, routes({ Declined: Consumer.acknowledge }, retry(twice)), 1, "Ack"],
  ["the fallback for a tagged one", declined, routes({}, Consumer.deadLetter()), 1, "dead letter: Declined"],
  ["the fallback for a string", Exit.fail("boom"), routes({}, Consumer.deadLetter()), 1, "dead letter: Failure"],
  ["the fallback for undefined", Exit.fail(undefined), routes({}, Consumer.deadLetter()), 1, "dead letter: Failure"],
  ["the fallback for null", Exit.fail(null), routes({}, Consumer.deadLetter()), 1, "dead letter: Failure"],
  ["a tag that is no string", Exit.fail({ _tag: 7 }), routes({}, Consumer.deadLetter()), 1, "dead letter: Failure"],
  [
    "an untagged failure, read by the fallback",
    Exit.fail("boom"),
    routes({}, (error) => Consumer.deadLetter(String(error))),
    1,
    "dead letter: boom"
  ],
  ["a tag named like a method of objects", Exit.fail({ _tag: "toString" }), routes({}), 1, "dead letter: Unrouted"],
  ["a retry, first attempt", busy, routes({ Busy: retry(doubling) }), 1, "retry after 1000"],
  ["a retry, second attempt", busy, routes({ Busy: retry(doubling) }), 2, "retry after 2000"],
  ["a retry, third attempt", busy, routes({ Busy: retry(doubling) }), 3, "retry after 4000"],
  ["a retry, eleventh attempt", busy, routes({ Busy: retry(doubling) }), 11, "retry after 1024000"],
  ["the last retry", busy, routes({ Busy: retry(twice) }), 2, "retry after 10000"],
  ["the end of the schedule", busy, routes({ Busy: retry(twice) }), 3, "dead letter: Busy"],
  ["long after the end", busy, routes({ Busy: retry(twice) }), 1000, "dead letter: Busy"],
  ["a schedule that never recurs", busy, routes({ Busy: retry(Schedule.recurs(0)) }), 1, "dead letter: Busy"],
  ["a schedule without delay", busy, routes({ Busy: retry(Schedule.forever) }), 1, "retry after 0"],
  ["a longer `after`", busy, routes({ Busy: retry(doubling, "7 seconds") }), 1, "retry after 7000"],
  ["a shorter `after`", busy, routes({ Busy: retry(doubling, "7 seconds") }), 4, "retry after 8000"],
  [
    "`after` from the failure",
    busy,
    routes({ Busy: (error) => retry(doubling, { seconds: (error as Busy).retryAfterSeconds }) }),
    1,
    "retry after 7000"
  ],
  ["`after` past the end", busy, routes({ Busy: retry(twice, "7 seconds") }), 3, "dead letter: Busy"],
  ["a schedule that reads the failure and goes on", busy, routes({ Busy: retry(byError) }), 1, "retry after 1000"],
  [
    "a schedule that reads the failure and stops",
    Exit.fail(new Busy({ retryAfterSeconds: 9 })),
    routes({ Busy: retry(byError) }),
    1,
    "dead letter: Busy"
  ],
  [
    "a limit on the summed delays, inside",
    busy,
    routes({ Busy: retry(doubling.pipe(Schedule.upTo({ duration: "10 seconds" }))) }),
    3,
    "retry after 4000"
  ],
  [
    "a limit on the summed delays, passed",
    busy,
    routes({ Busy: retry(doubling.pipe(Schedule.upTo({ duration: "10 seconds" }))) }),
    5,
    "dead letter: Busy"
  ],
  ["an effectful schedule", busy, routes({ Busy: retry(counting) }), 3, "retry after 42000"],
  ["a schedule that dies", busy, routes({ Busy: retry(broken) }), 1, "dead letter: Defect"],
  ["a schedule that interrupts itself", busy, routes({ Busy: retry(interrupting) }), 1, "dead letter: Defect"],
  ["a retry by the fallback, end", Exit.fail("boom"), routes({}, retry(twice)), 3, "dead letter: Failure"],
  ["a row that throws", busy, routes({ Busy: throwing }), 1, "dead letter: Defect"],
  ["a fallback that throws", Exit.fail(1), routes({}, throwing), 1, "dead letter: Defect"],
  [
    "a row that answers nothing",
    busy,
    // The types rule it out; JavaScript does not.
    routes({ Busy: (() => undefined) as unknown as Routing.Row<unknown> }),
    1,
    "dead letter: Defect"
  ],
  ["a defect", Exit.die(new Error("bug")), routes({}, Consumer.acknowledge), 1, "dead letter: Defect"],
  [
    "a defect that looks like a failure with a row",
    Exit.die(new Busy({ retryAfterSeconds: 1 })),
    routes({ Busy: Consumer.acknowledge }),
    1,
    "dead letter: Defect"
  ],
  [
    "a failure beside a defect",
    both(Cause.fail(new Busy({ retryAfterSeconds: 1 })), Cause.die("bug")),
    routes({ Busy: Consumer.acknowledge }),
    1,
    "dead letter: Defect"
  ],
  [
    "a failure beside an interruption",
    both(Cause.interrupt(1), Cause.fail(new Busy({ retryAfterSeconds: 1 }))),
    routes({ Busy: retry(doubling) }),
    1,
    "retry after 1000"
  ],
  [
    "a defect beside an interruption",
    both(Cause.interrupt(1), Cause.die("bug")),
    Routing.none,
    1,
    "dead letter: Defect"
  ],
  [
    "two failures: the first one counts",
    both(Cause.fail(new Busy({ retryAfterSeconds: 1 })), Cause.fail(new Declined({ code: "x" }))),
    routes({ Busy: retry(doubling), Declined: Consumer.deadLetter() }),
    1,
    "retry after 1000"
  ],
  [
    "the handler interrupted itself",
    interrupted,
    routes({}, Consumer.acknowledge),
    1,
    /^retry after (8\d\d|9\d\d|1[01]\d\d)(\.\d+)?$/
  ],
  ["it did so too often", interrupted, Routing.none, 11, "dead letter: Interrupted"],
  ["a cause of nothing", Exit.failCause(Cause.empty), Routing.none, 11, "dead letter: Interrupted"]
]

describe("decide", () => {
  it.effect.each(table)("%s", ([, exit, table, attempt, expected]) =>
    Effect.gen(function* () {
      const settlement = short(yield* Routing.decide(exit, table, attemptOf(attempt)))
      if (typeof expected === "string") assert.strictEqual(settlement, expected)
      else assert.match(settlement, expected)
    })
  )

  it.effect("keeps the failure's message and its causes in the dead letter", () =>
    Effect.gen(function* () {
      const error = new Error("outer", { cause: new Error("inner reason") })
      const settlement = yield* Routing.decide(Exit.die(error), Routing.none, attemptOf(1))
      assert.strictEqual(settlement._tag, "DeadLetter")
      if (settlement._tag !== "DeadLetter") return
      assert.include(settlement.cause, "outer")
      assert.include(settlement.cause, "inner reason")
    })
  )

  it.effect("the cause of a thrown row is the row's, not the handler's", () =>
    Effect.gen(function* () {
      const settlement = yield* Routing.decide(busy, routes({ Busy: throwing }), attemptOf(1))
      assert.include(settlement._tag === "DeadLetter" ? settlement.cause : "", "the row is broken")
    })
  )

  it.effect("an empty tag is no reason for a dead letter", () =>
    Effect.gen(function* () {
      assert.strictEqual(short(Settlement.deadLetter("", "cause")), "dead letter: Failure")
      const exit = Exit.fail({ _tag: "" })
      for (const table of [routes({}, Consumer.deadLetter()), routes({ "": Consumer.deadLetter() })]) {
        assert.strictEqual(short(yield* Routing.decide(exit, table, attemptOf(1))), "dead letter: Failure")
      }
    })
  )

  it.effect("a real handler that interrupts itself is one that was interrupted", () =>
    Effect.gen(function* () {
      const exit = yield* Fiber.await(yield* Effect.forkChild(Effect.interrupt))
      const settlement = yield* Routing.decide(exit, routes({}, Consumer.acknowledge), attemptOf(1))
      assert.strictEqual(settlement._tag, "Retry")
    })
  )

  const nasty = {
    "a getter that throws": Object.defineProperty(new Error(), "message", { get: throwing }),
    "a toString that throws": { toString: throwing, toJSON: throwing },
    "an object without prototype": Object.create(null) as object,
    "a proxy that throws": new Proxy({}, { get: throwing, has: throwing, getPrototypeOf: throwing, ownKeys: throwing }),
    "a symbol": Symbol("s"),
    "a bigint": 1n,
    "a function": () => 1,
    "a tag that throws": Object.defineProperty({}, "_tag", { get: throwing }),
    "a revoked proxy": (() => {
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      return proxy
    })()
  }

  it.effect.each(Object.entries(nasty))("a failure or defect that is hard to read still ends: %s", ([, value]) =>
    Effect.gen(function* () {
      for (const exit of [Exit.fail(value), Exit.die(value)]) {
        const settlement = yield* Routing.decide(exit, routes({}, Consumer.deadLetter()), attemptOf(1))
        assert.strictEqual(settlement._tag, "DeadLetter")
        const retried = yield* Routing.decide(exit, routes({}, retry(doubling)), attemptOf(1))
        assert.include(["DeadLetter", "Retry"], retried._tag)
      }
    })
  )

  it.effect.prop(
    "retries exactly as often as the schedule recurs",
    [
      Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 60 })),
      Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 40 }))
    ],
    ([attempt, times]) =>
      Effect.gen(function* () {
        const policy = doubling.pipe(Schedule.upTo({ times }))
        const settlement = yield* Routing.decide(busy, routes({ Busy: retry(policy) }), attemptOf(attempt))
        assert.strictEqual(
          short(settlement),
          attempt <= times ? `retry after ${1000 * 2 ** (attempt - 1)}` : "dead letter: Busy"
        )
      }),
    { arbitrary: { runs: 300 } }
  )
})

describe("case D1: each row replays its own failures", () => {
  const once = Schedule.spaced("10 seconds").pipe(Schedule.upTo({ times: 1 }))
  const table = routes({ Busy: retry(doubling), Declined: retry(once) }, retry(once))
  const counted = (attempt: number, failures: Record<string, number>): Delivery.Delivery => ({
    ...attemptOf(attempt),
    failures: new Map(Object.entries(failures).map(([name, count]) => [name, { count, since: 0 }]))
  })

  it.effect.each([
    ["the first of its kind, after others", declined, 8, { Busy: 7 }, "retry after 10000"],
    ["the second of its kind", declined, 9, { Busy: 7, Declined: 1 }, "dead letter: Declined"],
    ["the other kind goes on where it was", busy, 9, { Busy: 2, Declined: 1 }, "retry after 4000"],
    ["deaths are no failures of a row", declined, 4, {}, "retry after 10000"],
    ["the catch-all is one row", Exit.fail("boom"), 9, { Busy: 7, Declined: 1 }, "retry after 10000"],
    ["the catch-all, again", Exit.fail({ _tag: "Other" }), 9, { "*": 1 }, "dead letter: Other"],
    ["a handler that interrupts itself", interrupted, 30, { Busy: 29, "!": 10 }, "dead letter: Interrupted"]
  ] as const)("%s", ([, exit, attempt, failures, expected]) =>
    Effect.gen(function* () {
      const settlement = yield* Routing.decide(exit, table, counted(attempt, failures))
      assert.strictEqual(short(settlement), expected)
    })
  )

  it.effect("the retry says which row it was, how often, and since when", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(5000)
      const row = Effect.fnUntraced(function* (delivery: Delivery.Delivery) {
        const settlement = yield* Routing.decide(busy, table, delivery)
        return settlement._tag === "Retry" ? settlement.row : undefined
      })
      assert.deepStrictEqual(yield* row(counted(4, {})), { name: "Busy", count: 1, since: 5000 })
      assert.deepStrictEqual(yield* row(counted(4, { Busy: 2 })), { name: "Busy", count: 3, since: 0 })
      assert.deepStrictEqual(yield* row(attemptOf(4)), { name: "Busy", count: 4, since: 5000 })
    })
  )
})

describe("case B10: a policy that knows the calendar", () => {
  const nightly = Schedule.cron("1 23 * * *", "UTC")
  const policy = routes({
    Busy: Consumer.retry(nightly as Schedule.Schedule<unknown, unknown>) as Routing.Route<unknown>
  })
  const at = (text: string) => Date.parse(`2026-03-${text}Z`)

  it.effect.each([
    ["the first failure", "10T22:59:00", undefined, "10T23:01:00"],
    ["the first of the day after", "11T23:02:00", "10T22:59:00", "12T23:01:00"],
    ["the twentieth, before it is due", "30T22:59:30", "10T22:59:00", "30T23:01:00"]
  ] as const)("%s", ([, now, since, due]) =>
    Effect.gen(function* () {
      yield* TestClock.setTime(at(now))
      const count = since === undefined ? 0 : now.startsWith("30") ? 19 : 1
      const failures = new Map(since === undefined ? [] : [["Busy", { count, since: at(since) }]])
      const settlement = yield* Routing.decide(busy, policy, { ...attemptOf(count + 1), failures })
      assert.strictEqual(settlement._tag, "Retry")
      if (settlement._tag !== "Retry") return
      assert.strictEqual(at(now) + Duration.toMillis(settlement.delay), at(due))
    })
  )

  it.effect("a limit on the time counts from the first failure, by the clock", () =>
    Effect.gen(function* () {
      const hour = Schedule.spaced("1 minute").pipe(Schedule.upTo({ duration: "1 hour" }))
      yield* TestClock.setTime(at("10T12:00:00"))
      const after = (since: string, count: number) =>
        Effect.map(Replay.delayAfter(hour, count, undefined, at(since)), Option.isSome)
      assert.isTrue(yield* after("10T11:00:00", 3))
      assert.isFalse(yield* after("10T10:59:00", 3))
      assert.isTrue(yield* after("10T11:59:00", 50))
    })
  )
})

describe("case B11: a policy without end", () => {
  it.effect("is run for at most 10,000 steps, and then for one a failure", () =>
    Effect.gen(function* () {
      const steps = yield* Ref.make(0)
      const policy = Schedule.exponential("1 second").pipe(
        (unbounded) => Schedule.min([unbounded, Schedule.spaced("1 minute")]),
        Schedule.modifyDelay(({ duration }) =>
          Effect.as(
            Ref.update(steps, (n) => n + 1),
            duration
          )
        )
      )
      for (const attempt of [604_800, 604_801, 1_000_000, 604_800]) {
        const delay = yield* Replay.delayAfter(policy, attempt, undefined)
        assert.deepStrictEqual(Option.map(delay, Duration.toMillis), Option.some(60_000))
      }
      assert.strictEqual(yield* Ref.get(steps), 10_004)
    })
  )

  it.effect("one that ends late still ends", () =>
    Effect.gen(function* () {
      const policy = Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 5000 }))
      const delays = yield* Effect.forEach([5000, 5001, 20_000], (n) => Replay.delayAfter(policy, n, undefined))
      assert.deepStrictEqual(delays.map(Option.isSome), [true, false, false])
    })
  )
})

describe("RetryPolicy", () => {
  it.effect("the standard one doubles to a minute, ten times, each delay spread by a fifth", () =>
    Effect.gen(function* () {
      const bases = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
      for (let attempt = 1; attempt <= 10; attempt++) {
        const delay = yield* Replay.delayAfter(RetryPolicy.standard, attempt, undefined)
        const seconds = delay._tag === "Some" ? Duration.toSeconds(delay.value) : NaN
        const base = bases[attempt - 1]!
        assert.isTrue(seconds >= base * 0.8 && seconds <= base * 1.2, `attempt ${attempt}: ${seconds} s`)
      }
      assert.strictEqual((yield* Replay.delayAfter(RetryPolicy.standard, 11, undefined))._tag, "None")
    }).pipe(Random.withSeed("standard"))
  )

  it.effect("each replay starts the schedule anew, whatever state it keeps", () =>
    Effect.gen(function* () {
      const runs = yield* Ref.make(0)
      const policy = Schedule.spaced("1 second").pipe(
        Schedule.modifyDelay(() =>
          Effect.map(
            Ref.updateAndGet(runs, (n) => n + 1),
            Duration.seconds
          )
        )
      )
      yield* Replay.delayAfter(policy, 3, undefined)
      assert.strictEqual(yield* Ref.get(runs), 3)
    })
  )
})

describe("render", () => {
  it("keeps a short cause whole", () => {
    assert.include(Routing.render(Cause.fail(new Declined({ code: "stolen" }))), "Declined")
  })

  it.each([4096, 4097, 1_000_000])("cuts a message of %i characters to 4096", (length) => {
    const error = new Error("x".repeat(length))
    error.stack = `Error: ${error.message}`
    const text = Routing.render(Cause.die(error))
    assert.isAtMost(text.length, 4096)
    assert.isTrue(text.startsWith("Error: xxx"))
    assert.isTrue(text.endsWith("..."))
  })

  it("never cuts a character in two", () => {
    for (let shift = 0; shift < 4; shift++) {
      const error = new Error("x".repeat(shift) + "👩".repeat(3000))
      error.stack = `Error: ${error.message}`
      assert.isTrue(Routing.render(Cause.die(error)).isWellFormed())
    }
  })
})
