/**
 * What is to be seen: orders come in, most of them are charged at once, some only at the second attempt, some never.
 */
import { Effect, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"

export const OrderPlaced = Topic.make("orders", {
  payload: Schema.Struct({ number: Schema.Int, cents: Schema.Int })
})

class GatewayDown extends Schema.TaggedError<GatewayDown>()("GatewayDown", {}) {}
class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", {}) {}

export const Billing = Consumer.make(OrderPlaced, { group: "billing", concurrency: 8 }).pipe(
  Consumer.process(
    Effect.fn("charge")(function* (order, { attempt }) {
      yield* Effect.sleep("5 millis")
      if (order.number % 10 === 3) return yield* new CardDeclined()
      if (order.number % 5 === 0 && attempt === 1) return yield* new GatewayDown()
    })
  ),
  Consumer.onFailure({
    GatewayDown: Consumer.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 3 }))),
    CardDeclined: Consumer.deadLetter()
  }),
  Consumer.layer
)

/** Places so many orders, one after the other, each in a span of its own as a web server would have it. */
export const place = (count: number, pause: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, number) => number),
    (number) =>
      Producer.publish(OrderPlaced, { number, cents: 100 * number }).pipe(
        Effect.withSpan("checkout"),
        Effect.andThen(Effect.sleep(pause))
      ),
    { discard: true }
  )
