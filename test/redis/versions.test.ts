/**
 * Two builds side by side in one group: the newer one publishes what the older one cannot read. The naive older build decodes
 * whatever it is given, as it would if nothing said which version a message has.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, References, Schema, type Scope } from "effect"
import { Consumer, Inspector, Producer, Topic, type Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { becomes } from "./Fixture.ts"
import * as Patterns from "./Patterns.ts"

const name = "people"
const V1 = Schema.Struct({ name: Schema.String })
const V2 = Schema.Struct({ first: Schema.String, last: Schema.String })
const Old = Topic.make(name, { payload: V1 })
const New = Topic.make(name, {
  version: 2,
  payload: V2,
  from: { 1: Topic.from(V1, ({ name }) => Effect.succeed({ first: name, last: "" })) }
})
const Naive: typeof Old = { ...Old, version: Infinity, decode: (body) => Old.decode(body) }

const count = 20

/** How many messages of each version each build has handled, and how many are dead letters. */
const sideBySide = (older: typeof Old) =>
  Effect.gen(function* () {
    const handled = { older: [0, 0], newer: [0, 0] }
    const build = <P>(topic: Topic.Topic<P, Transport.AtLeastOnce>, tally: Array<number>) =>
      Consumer.make(topic, { group: "g", concurrency: 2, prefetch: 2 }).pipe(
        Consumer.process((_, { version }) => Effect.sync(() => tally[version - 1]!++)),
        Consumer.layer,
        Layer.build
      )
    const inspector = yield* Inspector.Inspector
    const figures = Effect.map(inspector.describe(name), ({ groups: [group] }) => ({
      lag: group!.lag,
      open: group!.lag + group!.pending + group!.waiting,
      dead: group!.deadLetters
    }))
    yield* build(older, handled.older)
    // The older build is given one for certain.
    yield* Producer.publish(New, { first: "0", last: "" })
    yield* becomes(
      "it is taken",
      Effect.map(figures, ({ lag }) => lag),
      0
    )
    yield* build(New, handled.newer)
    for (let i = 0; i < count; i++) {
      yield* Producer.publish(Old, { name: `${i}` })
      if (i > 0) yield* Producer.publish(New, { first: `${i}`, last: "" })
    }
    yield* becomes(
      "all are settled",
      Effect.map(figures, ({ open }) => open),
      0
    )
    return { ...handled, dead: (yield* figures).dead }
  })

it.live("messages that a filter cannot parse are delivered, and end as dead letters", () =>
  Effect.gen(function* () {
    const { commands } = yield* IoRedis.IoRedis
    const key = `{waybill:${name}}:stream`
    for (const headers of ["{", "[]", '{"type":"b"}', '{"type":1}']) {
      yield* commands.run("xadd", key, (client) => client.xadd(key, "*", "payload", "{}", "headers", headers))
    }
    yield* commands.run("xadd", key, (client) => client.xadd(key, "*", "text", "no payload"))
    yield* Consumer.make(Old, { group: "g", only: { headers: { type: ["a"] } } }).pipe(
      Consumer.process(() => Effect.void),
      Consumer.layer,
      Layer.build
    )
    const inspector = yield* Inspector.Inspector
    yield* becomes(
      "all are settled",
      Effect.map(inspector.describe(name), ({ groups: [group] }) => [group!.lag, group!.pending, group!.deadLetters]),
      [0, 0, 2]
    )
  }).pipe(
    Effect.scoped,
    Effect.provide(RedisStreams.layer().pipe(Layer.provideMerge(Patterns.redis), Layer.provide(RedisServer.layer()))),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)

describe.each(Object.entries(Patterns.storing))("two builds side by side, %s", (_, layer) => {
  const onRedis = <A, E>(effect: Effect.Effect<A, E, Patterns.Services | Transport.AtLeastOnce | Scope.Scope>) =>
    effect.pipe(
      Effect.scoped,
      Effect.provide(layer().pipe(Layer.provide(Patterns.redis), Layer.provide(RedisServer.layer()))),
      Effect.provideService(References.MinimumLogLevel, "None")
    )

  it.live("nothing is lost or buried, and nobody handles what it cannot read", () =>
    Effect.gen(function* () {
      const { dead, newer, older } = yield* sideBySide(Old)
      assert.strictEqual(dead, 0)
      assert.strictEqual(older[0]! + newer[0]!, count)
      assert.deepStrictEqual([older[1], newer[1]], [0, count])
    }).pipe(onRedis)
  )

  it.live("a build that does not ask for the version buries what it cannot read", () =>
    Effect.gen(function* () {
      const { dead, newer } = yield* sideBySide(Naive)
      assert.isAbove(dead, 0)
      assert.strictEqual(newer[1]! + dead, count)
    }).pipe(onRedis)
  )
})
