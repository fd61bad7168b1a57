/**
 * The whole program on loopback, with a GitHub that sends real payloads and bad ones, a downstream service that fails, and
 * a worker that dies. Ends when every group has nothing left to do, and reports from evidence what became of each
 * delivery.
 */
import { NodeHttpClient } from "@effect/platform-node"
import { Clock, Effect, Fiber, FileSystem, Layer, Option, Random, Redacted, Schedule } from "effect"
import { HttpServer } from "effect/http"
import { Inspector, type Transport } from "waybill"
import * as App from "../App.ts"
import * as Audit from "../Audit.ts"
import * as Downstream from "../Downstream.ts"
import * as Index from "../Index.ts"
import * as Streams from "../Streams.ts"
import { Webhooks } from "../Webhook.ts"
import { WebhookSecret } from "../WebhookServer.ts"
import * as DoomedWorker from "./DoomedWorker.ts"
import { FlakyService } from "./FlakyService.ts"
import * as GitHub from "./GitHub.ts"
import * as Ledger from "./Ledger.ts"
import * as Plan from "./Plan.ts"
import * as Progress from "./Progress.ts"
import type { Report } from "./Report.ts"
import * as Saboteur from "./Saboteur.ts"
import * as Witness from "./Witness.ts"

export interface Options {
  readonly seed: string
  /** How many deliveries to lose on purpose, to see that the report notices. */
  readonly lose: number
}

/** The groups get this long for what is left when everything is sent. */
const patience = "60 seconds"

const secret = Redacted.make("the secret of this rehearsal")

export const run = Effect.fn("Rehearsal.run")(function* ({ lose, seed }: Options) {
  const files = yield* FileSystem.FileSystem
  const plan = yield* Plan.make(secret, seed)
  const auditLog = yield* files.makeTempFileScoped({ prefix: "webhooks-audit-", suffix: ".ndjson" })
  const redis = yield* Streams.redisUrl
  // A prefix of its own: delivery ids come from the seed, and Redis remembers those of the last run.
  const prefix = `webhooks-rehearsal-${(yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)}`

  const streams = Streams.layerTemporary(prefix)
  const transport = lose > 0 ? Layer.provideMerge(Saboteur.layer(Downstream.group, lose), streams) : streams
  const app = Layer.unwrap(
    Effect.map(FlakyService, ({ url }) => App.layer({ host: "127.0.0.1", port: 0, downstream: url, auditLog }))
  ).pipe(
    Layer.provide(Layer.succeed(WebhookSecret, secret)),
    Layer.provideMerge(FlakyService.layer(plan.moods)),
    Layer.provideMerge(NodeHttpClient.layerUndici)
  )
  return yield* Effect.gen(function* () {
    const doomed = Option.isSome(redis)
      ? yield* DoomedWorker.asProcess({ url: redis.value, prefix, path: auditLog })
      : yield* DoomedWorker.inMemory(auditLog)
    const store = Option.isSome(redis) ? "redis" : "memory"
    return yield* Effect.provide(perform(plan, doomed, auditLog, store), app)
  }).pipe(Effect.scoped, Effect.provide(transport))
}, Effect.scoped)

