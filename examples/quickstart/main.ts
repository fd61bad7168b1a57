import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

class GatewayDown extends Schema.TaggedError<GatewayDown>()("GatewayDown", {}) {}
class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", { code: Schema.String }) {}

const OrderPlaced = Topic.make("orders.placed", { payload: Schema.Struct({ id: Schema.String, cents: Schema.Int }) })

const Billing = Consumer.make(OrderPlaced, { group: "billing", concurrency: 64 }).pipe(
  Consumer.process((order, { attempt }) => {
    if (order.cents > 100_000) return Effect.fail(new CardDeclined({ code: "over-limit" }))
    if (attempt === 1) return Effect.fail(new GatewayDown())
    return Console.log(`charged ${order.id} on attempt ${attempt}`)
  }),
  Consumer.onFailure({
    GatewayDown: Consumer.retry(Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))),
    CardDeclined: (error) => Consumer.deadLetter(error.code) // without this row it does not compile
  }),
  Consumer.layer
)

Effect.gen(function* () {
  yield* Producer.publish(OrderPlaced, { id: "o-1", cents: 1299 }, { id: "o-1" })
  yield* Producer.publish(OrderPlaced, { id: "o-1", cents: 1299 }, { id: "o-1" }) // a duplicate: stored once
  yield* Producer.publish(OrderPlaced, { id: "o-2", cents: 250_000 })
  yield* Effect.sleep("1 second") // a real program goes on here
}).pipe(Effect.provide(Billing.pipe(Layer.provideMerge(MemoryStreams.layer()))), NodeRuntime.runMain)
