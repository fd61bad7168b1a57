/** What a consumer has read ahead has a way back to the others of its group, in memory as on Redis, by the test's clock. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Inspector, Producer, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { quiet, run, until } from "../core/Running.ts"

const Work = Topic.make("work", {
  payload: Schema.Struct({ n: Schema.Int, millis: Schema.Number }),
  guarantee: "at-most-once"
})

const stored = {
  streams: MemoryStreams.layer(),
  lists: MemoryLists.layer(),
  priority: MemoryLists.layer({ order: "priority" }),
  "exactly-once": MemoryExactlyOnce.layer(),
  keyspace: MemoryKeyspace.layer()
}

const consume = Effect.fnUntraced(function* (options: Partial<Consumer.Options<"at-most-once">> = {}) {
  const begun: Array<number> = []
  const attempts = new Set<number>()
  const consumer = Consumer.make(Work, { group: "g", concurrency: 4, ...options }).pipe(
    Consumer.process(({ millis, n }, { attempt }) =>
      Effect.suspend(() => {
        begun.push(n)
        attempts.add(attempt)
        return millis > 0 ? Effect.sleep(millis) : Effect.void
      })
    )
  )
  yield* run(consumer, Layer.succeedContext(yield* Effect.context<Transport.AtMostOnce>()))
  return { begun, attempts }
})

const publish = (count: number, millis: number, from: number) =>
  Producer.publishAll(
    Work,
    Array.from({ length: count }, (_, i) => ({ n: from + i, millis }))
  )

const tenths = Effect.fnUntraced(function* (count: number) {
  for (let n = 0; n < count; n++) {
    yield* TestClock.adjust(100)
    yield* quiet()
  }
})

const sorted = (numbers: ReadonlyArray<number>) => numbers.toSorted((a, b) => a - b)
const range = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + i)

describe.each(Object.entries(stored))("read ahead in memory, %s", (_, layer) => {
  it.effect("case A2: messages that turn out slow are shared with a consumer that is idle", () =>
    Effect.gen(function* () {
      const one = yield* consume()
      yield* publish(1000, 0, 0)
      yield* until("quick ones are done", () => one.begun.length === 1000)
      yield* publish(200, 100, 1000)
      yield* until("slow ones have begun", () => one.begun.length > 1000)
      const other = yield* consume()
      yield* tenths(35)
      assert.deepStrictEqual(sorted([...one.begun, ...other.begun]), range(0, 1200))
      assert.isAtLeast(other.begun.length, 60)
    }).pipe(Effect.provide(layer))
  )

  it.effect(
    "case A3: what lies behind handlers that hang goes to a consumer that is idle, in order and uncounted",
    () =>
      Effect.gen(function* () {
        const hung = yield* consume({ lease: "3 seconds", shutdown: "1 second" })
        yield* publish(1000, 0, 0)
        yield* until("quick ones are done", () => hung.begun.length === 1000)
        yield* publish(4, 1e9, 1000)
        yield* publish(200, 0, 4000)
        yield* until("its handlers hang", () => hung.begun.length === 1004)
        const other = yield* consume({ concurrency: 1 })
        yield* TestClock.adjust("1 second")
        yield* until("the others are done", () => other.begun.length === 200)
        assert.deepStrictEqual(other.begun, range(4000, 200))
        assert.deepStrictEqual([...other.attempts], [1])
      }).pipe(Effect.provide(layer))
  )
})

describe.each(Object.entries({ ...stored, pubsub: MemoryPubSub.layer({ buffer: 10_000 }) }))(
  "pause in memory, %s",
  (name, layer) => {
    it.effect("case F4: after pause nothing begins, and what was read ahead is back, until resume", () =>
      Effect.gen(function* () {
        const inspector = yield* Inspector.Inspector
        const one = yield* consume()
        yield* publish(1000, 0, 0)
        yield* until("quick ones are done", () => one.begun.length === 1000)
        yield* publish(100, 100, 1000)
        yield* until("slow ones have begun", () => one.begun.length === 1004)
        yield* quiet()
        // Returns although no clock moves.
        yield* inspector.pause("work", "g")
        const { groups } = yield* inspector.describe("work")
        assert.deepInclude(groups[0], { pending: 4, paused: true })
        if (name !== "pubsub") assert.strictEqual((groups[0]?.lag ?? 0) + (groups[0]?.waiting ?? 0), 96)
        yield* publish(50, 0, 5000)
        yield* tenths(20)
        assert.lengthOf(one.begun, 1004)
        yield* inspector.resume("work", "g")
        yield* tenths(30)
        assert.deepStrictEqual(sorted(one.begun), [...range(0, 1100), ...range(5000, 50)])
        assert.deepStrictEqual([...one.attempts], [1])
      }).pipe(Effect.provide(layer as Layer.Layer<Layer.Success<typeof layer>>))
    )
  }
)

const subscription = {
  topic: "t",
  group: "g",
  start: "latest",
  lease: Duration.seconds(10),
  maxDeliveries: 5,
  shutdown: Duration.seconds(1)
} as const

const Blob = Topic.make("blobs", { payload: Schema.String, guarantee: "at-most-once" })

describe.each(Object.entries({ ...stored, pubsub: MemoryPubSub.layer({ buffer: 10_000 }) }))(
  "large messages in memory, %s",
  (_, layer) => {
    it.effect.each([
      [10_000, 100_000, 30],
      [1000, 65_536, 190],
      [200_000, 100_000, 4]
    ] as const)(
      "case B7, E37: bodies of %i bytes behind tiny ones are held within %i bytes",
      ([size, prefetchBytes, count]) =>
        Effect.gen(function* () {
          const inspector = yield* Inspector.Inspector
          let handled = 0
          const options = { group: "g", concurrency: 200, guarantee: "at-most-once", prefetchBytes } as const
          const consumer = Consumer.make(Blob, options).pipe(
            Consumer.process((blob) => {
              handled++
              return blob.length > 1 ? Effect.sleep(100) : Effect.void
            })
          )
          yield* run(consumer, Layer.succeedContext(yield* Effect.context<Transport.AtMostOnce>()))
          yield* Producer.publishAll(Blob, Array(500).fill("x"))
          yield* until("tiny ones are done", () => handled === 500)
          yield* quiet()
          yield* Producer.publishAll(Blob, Array(count).fill("x".repeat(size)))
          let most = 0
          for (let turn = 0; turn < 10 && handled < 500 + count; turn++) {
            yield* quiet()
            const { groups } = yield* inspector.describe("blobs")
            most = Math.max(most, groups[0]?.pending ?? 0)
            yield* TestClock.adjust(100)
          }
          assert.strictEqual(handled, 500 + count)
          // A batch may end with one that goes beyond.
          assert.isAtMost(most, Math.ceil(prefetchBytes / size))
          assert.isAtLeast(most, Math.max(1, Math.floor(prefetchBytes / size) - 1))
        }).pipe(Effect.provide(layer as Layer.Layer<Layer.Success<typeof layer>>))
    )
  }
)

describe("large messages in memory, MemoryPubSub", () => {
  it.effect.each([
    ["drop-oldest", [10, 11, 12, 13], { missed: 10, after: undefined, before: 10 }],
    ["drop-newest", [0, 1, 2, 20], { missed: 11, after: 2, before: 20 }]
  ] as const)("case B7, E37: %s: what finds bufferBytes full is told as a gap", ([overflow, arrived, gap]) =>
    Effect.gen(function* () {
      const transport = yield* Transport.AtMostOnce
      const receiver = yield* transport.receive(subscription)
      const names = new Map<string, number>()
      const publish = (n: number, size: number) =>
        Effect.map(
          transport.publish("t", [
            { id: undefined, body: "x".repeat(size), headers: {}, key: undefined, version: 1, due: undefined }
          ]),
          ([receipt]) => names.set(receipt?.id ?? "", n)
        )
      const nameOf = (id: string | undefined) => names.get(id ?? "")
      for (let n = 0; n < 14; n++) yield* publish(n, 1000)
      const first = overflow === "drop-oldest" ? [] : yield* receiver.take(10)
      if (overflow === "drop-newest") yield* publish(20, 1000)
      const taken = [...first, ...(yield* receiver.take(10))]
      assert.deepStrictEqual(
        taken.map(({ id }) => nameOf(id)),
        [...arrived]
      )
      const gaps = taken.flatMap(({ gap }) => (gap === undefined ? [] : [gap]))
      assert.lengthOf(gaps, 1)
      const [{ after, before, missed, reason } = assert.fail("no gap")] = gaps
      assert.deepStrictEqual({ missed, after: nameOf(after), before: nameOf(before) }, gap)
      assert.strictEqual(reason, "overflow")
      // One that is larger than the buffer has room in any case, alone.
      yield* publish(30, 9000)
      const [large] = yield* receiver.take(10)
      assert.strictEqual(nameOf(large.id), 30)
      assert.isUndefined(large.gap)
    }).pipe(
      Effect.scoped,
      Effect.provide(MemoryPubSub.layer({ overflow, bufferBytes: overflow === "drop-oldest" ? 4100 : 3100 }))
    )
  )
})