const perform = Effect.fnUntraced(function* (
  plan: Plan.Plan,
  doomed: DoomedWorker.DoomedWorker,
  auditLog: string,
  store: Report["store"]
) {
  const progress = yield* Progress.make()
  const witness = yield* Witness.make()
  const server = HttpServer.formatAddress((yield* HttpServer.HttpServer).address)
  yield* progress.say(`sending ${plan.sends.length} requests to ${server}; store: ${store}, seed ${plan.seed}`)

  let answered = 0
  const watching = yield* look.pipe(
    Effect.flatMap((states) =>
      progress.show([`${answered} of ${plan.sends.length} answered`, ...states.map(describe)].join(" | "))
    ),
    Effect.repeat(Schedule.spaced("100 millis")),
    Effect.forkScoped
  )
  let held: number | undefined
  yield* Effect.gen(function* () {
    yield* doomed.stuck
    yield* doomed.crash
    held = yield* heldBy(doomed.consumer)
    yield* progress.say(`worker ${doomed.consumer} of group ${Audit.group} died with ${held} deliveries in its hands`)
  }).pipe(Effect.forkScoped)

  const startedAt = yield* Clock.currentTimeMillis
  const answers = yield* GitHub.deliverAll(`${server}/webhooks/github`, plan, () => {
    answered++
  })
  const sentAt = yield* Clock.currentTimeMillis
  const settled = yield* look.pipe(
    Effect.repeat({
      schedule: Schedule.spaced("20 millis"),
      until: (states) => states.every(({ left }) => left === 0)
    }),
    Effect.timeoutOption(patience)
  )
  const doneAt = yield* Clock.currentTimeMillis
  yield* Fiber.interrupt(watching)
  yield* progress.end

  const idsWith = (is: (status: number) => boolean) =>
    new Set(answers.filter(({ status }) => is(status)).map(({ send }) => send.id))
  const stored = idsWith((status) => status === 202)
  const doubtful = idsWith((status) => status >= 500)
  const sends = new Map(plan.sends.map((send) => [send.id, send]))
  const records = yield* recordsOf(auditLog)
  const left = Option.isSome(settled) ? settled.value : yield* look
  const groups = yield* Effect.forEach(plan.groups, ({ deadLetter, group, wants }) =>
    Effect.gen(function* () {
      const account = Ledger.account(stored, doubtful, {
        group,
        records: records.get(group) ?? new Map(),
        wants: (id) => Option.exists(Option.fromNullishOr(sends.get(id)), wants),
        acked: witness.acked(group),
        deadLetters: yield* deadLettersOf(group),
        unfinished: left.find((state) => state.group === group)?.left ?? 0,
        expected: (id) => Option.getOrUndefined(Option.map(Option.fromNullishOr(sends.get(id)), deadLetter))
      })
      return { ...account, retried: witness.retried(group) }
    })
  )
  const rejected: Record<string, number> = {}
  for (const { refusal } of answers) if (refusal !== undefined) rejected[refusal] = (rejected[refusal] ?? 0) + 1
  const total = (count: (group: (typeof groups)[number]) => number) =>
    groups.reduce((sum, group) => sum + count(group), 0)
  const ended = total(({ acked, deadLettered }) => Object.values(deadLettered).reduce((a, b) => a + b, acked))
  const report: Report = {
    seed: plan.seed,
    store,
    received: answers.length,
    rejected,
    duplicates: answers.filter(({ receipt }) => receipt === "Duplicate").length,
    published: stored.size,
    groups,
    crash: {
      group: Audit.group,
      consumer: doomed.consumer,
      happened: held !== undefined,
      held: held ?? 0,
      takenOver: witness.takenFrom(doomed.consumer)
    },
    lost: total(({ lost }) => lost),
    unfinished: total(({ unfinished }) => unfinished),
    strays: total(({ strays }) => strays.length),
    surprises: total(({ surprises }) => surprises.length),
    seconds: (doneAt - startedAt) / 1000,
    messagesPerSecond: perSecond(ended, doneAt - startedAt),
    requestsPerSecond: perSecond(answers.length, sentAt - startedAt)
  }
  return report
}, Effect.scoped)

const perSecond = (count: number, millis: number) => Math.round((count * 1000) / Math.max(1, millis))

/** A store that is away for a while must not end the rehearsal. */
const patiently = <A, R>(self: Effect.Effect<A, Transport.TransportError, R>) =>
  Effect.retry(self, {
    schedule: Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: patience })),
    while: ({ reason }) => !reason.permanent
  })

/** What the groups have still to do, by the store. */
const look = Effect.gen(function* () {
  const inspector = yield* Inspector.Inspector
  const { delayed, groups } = yield* patiently(inspector.describe(Webhooks.name))
  return groups.map(({ consumers, group, lag, pending, waiting }) => ({
    group,
    left: lag + pending + waiting + delayed,
    waiting,
    consumers
  }))
})

const describe = ({ group, left, waiting }: { group: string; left: number; waiting: number }) =>
  `${group}: ${left} left${waiting > 0 ? `, ${waiting} waiting for a retry` : ""}`

const heldBy = Effect.fnUntraced(function* (consumer: string) {
  const states = yield* look
  return states.flatMap(({ consumers }) => consumers).find((one) => one.consumer === consumer)?.pending ?? 0
})

/** How often each delivery stands in the records of each group. */
const recordsOf = Effect.fnUntraced(function* (auditLog: string) {
  const audited = new Map<string, number>()
  for (const { delivery } of yield* Audit.Audit.read(auditLog)) audited.set(delivery, (audited.get(delivery) ?? 0) + 1)
  return new Map([
    [Index.group, yield* Index.Index.use((index) => index.applied)],
    [Downstream.group, yield* FlakyService.use((service) => service.taken)],
    [Audit.group, audited]
  ])
})

const page = 100

const deadLettersOf = Effect.fnUntraced(function* (group: string) {
  const inspector = yield* Inspector.Inspector
  const letters: Array<Inspector.DeadLetter> = []
  while (true) {
    const after = Option.map(Option.fromNullishOr(letters.at(-1)), ({ entry }) => entry)
    const next = yield* patiently(inspector.deadLetters(Webhooks.name, group, { after, limit: page }))
    letters.push(...next)
    if (next.length < page) return letters
  }
})
