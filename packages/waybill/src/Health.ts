/**
 * Whether messaging works at this moment: `ready`, `degraded` (messages flow, but something the program relies on is
 * missing) or `down` (they do not), with the reasons. Checking never fails, changes nothing, and returns within
 * seconds, whatever state the store is in.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { type GroupInfo, Inspector } from "./Inspector.ts"
import { durationOf, wholeOf } from "./internal/Limits.ts"
import { safeLines } from "./internal/SafeText.ts"
import type { TransportError } from "./TransportError.ts"

/** One thing that is wrong. */
export interface Problem {
  readonly code:
    | "Unreachable"
    | "Unsupported"
    | "Loading"
    | "ReadOnly"
    | "EvictionPolicy"
    | "PersistenceOff"
    | "SnapshotsOnly"
    | "PersistenceFailing"
    | "ReplicasMissing"
    | "ReplicasBehind"
    | "NotInspectable"
    | "Lag"
    | "OldestPending"
    | "DeadLetters"
    | "CheckFailed"
  readonly impact: "degraded" | "down"
  /** For people: figures, names, and what to do. Never contains a password. */
  readonly detail: string
}

export interface Report {
  readonly status: "ready" | "degraded" | "down"
  /** The worst problem first. */
  readonly problems: ReadonlyArray<Problem>
  /** Name and version of the server, such as `Valkey 9.1.2`, if there is one and it reports them. */
  readonly server?: string
}

/** How a store reports on itself. Provided by `RedisHealth` and `MemoryHealth`. */
export class Store extends Context.Service<
  Store,
  {
    readonly problems: Effect.Effect<ReadonlyArray<Problem>>
    /** Name and version of the server behind it, if there is one. */
    readonly server?: Effect.Effect<string | undefined>
  }
>()("waybill/Health/Store") {}

export interface Options<out On = Store | Inspector> {
  /**
   * The name of the transport to check, and its store. Without it, `Inspector` and `Health.Store` are used, which
   * layers without a name provide.
   */
  readonly on?: Context.Key<
    On,
    { readonly inspector: Inspector["Service"]; readonly health?: Store["Service"] | undefined }
  >
  /** A group over one of these is `degraded`. Without limits groups are not inspected, which costs the store nothing. */
  readonly limits?: {
    /** Messages never delivered to the group. */
    readonly lag?: number
    /** Time since the oldest pending message was delivered. */
    readonly oldestPending?: Duration.Input
    readonly deadLetters?: number
  }
  /** Which topics to check against the limits; all of them by default. */
  readonly topics?: (topic: string) => boolean
  /** Problems that are intended, such as `PersistenceOff` on a cache of messages. They are left out of the report. */
  readonly accept?: ReadonlyArray<Problem["code"]>
}

/** A slower store is as good as down: the caller has a deadline too. */
const patience = "3 seconds"

/**
 * Asks the store about itself, and, if there are limits, the inspector about the groups.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Health } from "waybill"
 *
 * const program = Effect.gen(function*() {
 *   const { problems, status } = yield* Health.check({ limits: { lag: 10_000, oldestPending: "5 minutes" } })
 *   for (const { code, detail } of problems) yield* Effect.logWarning(status, code, detail)
 * })
 * ```
 */
export const check = Effect.fn("Health.check")(function* <On = Store | Inspector>(
  options: Options<On> = {}
): Effect.fn.Return<Report, never, On> {
  const { accept = [], limits, on } = options
  const { health: store = silent, inspector } = yield* on ?? byDefault<On>()
  if (limits?.lag !== undefined) wholeOf("limits.lag", limits.lag, 0)
  if (limits?.deadLetters !== undefined) wholeOf("limits.deadLetters", limits.deadLetters, 0)
  if (limits?.oldestPending !== undefined) durationOf("limits.oldestPending", limits.oldestPending)
  const parts = [bounded(store.problems, ({ code, detail }) => ({ code, impact: "down", detail }))]
  if (limits !== undefined) {
    const over: Array<Problem> = []
    const inspection = Effect.as(overLimits(inspector, options, over), [])
    // Failing to inspect groups does not hold up messages; an unreachable store is reported by itself.
    const unfinished = bounded(inspection, ({ detail }) =>
      notInspectable(`not every group was checked against the limits: ${detail}`)
    )
    parts.push(Effect.map(unfinished, (problems) => [...over, ...problems]))
  }
  const [found, server] = yield* Effect.all(
    [Effect.map(Effect.all(parts, { concurrency: "unbounded" }), (all) => all.flat()), named(store)],
    { concurrency: "unbounded" }
  )
  const problems = found
    .filter(({ code }) => !accept.includes(code))
    .map((problem) => ({ ...problem, detail: safeLines(problem.detail) }))
    .sort((a, b) => worth[b.impact] - worth[a.impact])
  return { status: problems[0]?.impact ?? "ready", problems, ...(server === undefined ? {} : { server }) }
})

