// Compiled by `tsc`, never run: each directive below turns into an error the day the contract is broken.
import { Effect, type Layer, Schedule, Schema } from "effect"
import { Consumer, Topic, type Transport } from "waybill"

class Busy extends Schema.TaggedError<Busy>()("Busy", { retryAfterSeconds: Schema.Number }) {}
class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}

const Payment = Topic.make("payments", { payload: Schema.Struct({ cents: Schema.Int }) })
const backoff = Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 5 }))
const source = Consumer.make(Payment, { group: "charge" })

declare const charge: (payment: { readonly cents: number }) => Effect.Effect<string, Busy | Declined>
const charging = source.pipe(Consumer.process(charge))

// A whole table runs, and its rows see the failure they are for.
export const whole: Layer.Layer<never, Transport.TransportError, Transport.AtMostOnce | Transport.AtLeastOnce> =
  charging.pipe(
    Consumer.onFailure({
      Busy: (error) => Consumer.retry(backoff, { after: `${error.retryAfterSeconds} seconds` }),
      Declined: (error) => Consumer.deadLetter(error.code)
    }),
    Consumer.layer
  )

// A missing row leaves its failure without a route.
const missing = charging.pipe(Consumer.onFailure({ Busy: Consumer.retry(backoff) }))
// @ts-expect-error Declined has no row
Consumer.run(missing)
// @ts-expect-error the same for a layer
Consumer.layer(missing)
// @ts-expect-error and for a stream
Consumer.stream(missing)

// The rest can be given later, or to the catch-all.
Consumer.run(missing.pipe(Consumer.onFailure({ Declined: Consumer.deadLetter() })))
Consumer.run(missing.pipe(Consumer.orElse(Consumer.deadLetter())))

charging.pipe(
  Consumer.onFailure({
    Busy: Consumer.retry(backoff),
    Declined: Consumer.deadLetter(),
    // @ts-expect-error the handler cannot fail with Exploded
    Exploded: Consumer.deadLetter()
  })
)

// An untagged failure has no row to go to.
const untagged = source.pipe(Consumer.process(() => Effect.fail("boom")))
// @ts-expect-error "boom" needs orElse
Consumer.run(untagged)
Consumer.run(untagged.pipe(Consumer.orElse((error) => Consumer.deadLetter(error))))

// A timeout is a failure too.
const slow = source.pipe(
  Consumer.process(() => Effect.void),
  Consumer.timeout("1 second")
)
// @ts-expect-error HandlerTimeout has no row
Consumer.run(slow)

// The demand shows: a layer that keeps only at most once does not satisfy it.
declare const atMostOnce: Layer.Layer<Transport.AtMostOnce>
declare const wire: <R>(consumer: Layer.Layer<never, Transport.TransportError, R>, transport: Layer.Layer<R>) => void
wire(whole, undefined as never as Layer.Layer<Transport.AtMostOnce | Transport.AtLeastOnce>)
// @ts-expect-error a consumer asks for at least once unless it says otherwise
wire(whole, atMostOnce)
wire(
  Consumer.make(Payment, { group: "charge", guarantee: "at-most-once" }).pipe(
    Consumer.process(() => Effect.void),
    Consumer.layer
  ),
  atMostOnce
)

// A handler's scope comes from the consumer, and a generator function is a handler.
export const scoped: Layer.Layer<never, Transport.TransportError, Transport.AtMostOnce | Transport.AtLeastOnce> =
  source.pipe(
    Consumer.process(function* ({ cents }) {
      yield* Effect.addFinalizer(() => Effect.void)
      return yield* charge({ cents })
    }),
    Consumer.orElse(Consumer.deadLetter()),
    Consumer.layer
  )
// Its failures need a route as well.
const generated = source.pipe(
  Consumer.process(function* (payment) {
    return yield* charge(payment)
  })
)
// @ts-expect-error Busy and Declined have none
Consumer.run(generated)
// @ts-expect-error a promise is no effect
source.pipe(Consumer.process(() => Promise.resolve(1)))
