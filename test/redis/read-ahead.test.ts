/**
 * What a consumer has read ahead has a way back to the others of its group: layers with connections of their own stand for
 * their processes.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Effect, Exit, Layer, Random, References, Schema, Scope } from "effect"
import { Consumer, Inspector, type Message, Producer, Topic, type Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"
import { becomes } from "./Fixture.ts"

const Work = Topic.make("work", {
  payload: Schema.Struct({ n: Schema.Int, millis: Schema.Number }),
  guarantee: "at-most-once"
})
interface Work {
  readonly n: number
  readonly millis: number
}

const patterns = {
  streams: (prefix: string) => RedisStreams.layer({ prefix }),
  lists: (prefix: string) => RedisLists.layer({ prefix }),
  priority: (prefix: string) => RedisLists.layer({ prefix, order: "priority" }),
  "exactly-once": (prefix: string) => RedisExactlyOnce.layer({ prefix }),
  keyspace: (prefix: string) => RedisKeyspace.layer({ prefix, notifications: "enable" })
}

const lease = "1500 millis"

/** Programs of one group, each as if in a process of its own. */
const fixture = Effect.fnUntraced(function* (
  layer: (prefix: string) => Layer.Layer<Transport.AtMostOnce | Inspector.Inspector, never, IoRedis.IoRedis>
) {
  const { url } = yield* RedisServer.RedisServer
  const prefix = `ahead${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
  const program = Effect.map(
    Layer.build(layer(prefix).pipe(Layer.provideMerge(IoRedis.layer({ url })))).pipe(
      Effect.provideService(References.MinimumLogLevel, "None")
    ),
    (context) => ({
      context,
      inspector: Context.get(context, Inspector.Inspector),
      publish: (works: ReadonlyArray<Work>, headers: Message.Headers = {}) =>
        Producer.publishAll(Work, works, () => ({ headers })).pipe(Effect.provideContext(context))
    })
  )
  /** A consumer in a process of its own, and what its handlers have begun. */
  const consumer = Effect.fnUntraced(function* (options: Partial<Consumer.Options<"at-most-once">> = {}) {
    const { context, inspector } = yield* program
    const begun: Array<number> = []
    const attempts: Array<number> = []
    let running = 0
    const definition = Consumer.make(Work, { group: "g", concurrency: 4, lease, ...options })
    const scope = yield* Scope.fork(yield* Effect.scope)
    yield* Layer.build(
      definition.pipe(
        Consumer.process(({ millis, n }, { attempt }) =>
          Effect.gen(function* () {
            begun.push(n)
            attempts.push(attempt)
            running++
            if (millis > 0) yield* Effect.sleep(millis)
            running--
          }).pipe(Effect.onInterrupt(() => Effect.sync(() => running--)))
        ),
        Consumer.layer
      )
    ).pipe(
      Effect.provideContext(context as Context.Context<Transport.AtMostOnce>),
      Scope.provide(scope),
      Effect.provideService(References.MinimumLogLevel, "None")
    )
    return {
      begun,
      attempts,
      running: () => running,
      inspector,
      /** Ends the process, whatever its handlers do. */
      end: Scope.close(scope, Exit.void)
    }
  })
  return { program, consumer }
})

const works = (count: number, millis: number, from = 0): ReadonlyArray<Work> =>
  Array.from({ length: count }, (_, i) => ({ n: from + i, millis }))

const until = (what: string, holds: () => boolean) => becomes(what, Effect.sync(holds), true)

const figures = (inspector: Context.Service.Shape<typeof Inspector.Inspector>) =>
  Effect.map(inspector.describe("work"), ({ groups }) => {
    const { lag = 0, pending = 0, waiting = 0 } = groups[0] ?? {}
    return { pending, left: lag + waiting }
  })

describe.each(sampled("read ahead", Object.entries(patterns), 2))("read ahead, %s", (_, layer) => {
  it.live(
    "case A2: messages that turn out slow are shared with a consumer that is idle",
    () =>
      Effect.gen(function* () {
        const { consumer, program } = yield* fixture(layer)
        const { publish } = yield* program
        const one = yield* consumer({ shutdown: "1 second" })
        yield* publish(works(3000, 0))
        yield* until("quick ones are done", () => one.begun.length === 3000)
        yield* publish(works(1000, 0, 3000))
        yield* publish(works(200, 50, 4000))
        yield* until("slow ones have begun", () => one.begun.length > 4000)
        const other = yield* consumer({ shutdown: "1 second" })
        yield* until("all have begun", () => one.begun.length + other.begun.length >= 4200)
        assert.isAtLeast(other.begun.length, 50)
        assert.deepStrictEqual(
          [...one.begun, ...other.begun].sort((a, b) => a - b),
          works(4200, 0).map(({ n }) => n)
        )
        assert.isTrue([...one.attempts, ...other.attempts].every((attempt) => attempt === 1))
      }).pipe(Effect.provide(RedisServer.layer())),
    60_000
  )

  it.live(
    "case A3: what lies behind handlers that hang goes to a consumer that is idle, in order and uncounted",
    () =>
      Effect.gen(function* () {
        const { consumer, program } = yield* fixture(layer)
        const { publish } = yield* program
        const hung = yield* consumer({ shutdown: "100 millis" })
        yield* publish(works(3000, 0))
        yield* until("quick ones are done", () => hung.begun.length === 3000)
        yield* publish([...works(500, 0, 3000), ...works(4, 1e9, 3500), ...works(400, 0, 4000)])
        yield* until("its handlers hang", () => hung.running() === 4)
        const other = yield* consumer({ concurrency: 1 })
        yield* until("the others are done", () => other.begun.length === 400)
        assert.deepStrictEqual(
          other.begun,
          works(400, 0, 4000).map(({ n }) => n)
        )
        assert.isTrue(other.attempts.every((attempt) => attempt === 1))
        yield* becomes("four are left", figures(other.inspector), { pending: 4, left: 0 })
        // Not even a second time: who hangs takes nothing.
        yield* publish(works(50, 0, 5000))
        yield* until("new ones are done", () => other.begun.length === 450)
        assert.strictEqual(hung.begun.length, 3504)
      }).pipe(Effect.provide(RedisServer.layer())),
    60_000
  )

  it.live(
    "case A5, F4: after pause nothing begins in any process, and what was read ahead is back, until resume",
    () =>
      Effect.gen(function* () {
        const { consumer, program } = yield* fixture(layer)
        const { inspector, publish } = yield* program
        const consumers = [yield* consumer(), yield* consumer()] as const
        const begun = () => consumers.reduce((sum, { begun }) => sum + begun.length, 0)
        const running = () => consumers.reduce((sum, { running }) => sum + running(), 0)
        yield* publish(works(3000, 0))
        yield* until("quick ones are done", () => begun() === 3000)
        yield* publish(works(300, 100, 3000))
        yield* until("slow ones have begun", () => running() === 8)
        // Of one that consumes here, and of one that does not.
        const here = consumers[0].inspector
        let published = 3300
        for (const from of [here, inspector]) {
          yield* from.pause("work", "g")
          const before = begun()
          assert.strictEqual((yield* figures(inspector)).left, published - before)
          yield* publish(works(100, 0, 4000))
          yield* until("what runs ends", () => running() === 0)
          yield* Effect.sleep(1200)
          assert.strictEqual(begun(), before)
          const late = yield* consumer()
          yield* publish(works(1, 0, 5000))
          published += 101
          yield* Effect.sleep(600)
          assert.strictEqual(late.begun.length, 0)
          yield* late.end
          yield* from.resume("work", "g")
          yield* until("all go on", () => running() === 8 || begun() === published)
        }
      }).pipe(Effect.provide(RedisServer.layer())),
    60_000
  )
})

describe("read ahead, RedisPubSub", () => {
  it.live(
    "case A5, F4: after pause nothing begins in any process, until resume",
    () =>
      Effect.gen(function* () {
        const { consumer, program } = yield* fixture((prefix) => RedisPubSub.layer({ prefix, buffer: 10_000 }))
        const { inspector, publish } = yield* program
        const consumers = [yield* consumer(), yield* consumer()] as const
        const running = () => consumers.reduce((sum, { running }) => sum + running(), 0)
        const begun = () => consumers.map(({ begun }) => begun.length)
        const all = (count: number) => () => begun().every((begun) => begun === count)
        yield* publish(works(1000, 0))
        yield* until("quick ones are done", all(1000))
        yield* publish(works(60, 100, 1000))
        yield* until("slow ones have begun", () => running() === 8)
        let published = 1060
        // Of one that consumes here, and of one that does not.
        for (const from of [consumers[0].inspector, inspector]) {
          yield* from.pause("work", "g")
          const before = begun()
          yield* publish(works(20, 100, published))
          published += 20
          yield* until("what runs ends", () => running() === 0)
          yield* Effect.sleep(600)
          assert.deepStrictEqual(begun(), before)
          yield* from.resume("work", "g")
          yield* until("all go on", () => running() === 8)
        }
        yield* until("all are done", all(published))
        for (const { attempts, begun } of consumers) {
          assert.deepStrictEqual(
            begun.toSorted((a, b) => a - b),
            works(published, 0).map(({ n }) => n)
          )
          assert.isTrue(attempts.every((attempt) => attempt === 1))
        }
      }).pipe(Effect.provide(RedisServer.layer())),
    60_000
  )
})
