/**
 * Whatever a handler fails with and whatever a message holds: the delivery ends, and the others are handled.
 */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Option, Result, Schema, SchemaGetter } from "effect"
import { TestClock } from "effect/testing"
import { Commit, Consumer, DeadLetters, Inspector, Producer, Topic, type Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import * as Routing from "../../packages/waybill/src/internal/Routing.ts"

const patterns = {
  MemoryStreams: MemoryStreams.layer(),
  MemoryLists: MemoryLists.layer(),
  MemoryExactlyOnce: MemoryExactlyOnce.layer(),
  MemoryKeyspace: MemoryKeyspace.layer(),
  MemoryPubSub: MemoryPubSub.layer()
}

const revoked = (): object => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  return proxy
}

const boom = () => {
  throw new Error("do not look at me")
}

const cyclic = (): object => {
  const one: Record<string, unknown> = { text: "round and round" }
  one["self"] = one
  return one
}

const deep = (levels: number): unknown => {
  let value: unknown = "bottom"
  for (let i = 0; i < levels; i++) value = { next: value }
  return value
}

/** Every trap throws. */
const mined = (): object =>
  new Proxy(
    {},
    Object.fromEntries(
      ["get", "has", "ownKeys", "getPrototypeOf", "getOwnPropertyDescriptor", "isExtensible", "apply"].map((trap) => [
        trap,
        boom
      ])
    )
  )

const hostile: Record<string, () => unknown> = {
  "a revoked proxy": revoked,
  "a proxy that throws whatever it is asked": mined,
  "a tag that throws": () => Object.defineProperty({}, "_tag", { get: boom, enumerable: true }),
  "a message that throws": () => Object.defineProperty(new Error("x"), "message", { get: boom }),
  "a stack that throws": () => Object.defineProperty(new Error("x"), "stack", { get: boom }),
  "a toString that throws": () => ({ toString: boom, toJSON: boom, [Symbol.toPrimitive]: boom }),
  "a cause that is a revoked proxy": () => new Error("x", { cause: revoked() }),
  "a revoked proxy inside": () => ({ _tag: "Inside", field: revoked() }),
  "a circle": cyclic,
  "a tower": () => deep(100_000),
  "a constructor that throws": () => Object.create(Object.defineProperty({}, "constructor", { get: boom })),
  nothing: () => undefined,
  null: () => null,
  "a symbol": () => Symbol("x"),
  "a function": () => boom
}

