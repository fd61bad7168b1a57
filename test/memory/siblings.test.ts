/**
 * A memory layer that is built twice is two stores. A program that uses both for one topic is told; tests are not.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Logger, Schema } from "effect"
import { Consumer, Producer, Topic, Transport, type Inspector } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"

const Order = Topic.make("orders", { payload: Schema.String, guarantee: "at-most-once" })

const patterns: Record<string, () => Layer.Layer<Transport.AtMostOnce | Inspector.Inspector>> = {
  MemoryStreams: MemoryStreams.layer,
  MemoryLists: MemoryLists.layer,
  MemoryExactlyOnce: MemoryExactlyOnce.layer,
  MemoryKeyspace: MemoryKeyspace.layer,
  MemoryPubSub: MemoryPubSub.layer
}

/** Runs it, and answers what it warned of. */
const warnings = (self: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function* () {
    const warned: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn") warned.push(JSON.stringify(message))
    })
    yield* Effect.provide(self, Logger.layer([logger]))
    return warned
  })

const apart = "two in-memory stores"
const gone = "were lost with an in-memory store"

const consumer = Consumer.make(Order, { group: "g" }).pipe(
  Consumer.process(() => Effect.void),
  Consumer.layer
)

describe.each(Object.entries(patterns))("case D13 %s provided twice", (name, layer) => {
  const stores = name !== "MemoryPubSub"

  it.effect("beside each other, for the two ends of one topic: a warning, once", () =>
    Effect.gen(function* () {
      const memory = layer()
      const publish = Effect.forEach([1, 2, 3], () => Producer.publish(Order, "o")).pipe(Effect.provide(memory))
      const program = Effect.gen(function* () {
        const fiber = yield* Effect.forkChild(Effect.provide(Effect.never, consumer.pipe(Layer.provide(memory))))
        yield* Effect.yieldNow
        yield* Effect.yieldNow
        yield* publish
        yield* Fiber.interrupt(fiber)
      })
      const warned = yield* warnings(program)
      assert.strictEqual(warned.filter((text) => text.includes(apart)).length, 1, warned.join("\n"))
      assert.include(
        warned.find((text) => text.includes(apart)),
        "orders"
      )
    })
  )

  it.effect("two values of the layer in one build: a warning", () =>
    Effect.gen(function* () {
      const publish = Layer.effectDiscard(Producer.publish(Order, "o"))
      const warned = yield* warnings(
        Effect.scoped(
          Layer.build(
            consumer.pipe(
              Layer.provide(layer()),
              Layer.merge(Layer.effectDiscard(Effect.yieldNow)),
              Layer.merge(publish.pipe(Layer.provide(layer())))
            )
          )
        )
      )
      assert.strictEqual(warned.filter((text) => text.includes(apart)).length, 1, warned.join("\n"))
    })
  )

  it.effect("one after the other, with something unsettled in the first: a warning where messages are kept", () =>
    Effect.gen(function* () {
      const memory = layer()
      const receive = Effect.scoped(
        Transport.AtMostOnce.use((transport) =>
          transport.receive({
            topic: Order.name,
            group: "g",
            start: "earliest",
            lease: Duration.minutes(1),
            maxDeliveries: 5,
            shutdown: Duration.seconds(1)
          })
        )
      )
      const program = Effect.gen(function* () {
        yield* Effect.provide(Producer.publish(Order, "o"), memory)
        yield* Effect.provide(receive, memory)
        yield* Effect.provide(receive, memory)
      })
      const warned = yield* warnings(program)
      assert.strictEqual(warned.filter((text) => text.includes(gone)).length, stores ? 1 : 0, warned.join("\n"))
      assert.isFalse(warned.some((text) => text.includes(apart)))
    })
  )

  it.effect("shared, settled, or for other topics: no word", () =>
    Effect.gen(function* () {
      const memory = layer()
      const Other = Topic.make("others", { payload: Schema.String, guarantee: "at-most-once" })
      const program = Effect.gen(function* () {
        // Shared: one inside the other. What is published is handled.
        yield* Effect.gen(function* () {
          yield* Effect.provide(Producer.publish(Order, "o"), memory)
          for (let turn = 0; turn < 100; turn++) yield* Effect.yieldNow
        }).pipe(Effect.provide(consumer.pipe(Layer.provideMerge(memory))))
        yield* Producer.publish(Other, "o").pipe(Effect.provide(memory))
      })
      assert.deepStrictEqual(yield* warnings(program), [])
    })
  )

  it.effect("a test after it, with a clock of its own: no word", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* warnings(Effect.provide(Producer.publish(Order, "o"), layer())), [])
    })
  )

  it.effect("under a name, beside each other: a warning; under two names: no word", () =>
    Effect.gen(function* () {
      const beside = (...names: ReadonlyArray<typeof One | typeof Other>) =>
        warnings(Effect.scoped(Effect.forEach(names, (as) => Layer.build(held(namedLayers[name]!(as), as)))))
      assert.deepStrictEqual(yield* beside(One, Other), [])
      assert.strictEqual((yield* beside(One, One)).filter((text) => text.includes(apart)).length, 1)
    })
  )
})

class One extends Transport.Tag<One>()("test/One", { guarantee: "at-most-once" }) {}
class Other extends Transport.Tag<Other>()("test/Other", { guarantee: "at-most-once" }) {}

const namedLayers: Record<string, (as: typeof One | typeof Other) => Layer.Layer<One | Other>> = {
  MemoryStreams: (as) => MemoryStreams.layer({ as }),
  MemoryLists: (as) => MemoryLists.layer({ as }),
  MemoryExactlyOnce: (as) => MemoryExactlyOnce.layer({ as }),
  MemoryKeyspace: (as) => MemoryKeyspace.layer({ as }),
  MemoryPubSub: (as) => MemoryPubSub.layer({ as })
}

/** The layer, with something published on it. */
const held = (layer: Layer.Layer<One | Other>, on: Transport.Name<One | Other>) =>
  Layer.provide(
    Layer.effectDiscard(Producer.publish(Topic.make("orders", { payload: Schema.String, on }), "o")),
    Layer.fresh(layer)
  )
