/** Purging topics, and moving and retiring groups, when there is more to do than one script does: a thousand messages. */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Array, Context, Duration, Effect, Layer, References } from "effect"
import { type Delivery, Inspector, Settlement, Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import { outgoing } from "./Fixture.ts"
import { storing } from "./Patterns.ts"

const bodies = Array.makeBy(2500, String)
/** The first ones wait for a retry, as many were handed back, and the rest was never taken. */
const some = 1100

const fixture = Effect.fnUntraced(function* (name: keyof typeof storing, test: string) {
  const { url } = yield* RedisServer.RedisServer
  const context = yield* Layer.build(
    storing[name]({ prefix: `${test}${name}` }).pipe(Layer.provide(IoRedis.layer({ url })))
  )
  const transport = Context.get(context, Transport.AtLeastOnce)
  const join = (group: string) =>
    transport.receive({
      topic: "t",
      group,
      start: "earliest",
      lease: Duration.seconds(10),
      maxDeliveries: 5,
      shutdown: Duration.seconds(2)
    })
  const take = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
    const taken: Array<Delivery.Delivery> = []
    while (taken.length < count) taken.push(...(yield* receiver.take(count - taken.length)))
    return taken
  })
  for (const chunk of Array.chunksOf(bodies, 500)) yield* transport.publish("t", Array.map(chunk, outgoing))
  // Its consumer leaves with work of every kind.
  yield* Effect.scoped(
    Effect.gen(function* () {
      const receiver = yield* join("g")
      const retry = Settlement.retry(Duration.hours(1), "later")
      const [first, ...others] = (yield* take(receiver, some)).map((delivery) => [delivery, retry] as const)
      assert(first !== undefined)
      yield* receiver.settle([first, ...others])
      yield* take(receiver, some)
    })
  )
  return { inspector: Context.get(context, Inspector.Inspector), join, take, transport }
})

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

layer(RedisServer.layer(), { excludeTestServices: true })("thousands of messages", (it) => {
  it.effect.each(["RedisStreams", "RedisLists", "RedisExactlyOnce", "RedisKeyspace"] as const)(
    "%s: a purge leaves none of them",
    (name) =>
      Effect.gen(function* () {
        const { inspector, join, take, transport } = yield* fixture(name, "purge")
        const later = outgoing({ body: "later", due: { _tag: "After", delay: Duration.hours(1) } })
        for (let i = 0; i < 3; i++)
          yield* transport.publish(
            "t",
            Array.makeBy(500, () => later)
          )
        yield* inspector.purge("t")
        const { delayed, depth, groups } = yield* inspector.describe("t")
        assert.deepStrictEqual([delayed, depth], [0, 0])
        const [group] = groups
        assert.deepStrictEqual([group?.lag, group?.pending, group?.waiting], [0, 0, 0])
        yield* transport.publish("t", [outgoing("anew")])
        const [anew] = yield* take(yield* join("g"), 1)
        assert.strictEqual(anew?.body, "anew")
        assert.isUndefined(anew?.gap)
      }).pipe(Effect.scoped, quietly)
  )

  it.effect("RedisStreams: a group that is moved back gets all that are stored again, in order", () =>
    Effect.gen(function* () {
      const { inspector, join, take } = yield* fixture("RedisStreams", "move")
      yield* inspector.move("t", "g", "earliest")
      const [group] = (yield* inspector.describe("t")).groups
      assert.deepStrictEqual([group?.lag, group?.pending, group?.waiting], [bodies.length - some, 0, some])
      // No group needs those in the stream that wait for a retry.
      const taken = yield* take(yield* join("g"), bodies.length - some)
      assert.deepStrictEqual(
        taken.map(({ body }) => body),
        bodies.slice(some)
      )
    }).pipe(Effect.scoped, quietly)
  )

  it.effect.each(["RedisLists", "RedisExactlyOnce"] as const)(
    "%s: the group after a retired one gets each of them as new, first those that were not settled",
    (name) =>
      Effect.gen(function* () {
        const { inspector, join, take } = yield* fixture(name, "retire")
        yield* inspector.retire("t", "g")
        const taken = yield* take(yield* join("next"), bodies.length)
        assert.isTrue(taken.every(({ attempt }) => attempt === 1))
        const found = taken.map(({ body }) => String(body))
        assert.sameMembers(found.slice(0, 2 * some), bodies.slice(0, 2 * some))
        assert.deepStrictEqual(found.slice(2 * some), bodies.slice(2 * some))
      }).pipe(Effect.scoped, quietly)
  )
})
