/**
 * One program, five patterns, two servers: an order is taken on a stream, and its handler publishes to the transport that
 * suits. In memory, or on the Redis servers of REDIS_URL and BANK_REDIS_URL, which may be one and the same, under keys of this run.
 */
import { NodeRuntime } from "@effect/platform-node"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Console, Effect, Layer, Queue, Random, References, Schema } from "effect"
import { Commit, Consumer, Producer, Records, RetryPolicy, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"

// What the program needs of its transports, by name. It compiles only where a layer below keeps that.
class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
class Journal extends Transport.Tag<Journal>()("shop/Journal", { guarantee: "at-least-once" }) {}
class Jobs extends Transport.Tag<Jobs>()("shop/Jobs", { guarantee: "at-least-once" }) {}
class Bank extends Transport.Tag<Bank>()("shop/Bank", { guarantee: "transactional" }) {}
class Prices extends Transport.Tag<Prices>()("shop/Prices", { guarantee: "at-most-once" }) {}
class Baskets extends Transport.Tag<Baskets>()("shop/Baskets", { guarantee: "at-least-once" }) {}

const Order = Schema.Struct({ id: Schema.String, cents: Schema.Int })
const OrderPlaced = Topic.make("orders.placed", { payload: Order, on: Orders })
const Booked = Topic.make("booked", { payload: Schema.String, on: Journal })
const Print = Topic.make("print", { payload: Schema.String, on: Jobs })
const Deposit = Topic.make("bank/deposits", { payload: Schema.Int, on: Bank })
const Price = Topic.make("prices.tea", { payload: Schema.Int, on: Prices })
const Emptied = Topic.make("baskets.emptied", { payload: Schema.String, on: Baskets })

const balance = Commit.counter("balance")

const consumers = (told: Queue.Enqueue<string>) => {
  const tell = (what: string) => (payload: unknown) => Queue.offer(told, `${what} ${payload}`)
  const takeOrder = Consumer.make(OrderPlaced, { group: "shop" }).pipe(
    // Under the id of the message, so that a second attempt stores nothing twice.
    Consumer.process(function* (order, { id }) {
      yield* Producer.publish(Booked, order.id, { id })
      yield* Producer.publish(Print, order.id, { id })
      yield* Producer.publish(Deposit, order.cents, { id })
      yield* Producer.publish(Price, order.cents)
      yield* Producer.publish(Emptied, order.id, { id })
    }),
    Consumer.orElse(Consumer.retry(RetryPolicy.standard))
  )
  const deposit = Consumer.make(Deposit, { group: "bank" }).pipe(
    Consumer.transactional((cents) =>
      Effect.as(tell("exactly-once: deposited")(cents), Commit.make({ writes: [balance.add(cents)] }))
    )
  )
  return Layer.mergeAll(
    Consumer.layer(takeOrder),
    Consumer.layer(deposit),
    Consumer.layer(Consumer.process(Consumer.make(Booked, { group: "journal" }), tell("streams: booked"))),
    Consumer.layer(Consumer.process(Consumer.make(Print, { group: "printer" }), tell("lists: printed"))),
    Consumer.layer(Consumer.process(Consumer.make(Price, { group: "board" }), tell("pub/sub: the price is"))),
    Consumer.layer(Consumer.process(Consumer.make(Emptied, { group: "desk" }), tell("keyspace: emptied the basket of")))
  )
}

const retention = { maxLength: 1000 }

const inMemory = Layer.mergeAll(
  MemoryStreams.layer({ as: Orders }),
  MemoryStreams.layer({ as: Journal, retention }),
  MemoryLists.layer({ as: Jobs }),
  MemoryExactlyOnce.layer({ as: Bank }),
  MemoryPubSub.layer({ as: Prices }),
  MemoryKeyspace.layer({ as: Baskets, ttl: "1 minute" })
)

const onRedis = (shop: string, bank: string) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const run = `-${(yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)}`
      const prefix = `shop${run}`
      const atBank = { journal: `journal${run}`, ledger: `bank${run}` }
      return Layer.merge(
        Layer.mergeAll(
          RedisStreams.layer({ as: Orders, prefix }),
          RedisLists.layer({ as: Jobs, prefix }),
          RedisPubSub.layer({ as: Prices, prefix }),
          RedisKeyspace.layer({ as: Baskets, prefix, ttl: "1 minute", notifications: "enable" })
        ).pipe(Layer.provide(temporaryKeys(prefix)), Layer.provide(IoRedis.layerUrl(shop))),
        Layer.mergeAll(
          RedisStreams.layer({ as: Journal, prefix: atBank.journal, retention }),
          RedisExactlyOnce.layer({ as: Bank, prefix: atBank.ledger })
        ).pipe(Layer.provide(temporaryKeys(...Object.values(atBank))), Layer.provide(IoRedis.layerUrl(bank)))
      )
    })
  )

const program = Effect.gen(function* () {
  const told = yield* Queue.unbounded<string>()
  yield* Effect.gen(function* () {
    yield* Producer.publish(OrderPlaced, { id: "o-1", cents: 250 })
    for (let i = 0; i < 5; i++) yield* Effect.flatMap(Queue.take(told), Console.log)
  }).pipe(Effect.provide(consumers(told)))
  // Here the consumers have stopped, and what they have committed is there.
  yield* Console.log(`${yield* Records.read(Deposit, balance.value)} cents in the bank`)
})

const { BANK_REDIS_URL, REDIS_URL } = process.env

program.pipe(
  Effect.provide(REDIS_URL === undefined ? inMemory : onRedis(REDIS_URL, BANK_REDIS_URL ?? REDIS_URL)),
  // Who starts and stops differs from run to run.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
