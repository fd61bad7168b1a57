/**
 * The filter of a group, among members that have missed that it changed, and over messages that are large.
 */
import { assert, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Duration, Effect, Exit, Layer, References, Scope } from "effect"
import { type Delivery, Settlement, Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import { textOf } from "../../packages/waybill/src/internal/Filter.ts"
import { calling } from "../../packages/waybill/src/redis/internal/connection/ScriptReply.ts"
import * as DeliveryScripts from "../../packages/waybill/src/redis/internal/streams/DeliveryScripts.ts"
import { topicKeys } from "../../packages/waybill/src/redis/internal/wire/Keys.ts"
import { outgoing } from "./Fixture.ts"
import * as Patterns from "./Patterns.ts"

const topic = "t"
const of = (...type: ReadonlyArray<string>) => ({ headers: { type } })
const shown = (only?: ReturnType<typeof of>) => only?.headers.type.join() ?? "none"
const message = (type: string, body = type) => outgoing({ body, headers: { type } })

const join = (only?: ReturnType<typeof of>) =>
  Effect.flatMap(Transport.AtLeastOnce, (transport) =>
    transport.receive({
      topic,
      group: "g",
      start: "earliest",
      lease: Duration.seconds(10),
      maxDeliveries: 5,
      shutdown: Duration.seconds(1),
      only
    })
  )

const take = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
  const taken: Array<Delivery.Delivery> = []
  while (taken.length < count) {
    const some = yield* receiver.take(count - taken.length)
    yield* receiver.settle([[some[0], Settlement.ack], ...some.slice(1).map((one) => [one, Settlement.ack] as const)])
    taken.push(...some)
  }
  return taken.map(({ body }) => body)
})

const { RedisKeyspace, RedisStreams } = Patterns.storing

for (const [pattern, layer] of Object.entries({ RedisKeyspace, RedisStreams })) {
  for (const [before, after] of [
    [of("one"), of("two")],
    [of("one"), undefined],
    [undefined, of("two")]
  ] as const) {
    it.live(
      `${pattern}: a member that slept while the filter changed from ${shown(before)} to ${shown(after)} is refused`,
      () =>
        Effect.gen(function* () {
          const { commands } = yield* IoRedis.IoRedis
          const transport = yield* Transport.AtLeastOnce
          const old = yield* join(before)
          const sleep = yield* Scope.make()
          yield* Scope.provide(freeze(old), sleep)
          const consumers = `{waybill:${topic}}:group:g:consumers`
          yield* commands
            .run("zrange", consumers, (client) => client.zrange(consumers, 0, "-1"))
            .pipe(
              Effect.flatMap(([name]) => commands.run("zadd", consumers, (client) => client.zadd(consumers, 1, name!)))
            )
          const next = yield* join(after)
          // A read that waits on the server, and takes everything, loses nothing.
          if (before !== undefined) yield* transport.publish(topic, [message("two"), message("one"), message("two")])
          yield* Scope.close(sleep, Exit.void)
          const refused = yield* Effect.flip(Effect.timeout(old.take(3), "15 seconds"))
          assert(refused._tag === "TransportError", "it was not refused")
          assert.strictEqual(refused.reason._tag, "TopicConflict")
          if (before === undefined) return
          const wanted = after === undefined ? ["two", "one", "two"] : ["two", "two"]
          assert.deepStrictEqual(yield* take(next, wanted.length), wanted)
        }).pipe(
          Effect.scoped,
          Effect.provide(layer().pipe(Layer.provideMerge(Patterns.redis), Layer.provide(RedisServer.layer()))),
          Effect.provideService(References.MinimumLogLevel, "None")
        )
    )
  }
}

it.live("RedisStreams: one call goes through a few megabytes, wanted or not", () =>
  Effect.gen(function* () {
    const { commands } = yield* IoRedis.IoRedis
    const transport = yield* Transport.AtLeastOnce
    yield* freeze(yield* join(of("two")))
    const keys = topicKeys("waybill", topic, 0)
    const call = calling(commands, { topic, pattern: "streams" }, { ...keys, ...keys.group("g") })
    const only = textOf(of("two"))
    const select = (bytes: number) =>
      Effect.gen(function* () {
        const reply = yield* call(DeliveryScripts.select, { group: "g", consumer: "c", only, max: 100, bytes })
        assert(reply._tag === "OK")
        return reply
      })
    const publish = (type: string) =>
      Effect.forEach(Array.from({ length: 40 }), () =>
        transport.publish(topic, [message(type, "x".repeat(256 * 1024))])
      )
    yield* publish("one")
    let calls = 1
    while ((yield* select(1024 * 1024)).last === "") calls++
    assert.isAtLeast(calls, 2)
    assert.isAtMost(calls, 4)
    yield* publish("two")
    assert.strictEqual((yield* select(1024 * 1024)).entries.length, 4)
  }).pipe(
    Effect.scoped,
    Effect.provide(RedisStreams().pipe(Layer.provideMerge(Patterns.redis), Layer.provide(RedisServer.layer()))),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
)
