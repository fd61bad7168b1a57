/** Payloads that change: older ones are migrated, and newer ones are set aside until somebody reads them. */
import { assert, describe, it } from "@effect/vitest"
import { Probe, runUntilIdle } from "@waybill/testing"
import { Context, Effect, Exit, Layer, Option, References, Result, Schedule, Schema, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, DeadLetters, Inspector, type Lifecycle, Log, Producer, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"

const V1 = Schema.Struct({ name: Schema.String })
const V2 = Schema.Struct({ first: Schema.String, last: Schema.String })
const V3 = Schema.Struct({ names: Schema.Array(Schema.String), at: Schema.Date })
type V3 = typeof V3.Type
const at = new Date(0)

class NoDirectory extends Schema.TaggedError<NoDirectory>()("NoDirectory", {}) {}

/** Where a name is split, unless it is down. */
class Directory extends Context.Service<
  Directory,
  { readonly split: (name: string) => Effect.Effect<ReadonlyArray<string>, NoDirectory> }
>()("Directory") {}

const name = "people"
const Old = Topic.make(name, { payload: V1 })
const Middle = Topic.make(name, { version: 2, payload: V2 })
const from = {
  1: Topic.from(V1, ({ name }) =>
    name === ""
      ? Effect.fail(new Topic.DecodeFailure({ topic: "people", issue: "no name" }))
      : Effect.flatMap(Directory, ({ split }) => Effect.map(split(name), (names) => ({ names, at })))
  ),
  2: Topic.from(
    V2,
    ({ first, last }) => Effect.succeed({ names: [first, last], at }),
    ({ names: [first = "", last = ""] }: V3) => ({ first, last })
  )
}
const People = Topic.make(name, { version: 3, payload: V3, from })
const Rolling = Topic.make(name, { version: 3, payload: V3, from, write: 2 })

const silent = Effect.provideService(References.MinimumLogLevel, "None")
const page = { after: Option.none<string>(), limit: 10 }

const storing = {
  MemoryStreams: MemoryStreams.layer(),
  MemoryLists: MemoryLists.layer(),
  MemoryExactlyOnce: MemoryExactlyOnce.layer(),
  MemoryKeyspace: MemoryKeyspace.layer()
}

/** A directory that is down until the second try. */
const directory = Layer.sync(Directory, () => {
  let tries = 0
  return {
    split: (name) =>
      Effect.suspend(() => (++tries === 1 ? Effect.fail(new NoDirectory()) : Effect.succeed(name.split(" "))))
  }
})

/** Handles with what the topic reads, and keeps what it was given. */
const reader = <P, R>(
  topic: Topic.Topic<P, Transport.AtLeastOnce, R, never, unknown>,
  handled: Array<unknown>,
  group = "g"
) =>
  Consumer.make(topic, { group }).pipe(
    Consumer.process((payload) => Effect.sync(() => handled.push(payload))),
    Consumer.orElse(Consumer.retry(Schedule.spaced("1 second"))),
    Consumer.layer
  )

describe("older payloads", () => {
  it.effect("are read through their own schema, and a failed migration takes its route", () =>
    Effect.gen(function* () {
      const handled: Array<unknown> = []
      yield* Producer.publish(Old, { name: "Ada Lovelace" })
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      yield* Producer.publish(People, { names: ["Barbara", "Liskov"], at })
      const attempts: Array<number> = []
      const Reader = Consumer.make(People, { group: "g" }).pipe(
        Consumer.process((payload, { attempt }) =>
          Effect.sync(() => {
            handled.push(payload)
            attempts.push(attempt)
          })
        ),
        Consumer.onFailure({ NoDirectory: Consumer.retry(Schedule.spaced("1 minute")) }),
        Consumer.layer
      )
      yield* Effect.provide(runUntilIdle(), Reader)
      assert.deepStrictEqual(handled, [
        { names: ["Grace", "Hopper"], at },
        { names: ["Barbara", "Liskov"], at },
        { names: ["Ada", "Lovelace"], at }
      ])
      assert.deepStrictEqual(attempts, [1, 1, 2])
    }).pipe(Effect.provide(Layer.merge(directory, MemoryStreams.layer())))
  )

  it.effect("in a batch fail one by one", () =>
    Effect.gen(function* () {
      const batches: Array<number> = []
      yield* Producer.publish(Old, { name: "Ada Lovelace" })
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      const Reader = Consumer.make(People, { group: "g" }).pipe(
        Consumer.processBatch(2, "1 second", (items) => {
          batches.push(items.length)
          return Effect.succeed(items.map(() => Result.void))
        }),
        Consumer.onFailure({ NoDirectory: Consumer.retry(Schedule.spaced("1 minute")) }),
        Consumer.layer
      )
      yield* Effect.provide(runUntilIdle(), Reader)
      assert.deepStrictEqual(batches, [1, 1])
    }).pipe(Effect.provide(Layer.merge(directory, MemoryStreams.layer())))
  )

  it.effect("which cannot be migrated, or of a version that is not listed, are dead letters", () =>
    Effect.gen(function* () {
      const Listed = Topic.make(name, { version: 3, payload: V3, from: { 1: from[1] } })
      yield* Producer.publish(Old, { name: "" })
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      yield* Effect.provide(runUntilIdle(), reader(Listed, []))
      const letters = yield* (yield* Probe.Probe).deadLetters
      assert.deepStrictEqual(
        letters.map(({ cause, reason }) => [reason, cause]),
        [
          ["DecodeFailure", "invalid payload of topic people: no name"],
          ["DecodeFailure", "invalid payload of topic people: version 2 is none of those read here: 1, 3"]
        ]
      )
    }).pipe(
      Effect.provide(Layer.mergeAll(directory, Probe.layer.pipe(Layer.provideMerge(MemoryStreams.layer())))),
      silent
    )
  )

  it.effect("in a topic without `from` are read by its one schema", () =>
    Effect.gen(function* () {
      const handled: Array<unknown> = []
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      yield* Effect.provide(runUntilIdle(), reader(Topic.make(name, { version: 7, payload: V2 }), handled))
      assert.deepStrictEqual(handled, [{ first: "Grace", last: "Hopper" }])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("among dead letters and in the log are read through their own schema", () =>
    Effect.gen(function* () {
      const Undertaker = Consumer.make(Old, { group: "g" }).pipe(
        Consumer.process(() => Effect.die("a bug")),
        Consumer.layer
      )
      yield* Producer.publishAll(Old, [{ name: "Ada Lovelace" }, { name: "Alan Turing" }])
      yield* Effect.provide(runUntilIdle(), Undertaker)
      yield* Producer.publish(Topic.make(name, { version: 4, payload: Schema.String }), "of tomorrow")
      const letters = yield* Stream.runCollect(DeadLetters.stream(People, "g"))
      const entries = yield* Log.last(People, { limit: 10 })
      const seen = [...letters, ...entries].map(({ payload }) =>
        Result.match(payload, { onFailure: ({ issue }) => issue, onSuccess: ({ names }) => names.join(" ") })
      )
      assert.lengthOf(seen, 3)
      assert.match(seen[0] ?? "", /^migrating it from version 1 failed: .*NoDirectory/)
      assert.strictEqual(seen[1], "Alan Turing")
      assert.strictEqual(seen[2], "version 4 is none of those read here: 1, 2, 3")
    }).pipe(Effect.provide(Layer.merge(directory, MemoryStreams.layer())), silent)
  )

  it.effect("are published during a rolling deploy, so that older consumers read them", () =>
    Effect.gen(function* () {
      const handled: Array<unknown> = []
      yield* Producer.publish(Rolling, { names: ["Grace", "Hopper"], at })
      yield* Effect.provide(runUntilIdle(), reader(Middle, handled))
      assert.deepStrictEqual(handled, [{ first: "Grace", last: "Hopper" }])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it("throws on versions that do not fit together", () => {
    const make = (options: object) => () => Topic.make(name, { payload: V3, ...options })
    assert.throws(make({ version: 2, from: { 2: from[2] } }), "a version in from must be at most 1, got 2")
    assert.throws(make({ from: { 1: from[1] } }), "a version in from")
    assert.throws(make({ version: 3, from, write: 1 }), "topic people cannot write version 1: from has no downgrade")
    assert.throws(make({ version: 3, write: 2 }), "topic people cannot write version 2")
  })
})

describe("newer payloads", () => {
  it.effect.each(Object.entries(storing))("wait, uncounted, for somebody who reads them: %s", ([, layer]) =>
    Effect.gen(function* () {
      const transport = yield* Transport.AtLeastOnce
      const inspector = yield* Inspector.Inspector
      const told: Array<Lifecycle.Event> = []
      yield* transport.lifecycle.listen((event) => {
        if (event._tag === "NewerVersion") told.push(event)
      })
      const handled: Array<unknown> = []
      const old = yield* Layer.build(reader(Old, handled))
      assert.isDefined(old)
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      yield* Producer.publish(Old, { name: "Ada" })
      for (let i = 0; i < 10; i++) yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(handled, [{ name: "Ada" }])
      const cause = "version 2 is newer than 1, the newest that this consumer reads"
      const [waiting] = yield* inspector.waiting(name, "g", page)
      assert.deepInclude(waiting, { attempts: 0, attemptLog: [], cause, version: 2 })
      assert.strictEqual((yield* inspector.describe(name)).groups[0]?.newer, cause)
      // Ten times in the first second, ten times in the next two minutes, and once a minute since.
      assert.isAtMost(told.length, 29)
      assert.deepStrictEqual(told[0], {
        _tag: "NewerVersion",
        topic: name,
        group: "g",
        version: 2,
        reads: 1,
        count: 1
      })
      const Fresh = Consumer.make(Middle, { group: "g" }).pipe(
        Consumer.process((payload, { attempt }) => Effect.sync(() => handled.push({ ...payload, attempt }))),
        Consumer.layer
      )
      yield* Layer.build(Fresh)
      for (let i = 0; i < 20; i++) yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(handled.slice(1), [{ first: "Grace", last: "Hopper", attempt: 1 }])
      const [after] = (yield* inspector.describe(name)).groups
      assert.deepInclude(after, { waiting: 0, pending: 0, deadLetters: 0 })
      assert.isUndefined(after?.newer)
    }).pipe(Effect.scoped, Effect.provide(layer), silent)
  )

  it.effect("come back soon at first, and then at growing intervals", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      yield* Layer.build(reader(Old, []))
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      const delays: Array<number> = []
      for (let i = 0; i < 21; i++) {
        yield* TestClock.adjust(0)
        const [waiting] = yield* inspector.waiting(name, "g", page)
        delays.push(waiting?.dueInMillis ?? 0)
        yield* TestClock.adjust(waiting?.dueInMillis ?? 0)
      }
      assert.deepStrictEqual(
        delays.slice(0, 10),
        Array.from({ length: 10 }, () => 100)
      )
      assert.deepStrictEqual(
        delays.slice(10),
        [200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]
      )
    }).pipe(Effect.scoped, Effect.provide(MemoryStreams.layer()), silent)
  )

  it.effect("are not waited for without end by a test", () =>
    Effect.gen(function* () {
      yield* Producer.publish(Middle, { first: "Grace", last: "Hopper" })
      const exit = yield* Effect.exit(Effect.provide(runUntilIdle({ maxAttempts: 20 }), reader(Old, [])))
      assert.include(Exit.isFailure(exit) ? String(exit.cause) : "", "retried without end")
    }).pipe(Effect.provide(MemoryStreams.layer()), silent)
  )

  it.effect("are dead letters where a message does not outlive its consumer", () =>
    Effect.gen(function* () {
      const options = { guarantee: "at-most-once" } as const
      const probe = yield* Probe.Probe
      yield* Layer.build(
        Consumer.make(Topic.make(name, { payload: V1, ...options }), { group: "g" }).pipe(
          Consumer.process(() => Effect.void),
          Consumer.layer
        )
      )
      yield* Producer.publish(Topic.make(name, { version: 2, payload: V2, ...options }), {
        first: "Grace",
        last: "Hopper"
      })
      yield* runUntilIdle()
      assert.deepStrictEqual(
        (yield* probe.deadLetters).map(({ reason }) => reason),
        ["NewerVersion"]
      )
    }).pipe(Effect.scoped, Effect.provide(Probe.layer.pipe(Layer.provideMerge(MemoryPubSub.layer()))), silent)
  )
})

describe("several types on one topic", () => {
  it.effect("a group gets only those that it wants, where every group gets every message", () =>
    Effect.gen(function* () {
      const handled: Array<unknown> = []
      const refunds = { group: "refunds", only: { types: ["OrderCancelled"] } } as const
      const Reader = Consumer.make(Orders, refunds).pipe(
        Consumer.dispatch({
          OrderPlaced: () => Effect.die("not wanted"),
          OrderCancelled: ({ at }, { headers }) => Effect.sync(() => handled.push([at, headers["type"]]))
        })
      )
      yield* Producer.publish(Orders, { _tag: "OrderPlaced", cents: 5 }, { headers: { by: "a" } })
      yield* Producer.publish(Orders, { _tag: "OrderCancelled", at }, { headers: { type: "OrderPlaced" } })
      yield* Effect.provide(runUntilIdle(), Consumer.layer(Reader))
      assert.deepStrictEqual(handled, [[at, "OrderCancelled"]])
      for (const layer of [MemoryLists.layer(), MemoryExactlyOnce.layer()]) {
        const refused = yield* Effect.flip(Effect.provide(Consumer.run(Reader), layer))
        assert.strictEqual(refused.reason._tag, "NotOffered")
      }
    }).pipe(Effect.provide(MemoryStreams.layer()), silent)
  )

  const OrderPlaced = Schema.TaggedStruct("OrderPlaced", { cents: Schema.Int })
  const OrderCancelled = Schema.TaggedStruct("OrderCancelled", { at: Schema.Date })
  const Orders = Topic.make("orders", { payload: Topic.union({ OrderPlaced, OrderCancelled }) })

  it("a union says its types with further annotations and checks, and nothing else does", () => {
    const payload = Topic.union({ OrderPlaced, OrderCancelled })
      .annotate({ title: "orders" })
      .check(Schema.makeFilter(() => true))
      .annotate({ title: "checked orders" })
    assert.strictEqual(Topic.make("orders", { payload }).type?.({ _tag: "OrderPlaced", cents: 5 }), "OrderPlaced")
    const untyped = Topic.make("orders", { payload: Schema.Union([OrderPlaced, OrderCancelled]) })
    assert.throws(() => Consumer.make(untyped, { group: "g", only: { types: ["OrderPlaced"] } }), "no Topic.union")
  })

  it.effect("each goes to its handler", () =>
    Effect.gen(function* () {
      const handled: Array<unknown> = []
      const Reader = Consumer.make(Orders, { group: "g" }).pipe(
        Consumer.dispatch({
          OrderPlaced: ({ cents }, { id }) => Effect.sync(() => handled.push([id, cents])),
          OrderCancelled: function* ({ at }) {
            handled.push(at)
            return yield* Effect.fail(new NoDirectory())
          }
        }),
        Consumer.onFailure({ NoDirectory: Consumer.deadLetter() }),
        Consumer.layer
      )
      yield* Producer.publishAll(
        Orders,
        [
          { _tag: "OrderPlaced", cents: 5 },
          { _tag: "OrderCancelled", at }
        ],
        ({ _tag }) => ({ id: _tag })
      )
      // Of a type that came without a version of its own.
      yield* Producer.publish(Topic.make("orders", { payload: Schema.Struct({ _tag: Schema.String }) }), {
        _tag: "OrderLost"
      })
      yield* Effect.provide(runUntilIdle(), Reader)
      assert.deepStrictEqual(handled, [["OrderPlaced", 5], at])
      const letters = yield* (yield* Probe.Probe).deadLetters
      assert.deepStrictEqual(
        letters.map(({ reason }) => reason),
        ["NoDirectory", "DecodeFailure"]
      )
    }).pipe(Effect.provide(Probe.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))), silent)
  )
})
