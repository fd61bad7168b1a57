/** An option that a pattern cannot keep is refused, and none is ignored. */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, References, Schema } from "effect"
import { type Message, Producer, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"

const options: Readonly<Record<string, Producer.Options>> = {
  id: { id: "a" },
  delay: { delay: "1 second" },
  priority: { priority: "high" },
  unique: { id: "c", unique: "until-settled" },
  taken: { id: "d", unique: "until-taken" },
  latest: { id: "e", unique: Topic.latest },
  debounce: { id: "f", unique: Topic.debounce("1 second") }
}

/** What became of it: the tag of the receipt, or of the reason. */
const tagOf = <E extends { readonly _tag: string }>(
  publishing: Effect.Effect<Message.Receipt, E, Transport.AtMostOnce>
) =>
  Effect.match(publishing, {
    onSuccess: ({ _tag }) => _tag as string,
    onFailure: (error) => (error instanceof Transport.TransportError ? error.reason._tag : error._tag)
  })

const notOffered = (...names: ReadonlyArray<keyof typeof options>) => names
const unordered = notOffered("priority")
const log = notOffered("priority", "taken", "latest")
const unstored = notOffered("id", "delay", "priority", "unique", "taken", "latest", "debounce")

layer(RedisServer.layer())("an option is kept, or refused as NotOffered", (it) => {
  it.effect.each<
    [string, (prefix: string) => Layer.Layer<Transport.AtMostOnce, unknown, IoRedis.IoRedis>, ReadonlyArray<string>]
  >([
    ["RedisStreams", (prefix) => RedisStreams.layer({ prefix }), log],
    ["RedisKeyspace", (prefix) => RedisKeyspace.layer({ prefix }), log],
    ["RedisLists", (prefix) => RedisLists.layer({ prefix }), unordered],
    ["RedisLists, lifo", (prefix) => RedisLists.layer({ prefix, order: "lifo" }), unordered],
    ["RedisLists, priority", (prefix) => RedisLists.layer({ prefix, order: "priority" }), []],
    ["RedisExactlyOnce", (prefix) => RedisExactlyOnce.layer({ prefix }), unordered],
    ["RedisExactlyOnce, priority", (prefix) => RedisExactlyOnce.layer({ prefix, order: "priority" }), []],
    ["RedisPubSub", (prefix) => RedisPubSub.layer({ prefix }), unstored],
    ["MemoryStreams", () => MemoryStreams.layer(), log],
    ["MemoryKeyspace", () => MemoryKeyspace.layer(), log],
    ["MemoryLists", () => MemoryLists.layer(), unordered],
    ["MemoryLists, lifo", () => MemoryLists.layer({ order: "lifo" }), unordered],
    ["MemoryLists, priority", () => MemoryLists.layer({ order: "priority" }), []],
    ["MemoryExactlyOnce", () => MemoryExactlyOnce.layer(), unordered],
    ["MemoryExactlyOnce, priority", () => MemoryExactlyOnce.layer({ order: "priority" }), []],
    ["MemoryPubSub", () => MemoryPubSub.layer(), unstored]
  ])("%s", ([name, pattern, refused]) =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const Numbers = Topic.make("numbers", { payload: Schema.Int, guarantee: "at-most-once" })
      const publishing = Effect.gen(function* () {
        assert.strictEqual(yield* tagOf(Producer.publish(Numbers, 0)), refused === unstored ? "Sent" : "Stored")
        for (const [option, given] of Object.entries(options)) {
          const expected = refused.includes(option) ? "NotOffered" : "Stored"
          assert.strictEqual(yield* tagOf(Producer.publish(Numbers, 1, given)), expected, option)
          const batch = Producer.publishAll(Numbers, [2], () => ({
            ...given,
            ...(given.id && { id: `${given.id}, again` })
          }))
          assert.strictEqual(
            yield* tagOf(Effect.map(batch, ([receipt]) => receipt!)),
            expected,
            `${option}, in a batch`
          )
        }
      })
      yield* Effect.provide(publishing, pattern(name.replaceAll(/\W/g, "")).pipe(Layer.provide(IoRedis.layer({ url }))))
    }).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  )
})
