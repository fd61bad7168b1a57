/**
 * Publishing without a store: what is not offered is refused before anything is sent, nothing is sent twice, and what other
 * programs publish is heard. Patterns say which topic it was.
 */
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, Option, Random, References } from "effect"
import { Inspector, Settlement, Transport } from "waybill"
import { IoRedis, RedisInspector, RedisPubSub } from "waybill/redis"
import { client, outgoing } from "./Fixture.ts"

const shell = (command: string) =>
  Effect.callback<string, Error>((resume) => {
    execFile("sh", ["-c", command], (error, stdout) =>
      resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(error))
    )
  })

const fixture = Effect.fnUntraced(function* (options?: RedisPubSub.Options) {
  const server = yield* RedisServer.RedisServer
  const proxy = yield* FaultProxy.FaultProxy
  const prefix = `p${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
  const context = yield* Layer.build(
    RedisPubSub.layer({ prefix, ...options }).pipe(Layer.provideMerge(IoRedis.layer({ url: proxy.url })))
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  const transport = Context.get(context, Transport.AtMostOnce)
  return {
    server,
    proxy,
    prefix,
    transport,
    inspector: Context.get(context, Inspector.Inspector),
    redis: yield* client(server.url),
    listen: (topic: string, group = "g") =>
      transport.receive({
        topic,
        group,
        start: "latest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(1)
      })
  }
})

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

layer(servers, { excludeTestServices: true, timeout: "60 seconds" })("RedisPubSub", (it) => {
  it.effect("refuses delays and patterns to publishers, and patterns over shards to subscribers", () =>
    Effect.gen(function* () {
      const { proxy, transport } = yield* fixture()
      const late = outgoing({ body: "x", due: { _tag: "After", delay: Duration.seconds(1) } })
      const before = (yield* proxy.commands).get("EVALSHA")
      const delayed = yield* Effect.flip(transport.publish("t", [outgoing("y"), late]))
      const many = yield* Effect.flip(transport.publish("t.*", [outgoing("x")]))
      const sharded = yield* Effect.flip((yield* fixture({ channels: "sharded" })).listen("t.*"))
      assert.deepStrictEqual(
        [delayed, many, sharded].map(({ reason }) => reason._tag),
        ["NotOffered", "NotOffered", "NotOffered"]
      )
      assert.strictEqual((yield* proxy.commands).get("EVALSHA"), before)
    })
  )

  it.effect("a batch whose answer was lost is not published again, and says so", () =>
    Effect.gen(function* () {
      const { listen, proxy, transport } = yield* fixture()
      const receiver = yield* listen("t")
      yield* transport.publish("t", [outgoing("before")])
      yield* proxy.dropReply("EVALSHA")
      const failure = yield* Effect.flip(transport.publish("t", [outgoing("lost answer")]))
      assert.isTrue(failure.reason._tag === "Disconnected" && failure.reason.ambiguous)
      yield* transport.publish("t", [outgoing("after")])
      const heard: Array<unknown> = []
      while (heard.at(-1) !== "after") heard.push(...(yield* receiver.take(10)).map(({ body }) => body))
      assert.deepStrictEqual(heard, ["before", "lost answer", "after"])
    })
  )

  it.effect("a pattern hears the topics that fit, with or without a slash, and says which", () =>
    Effect.gen(function* () {
      const { listen, transport } = yield* fixture()
      const prices = yield* listen("prices.[tc]*")
      const shops = yield* listen("shop/*")
      for (const topic of ["prices.tea", "prices.milk", "other", "prices.coffee", "shop/a:b", "prices.tea/x", "shop"]) {
        yield* transport.publish(topic, [outgoing(topic)])
      }
      yield* transport.publish("prices.tea", [outgoing("end")])
      yield* transport.publish("shop/end", [outgoing("end")])
      for (const [receiver, expected] of [
        [prices, ["prices.tea", "prices.coffee", "prices.tea"]],
        [shops, ["shop/a:b", "shop/end"]]
      ] as const) {
        const topics: Array<string> = []
        for (let body: unknown; body !== "end";) {
          const [delivery] = yield* receiver.take(1)
          body = delivery.body
          topics.push(delivery.topic)
        }
        assert.deepStrictEqual(topics, [...expected])
      }
    })
  )

  it.effect("the command on the page does what the page says", () =>
    Effect.gen(function* () {
      const page = readFileSync(join(import.meta.dirname, "../../docs/pubsub.md"), "utf8")
      const command = /^redis-cli PUBLISH .*$/m.exec(page)?.[0] ?? "no command"
      const { listen, server } = yield* fixture({ prefix: "waybill" })
      const receiver = yield* listen("prices.tea")
      yield* shell(command.replace("redis-cli", `redis-cli -p ${server.port}`))
      const [delivery] = yield* receiver.take(1)
      assert.strictEqual(delivery.body, '{"cents":250}')
      assert.strictEqual(delivery.attempt, 1)
    })
  )

  it.effect("bytes that are no text survive the dead letters and a redrive, and keep their topic", () =>
    Effect.gen(function* () {
      const { inspector, listen, prefix, redis } = yield* fixture()
      const receiver = yield* listen("raw.*")
      const bytes = Buffer.from([0, 0xff, 0xfe, 10, 0x80])
      yield* Effect.promise(() => redis.publish(`{${prefix}:raw.a}:channel`, bytes))
      const [first] = yield* receiver.take(1)
      assert.deepStrictEqual(Buffer.from(first.body as Uint8Array), bytes)
      yield* receiver.settle([[first, Settlement.deadLetter("Bad", "cause")]])
      const [letter] = yield* inspector.deadLetters("raw.*", "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(Buffer.from(letter?.body as Uint8Array), bytes)
      assert.strictEqual(yield* inspector.redrive("raw.*", "g", [letter!.entry]), 1)
      const [second] = yield* receiver.take(1)
      assert.deepStrictEqual(Buffer.from(second.body as Uint8Array), bytes)
      assert.deepStrictEqual([second.id, second.topic, second.fence], [first.id, "raw.a", 2])
    })
  )

  it.effect("tools send dead letters back to subscribers on shards, who do not know of them", () =>
    Effect.gen(function* () {
      const { listen, prefix, redis, server } = yield* fixture({ channels: "sharded" })
      const receiver = yield* listen("t")
      yield* Effect.promise(() => redis.spublish(`{${prefix}:t}:channel`, "x"))
      const [first] = yield* receiver.take(1)
      yield* receiver.settle([[first, Settlement.deadLetter("Bad", "cause")]])
      const tools = RedisInspector.layer({ prefix }).pipe(Layer.provide(IoRedis.layer({ url: server.url })))
      const inspector = Context.get(yield* Layer.build(tools), Inspector.Inspector)
      const [letter] = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
      assert.strictEqual(yield* inspector.redrive("t", "g", [letter!.entry]), 1)
      const [second] = yield* receiver.take(1)
      assert.deepStrictEqual([second.id, second.body], [first.id, "x"])
    })
  )

  it.effect("a dead letter that nobody would hear stays", () =>
    Effect.gen(function* () {
      const { inspector, listen, transport } = yield* fixture()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const receiver = yield* listen("t")
          yield* transport.publish("t", [outgoing("x")])
          const [delivery] = yield* receiver.take(1)
          yield* receiver.settle([[delivery, Settlement.deadLetter("Bad", "cause")]])
        })
      )
      const letters = inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
      const [letter] = yield* letters
      assert.strictEqual(yield* inspector.redrive("t", "g", [letter!.entry]), 0)
      assert.strictEqual((yield* letters).length, 1)
    })
  )
})
