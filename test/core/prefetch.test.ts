import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Delivery } from "waybill"
import { consumerMetrics } from "../../packages/waybill/src/internal/ConsumerMetrics.ts"
import { Prefetch } from "../../packages/waybill/src/internal/Prefetch.ts"
import { deliveryOf } from "./FakeTransport.ts"

const delivery = (n: number, body = "x") => deliveryOf({ id: `${n}`, body, receipt: `r${n}` })

/** A prefetch with what it sent back, and everything that was ever added to it, by number. */
const fixture = (options: { window?: number; prefetch?: number; initial?: number; bytes?: number } = {}) => {
  const released: Array<string> = []
  const added: Array<Delivery.Delivery> = []
  const prefetch = new Prefetch({
    window: 2,
    prefetch: 100,
    initial: 2,
    bytes: 1000,
    lease: Duration.seconds(15),
    metrics: consumerMetrics("t", "g", Context.empty()),
    release: (deliveries) => released.push(...deliveries.map(({ id }) => id)),
    ...options
  })
  const add = (count: number, now = 0, body?: string) => {
    prefetch.ask()
    const batch = Array.from({ length: count }, (_, i) => delivery(added.length + i, body))
    added.push(...batch)
    prefetch.add(batch, now)
  }
  const pull = (count: number, now = 0) => Array.from({ length: count }, () => prefetch.pull(now)?.id)
  const settle = (...ids: ReadonlyArray<number>) => prefetch.settled(ids.map((id) => [added[id]!, undefined] as const))
  return { prefetch, released, added, add, pull, settle }
}

type Fixture = ReturnType<typeof fixture>

describe("how much to take", () => {
  it.each<[what: string, wanted: number, steps: (f: Fixture) => unknown, options?: Parameters<typeof fixture>[0]]>([
    ["what the workers can have and as much as it begins with", 4, () => undefined],
    ["no more ahead than the option allows", 2, () => undefined, { prefetch: 0 }],
    ["never more than 1,000 at a time", 1000, () => undefined, { window: 5000 }],
    ["a third of all that may be held", 400, () => undefined, { window: 200, initial: 1000, prefetch: 1000 }],
    ["all of it where a third would be a few", 100, () => undefined, { window: 50, initial: 50, prefetch: 50 }],
    ["nothing while half of what is taken ahead is there", 0, (f) => f.add(2)],
    ["what is missing once the buffer is half empty", 2, (f) => [f.add(2, 300), f.pull(1)]],
    ["what a handler has is held", 2, (f) => [f.add(2, 300), f.pull(2)]],
    ["what is settled is not", 4, (f) => [f.add(2, 300), f.pull(2), f.settle(0, 1)]],
    [
      "bytes of what is only named are not held",
      3,
      (f) => [f.add(2, 300, "x".repeat(600)), f.pull(2), f.prefetch.unloaded(f.added[0]!), f.settle(1)],
      { bytes: 600 }
    ],
    ["what is let go is not", 3, (f) => [f.add(2, 300), f.pull(2), f.prefetch.letGo(f.added[0]!)]],
    ["twice as much and one when the workers starve", 3, (f) => [f.add(4), f.pull(4)]],
    ["no more when what there was lasted", 0, (f) => [f.add(4, 300), f.pull(4)]],
    ["no more when fewer came than were asked for", 1, (f) => [f.add(3), f.pull(3)]],
    ["nothing while the bytes are used up", 0, (f) => [f.add(2, 300, "x".repeat(500)), f.pull(2)]],
    [
      "a single one larger than all of them, once nothing is held",
      4,
      (f) => [f.add(1, 300, "x".repeat(5000)), f.pull(1), f.settle(0)]
    ],
    ["nothing beside it", 0, (f) => [f.add(1, 300, "x".repeat(5000)), f.pull(1)]],
    ["less after a recall", 3, (f) => [f.add(2, 300), f.prefetch.recall(() => true), f.settle(0, 1)]]
  ])("%s", (_, wanted, steps, options) => {
    const f = fixture(options)
    steps(f)
    assert.strictEqual(f.prefetch.wanted, wanted)
  })
})

