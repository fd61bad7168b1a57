/** What requests and their answers say to the compiler. */
import { Effect, Schema } from "effect"
import { expectTypeOf } from "vitest"
import { Consumer, Producer, type Replies, Topic, type Transport } from "waybill"

class NoSuchItem extends Schema.TaggedError<NoSuchItem>()("NoSuchItem", {}) {}
class Down extends Schema.TaggedError<Down>()("Down", {}) {}

const Quote = Topic.request(Topic.make("quotes", { payload: Schema.String }), {
  success: Schema.Int,
  error: NoSuchItem
})
const source = Consumer.make(Quote, { group: "quotes" })

const asked = Producer.request(Quote, "tea")
expectTypeOf<Effect.Success<typeof asked>>().toEqualTypeOf<number>()
expectTypeOf<Effect.Error<typeof asked>>().toEqualTypeOf<
  NoSuchItem | Producer.Unanswered | Topic.InvalidPayload | Topic.PayloadTooLarge | Transport.TransportError
>()
expectTypeOf<Effect.Services<typeof asked>>().toEqualTypeOf<
  Transport.AtLeastOnce | Transport.AtMostOnce | Replies.Replies
>()

/** The topic's own failures are answers; the others need routes. */
const answered = source.pipe(Consumer.respond(Quote, () => Effect.fail(new NoSuchItem())))
expectTypeOf(answered).toEqualTypeOf<
  Consumer.Consumer<void, never, Transport.AtLeastOnce | Transport.AtMostOnce, string>
>()
Consumer.layer(answered)

const unrouted = source.pipe(
  Consumer.respond(Quote, (item) => (item === "" ? Effect.fail(new Down()) : Effect.succeed(1)))
)
// @ts-expect-error Down has no row
Consumer.layer(unrouted)
Consumer.layer(unrouted.pipe(Consumer.orElse(Consumer.deadLetter())))

// @ts-expect-error the answer is a number
source.pipe(Consumer.respond(Quote, () => Effect.succeed("cheap")))
source.pipe(Consumer.respond(Quote, () => Effect.succeed(1)))

/** A hook knows the payload. */
answered.pipe(Consumer.onDeadLetter(({ payload }) => Effect.sync(() => expectTypeOf(payload).not.toBeAny())))
source.pipe(
  Consumer.process((item) => Effect.succeed(item.length)),
  Consumer.timeout("1 second"),
  Consumer.orElse(Consumer.deadLetter()),
  Consumer.onDeadLetter(({ payload }) =>
    payload._tag === "Success" ? Effect.sync(() => expectTypeOf(payload.success).toEqualTypeOf<string>()) : Effect.void
  ),
  Consumer.onSettled(({ value }) =>
    value._tag === "Some" ? Effect.sync(() => expectTypeOf(value.value).toEqualTypeOf<number>()) : Effect.void
  ),
  Consumer.layer
)
