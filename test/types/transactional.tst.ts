// Compiled by `tsc`, never run: each directive below turns into an error the day the contract is broken.
import { Effect, type Layer, Schema } from "effect"
import { expectTypeOf } from "vitest"
import { Commit, Consumer, Records, Topic, type Transport } from "waybill"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Transfer = Topic.make("ledger/transfers", {
  payload: Schema.Struct({ cents: Schema.Int }),
  guarantee: "transactional"
})
const total = Commit.counter("total")
const source = Consumer.make(Transfer, { group: "ledger" })
const ledger = source.pipe(
  Consumer.transactional(({ cents }) => Effect.succeed(Commit.make({ writes: [total.add(cents)] })))
)

declare const atLeastOnce: Layer.Layer<Transport.AtMostOnce | Transport.AtLeastOnce>
declare const transactional: Layer.Layer<Transport.AtMostOnce | Transport.AtLeastOnce | Transport.Transactional>
declare const wire: <R>(consumer: Layer.Layer<never, Transport.TransportError, R>, transport: Layer.Layer<R>) => void

wire(Consumer.layer(ledger), transactional)
// @ts-expect-error the layer applies no commits
wire(Consumer.layer(ledger), atLeastOnce)

// A handler that only processes may ask for the same.
const asking = Consumer.make(Transfer, { group: "ledger", guarantee: "transactional" }).pipe(
  Consumer.process(() => Effect.void)
)
wire(Consumer.layer(asking), transactional)
// @ts-expect-error it was asked for
wire(Consumer.layer(asking), atLeastOnce)

// @ts-expect-error what a transactional handler returns is a commit
source.pipe(Consumer.transactional(({ cents }) => Effect.succeed(cents)))

// Its failures need routes as any others do.
const failing = source.pipe(Consumer.transactional(() => Effect.fail(new Busy())))
// @ts-expect-error Busy has no row
Consumer.layer(failing)

// A condition may fail, and that needs a route too.
const guarded = source.pipe(
  Consumer.transactional(({ cents }) =>
    Effect.map(Records.observe(Transfer, total.value), ({ unchanged, value }) =>
      Commit.make({ conditions: [unchanged], writes: [total.set(value + cents)] })
    )
  )
)
Consumer.layer(
  guarded.pipe(
    Consumer.onFailure({
      ConditionFailed: (error) => Consumer.deadLetter(error.key),
      TransportError: Consumer.deadLetter()
    })
  )
)
// @ts-expect-error ConditionFailed has no row
Consumer.layer(guarded.pipe(Consumer.onFailure({ TransportError: Consumer.deadLetter() })))
const sometimes = source.pipe(
  Consumer.transactional(function* ({ cents }) {
    yield* Effect.void
    if (cents === 0) return Commit.make({ writes: [total.add(1)] })
    return Commit.make({ conditions: [total.is(0)] })
  })
)
// @ts-expect-error ConditionFailed has no row
Consumer.layer(sometimes)
// @ts-expect-error a commit with conditions is not one without
export const hidden: Commit.Commit = Commit.make({ conditions: [total.is(0)] })
// @ts-expect-error only a single value can be observed
export const whole = Records.observe(Transfer, Commit.hash("h").all)

// What is read has the type of the record.
expectTypeOf(Records.read(Transfer, total.value)).toEqualTypeOf<
  Effect.Effect<number, Transport.TransportError, Transport.Transactional>
>()
expectTypeOf(Records.read(Transfer, Commit.hash("h").get("f"))).toEqualTypeOf<
  Effect.Effect<string | undefined, Transport.TransportError, Transport.Transactional>
>()

// A handler may go on when its lease is lost; one that commits may not.
const goesOn = Consumer.make(Transfer, { group: "ledger", leaseLost: "continue" })
Consumer.layer(goesOn.pipe(Consumer.process(() => Effect.void)))
const stops = Consumer.make(Transfer, { group: "ledger", leaseLost: "interrupt" })
stops.pipe(Consumer.transactional(() => Effect.succeed(Commit.make({ writes: [total.add(1)] }))))
// @ts-expect-error its commit could only be refused
goesOn.pipe(Consumer.transactional(() => Effect.succeed(Commit.make({ writes: [total.add(1)] }))))
declare const either: Consumer.LeaseLost
const unknown = Consumer.make(Transfer, { group: "ledger", leaseLost: either })
// @ts-expect-error it might go on
unknown.pipe(Consumer.transactional(() => Effect.succeed(Commit.make({ writes: [total.add(1)] }))))
