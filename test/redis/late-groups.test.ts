/**
 * What a group finds that comes later, with `start: "earliest"`: the sentences in docs/streams.md and docs/keyspace.md, on
 * Redis and in memory. What a default layer of streams does is a check of `TransportSuite`.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Duration, Effect, Layer, type Scope } from "effect"
import { type Delivery, Inspector, Settlement, Transport } from "waybill"
import { MemoryKeyspace, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisKeyspace, RedisStreams } from "waybill/redis"
import { becomes, outgoing } from "./Fixture.ts"

type Ports = Transport.AtMostOnce | Inspector.Inspector

const onRedis = (layer: Layer.Layer<Ports, never, IoRedis.IoRedis>): Layer.Layer<Ports, unknown> =>
  layer.pipe(
    Layer.provide(Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url })))),
    Layer.provide(RedisServer.layer())
  )

const retention = { maxLength: 1000 }
const kept: Record<string, Layer.Layer<Ports, unknown>> = {
  "RedisStreams with maxLength": onRedis(RedisStreams.layer({ retention })),
  "MemoryStreams with maxLength": MemoryStreams.layer({ retention }),
  RedisKeyspace: onRedis(RedisKeyspace.layer({ notifications: "enable" })),
  MemoryKeyspace: MemoryKeyspace.layer()
}
const settledGoes: Record<string, Layer.Layer<Ports, unknown>> = {
  RedisStreams: onRedis(RedisStreams.layer()),
  MemoryStreams: MemoryStreams.layer()
}

const fixture = Effect.gen(function* () {
  const transport = yield* Transport.AtMostOnce
  const inspector = yield* Inspector.Inspector
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
  /** Publishes 50; a group settles all of them, and stays. */
  const fifty = Array.from({ length: 50 }, (_, i) => String(i).padStart(2, "0"))
  const [first, ...rest] = fifty.map(outgoing)
  const settled = Effect.gen(function* () {
    assert(first !== undefined)
    const receiver = yield* join("first")
    yield* transport.publish("t", [first, ...rest])
    for (const delivery of yield* take(receiver, 50)) yield* receiver.settle([[delivery, Settlement.ack]])
  })
  return {
    fifty,
    settled,
    publish: (body: string) => transport.publish("t", [outgoing(body)]),
    depth: Effect.map(inspector.describe("t"), ({ depth }) => depth),
    /** The bodies of the next so many messages of a group that comes now. */
    late: (count: number) =>
      Effect.map(
        Effect.flatMap(join("late"), (receiver) => take(receiver, count)),
        (taken) => taken.map(({ body }) => String(body))
      )
  }
})

const test = (
  layer: Layer.Layer<Ports, unknown>,
  name: string,
  body: Effect.Effect<void, unknown, Ports | Scope.Scope>
) => it.live(name, () => body.pipe(Effect.scoped, Effect.provide(layer), Effect.timeout("30 seconds")), 60_000)

describe.each(Object.entries(settledGoes))("case D5 %s", (_, layer) => {
  test(
    layer,
    "what every group has settled is not there for a group that comes later",
    Effect.gen(function* () {
      const { depth, late, publish, settled } = yield* fixture
      yield* settled
      yield* becomes("cut off", depth, 0)
      yield* publish("next")
      assert.deepStrictEqual(yield* late(1), ["next"])
    })
  )
})

describe.each(Object.entries(kept))("case D5 %s", (_, layer) => {
  test(
    layer,
    "a group that comes later gets what another one has settled, in order",
    Effect.gen(function* () {
      const { depth, fifty, late, publish, settled } = yield* fixture
      yield* settled
      // Longer than anybody would wait to cut it off.
      yield* Effect.sleep("1500 millis")
      assert.strictEqual(yield* depth, 50)
      yield* publish("next")
      assert.deepStrictEqual(yield* late(51), [...fifty, "next"])
    })
  )
})