/** Without a name, On is its default. */
const byDefault = <On>() =>
  Effect.gen(function* () {
    return { health: yield* Store, inspector: yield* Inspector }
  }) as Effect.Effect<{ readonly health: Store["Service"]; readonly inspector: Inspector["Service"] }, never, On>

/** A transport whose store has nothing to report. */
const silent: Store["Service"] = { problems: Effect.succeed([]) }

/** When a server does not identify itself, the problems say why. */
const named = ({ server = Effect.undefined }: Context.Service.Shape<typeof Store>): Effect.Effect<string | undefined> =>
  server.pipe(
    Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.undefined }),
    Effect.catchDefect(() => Effect.undefined)
  )

const worth = { degraded: 1, down: 2 }

/**
 * The report as an HTTP response: JSON, with status 200 when `ready` or `degraded` and 503 when `down`. Load
 * balancers remove a process on 503, and removing one that is merely degraded improves nothing.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { HttpRouter } from "effect/http"
 * import { Health } from "waybill"
 * import { IoRedis, RedisHealth, RedisStreams } from "waybill/redis"
 *
 * const HealthRoute = HttpRouter.add("GET", "/health", Health.respond({ limits: { lag: 10_000 } })).pipe(
 *   Layer.provide([RedisStreams.layer(), RedisHealth.layer()]),
 *   Layer.provide(IoRedis.layer())
 * )
 * ```
 */
export const respond = <On = Store | Inspector>(
  options: Options<On> = {}
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, On> =>
  Effect.map(check(options), (report) =>
    HttpServerResponse.jsonUnsafe(report, {
      status: report.status === "down" ? 503 : 200,
      headers: { "cache-control": "no-store" }
    })
  )

/** Ends in time with a result, whatever happens inside. */
const bounded = (
  part: Effect.Effect<ReadonlyArray<Problem>>,
  problem: (why: Pick<Problem, "code" | "detail">) => Problem
): Effect.Effect<ReadonlyArray<Problem>> =>
  part.pipe(
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => Effect.succeed([problem({ code: "Unreachable", detail: `no reply within ${patience}` })])
    }),
    Effect.catchDefect((defect) =>
      Effect.succeed([problem({ code: "CheckFailed", detail: Cause.pretty(Cause.die(defect)) })])
    )
  )

const notInspectable = (detail: string): Problem => ({ code: "NotInspectable", impact: "degraded", detail })

/** Adds to `found` as it goes, so that whatever is known when time is up counts. */
const overLimits = (
  inspector: Context.Service.Shape<typeof Inspector>,
  { limits = {}, topics: wanted = () => true }: Pick<Options, "limits" | "topics">,
  found: Array<Problem>
): Effect.Effect<void> => {
  const unknown = (error: TransportError) => found.push(notInspectable(error.message))
  return Effect.gen(function* () {
    const topics = (yield* inspector.topics).filter(wanted)
    yield* Effect.forEach(
      topics,
      (topic) =>
        Effect.match(inspector.describe(topic), {
          onFailure: unknown,
          onSuccess: ({ groups }) => found.push(...groups.flatMap((group) => problemsOf(topic, group, limits)))
        }),
      { concurrency: 8, discard: true }
    )
  }).pipe(
    Effect.catch((error) => Effect.sync(() => unknown(error))),
    Effect.asVoid
  )
}

const problemsOf = (
  topic: string,
  { deadLetters, group, lag, oldestPendingMillis }: GroupInfo,
  limits: NonNullable<Options["limits"]>
): ReadonlyArray<Problem> => {
  const problems: Array<Problem> = []
  const over = (code: Problem["code"], what: string) =>
    problems.push({ code, impact: "degraded", detail: `group ${group} of topic ${topic}: ${what}` })
  if (limits.lag !== undefined && lag > limits.lag) {
    over("Lag", `${lag} messages were never delivered, the limit is ${limits.lag}`)
  }
  const oldest = limits.oldestPending === undefined ? undefined : Duration.fromInputUnsafe(limits.oldestPending)
  if (oldest !== undefined && oldestPendingMillis > Duration.toMillis(oldest)) {
    const age = Duration.format(Duration.millis(oldestPendingMillis))
    over("OldestPending", `a message has been pending for ${age}, the limit is ${Duration.format(oldest)}`)
  }
  if (limits.deadLetters !== undefined && deadLetters > limits.deadLetters) {
    over("DeadLetters", `${deadLetters} dead letters, the limit is ${limits.deadLetters}`)
  }
  return problems
}
