/**
 * Group `send`: what a worker does with an invoice, and what it tells of it.
 */
import { Context, Deferred, Duration, Effect, Layer, Schedule, Schema } from "effect"
import { Consumer, type Delivery, type Settlement, Transport } from "waybill"
import { type Invoice, Invoices } from "./Task.ts"
import type { Fact } from "./Timeline.ts"

export const group = "send"

/** Nobody answers at that address. */
class Unreachable extends Schema.TaggedError<Unreachable>()("Unreachable", {
  address: Schema.String,
  retries: Schema.Int
}) {
  override get message(): string {
    return `nobody answers at ${this.address}`
  }
}

/** What is wrong with a worker. `wrong address`: the bug. `hangs`: it never comes back from printing. */
export const Fault = Schema.Literals(["none", "wrong address", "hangs"])
export type Fault = typeof Fault.Type

export type Tell = (fact: Fact) => void

export class Printer extends Context.Service<
  Printer,
  { readonly print: (invoice: Invoice) => Effect.Effect<void, Unreachable> }
>()("critical-tasks/Printer") {
  static readonly layer = (fault: Fault) =>
    Layer.succeed(Printer, {
      print: ({ retries }) => {
        if (fault === "hangs") return Effect.never
        return fault === "wrong address"
          ? Effect.fail(new Unreachable({ address: "printer.old:9100", retries }))
          : Effect.void
      }
    })
}

/**
 * 2 s, growing by a quarter, each delay spread by 0.8 to 1.2 so that a crowd does not come back at once. The first is longer than
 * a restart takes: the story wants the second attempt in other hands.
 */
const backoff = Schedule.exponential("2 seconds", 1.25).pipe(Schedule.jittered)

const consumer = (tell: Tell) =>
  Consumer.make(Invoices, { group, concurrency: 4, lease: "2 seconds" }).pipe(
    Consumer.process((invoice, { attempt, fence, id }) => {
      tell({ state: "delivered", task: id, detail: `attempt ${attempt}, fence ${fence}` })
      return invoice.by === "print" ? Printer.use((printer) => printer.print(invoice)) : Effect.void
    }),
    Consumer.onFailure({
      // The limit travels with the message: the route reads it off the failure.
      Unreachable: ({ retries }) => Consumer.retry(backoff.pipe(Schedule.upTo({ times: retries })))
    })
  )

/** Works for as long as the scope is open. Answers its place in the group. */
export const work = Effect.fn("Worker.work")(function* (fault: Fault, tell: Tell) {
  const transport = yield* Transport.AtLeastOnce
  const joined = yield* Deferred.make<Transport.Receiver>()
  const observed: typeof transport = {
    ...transport,
    receive: Effect.fnUntraced(function* (subscription) {
      const receiver = yield* transport.receive(subscription)
      yield* Deferred.succeed(joined, receiver)
      return {
        consumer: receiver.consumer,
        take: (max) => receiver.take(max),
        settle: (all) =>
          Effect.tap(receiver.settle(all), (answers) =>
            Effect.sync(() => {
              for (const [i, [handle, settlement]] of all.entries()) {
                if (answers[i] === "Settled") tell(settled(handle, settlement))
              }
            })
          ),
        lost: Effect.tap(receiver.lost, (deliveries) =>
          Effect.sync(() => {
            for (const { id } of deliveries) tell({ state: "lease lost", task: id, detail: "handler interrupted" })
          })
        )
      }
    })
  }
  yield* Layer.build(
    Consumer.layer(consumer(tell)).pipe(
      Layer.provide(Printer.layer(fault)),
      Layer.provide(Layer.succeed(Transport.AtLeastOnce, observed))
    )
  )
  return yield* Deferred.await(joined)
})

/** Tells what the group takes over from workers that died or stand still. */
export const tellClaims = (tell: Tell) =>
  Effect.flatMap(Transport.AtLeastOnce, ({ lifecycle }) =>
    lifecycle.listen((event) => {
      if (event._tag !== "Claimed") return
      tell({ state: "claimed", detail: `${event.count} from ${event.from.join(", ")}` })
    })
  )

const settled = ({ attempt, id }: Delivery.Handle, settlement: Settlement.Settlement): Fact => {
  const fact = (state: Fact["state"], detail: string): Fact => ({ state, task: id, detail })
  switch (settlement._tag) {
    case "Ack":
      return fact("done", `on attempt ${attempt}`)
    case "Retry":
      return fact(
        "waiting",
        `${settlement.cause.split("\n")[0]}; again in ${Math.round(Duration.toMillis(settlement.delay))} ms`
      )
    case "DeadLetter":
      return fact("dead", `${settlement.reason} on attempt ${attempt}, and no more retries`)
    case "Release":
      return fact("released", "handed back unfinished; the attempt does not count")
  }
}
