/**
 * What a handler's failure said is kept as data: its tag, its message and what it holds, whatever that is.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Data,
  Effect,
  Exit,
  Latch,
  Logger,
  Option,
  Redacted,
  References,
  Schedule,
  Schema,
  Stream
} from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type Failure, Inspector, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"
import * as Routing from "../../packages/waybill/src/internal/Routing.ts"

class Declined extends Schema.TaggedError<Declined>()("Declined", {
  cents: Schema.BigInt,
  at: Schema.Date,
  code: Schema.String
}) {
  override get message(): string {
    return `declined with ${this.code}`
  }
}

class Busy extends Data.TaggedError("Busy")<{ readonly seconds: number; readonly message: string }> {}

class Login extends Schema.TaggedError<Login>()("Login", {
  user: Schema.String,
  password: Schema.Redacted(Schema.String)
}) {}

class Unencodable extends Schema.TaggedError<Unencodable>()("Unencodable", { count: Schema.Int }) {}

const circle = (): object => {
  const one: Record<string, unknown> = { text: "round" }
  one["self"] = one
  return one
}

const failureOf = Effect.fnUntraced(function* (exit: Exit.Exit<never, unknown>) {
  const routes = { rows: new Map(), fallback: Consumer.deadLetter("other") }
  const settlement = yield* Routing.decide(exit, routes, { attempt: 1 } as never)
  assert(settlement._tag === "DeadLetter" && settlement.failure !== undefined)
  return settlement.failure
})

const table: ReadonlyArray<readonly [name: string, exit: Exit.Exit<never, unknown>, expected: Failure.Failure]> = [
  [
    "a failure with a schema is encoded by it",
    Exit.fail(new Declined({ cents: 12n, at: new Date(0), code: "limit" })),
    {
      tag: "Declined",
      message: "declined with limit",
      fields: { cents: "12", at: "1970-01-01T00:00:00.000Z", code: "limit" }
    }
  ],
  [
    "another has its own properties",
    Exit.fail(new Busy({ seconds: 2, message: "busy" })),
    { tag: "Busy", message: "busy", fields: { seconds: 2 } }
  ],
  [
    "plain data too, as JSON",
    Exit.fail({ _tag: "Plain", at: new Date(0), of: new Map([["a", 1]]), f: () => 1, n: NaN, big: 1n, no: null }),
    {
      tag: "Plain",
      message: "",
      fields: {
        at: "1970-01-01T00:00:00.000Z",
        of: "Map { 0: Array(2) }",
        f: "[function]",
        n: "NaN",
        big: "1",
        no: null
      }
    }
  ],
  ["text is a message", Exit.fail("no such file"), { tag: "Failure", message: "no such file", fields: {} }],
  ["a defect has the name of its error", Exit.die(new TypeError("x")), { tag: "TypeError", message: "x", fields: {} }],
  [
    "a defect counts before a failure",
    Exit.failCause(Cause.combine(Cause.fail("a"), Cause.die(new RangeError("b", { cause: new Error("why") })))),
    { tag: "RangeError", message: "b", fields: { cause: { message: "why" } } }
  ],
  [
    "what is redacted stays so",
    Exit.fail(new Login({ user: "ada", password: Redacted.make("secret") })),
    { tag: "Login", message: "", fields: { user: "ada", password: "<redacted>" } }
  ],
  [
    "what its schema does not encode has its own properties",
    Exit.fail(Object.assign(new Unencodable({ count: 1 }), { count: 0.5 })),
    { tag: "Unencodable", message: "", fields: { count: 0.5 } }
  ]
]

describe("what a failure said", () => {
  it.effect.each(table)("%s", ([, exit, expected]) =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* failureOf(exit), expected)
    })
  )

  it.effect.each([
    ["megabytes of text", { _tag: "Large", data: "x".repeat(5_000_000), behind: 1 }],
    ["an error with a long message", new Error("x".repeat(5_000_000))],
    ["a million parts", { _tag: "Large", data: Array.from({ length: 1_000_000 }, (_, i) => ({ i })) }],
    ["many levels of many parts", { _tag: "Large", data: Array(20).fill(Array(20).fill(Array(20).fill("text"))) }],
    ["a circle", Object.assign(circle(), { _tag: "Large" })],
    ["more than a schema encodes", new Declined({ cents: 1n, at: new Date(0), code: "x".repeat(10_000) })]
  ] as const)("%s is cut short", ([, value]) =>
    Effect.gen(function* () {
      const failure = yield* failureOf(Exit.fail(value))
      assert.isAtMost(failure.message.length, 1000)
      assert.isBelow(JSON.stringify(failure.fields).length, 10_000)
      assert.match(failure.tag, /^(Large|Error|Declined)$/)
    })
  )

  it.effect("the cause says where, also behind a message that is cut short", () =>
    Effect.gen(function* () {
      for (const message of ["short", "long ".repeat(1_000_000)]) {
        const routes = { rows: new Map(), fallback: Consumer.deadLetter("other") }
        const settlement = yield* Routing.decide(Exit.fail(new Error(message)), routes, { attempt: 1 } as never)
        assert(settlement._tag === "DeadLetter")
        assert.include(settlement.cause, "at ")
        assert.include(settlement.cause, "failure.test")
        assert.isAtMost(settlement.cause.length, 4096)
      }
    })
  )

  it.effect("stands in the dead letter, with the failure after which the policy has ended", () =>
    Effect.gen(function* () {
      const Payment = Topic.make("payments", { payload: Schema.Number })
      yield* Consumer.make(Payment, { group: "charge" }).pipe(
        Consumer.process((cents) => Effect.fail(new Declined({ cents: BigInt(cents), at: new Date(0), code: "c" }))),
        Consumer.onFailure({ Declined: Consumer.retry(Schedule.recurs(1)) }),
        Consumer.run,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Producer.publish(Payment, 7)
      const inspector = yield* Inspector.Inspector
      const letters = inspector.deadLetters("payments", "charge", { after: Option.none(), limit: 10 })
      yield* Effect.repeat(Effect.andThen(TestClock.adjust("1 second"), letters), {
        until: (found) => found.length > 0,
        times: 20
      })
      const [letter] = yield* letters
      assert.strictEqual(letter?.attempts, 2)
      assert.deepStrictEqual(letter?.failure, {
        tag: "Declined",
        message: "declined with c",
        fields: { cents: "7", at: "1970-01-01T00:00:00.000Z", code: "c" }
      })
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )
})

describe("the log", () => {
  const Job = Topic.make("jobs", { payload: Schema.Number })
  const lines: Array<readonly [level: string, message: unknown]> = []
  const logger = Logger.make(({ logLevel, message }) => void lines.push([logLevel, message]))

  const logged = (level: "Debug" | "Warn" | "None", messages: number) =>
    Effect.gen(function* () {
      lines.length = 0
      const done = yield* Latch.make()
      let left = messages
      yield* Consumer.make(Job, { group: "g", concurrency: messages }).pipe(
        Consumer.process((n) => Effect.fail(n % 2 === 0 ? new Busy({ seconds: n, message: `busy ${n}` }) : "odd")),
        Consumer.onFailure({ Busy: Consumer.retry(Schedule.fixed("1 hour")) }),
        Consumer.orElse(Consumer.deadLetter("Odd")),
        Consumer.stream,
        Stream.runForEach(() => (--left === 0 ? done.open : Effect.void)),
        Effect.forkChild({ startImmediately: true })
      )
      yield* Producer.publishAll(
        Job,
        Array.from({ length: messages }, (_, i) => i),
        (n) => ({ id: `m-${n}` })
      )
      yield* done.await
      return lines.filter(([, message]) => Array.isArray(message) && /DeadLettered|Retried/.test(String(message[0])))
    }).pipe(
      Effect.scoped,
      Effect.provide(MemoryStreams.layer()),
      Effect.provide(Logger.layer([logger])),
      Effect.provideService(References.MinimumLogLevel, level)
    )

  it.effect("has a line for each dead letter, and for debugging one for each retry", () =>
    Effect.gen(function* () {
      const about = { topic: "jobs", group: "g", attempt: 1 }
      const [retried, dead] = yield* logged("Debug", 2)
      assert.deepStrictEqual(retried, [
        "Debug",
        ["Retried", { ...about, id: "m-0", failure: "Busy: busy 0", delay: "1h" }]
      ])
      assert.strictEqual(dead![0], "Warn")
      const [, { cause, ...rest }] = dead![1] as [string, { readonly cause: string }]
      assert.deepStrictEqual(rest, { ...about, id: "m-1", reason: "Odd" } as never)
      assert.match(cause, /^Error: odd/)
    })
  )

  it.effect("counts the reasons instead of flooding the log, and is silent when logging is off", () =>
    Effect.gen(function* () {
      const all = yield* logged("Warn", 100)
      assert.isBelow(all.length, 50)
      const told = all.map(([, message]) => (message as [string, { id?: string; reasons?: { Odd: number } }])[1])
      const counted = told.reduce((sum, { id, reasons }) => sum + (id === undefined ? (reasons?.Odd ?? 0) : 1), 0)
      assert.strictEqual(counted, 50)
      assert.deepStrictEqual(yield* logged("None", 10), [])
    })
  )
})
