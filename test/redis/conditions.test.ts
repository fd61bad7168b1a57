/**
 * Handlers that read a record and commit what they make of it, several at a time: with a condition no update is lost.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Effect, Layer, Schedule, Schema, Stream } from "effect"
import { Commit, Consumer, Producer, Records, Topic, type Transport } from "waybill"
import { MemoryExactlyOnce, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisStreams } from "waybill/redis"

const redis = Layer.unwrap(Effect.map(RedisServer.RedisServer, ({ url }) => IoRedis.layer({ url }))).pipe(
  Layer.provide(RedisServer.layer())
)

const layers: ReadonlyArray<[string, Layer.Layer<Transport.Transactional, unknown>]> = [
  ["streams", RedisStreams.layer().pipe(Layer.provide(redis))],
  ["exactly-once", RedisExactlyOnce.layer().pipe(Layer.provide(redis))],
  ["streams in memory", MemoryStreams.layer()],
  ["exactly-once in memory", MemoryExactlyOnce.layer()]
]

const Sale = Topic.make("shop/sales", { payload: Schema.Int, guarantee: "transactional" })
const stock = Commit.values("stock", Schema.Struct({ left: Schema.Int, sold: Schema.ReadonlySet(Schema.Int) }))
const count = 12
const together = 6

/** What is left of the stock after every sale, and how many attempts that took. */
const sell = Effect.fnUntraced(function* (guarded: boolean) {
  const everyoneHasRead = yield* Deferred.make<void>()
  let attempts = 0
  yield* Producer.publishAll(
    Sale,
    Array.from({ length: count }, (_, i) => i)
  )
  yield* Consumer.make(Sale, { group: "sales", concurrency: together }).pipe(
    Consumer.transactional(function* (n) {
      const { unchanged, value } = yield* Records.observe(Sale, stock.get("tea"))
      attempts++
      if (attempts === together) yield* Deferred.succeed(everyoneHasRead, undefined)
      yield* Deferred.await(everyoneHasRead)
      const { left, sold } = value ?? { left: count, sold: new Set<number>() }
      const writes = [stock.set("tea", { left: left - 1, sold: new Set([...sold, n]) })]
      return Commit.make({ conditions: guarded ? [unchanged] : [], writes })
    }),
    Consumer.onFailure({
      ConditionFailed: Consumer.retry(Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 100 })))
    }),
    Consumer.orElse(Consumer.deadLetter()),
    Consumer.stream,
    Stream.filter(({ settlement }) => settlement._tag !== "Retry"),
    Stream.take(count),
    Stream.runDrain
  )
  const { left, sold } = (yield* Records.read(Sale, stock.get("tea")))!
  return { left, sold: sold.size, attempts }
})

describe.each(layers)("a record that handlers read and write on %s", (_, layer) => {
  it.live("loses no update where the commit requires what was read", () =>
    Effect.gen(function* () {
      const { attempts, left, sold } = yield* sell(true)
      assert.deepStrictEqual({ left, sold }, { left: 0, sold: count })
      assert.isAbove(attempts, count)
    }).pipe(Effect.provide(layer))
  )

  it.live("loses updates where it does not", () =>
    Effect.gen(function* () {
      const { attempts, left, sold } = yield* sell(false)
      assert.strictEqual(attempts, count)
      assert.isAbove(left, 0)
      assert.isBelow(sold, count)
    }).pipe(Effect.provide(layer))
  )
})
