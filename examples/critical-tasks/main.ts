/**
 * Twenty invoices have to go out, and everything goes wrong: printing fails because of a bug, the first worker is restarted,
 * the second one stands still with an invoice in its hands. The timeline of one invoice shows what becomes of it.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, Option, Random, References, Stream } from "effect"
import { CliError, Command } from "effect/cli"
import { DeadLetters, Inspector, Producer } from "waybill"
import * as Store from "./Store.ts"
import { idOf, type Invoice, Invoices } from "./Task.ts"
import { Timeline } from "./Timeline.ts"
import { type Fault, group } from "./Worker.ts"
import * as Workers from "./Workers.ts"

const invoices = Array.from({ length: 20 }, (_, number): Invoice => ({ number, by: "email", retries: 3 }))
const followed = "invoice-7"
const printed = invoices.map((invoice) => (idOf(invoice) === followed ? { ...invoice, by: "print" as const } : invoice))

const patience = "30 seconds"

const story = Effect.fnUntraced(function* <E, R>(
  timeline: Timeline,
  start: (who: string, fault: Fault) => Effect.Effect<Workers.Worker, E, R>
) {
  const inspector = yield* Inspector.Inspector
  const happens = (who: string, state: string, times = 1) => {
    let seen = 0
    return timeline
      .until((entry) => entry.who === who && entry.task === followed && entry.state === state && ++seen === times)
      .pipe(Effect.timeout(patience))
  }
  const tell = (who: string, state: Parameters<Timeline["tell"]>[1]["state"], detail: string, task?: string) =>
    timeline.tell(who, { state, detail, task })

  const first = yield* start("worker 1", "wrong address")
  yield* Effect.forEach(printed, (invoice) => Producer.publish(Invoices, invoice, { id: idOf(invoice) }))
  yield* tell("producer", "published", "may be tried again 3 times", followed)

  yield* timeline.until(() => timeline.done.size === invoices.length - 1).pipe(Effect.timeout(patience))

  // A restart: what waits, waits in the store, and so does the count of its attempts.
  yield* happens("worker 1", "waiting")
  yield* first.stop
  yield* tell("worker 1", "stopped", `${yield* waiting} waits in the store`)
  const second = yield* start("worker 2", "hangs")

  // Stuck: it holds the invoice, and renews nothing. Somebody else takes over when its lease has passed.
  yield* happens("worker 2", "delivered")
  yield* second.standStill
  yield* tell("worker 2", "stands still", "with the invoice in its hands")
  const third = yield* start("worker 3", "wrong address")

  // The bug is still there, so the retries end.
  yield* happens("worker 3", "dead")
  yield* tell("worker 2", "wakes up", "and knows nothing of all this")
  yield* second.wakeUp
  yield* happens("worker 2", "lease lost")
  yield* second.stop
  yield* third.stop

  const letters = yield* Stream.runCollect(DeadLetters.stream(Invoices, group))
  for (const { attempts, cause, id, reason } of letters) {
    yield* Console.log(`dead letter: ${id}, ${reason} after ${attempts} attempts: ${cause.split("\n")[0]}`)
  }

  // The bug is fixed.
  const fourth = yield* start("worker 4", "none")
  const { done } = yield* DeadLetters.redrive(Invoices, group, { where: ({ reason }) => reason === "Unreachable" })
  yield* tell("operator", "redriven", "attempts start again, the fence goes on", followed)
  yield* happens("worker 4", "done")
  yield* fourth.stop

  yield* Console.log(`redriven: ${done}\n\n${timeline.render(followed)}\n`)
  const { groups } = yield* inspector.describe(Invoices.name)
  const left = groups.reduce(
    (sum, { deadLetters, lag, pending, waiting }) => sum + deadLetters + lag + pending + waiting,
    0
  )
  yield* Console.log(`${timeline.done.size} of ${invoices.length} invoices are out, ${left} left in the store`)
})

const waiting = Effect.gen(function* () {
  const inspector = yield* Inspector.Inspector
  const { groups } = yield* inspector.describe(Invoices.name)
  return groups.reduce((sum, { waiting }) => sum + waiting, 0)
})

const run = Effect.gen(function* () {
  const timeline = new Timeline()
  const url = yield* Config.option(Config.Redacted("REDIS_URL"))
  if (Option.isNone(url)) {
    yield* Effect.flatMap(Workers.inMemory(timeline), (start) => story(timeline, start)).pipe(
      Effect.scoped,
      Effect.provide(Store.layerMemory)
    )
  } else {
    const prefix = `critical-tasks-${(yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)}`
    yield* Effect.flatMap(Workers.asProcesses(timeline, { url: url.value, prefix }), (start) =>
      story(timeline, start)
    ).pipe(Effect.scoped, Effect.provide(Store.layerTemporary(url.value, prefix)))
  }
})

const program = Command.make("critical-tasks", {}, () =>
  Effect.catchTag(run, "TransportError", (cause) =>
    Effect.fail(new CliError.UserError({ cause, userMessage: `REDIS_URL: ${cause.message}` }))
  )
).pipe(
  Command.withDescription(
    "Follows one invoice through retries, a restart, a worker that stands still, the dead letters and back. In memory, where " +
      "no time is waited for, or on the Redis of REDIS_URL, where every worker is a process."
  )
)

program.pipe(
  Command.run({ version: "0.0.0" }),
  Effect.provide(NodeServices.layer),
  // The story is made of failures, and its timeline tells them.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