describe("what lies there", () => {
  it.each<
    [
      what: string,
      pulled: ReadonlyArray<string | undefined>,
      released: ReadonlyArray<string>,
      steps: (f: Fixture) => unknown
    ]
  >([
    ["is pulled in order, whenever it came", ["1", "2", "3", undefined], [], (f) => [f.add(2), f.pull(1), f.add(2)]],
    [
      "goes back when it is wanted elsewhere",
      ["1", undefined],
      ["0", "2"],
      (f) => [f.add(3), f.prefetch.recall(({ id }) => id !== "1")]
    ],
    [
      "is not pulled once its lease is lost",
      ["1", undefined],
      [],
      (f) => [f.add(3), f.prefetch.drop(new Set([f.added[0]!, f.added[2]!]))]
    ],
    ["is not pulled after the end", [undefined], [], (f) => [f.add(3), f.prefetch.close()]],
    [
      "goes back where it is much more than the workers get to",
      ["3", "4", "5", "6", undefined],
      ["7", "8", "9"],
      (f) => [f.add(10), f.pull(1), f.pull(1, 1000), f.pull(1, 2000)]
    ],
    ["stays when they only paused once", ["2"], [], (f) => [f.add(10), f.pull(1), f.pull(1, 1000)]]
  ])("%s", (_, pulled, released, steps) => {
    const f = fixture()
    steps(f)
    assert.deepStrictEqual([f.pull(pulled.length), f.released], [pulled, released])
  })
})

describe("the loops", () => {
  it.effect("a worker that waits is woken by what is added, and by the end", () =>
    Effect.gen(function* () {
      const { add, prefetch, pull } = fixture()
      const first = yield* Effect.forkChild(prefetch.park, { startImmediately: true })
      assert.isUndefined(first.pollUnsafe())
      add(1)
      yield* Fiber.join(first)
      pull(1)
      const second = yield* Effect.forkChild(prefetch.park, { startImmediately: true })
      assert.isUndefined(second.pollUnsafe())
      prefetch.close()
      yield* Fiber.join(second)
    })
  )

  it.effect("workers begin with a large batch once the next take has been sent, and with a small one at once", () =>
    Effect.gen(function* () {
      for (const [count, expected] of [
        [100, ["take", "take", "worker"]],
        [99, ["take", "worker", "take"]]
      ] as const) {
        const order: Array<string> = []
        let turned = false
        const { prefetch } = fixture({ window: 200, initial: 1000, prefetch: 1000 })
        const worker = yield* Effect.forkChild(
          Effect.map(prefetch.park, () => order.push("worker")),
          { startImmediately: true }
        )
        const running = yield* Effect.forkChild(
          prefetch.run(() => {
            setImmediate(() => (turned = true))
            order.push("take")
            const [first, ...others] = Array.from({ length: count }, (_, i) => delivery(i))
            return order.length === 1 ? Effect.succeed([first!, ...others]) : Effect.never
          }),
          { startImmediately: true }
        )
        yield* Fiber.join(worker)
        assert.deepStrictEqual(order, [...expected])
        assert.isFalse(turned, "a socket may have been read again")
        yield* Fiber.interrupt(running)
      }
    })
  )

  it.effect("a take under way is kept when the workers paused once, and given up when they are slow", () =>
    Effect.gen(function* () {
      const f = fixture({ window: 1, initial: 1000, prefetch: 1000 })
      let takes = 0
      let givenUp = 0
      const fiber = yield* Effect.forkChild(
        f.prefetch.run(() => {
          const [first, ...others] = Array.from({ length: 10 }, (_, i) => delivery(i))
          if (takes++ === 0) return Effect.succeed([first!, ...others])
          return Effect.onInterrupt(Effect.never, () => Effect.sync(() => givenUp++))
        }),
        { startImmediately: true }
      )
      assert.strictEqual(takes, 2)
      f.pull(1)
      f.pull(1, 1000)
      yield* Effect.yieldNow
      assert.deepStrictEqual([givenUp, f.released], [0, []])
      f.pull(1, 2000)
      yield* Effect.yieldNow
      assert.deepStrictEqual([givenUp, f.released], [1, ["5", "6", "7", "8", "9"]])
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("a take that would bring back what was just recalled is given up, and followed by one for less", () =>
    Effect.gen(function* () {
      const f = fixture({ initial: 10 })
      const asked: Array<number> = []
      const fiber = yield* Effect.forkChild(
        f.prefetch.run((max) => {
          asked.push(max)
          return asked.length === 1 ? Effect.succeed([delivery(0), delivery(1), delivery(2)]) : Effect.never
        }),
        { startImmediately: true }
      )
      assert.deepStrictEqual(asked, [12, 9])
      f.prefetch.recall(() => true)
      // Held until they are settled, and five of ten ahead after the recall.
      f.prefetch.recall(() => true)
      yield* Effect.yieldNow
      assert.deepStrictEqual(f.released, ["0", "1", "2"])
      assert.deepStrictEqual(asked, [12, 9, 4])
      yield* Fiber.interrupt(fiber)
    })
  )

  it.effect("what no worker takes for a third of a lease goes back", () =>
    Effect.gen(function* () {
      const { add, prefetch, released } = fixture()
      const fiber = yield* Effect.forkChild(prefetch.tend, { startImmediately: true })
      add(3)
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(released, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(released, ["0", "1", "2"])
      yield* Fiber.interrupt(fiber)
    })
  )
})
