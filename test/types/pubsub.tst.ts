// Compiled by `tsc`, never run: each directive below turns into an error the day the contract is broken.
import { Effect, Layer, Schema } from "effect"
import { Consumer, Topic, type Transport } from "waybill"
import { MemoryPubSub } from "waybill/memory"
import { IoRedis, RedisPubSub } from "waybill/redis"

const Price = Topic.make("prices", { payload: Schema.Struct({ cents: Schema.Int }) })

declare const runs: <E>(layer: Layer.Layer<never, E>) => void

// At least once is what a consumer asks for, unless it says otherwise; a layer that nobody stores in cannot give it.
const careful = Consumer.make(Price, { group: "careful" }).pipe(
  Consumer.process(() => Effect.void),
  Consumer.layer
)
// @ts-expect-error AtLeastOnce is missing
runs(careful.pipe(Layer.provide(MemoryPubSub.layer())))
// @ts-expect-error and on Redis
runs(careful.pipe(Layer.provide(RedisPubSub.layer()), Layer.provide(IoRedis.layer())))

// One that can do with less says so.
const easy = Consumer.make(Price, { group: "easy", guarantee: "at-most-once" }).pipe(
  Consumer.process(() => Effect.void),
  Consumer.onGap((gap) => Effect.log(gap.missed)),
  Consumer.layer
)
runs(easy.pipe(Layer.provide(MemoryPubSub.layer())))
runs(easy.pipe(Layer.provide(RedisPubSub.layer()), Layer.provide(IoRedis.layer())))

// What a gap handler needs, the consumer needs; what can fail in it has to be handled in it.
declare const reload: Effect.Effect<void, never, Transport.AtLeastOnce>
declare const mayFail: Effect.Effect<void, "unreachable">
const handled = Consumer.make(Price, { group: "g", guarantee: "at-most-once" }).pipe(
  Consumer.process(() => Effect.void)
)
export const needs: Consumer.Consumer<void, never, Transport.AtMostOnce | Transport.AtLeastOnce> = handled.pipe(
  Consumer.onGap(() => reload)
)
// @ts-expect-error a gap has no route
handled.pipe(Consumer.onGap(() => mayFail))