describe("case B8: a hostile failure", () => {
  const Work = Topic.make("hostile", { payload: Schema.String, guarantee: "transactional" })

  it.effect.each(
    Object.keys(hostile).flatMap((failure) =>
      ["fail", "die", "throw", "reason", "commit"].map((how) => [failure, how] as const)
    )
  )("%s", ([failure, how]) =>
    Effect.gen(function* () {
      const handled: Array<string> = []
      const value = hostile[failure]!
      const transactional = how === "commit"
      const declared = Consumer.make(Work, { group: "g", concurrency: 1 })
      const handler = (payload: string): Effect.Effect<unknown, unknown> => {
        if (payload !== "bad") {
          handled.push(payload)
          return Effect.succeed(Commit.make({}))
        }
        if (how === "throw") throw value()
        return how === "die" ? Effect.die(value()) : how === "commit" ? Effect.succeed(value()) : Effect.fail(value())
      }
      const fiber = yield* (
        transactional
          ? declared.pipe(
              // The types forbid it.
              Consumer.transactional(handler as (payload: string) => Effect.Effect<Commit.Commit, unknown>),
              Consumer.orElse(Consumer.deadLetter())
            )
          : declared.pipe(
              Consumer.process(handler),
              Consumer.orElse((error) => Consumer.deadLetter(how === "reason" ? (error as string) : undefined))
            )
      ).pipe(Consumer.run, Effect.forkChild({ startImmediately: true }))
      yield* Producer.publishAll(Work, ["bad", "one", "two", "three"])
      const inspector = yield* Inspector.Inspector
      for (let i = 0; i < 100 && handled.length < 3; i++) yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(handled, ["one", "two", "three"])
      yield* TestClock.adjust("1 second")
      const letters = yield* inspector.deadLetters("hostile", "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(
        letters.map(({ body }) => body),
        ['"bad"']
      )
      assert.isTrue(letters[0]!.cause.isWellFormed())
      assert.isUndefined(fiber.pollUnsafe())
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("a tag that cannot be looked at is a defect", () =>
    Effect.gen(function* () {
      for (const name of ["a revoked proxy", "a tag that throws", "a proxy that throws whatever it is asked"]) {
        const settlement = yield* Routing.decide(
          Exit.fail(hostile[name]!()),
          { rows: new Map(), fallback: Consumer.deadLetter("other") },
          { attempt: 1 } as never
        )
        assert.strictEqual(settlement._tag === "DeadLetter" ? settlement.reason : settlement._tag, "Defect")
      }
    })
  )
})

describe("a part of a commit that no record made", () => {
  const condition = { key: "x", type: "string", command: "GET", args: [], expected: "1" }
  const write = { key: "x", type: "string", command: "SET", args: ["1"] }
  it.each([
    ["a command of another type", { ...condition, type: "hash" }],
    ["a type that has no command", { ...condition, type: "list" }],
    ["an unknown type", { ...condition, type: "json" }],
    ["an unknown command", { ...condition, command: "constructor" }],
    ["too few arguments", { ...condition, type: "hash", command: "HGET" }],
    ["too many arguments", { ...condition, args: ["f"] }],
    ["a number as the reply", { ...condition, expected: 1 }],
    ["no reply", { ...condition, expected: undefined }]
  ])("is refused as a condition: %s", (_, given) => {
    assert.doesNotThrow(() => Commit.make({ conditions: [condition as Commit.Condition] }))
    assert.throws(() => Commit.make({ conditions: [given as Commit.Condition] }), "invalid condition")
  })

  it.each(["json", "stream", "channel", "constructor", undefined])("is refused as a write: the type %s", (type) => {
    assert.doesNotThrow(() => Commit.make({ writes: [write as Commit.Write] }))
    assert.throws(() => Commit.make({ writes: [{ ...write, type } as Commit.Write] }), "invalid write")
  })
})

describe("case B12: a failure that holds megabytes", () => {
  class Large extends Schema.TaggedError<Large>()("Large", { data: Schema.Unknown }) {
    override get message(): string {
      return `large: ${JSON.stringify(this.data)}`
    }
  }
  const text = "x".repeat(30_000_000)
  const many = Array.from({ length: 1_000_000 }, (_, i) => ({ i }))
  it.each([
    ["a text", () => text],
    ["a message", () => new Error(text)],
    ["a field", () => ({ _tag: "Large", text })],
    ["a field of a tagged error", () => new Large({ data: text })],
    ["many parts", () => ({ _tag: "Large", many })],
    ["many parts of a tagged error", () => new Large({ data: many })],
    ["a cause", () => new Error("outer", { cause: new Large({ data: many }) })],
    ["a map", () => ({ _tag: "Large", map: new Map(many.map((one, i) => [i, one])) })],
    ["bytes", () => ({ _tag: "Large", bytes: new Uint8Array(30_000_000) })],
    [
      "a wide tree",
      () => ({ _tag: "Large", tree: Array.from({ length: 1000 }, () => Array.from({ length: 1000 }, () => "leaf")) })
    ]
  ] as const)("%s is shown at a price that does not grow with it", (_, value) => {
    const causes = [Cause.fail(value()), Cause.die(value())]
    for (const cause of causes) {
      // It was a second. The shortest of several: what else this process has to do falls into some of them.
      let shortest = Infinity
      for (let i = 0; i < 5; i++) {
        const start = process.cpuUsage()
        const shown = Routing.render(cause)
        const { system, user } = process.cpuUsage(start)
        shortest = Math.min(shortest, (system + user) / 1000)
        assert.isAtMost(shown.length, 4096)
        assert.isAbove(shown.length, 3)
      }
      assert.isBelow(shortest, 150)
    }
  })

  it("what it is called and how it begins is shown", () => {
    const shown = Routing.render(Cause.fail(new Large({ data: { file: "a.txt", text } })))
    assert.match(shown, /^Large \{.*a\.txt.*xxx\.\.\./)
  })
})

interface Nest {
  readonly next?: Nest | undefined
}
const Nest: Schema.Codec<Nest> = Schema.Struct({
  next: Schema.optional(Schema.suspend((): Schema.Codec<Nest> => Nest))
})

describe("case B9: a payload that is nested deeply", () => {
  const Deep = Topic.make("deep", { payload: Nest, guarantee: "at-most-once" })
  // Its own type would fit into no array with the other one.
  const Any = Topic.make("deep", { payload: Schema.Unknown, guarantee: "at-most-once" }) as unknown as typeof Deep
  const tower = (levels: number) => `${'{"next":'.repeat(levels)}{}${"}".repeat(levels)}`

  it.effect.each([20_000, 50_000])("is no payload: %i levels", (levels) =>
    Effect.gen(function* () {
      const value = deep(levels) as Nest
      for (const topic of [Deep, Any]) {
        for (const failure of [
          yield* Effect.flip(topic.encode(value)),
          yield* Effect.flip(Producer.publish(topic, value)),
          yield* Effect.flip(Producer.publishAll(topic, [{}, value]))
        ]) {
          assert.strictEqual(failure._tag, "InvalidPayload")
          assert.include(failure.message, "nested too deeply")
        }
      }
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect.each(Object.entries(patterns))("as a dead letter it is one like any other: %s", ([name, layer]) =>
    Effect.gen(function* () {
      const Raw: Topic.Topic<string, Transport.AtMostOnce> = {
        ...Topic.make("deep", { payload: Schema.String, guarantee: "at-most-once" }),
        encode: (body) => Effect.succeed(body)
      }
      const handled: Array<unknown> = []
      yield* Consumer.make(Deep, { group: "g", guarantee: "at-most-once" }).pipe(
        Consumer.process((payload) => Effect.sync(() => handled.push(payload))),
        Consumer.run,
        Effect.forkScoped({ startImmediately: true })
      )
      yield* Producer.publishAll(Raw, [tower(20_000), "{}", tower(19_999)])
      for (let i = 0; i < 100 && handled.length < 1; i++) yield* TestClock.adjust("100 millis")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(handled.length, 1, name)
      const letters = yield* Effect.flatMap(Inspector.Inspector, (inspector) =>
        inspector.deadLetters("deep", "g", { after: Option.none(), limit: 10 })
      )
      assert.deepStrictEqual(
        letters.map(({ reason }) => reason),
        ["DecodeFailure", "DecodeFailure"]
      )
      const plan = yield* DeadLetters.redrive(Deep, "g", { dryRun: true })
      assert.deepStrictEqual(plan, { examined: 2, selected: 2, done: 0 })
      const redriven = yield* DeadLetters.redrive(Deep, "g", { limit: 1 })
      assert.strictEqual(redriven.done, 1)
      yield* TestClock.adjust("1 second")
      const discarded = yield* DeadLetters.discard(Deep, "g", { where: ({ payload }) => payload._tag === "Failure" })
      assert.deepStrictEqual(discarded, { examined: 2, selected: 2, done: 2 })
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})

describe("case D2: decoding needs a service that is away", () => {
  class Database extends Context.Service<Database, { readonly lookUp: (id: string) => Effect.Effect<string> }>()(
    "Database"
  ) {}

  const Migrated = Schema.String.pipe(
    Schema.decodeTo(Schema.String, {
      decode: SchemaGetter.transformEffect((id: string) => Effect.flatMap(Database, ({ lookUp }) => lookUp(id))),
      encode: SchemaGetter.passthrough()
    })
  )
  const Moved = Topic.make("moved", { payload: Migrated, guarantee: "at-most-once" })

  it.effect.each([
    ["it dies", Effect.die(new Error("the database is away"))],
    ["it throws", Effect.suspend(boom)],
    ["it dies of something hostile", Effect.die(revoked())]
  ] as const)("%s: tried again, then handled", ([, away]) =>
    Effect.gen(function* () {
      let up = false
      const handled: Array<string> = []
      const database = { lookUp: (id: string) => (up ? Effect.succeed(`found ${id}`) : away) }
      for (const batch of [false, true]) {
        const declared = Consumer.make(Moved, { group: `g ${batch}`.replace(" ", "-") })
        yield* (
          batch
            ? declared.pipe(
                Consumer.processBatch(10, Duration.zero, (items) =>
                  Effect.sync(() => items.map(({ payload }) => Result.succeed(handled.push(payload))))
                )
              )
            : declared.pipe(Consumer.process((payload) => Effect.sync(() => handled.push(payload))))
        ).pipe(Consumer.run, Effect.provideService(Database, database), Effect.forkScoped({ startImmediately: true }))
      }
      yield* Producer.publish(Moved, "a").pipe(Effect.provideService(Database, database))
      yield* TestClock.adjust("2 seconds")
      const inspector = yield* Inspector.Inspector
      const waiting = (yield* inspector.describe("moved")).groups.map(({ deadLetters, waiting }) => [
        waiting,
        deadLetters
      ])
      assert.deepStrictEqual(waiting, [
        [1, 0],
        [1, 0]
      ])
      up = true
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(handled, ["found a", "found a"])
    }).pipe(Effect.scoped, Effect.provide(MemoryStreams.layer()))
  )

  it.effect("it never comes back: a dead letter when the policy has ended, and tools go on meanwhile", () =>
    Effect.gen(function* () {
      const database = { lookUp: () => Effect.die(new Error("the database is away")) }
      yield* Consumer.make(Moved, { group: "g" }).pipe(
        Consumer.process(() => Effect.void),
        Consumer.run,
        Effect.provideService(Database, database),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* Producer.publish(Moved, "a").pipe(Effect.provideService(Database, database))
      for (let i = 0; i < 60; i++) yield* TestClock.adjust("10 seconds")
      const letters: Array<string> = []
      yield* DeadLetters.redrive(Moved, "g", {
        dryRun: true,
        where: ({ payload, reason }) => {
          letters.push(reason, payload._tag)
          return true
        }
      }).pipe(Effect.provideService(Database, database))
      assert.deepStrictEqual(letters, ["Defect", "Failure"])
    }).pipe(Effect.scoped, Effect.provide(MemoryStreams.layer()))
  )
})
