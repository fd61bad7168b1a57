import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schedule, Schema, SchemaTransformation } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Topic } from "waybill"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, stop, until } from "./Running.ts"

class Odd extends Schema.TaggedError<Odd>()("Odd", { n: Schema.Int }) {}
class Closed extends Schema.TaggedError<Closed>()("Closed", {}) {}

const Numbers = Topic.make("t", { payload: Schema.Int })
const source = (options?: Partial<Consumer.Options>) => Consumer.make(Numbers, { group: "g", shutdown: 0, ...options })
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, n) => from + n)
const second = Schedule.spaced("1 second")

/** Batches as the handler saw them, every item acked. */
const collecting = (size: number, within: number, options?: Partial<Consumer.Options>) => {
  const batches: Array<Array<number>> = []
  const consumer = source(options).pipe(
    Consumer.processBatch(size, within, (items) =>
      Effect.sync(() => {
        batches.push(items.map((item) => item.payload))
        return items.map(() => Result.void)
      })
    )
  )
  return { batches, consumer }
}

describe("processBatch", () => {
  it.effect("a full batch goes at once, a partial one after `within`, counted from its first item", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { batches, consumer } = collecting(4, 1000)
      yield* run(consumer, transport.layer)
      transport.deliver(...range(0, 4))
      yield* until("the full one", () => batches.length === 1)
      transport.deliver(4)
      yield* quiet()
      yield* TestClock.adjust(600)
      transport.deliver(5)
      yield* quiet()
      yield* TestClock.adjust(399)
      yield* quiet()
      assert.strictEqual(batches.length, 1)
      yield* TestClock.adjust(1)
      yield* until("the partial one", () => batches.length === 2)
      assert.deepStrictEqual(batches, [
        [0, 1, 2, 3],
        [4, 5]
      ])
      yield* until("all settled", () => transport.settled.length === 6)
    })
  )

  it.effect("a batch that fills while it waits goes at once", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { batches, consumer } = collecting(3, 60_000)
      yield* run(consumer, transport.layer)
      for (let n = 0; n < 6; n++) {
        transport.deliver(n)
        yield* quiet()
      }
      assert.deepStrictEqual(batches, [
        [0, 1, 2],
        [3, 4, 5]
      ])
    })
  )

  it.effect.each([
    [1, 0],
    [1, 1000],
    [10, 0],
    [2500, 1000]
  ] as const)("batches of at most %i within %i ms hold together under load", ([size, within]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { batches, consumer } = collecting(size, within, { concurrency: 3, prefetch: 50 })
      yield* run(consumer, transport.layer)
      transport.deliver(...range(0, 5000))
      yield* quiet()
      yield* TestClock.adjust("1 second")
      yield* until("all settled", () => transport.settled.length === 5000)
      assert.isAtMost(Math.max(...batches.map((batch) => batch.length)), size)
      assert.deepStrictEqual(
        batches.flat().toSorted((a, b) => a - b),
        range(0, 5000)
      )
      assert.isAtMost(transport.mostHeld, 3 * size + 50)
      assert.deepStrictEqual(transport.complaints(), [])
    })
  )

  it.effect("several at a time, as many as `concurrency` says", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let running = 0
      let most = 0
      yield* run(
        source({ concurrency: 3 }).pipe(
          Consumer.processBatch(5, 0, (items) =>
            Effect.gen(function* () {
              most = Math.max(most, ++running)
              yield* Effect.sleep("1 second")
              running--
              return items.map(() => Result.void)
            })
          )
        ),
        transport.layer
      )
      transport.deliver(...range(0, 60))
      yield* TestClock.adjust("30 seconds")
      yield* until("all settled", () => transport.settled.length === 60)
      assert.strictEqual(most, 3)
    })
  )

  it.effect("each item has its own outcome, its delivery beside it", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.processBatch(10, 0, (items) =>
            Effect.succeed(
              items.map(({ delivery, payload }) => {
                assert.strictEqual(delivery.body, String(payload))
                return payload % 2 === 0 ? Result.succeed(payload) : Result.fail(new Odd({ n: payload }))
              })
            )
          ),
          Consumer.onFailure({
            Odd: ({ n }) => (n === 3 ? Consumer.deadLetter("three") : Consumer.retry(second))
          })
        ),
        transport.layer
      )
      transport.deliver(...range(0, 5))
      yield* until("all settled", () => transport.settled.length === 5)
      assert.deepStrictEqual(
        transport.settled
          .map(([{ body }, settlement]) => [body, settlement._tag])
          .toSorted(([a = ""], [b = ""]) => String(a).localeCompare(String(b))),
        [
          ["0", "Ack"],
          ["1", "Retry"],
          ["2", "Ack"],
          ["3", "DeadLetter"],
          ["4", "Ack"]
        ]
      )
    })
  )

  it.effect("failing as a whole fails every item, each judged by its own attempt", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.processBatch(3, "1 second", () => Effect.fail(new Closed())),
          Consumer.onFailure({ Closed: Consumer.retry(second.pipe(Schedule.upTo({ times: 1 }))) })
        ),
        transport.layer
      )
      transport.offer(transport.delivery(0), transport.delivery(1, { attempt: 2 }), transport.delivery(2))
      yield* until("all settled", () => transport.settled.length === 3)
      assert.deepStrictEqual(transport.outcomes(), ["Retry", "DeadLetter", "Retry"])
    })
  )

  it.effect.each([
    ["a defect", () => Effect.die("bug")],
    [
      "a thrown error",
      () => {
        throw new Error("thrown")
      }
    ]
  ] as const)("%s of the whole dead-letters every item and the worker goes on", ([, broken]) =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.processBatch(3, 0, (items) => {
            if (items.some((item) => item.payload === 0)) return broken()
            return Effect.succeed(items.map(() => Result.void))
          })
        ),
        transport.layer
      )
      transport.deliver(0)
      yield* until("settled", () => transport.settled.length === 1)
      transport.deliver(1)
      yield* until("settled", () => transport.settled.length === 2)
      assert.deepStrictEqual(transport.outcomes(), ["DeadLetter", "Ack"])
    })
  )

  it.effect("what cannot be decoded never reaches the handler, and a batch of nothing else does not call it", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const { batches, consumer } = collecting(3, 0)
      yield* run(consumer, transport.layer)
      transport.deliver(1, "rubbish", 2)
      yield* until("settled", () => transport.settled.length === 3)
      transport.deliver("rubbish", new Uint8Array([0xff]))
      yield* until("settled", () => transport.settled.length === 5)
      assert.deepStrictEqual(batches.flat(), [1, 2])
      assert.isTrue(batches.every((batch) => batch.length > 0))
      for (const [{ body }, settlement] of transport.settled) {
        if (body === "1" || body === "2") assert.strictEqual(settlement._tag, "Ack")
        else assert.deepInclude(settlement, { _tag: "DeadLetter", reason: "DecodeFailure" })
      }
    })
  )

  it.effect("a schema that throws on one item does no harm to the others", () =>
    Effect.gen(function* () {
      const Touchy = Schema.String.pipe(
        Schema.decodeTo(
          Schema.String,
          SchemaTransformation.transform({
            decode: (text) => {
              if (text === "bad") throw new Error("bad transformation")
              return text
            },
            encode: (text: string) => text
          })
        )
      )
      const transport = yield* FakeTransport.make
      yield* run(
        Consumer.make(Topic.make("t", { payload: Touchy }), { group: "g" }).pipe(
          Consumer.processBatch(3, "1 second", (items) => Effect.succeed(items.map(() => Result.void)))
        ),
        transport.layer
      )
      transport.deliver('"a"', '"bad"', '"b"')
      yield* until("settled", () => transport.settled.length === 3)
      // It may be a service that the schema needs: nobody can tell.
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Retry", "Ack"])
    })
  )

  it.effect("fewer results than items: the items without one are dead letters, and say so", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(Consumer.processBatch(3, "1 second", () => Effect.succeed([Result.void]))),
        transport.layer
      )
      transport.deliver(0, 1, 2)
      yield* until("settled", () => transport.settled.length === 3)
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "DeadLetter", "DeadLetter"])
      const settlement = transport.settled[1]![1]
      assert.deepInclude(settlement, { reason: "Defect" })
      assert.include(settlement._tag === "DeadLetter" ? settlement.cause : "", "fewer")
    })
  )

  it.effect("more results than items are ignored", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.processBatch(2, 0, () =>
            Effect.succeed([Result.void, Result.void, Result.fail("nobody's"), Result.fail("nobody's")])
          ),
          Consumer.orElse(Consumer.deadLetter())
        ),
        transport.layer
      )
      transport.deliver(0, 1, 2)
      yield* until("settled", () => transport.settled.length === 3)
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Ack", "Ack"])
    })
  )

  it.effect("results of the wrong shape are defects, and the consumer goes on", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const answers: Array<unknown> = [undefined, null, [7], [null], "text"]
      yield* run(
        source().pipe(
          // The types rule it out; JavaScript does not.
          Consumer.processBatch(1, 0, ([{ payload }]) =>
            Effect.succeed(answers[payload] as ReadonlyArray<Result.Result<void, never>>)
          )
        ),
        transport.layer
      )
      transport.deliver(...range(0, answers.length))
      yield* until("settled", () => transport.settled.length === answers.length)
      assert.deepStrictEqual(transport.outcomes(), Array(answers.length).fill("DeadLetter"))
    })
  )

  it.effect("a handler that interrupts its own fiber has failed once, and no later batch with it", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      yield* run(
        source().pipe(
          Consumer.processBatch(2, 0, (items) =>
            items.some((item) => item.payload === 0)
              ? Effect.withFiber((fiber) => {
                  fiber.interruptUnsafe()
                  return Effect.never
                })
              : Effect.as(
                  Effect.yieldNow,
                  items.map(() => Result.void)
                )
          )
        ),
        transport.layer
      )
      transport.deliver(...range(0, 10))
      yield* until("all settled", () => transport.settled.length === 10)
      assert.deepStrictEqual(transport.outcomes().slice(0, 2).toSorted(), ["Retry", "Retry"])
      assert.deepStrictEqual(transport.outcomes().slice(2), Array(8).fill("Ack"))
    })
  )

  it.effect("a fiber that is interrupted from outside while it collects gives back what it has", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      let worker: { interruptUnsafe(): void } | undefined
      yield* run(
        source().pipe(
          Consumer.processBatch(2, "1 minute", (items) =>
            Effect.withFiber((fiber) => {
              worker = fiber
              return Effect.succeed(items.map(() => Result.void))
            })
          )
        ),
        transport.layer
      )
      transport.deliver(0, 1, 2)
      yield* until("the first batch is done", () => transport.settled.length === 2)
      yield* quiet()
      worker?.interruptUnsafe()
      yield* until("the collected one is back", () => transport.settled.length === 3)
      transport.deliver(3, 4)
      yield* until("it goes on", () => transport.settled.length === 5)
      assert.deepStrictEqual(transport.outcomes(), ["Ack", "Ack", "Release", "Ack", "Ack"])
    })
  )

  describe("timeout", () => {
    it.effect("fails every item of the batch, and only them", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source().pipe(
            Consumer.processBatch(2, 0, () => Effect.never),
            Consumer.timeout("3 seconds"),
            Consumer.onFailure({ HandlerTimeout: Consumer.retry(second) })
          ),
          transport.layer
        )
        transport.deliver(0)
        yield* quiet()
        yield* TestClock.adjust("3 seconds")
        yield* until("settled", () => transport.settled.length === 1)
        assert.deepStrictEqual(transport.outcomes(), ["Retry"])
      })
    )

    it.effect("what cannot be decoded stays a dead letter when the rest takes too long", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* run(
          source().pipe(
            Consumer.processBatch(2, "1 second", () => Effect.never),
            Consumer.timeout("3 seconds"),
            Consumer.onFailure({ HandlerTimeout: Consumer.retry(second) })
          ),
          transport.layer
        )
        transport.deliver(0, "rubbish")
        yield* quiet()
        yield* TestClock.adjust("5 seconds")
        yield* until("settled", () => transport.settled.length === 2)
        assert.deepStrictEqual(transport.outcomes(), ["Retry", "DeadLetter"])
      })
    )
  })

  describe("a lost lease", () => {
    it.effect("in a running batch interrupts it; the others go back without counting the attempt", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        let interrupted = 0
        yield* run(
          source().pipe(
            Consumer.processBatch(3, "1 second", (items) =>
              items.some((item) => item.payload < 3)
                ? Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
                : Effect.succeed(items.map(() => Result.void))
            )
          ),
          transport.layer
        )
        const [first, lost, last] = transport.deliver(0, 1, 2)
        yield* until("in hand", () => transport.held.size === 3)
        yield* quiet()
        transport.lose(lost!)
        yield* until("interrupted", () => interrupted === 1)
        yield* until("the others go back", () => transport.settled.length === 2)
        assert.deepStrictEqual(transport.ends(first!), ["Release"])
        assert.deepStrictEqual(transport.ends(lost!), ["Lost"])
        assert.deepStrictEqual(transport.ends(last!), ["Release"])
        transport.deliver(3, 4, 5)
        yield* until("it goes on", () => transport.settled.length === 5)
        assert.deepStrictEqual(transport.complaints(), [])
      })
    )

    it.effect("while the batch is collected: it is never handled, and the others end", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        const { batches, consumer } = collecting(5, 1000)
        yield* run(consumer, transport.layer)
        const [first, lost] = transport.deliver(0, 1, 2)
        yield* until("collected", () => transport.held.size === 3)
        yield* quiet()
        transport.lose(lost!)
        yield* until("the others go back at once", () => transport.settled.length === 2)
        assert.deepStrictEqual(transport.outcomes(), ["Release", "Release"])
        yield* TestClock.adjust("2 seconds")
        yield* until("nothing is held", () => transport.held.size === 0)
        assert.notInclude(batches.flat(), 1)
        assert.deepStrictEqual(transport.ends(lost!), ["Lost"])
        assert.strictEqual(transport.ends(first!).length, 1)
        assert.deepStrictEqual(transport.complaints(), [])
      })
    )

    it.effect("of every item of a batch, again and again, leaves room for the next", () =>
      Effect.gen(function* () {
        const transport = yield* FakeTransport.make
        yield* TestClock.adjust(1)
        let stuck = true
        const fiber = yield* run(
          source({ prefetch: 0, concurrency: 2 }).pipe(
            Consumer.processBatch(3, 0, (items) =>
              stuck
                ? Effect.onInterrupt(Effect.never, () => Effect.sleep(10))
                : Effect.succeed(items.map(() => Result.void))
            )
          ),
          transport.layer
        )
        for (let round = 0; round < 20; round++) {
          transport.deliver(...range(0, 6))
          yield* until("all in hand", () => transport.held.size > 0)
          yield* quiet()
          transport.lose(...transport.held.values())
          yield* quiet()
          yield* TestClock.adjust(10)
          yield* quiet()
        }
        stuck = false
        transport.lose(...transport.held.values())
        yield* TestClock.adjust(10)
        const last = transport.deliver(...range(0, 30))
        yield* until("it goes on", () => last.every((delivery) => transport.ends(delivery).includes("Ack")))
        yield* stop(fiber)
        assert.deepStrictEqual(transport.complaints(), [])
      })
    )
  })
})
