// Compiled by `tsc`, never run: each directive below turns into an error the day the contract is broken. How the errors
// read is held by test/documents.test.ts.
import { Effect, Layer, Schema } from "effect"
import { expectTypeOf } from "vitest"
import { Consumer, DeadLetters, Log, Producer, Records, Commit, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { type IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"

const Plain = Topic.make("plain", { payload: Schema.Int })
const Price = Topic.make("prices", { payload: Schema.Int, guarantee: "at-most-once" })
const Transfer = Topic.make("transfers", { payload: Schema.Int, guarantee: "transactional" })

class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
class Prices extends Transport.Tag<Prices>()("shop/Prices", { guarantee: "at-most-once" }) {}
class Ledger extends Transport.Tag<Ledger>()("shop/Ledger", { guarantee: "transactional" }) {}
class Jobs extends Transport.Tag<Jobs>()("shop/Jobs") {}

const OrderPlaced = Topic.make("orders.placed", { payload: Schema.String, on: Orders })
const Ticked = Topic.make("prices.tea", { payload: Schema.Int, on: Prices })
const Deposit = Topic.make("ledger/deposits", { payload: Schema.Int, on: Ledger })

declare const runs: <A, E>(program: Effect.Effect<A, E>) => void

// A program with one transport never says a name.
runs(Effect.provide(Producer.publish(Plain, 1), MemoryStreams.layer()))
runs(Effect.provide(Producer.publish(Price, 1), MemoryPubSub.layer()))
runs(Effect.provide(Producer.publish(Price, 1), MemoryLists.layer()))
runs(Effect.provide(Producer.publish(Transfer, 1), MemoryExactlyOnce.layer()))
// @ts-expect-error pub/sub may lose it
runs(Effect.provide(Producer.publish(Plain, 1), MemoryPubSub.layer()))
// @ts-expect-error lists apply no commits
runs(Effect.provide(Producer.publish(Transfer, 1), MemoryLists.layer()))
// @ts-expect-error nothing provides it
runs(Producer.publish(Plain, 1))

// Merged defaults: a topic goes to a layer that keeps what it needs, whichever is last.
runs(Effect.provide(Producer.publish(Plain, 1), Layer.mergeAll(MemoryStreams.layer(), MemoryPubSub.layer())))
runs(Effect.provide(Producer.publish(Plain, 1), Layer.mergeAll(MemoryPubSub.layer(), MemoryStreams.layer())))
// @ts-expect-error none of them applies commits
runs(Effect.provide(Producer.publish(Transfer, 1), Layer.mergeAll(MemoryLists.layer(), MemoryPubSub.layer())))

// A name is provided by the layer that is given it, and by nothing else.
const program = Effect.andThen(Producer.publish(OrderPlaced, "o"), Producer.publish(Ticked, 1))
expectTypeOf<Effect.Services<typeof program>>().toEqualTypeOf<Orders | Prices>()
runs(Effect.provide(program, Layer.merge(MemoryStreams.layer({ as: Orders }), MemoryPubSub.layer({ as: Prices }))))
// @ts-expect-error Prices is missing
runs(Effect.provide(program, MemoryStreams.layer({ as: Orders })))
// @ts-expect-error a default is no name
runs(Effect.provide(program, Layer.merge(MemoryStreams.layer(), MemoryPubSub.layer({ as: Prices }))))
// @ts-expect-error a name is no default
runs(Effect.provide(Producer.publish(Plain, 1), MemoryStreams.layer({ as: Orders })))

// A pattern takes a name whose promise it keeps, and a weaker one.
expectTypeOf(MemoryStreams.layer({ as: Ledger })).toEqualTypeOf<Layer.Layer<Ledger>>()
expectTypeOf(RedisStreams.layer({ prefix: "bank", as: Ledger })).toEqualTypeOf<
  Layer.Layer<Ledger, never, IoRedis.IoRedis>
>()
expectTypeOf(MemoryLists.layer({ as: Jobs })).toEqualTypeOf<Layer.Layer<Jobs>>()
expectTypeOf(RedisStreams.layer({ as: Prices })).toEqualTypeOf<Layer.Layer<Prices, never, IoRedis.IoRedis>>()
RedisExactlyOnce.layer({ as: Ledger })
RedisKeyspace.layer({ as: Orders })
MemoryKeyspace.layer({ as: Orders })
// @ts-expect-error it promises more
RedisPubSub.layer({ as: Orders })
// @ts-expect-error it promises more
RedisLists.layer({ as: Ledger })
// @ts-expect-error it promises more
MemoryPubSub.layer({ as: Ledger })
// @ts-expect-error it promises more
MemoryKeyspace.layer({ as: Ledger })

// A topic is on a name, or needs a guarantee of the default transport.
// @ts-expect-error the name says what it needs
Topic.make("both", { payload: Schema.Int, on: Orders, guarantee: "at-least-once" })

// A consumer asks for what its topic promises, or for less, never for more.
const group = "g"
expectTypeOf(Consumer.make(Plain, { group, guarantee: "at-most-once" })).toEqualTypeOf<
  Consumer.Source<number, Transport.AtMostOnce, "interrupt", "at-most-once">
>()
expectTypeOf(Consumer.make(OrderPlaced, { group, guarantee: "at-most-once" })).toEqualTypeOf<
  Consumer.Source<string, Orders, "interrupt", "at-most-once">
>()
// @ts-expect-error the topic may lose it
Consumer.make(Price, { group, guarantee: "at-least-once" })
// @ts-expect-error the topic is not transactional
Consumer.make(OrderPlaced, { group, guarantee: "transactional" })

// Commits are for transactional topics.
const commit = () => Effect.succeed(Commit.make({}))
Consumer.make(Transfer, { group }).pipe(Consumer.transactional(commit))
Consumer.make(Deposit, { group }).pipe(Consumer.transactional(commit))
// @ts-expect-error it promises no commits
Consumer.make(OrderPlaced, { group }).pipe(Consumer.transactional(commit))
// @ts-expect-error the consumer asks for less
Consumer.make(Deposit, { group, guarantee: "at-least-once" }).pipe(Consumer.transactional(commit))

// Everything that looks at a topic goes to its transport.
const total = Commit.counter("total")
expectTypeOf<Effect.Services<ReturnType<typeof readTotal>>>().toEqualTypeOf<Ledger>()
declare const readTotal: () => ReturnType<typeof Records.read<number, Ledger>>
runs(Effect.provide(Records.read(Deposit, total.value), MemoryStreams.layer({ as: Ledger })))
runs(Effect.provide(Log.first(OrderPlaced, { limit: 1 }), MemoryStreams.layer({ as: Orders })))
runs(Effect.provide(DeadLetters.redrive(OrderPlaced, group), MemoryStreams.layer({ as: Orders })))
// @ts-expect-error Orders is missing
runs(Effect.provide(DeadLetters.redrive(OrderPlaced, group), MemoryStreams.layer()))
// @ts-expect-error only a transactional topic has records
Records.read(OrderPlaced, total.value)
