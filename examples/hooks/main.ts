/**
 * Five invoices, two of them without an address. The seller hears of each one that dies, although the first mail to them fails; each
 * one that is sent is reported as well.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Queue, Result, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

class NoAddress extends Schema.TaggedError<NoAddress>()("NoAddress", { customer: Schema.String }) {}
class MailDown extends Schema.TaggedError<MailDown>()("MailDown", {}) {}

const Invoice = Topic.make("invoices", { payload: Schema.Struct({ customer: Schema.String, seller: Schema.String }) })

const invoices = ["ada", "nobody", "grace", "no one", "edsger"].map((customer) => ({ customer, seller: "shop" }))

const program = Effect.gen(function* () {
  const ended = yield* Queue.unbounded<string>()
  let tries = 0

  const Send = Consumer.make(Invoice, { group: "send", concurrency: 2 }).pipe(
    Consumer.process(({ customer }) =>
      customer.startsWith("no") ? Effect.fail(new NoAddress({ customer })) : Effect.succeed(customer)
    ),
    Consumer.onFailure({ NoAddress: Consumer.deadLetter() }),
    Consumer.onSettled(({ settlement, value }) =>
      settlement._tag === "Ack" && value._tag === "Some" ? Queue.offer(ended, `sent to ${value.value}`) : Effect.void
    ),
    Consumer.onDeadLetter(
      ({ payload, reason }) =>
        ++tries === 1
          ? Effect.fail(new MailDown())
          : Queue.offer(ended, `told ${Result.getOrThrow(payload).seller}: ${reason}, not sent`),
      { retry: Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 10 })) }
    ),
    Consumer.layer
  )

  yield* Effect.gen(function* () {
    yield* Producer.publishAll(Invoice, invoices)
    for (const _ of invoices) yield* Console.log(yield* Queue.take(ended))
  }).pipe(Effect.provide(Send.pipe(Layer.provideMerge(MemoryStreams.layer()))))
  yield* Console.log(`${invoices.length} invoices have ended, and telling took ${tries} tries`)
})

NodeRuntime.runMain(program)
