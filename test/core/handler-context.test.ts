/** What a handler finds in its context: the delivery it is for, also in what it logs and in fibers that outlive it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Latch, Logger, References, Result, Schema } from "effect"
import { Consumer, Delivery, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

const Job = Topic.make("jobs", { payload: Schema.String })
const group = "g"

/** A logger that keeps who said it, and what stood beside it. */
const listening = () => {
  const said: Array<readonly [message: unknown, annotations: unknown]> = []
  const logger = Logger.make(({ fiber, message }) => {
    // What a logger keeps must not change afterwards.
    if (String(message).startsWith("at ")) said.push([String(message), fiber.getRef(References.CurrentLogAnnotations)])
  })
  return { said, layer: Logger.layer([logger]) }
}

describe("the context of a handler", () => {
  it.effect("is that of its delivery, also in fibers that outlive it", () => {
    const { layer, said } = listening()
    return Effect.gen(function* () {
      assert.isUndefined(yield* Delivery.Current)
      const handled: Array<string> = []
      const later: Array<string> = []
      const ended = yield* Latch.make()
      const told = yield* Latch.make()
      const all = yield* Latch.make()
      const deep = Effect.gen(function* () {
        yield* Effect.yieldNow
        return (yield* Delivery.Current)?.id ?? "none"
      })
      yield* Consumer.make(Job, { group }).pipe(
        Consumer.process((name) =>
          Effect.gen(function* () {
            yield* Effect.forkDetach(
              Effect.gen(function* () {
                yield* ended.await
                yield* Effect.log(`at ${name}, later`)
                if (later.push(`${name} ${yield* deep}`) === 3) yield* told.open
              }),
              { startImmediately: true }
            )
            yield* Effect.addFinalizer(() => Effect.map(deep, (id) => handled.push(`end of ${name} ${id}`)))
            handled.push(`${name} ${yield* deep}`)
            yield* Effect.log(`at ${name}`).pipe(Effect.annotateLogs("own", name))
            if (name === "c") yield* all.open
          })
        ),
        Consumer.run,
        Effect.annotateLogs({ service: "billing", attempt: "the outer one" }),
        Effect.forkChild({ startImmediately: true })
      )
      yield* Producer.publishAll(Job, ["a", "b", "c"], (name) => ({ id: `id-${name}` }))
      yield* all.await
      yield* ended.open
      yield* told.await
      const expected = ["a id-a", "end of a id-a", "b id-b", "end of b id-b", "c id-c", "end of c id-c"]
      assert.deepStrictEqual(handled, expected)
      assert.deepStrictEqual(later.toSorted(), ["a id-a", "b id-b", "c id-c"])
      const about = { service: "billing", topic: "jobs", group, attempt: 1 }
      assert.deepStrictEqual(
        said.toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
        ["a", "b", "c"].flatMap(
          (name) =>
            [
              [`at ${name}`, { ...about, messageId: `id-${name}`, own: name }],
              [`at ${name}, later`, { ...about, messageId: `id-${name}` }]
            ] as const
        )
      )
      assert.isUndefined(yield* Delivery.Current)
    }).pipe(Effect.provide(MemoryStreams.layer()), Effect.provide(layer))
  })

  it.effect("of a batch says how many there are, and has no delivery", () => {
    const { layer, said } = listening()
    return Effect.gen(function* () {
      const done = yield* Latch.make()
      yield* Consumer.make(Job, { group }).pipe(
        Consumer.processBatch(10, 0, (items) =>
          Effect.gen(function* () {
            yield* Effect.log(`at ${items.length}, ${(yield* Delivery.Current)?.id}`)
            yield* done.open
            return items.map(() => Result.void)
          })
        ),
        Consumer.run,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Producer.publishAll(Job, Array.from({ length: 10 }, String))
      yield* done.await
      assert.deepStrictEqual(said, [["at 10, undefined", { topic: "jobs", group, batchSize: 10 }]])
    }).pipe(Effect.provide(MemoryStreams.layer()), Effect.provide(layer))
  })
})
