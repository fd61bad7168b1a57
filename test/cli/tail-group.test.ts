/**
 * `waybill tail --group`: what lies ahead of a group is shown, and stays where it is.
 */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, References } from "effect"
import { Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"
import { outgoing } from "../redis/Fixture.ts"
import { run, until } from "./Terminal.ts"

const patterns: ReadonlyArray<readonly [string, Layer.Layer<Transport.AtMostOnce, never, IoRedis.IoRedis>]> = [
  ["streams", RedisStreams.layer()],
  ["lists", RedisLists.layer()],
  ["exactly-once", RedisExactlyOnce.layer()],
  ["keyspace", RedisKeyspace.layer({ notifications: "enable" })]
]

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("waybill tail --group", (it) => {
  it.effect.each(patterns)(
    "begins where the group stands, and consumes nothing: %s",
    ([topic, pattern]) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const context = yield* Layer.build(pattern.pipe(Layer.provide(IoRedis.layer({ url }))))
        const transport = Context.get(context, Transport.AtMostOnce)
        const publish = (first: string, ...others: ReadonlyArray<string>) =>
          transport.publish(topic, [outgoing(first), ...others.map(outgoing)])
        const receiver = yield* transport.receive({
          topic,
          group: "billing",
          start: "earliest",
          lease: Duration.seconds(30),
          maxDeliveries: 5,
          shutdown: Duration.seconds(1)
        })
        yield* publish("settled", "held", "ahead", "behind it")
        const [settled] = yield* receiver.take(1)
        yield* receiver.settle([[settled, { _tag: "Ack" }]])
        yield* receiver.take(1)

        const tail = (...args: ReadonlyArray<string>) =>
          Effect.map(run(["tail", topic, "--group", "billing", ...args], { url }), ({ code, err, out }) => {
            assert.strictEqual(code, 0, err)
            return out.split("\n").filter((line) => line !== "")
          })
        const lines = (yield* tail("--json")).map((line) => JSON.parse(line))
        assert.deepStrictEqual(
          lines.map(({ body, consumer }) => [body, consumer]),
          [
            ["held", receiver.consumer],
            ["ahead", undefined],
            ["behind it", undefined]
          ]
        )
        assert.deepStrictEqual(
          (yield* tail("-n", "2")).map((line) => line.split("  ").slice(2)),
          [["held", `(with ${receiver.consumer})`], ["ahead"]]
        )
        let sent = false
        const followed = yield* until(
          ["tail", topic, "--group", "billing", "--follow"],
          { url },
          (out) => out.includes("one more"),
          (out) => {
            if (sent || !out.includes("behind it")) return
            sent = true
            Effect.runFork(publish("one more"))
          }
        )
        assert.deepStrictEqual(
          followed.out.split("\n").flatMap((line) => line.split("  ").slice(2, 3)),
          ["held", "ahead", "behind it", "one more"]
        )
        const [info] = JSON.parse((yield* run(["stats", topic, "--json"], { url })).out)
        assert.deepStrictEqual([info.groups[0].lag, info.groups[0].pending], [3, 1])

        const nobody = yield* run(["tail", topic, "--group", "nobody"], { url })
        assert.strictEqual(nobody.code, 3)
        assert.match(nobody.err, /has no group nobody\. Groups: billing/)
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    120_000
  )
})
