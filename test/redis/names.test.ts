/** Two servers and three prefixes in one program: what is published lies where its topic lives. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Effect, Layer, Schedule, Schema } from "effect"
import { Commit, Consumer, Health, Producer, Records, Topic, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisPubSub, RedisStreams } from "waybill/redis"
import { client } from "./Fixture.ts"

class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
class Bank extends Transport.Tag<Bank>()("shop/Bank", { guarantee: "transactional" }) {}
class Prices extends Transport.Tag<Prices>()("shop/Prices", { guarantee: "at-most-once" }) {}

const Order = Topic.make("orders", { payload: Schema.Int, on: Orders })
const Deposit = Topic.make("bank/deposits", { payload: Schema.Int, on: Bank })
const Price = Topic.make("prices", { payload: Schema.Int, on: Prices })
const balance = Commit.counter("balance")

describe("named transports on Redis", () => {
  it.live("a handler on one server publishes to topics of another, under their prefixes", () =>
    Effect.gen(function* () {
      const evicting = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]
      const [shop, bank] = [yield* RedisServer.make(), yield* RedisServer.make({ args: evicting })]
      const heard = yield* Deferred.make<number>()
      const transports = Layer.merge(
        Layer.merge(
          RedisStreams.layer({ as: Orders, prefix: "shop" }),
          RedisPubSub.layer({ as: Prices, prefix: "board" })
        ).pipe(Layer.provide(IoRedis.layer({ url: shop.url, replicas: 1 }))),
        RedisExactlyOnce.layer({ as: Bank, prefix: "bank" }).pipe(Layer.provide(IoRedis.layer({ url: bank.url })))
      )
      const consumers = Layer.mergeAll(
        Consumer.make(Order, { group: "g" }).pipe(
          Consumer.process((cents, { id }) =>
            Effect.andThen(Producer.publish(Deposit, cents, { id }), Producer.publish(Price, cents))
          ),
          Consumer.orElse(Consumer.deadLetter()),
          Consumer.layer
        ),
        Consumer.make(Deposit, { group: "g" }).pipe(
          Consumer.transactional((cents) => Effect.succeed(Commit.make({ writes: [balance.add(cents)] }))),
          Consumer.layer
        ),
        Consumer.make(Price, { group: "g" }).pipe(
          Consumer.process((cents) => Deferred.succeed(heard, cents)),
          Consumer.layer
        )
      )
      yield* Effect.gen(function* () {
        yield* Producer.publish(Order, 250)
        assert.strictEqual(yield* Deferred.await(heard), 250)
        const read = Records.read(Deposit, balance.value)
        assert.strictEqual(
          yield* Effect.repeat(read, { until: (cents) => cents > 0, schedule: Schedule.spaced("10 millis") }),
          250
        )
        const keysOf = (url: string) =>
          Effect.flatMap(client(url), (redis) => Effect.promise(async () => (await redis.keys("*")).join(" ")))
        const onShop = yield* keysOf(shop.url)
        assert.include(onShop, "{shop:orders}:stream")
        assert.notInclude(onShop, "bank")
        const onBank = yield* keysOf(bank.url)
        assert.include(onBank, "bank:topics")
        assert.notInclude(onBank, "orders")
        // The server behind the name is asked, and no other.
        const problemsOn = (on: typeof Bank | typeof Orders) =>
          Effect.map(Health.check<Bank | Orders>({ on }), ({ problems }) => problems.map(({ code }) => code))
        assert.include(yield* problemsOn(Bank), "EvictionPolicy")
        assert.notInclude(yield* problemsOn(Orders), "EvictionPolicy")
        assert.include(yield* problemsOn(Orders), "ReplicasMissing")
        assert.notInclude(yield* problemsOn(Bank), "ReplicasMissing")
      }).pipe(Effect.provide(consumers.pipe(Layer.provideMerge(transports))))
    }).pipe(Effect.scoped)
  )
})
