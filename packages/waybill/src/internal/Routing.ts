/**
 * From a handler's exit to how its delivery ends: a pure function of the exit, the routing table and the attempt.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type { Delivery } from "../Delivery.ts"
import * as Failure from "../Failure.ts"
import * as RetryPolicy from "../RetryPolicy.ts"
import * as Settlement from "../Settlement.ts"
import { isSmall, type Names, outline, stackOf } from "./Outline.ts"
import * as Replay from "./Replay.ts"

/** Where one kind of failure leads. */
export type Route<E = never> =
  | { readonly _tag: "Ack" }
  | { readonly _tag: "DeadLetter"; readonly reason: string | undefined }
  | {
      readonly _tag: "Retry"
      readonly policy: RetryPolicy.RetryPolicy<E>
      /** A lower bound for the delay, whatever the policy says. */
      readonly after: Duration.Duration | undefined
    }

/** A route, or a function that depends on the failure. */
export type Row<E> = Route<E> | ((error: E, delivery: Delivery) => Route<E>)

/** The tags of a union of failures. */
export type Tags<E> = E extends { readonly _tag: infer Tag extends string } ? Tag : never

/** Rows by tag. */
export type Table<E> = { readonly [Tag in Tags<E>]?: Row<Extract<E, { readonly _tag: Tag }>> }

/** All routes of one consumer. Typed where they are declared; only the tags are left here. */
export interface Routes {
  readonly rows: ReadonlyMap<string, Row<unknown>>
  readonly fallback: Row<unknown> | undefined
}

/** No failure has a route yet. */
export const none: Routes = { rows: new Map(), fallback: undefined }

/**
 * How a delivery ends after this exit of its handler.
 *
 * | exit | settlement |
 * |---|---|
 * | success | `Ack` |
 * | typed failure | its row; `Unrouted` dead letter when there is none, which the types rule out |
 * | failure while its policy still has a delay for this attempt | `Retry` |
 * | failure after the policy has ended | `DeadLetter`, reason: the failure's tag |
 * | defect, alone or next to a failure | `DeadLetter`, reason `Defect` |
 * | the handler interrupted itself | counts as a failure under `RetryPolicy.standard`, reason `Interrupted` |
 *
 * Interruption by shutdown or a lost lease is not decided here: the former releases, the latter settles nothing.
 */
export const decide = (
  exit: Exit.Exit<unknown, unknown>,
  routes: Routes,
  delivery: Delivery
): Effect.Effect<Settlement.Settlement> => {
  if (Exit.isSuccess(exit)) return acked
  try {
    return judge(exit.cause, routes, delivery)
  } catch (defect) {
    // A row that throws, or a failure that cannot be inspected.
    return Effect.succeed(defective(Cause.die(defect)))
  }
}

/**
 * How a delivery ends if decoding it died: a service that the schema needs is unavailable, or has a bug. Retried under
 * `RetryPolicy.standard`, then a dead letter with the reason `Defect`.
 */
export const decideDecoding = (cause: Cause.Cause<unknown>, delivery: Delivery): Effect.Effect<Settlement.Settlement> =>
  follow(
    { _tag: "Retry", policy: RetryPolicy.standard, after: undefined },
    undefined,
    "Defect",
    decoding,
    cause,
    delivery
  )

/**
 * How a delivery ends whose version is newer than those that the consumer reads: it is set aside, uncounted, for as long as it
 * takes. Only briefly at first, so that another member of the group gets it soon, and then for longer each time. Where messages
 * do not outlive their consumers no other member could get this copy: it becomes a dead letter, to be redriven to a newer build.
 */
export const decideNewer = (
  reads: number,
  { failures, fence, version }: Delivery,
  stores: boolean
): Effect.Effect<Settlement.Settlement> =>
  Effect.clockWith((clock): Effect.Effect<Settlement.Settlement> => {
    const cause = `version ${version} is newer than ${reads}, the newest that this consumer reads`
    if (!stores) return Effect.succeed(Settlement.deadLetter("NewerVersion", cause))
    const before = failures?.get(newer)
    const count = (failures === undefined ? fence - 1 : (before?.count ?? 0)) + 1
    const delay = Duration.millis(Math.min(longestAside, shortestAside * 2 ** Math.max(0, count - briefly)))
    const since = before?.since ?? clock.currentTimeMillisUnsafe()
    return Effect.succeed({ ...Settlement.retry(delay, cause, { name: newer, count, since }), newerThan: reads })
  })

/** How often it is set aside briefly, and the intervals in milliseconds. */
const briefly = 10
const shortestAside = 100
const longestAside = 60_000

/** How long the policies among the routes may redeliver a message. Rows that depend on the failure are not covered. */
export const longestRetry = ({ fallback, rows }: Routes): Effect.Effect<Duration.Duration> =>
  Effect.gen(function* () {
    // A handler that interrupts itself needs no row.
    let longest = yield* Replay.longest(RetryPolicy.standard, Duration.zero)
    for (const row of [...rows.values(), fallback]) {
      if (row === undefined || typeof row === "function" || row._tag !== "Retry") continue
      longest = Duration.max(longest, yield* Replay.longest(row.policy, row.after ?? Duration.zero))
    }
    return longest
  })

const judge = (
  cause: Cause.Cause<unknown>,
  routes: Routes,
  delivery: Delivery
): Effect.Effect<Settlement.Settlement> => {
  if (Cause.hasDies(cause)) return Effect.succeed(defective(cause))
  const failure = Cause.findErrorOption(cause)
  if (Option.isNone(failure)) {
    return follow(
      { _tag: "Retry", policy: RetryPolicy.standard, after: undefined },
      undefined,
      "Interrupted",
      interrupted,
      cause,
      delivery
    )
  }
  const error = failure.value
  const tag = Predicate.hasProperty(error, "_tag") && typeof error._tag === "string" ? error._tag : undefined
  const own = tag === undefined ? undefined : routes.rows.get(tag)
  const row = own ?? routes.fallback
  if (row === undefined) return Effect.succeed(dead("Unrouted", cause))
  const name = own === undefined || tag === undefined ? fallback : tag
  return follow(typeof row === "function" ? row(error, delivery) : row, error, tag ?? "", name, cause, delivery)
}

const dead = (reason: string, cause: Cause.Cause<unknown>) =>
  Settlement.deadLetter(reason, render(cause), Failure.of(cause))

const defective = (cause: Cause.Cause<unknown>) => dead("Defect", cause)

const acked = Exit.succeed(Settlement.ack)

/** The names that count failures of the catch-all, handlers that interrupt themselves, decoding, and newer versions. */
const fallback = "*"
const interrupted = "!"
const decoding = "?"
const newer = "^"

const follow = (
  route: Route<unknown>,
  error: unknown,
  tag: string,
  row: string,
  cause: Cause.Cause<unknown>,
  delivery: Delivery
): Effect.Effect<Settlement.Settlement> => {
  switch (route._tag) {
    case "Ack":
      return acked
    case "DeadLetter":
      return Effect.succeed(dead(route.reason || tag, cause))
    case "Retry":
      return Effect.clockWith((clock) => {
        const now = clock.currentTimeMillisUnsafe()
        const before = delivery.failures?.get(row)
        // Each row replays its own failures. If they were not counted, all attempts stand for them.
        const count = delivery.failures === undefined ? delivery.attempt : (before?.count ?? 0) + 1
        const since = before?.since ?? (count === 1 ? now : undefined)
        return Replay.delayAfter(route.policy, count, error, since).pipe(
          Effect.map(
            Option.match({
              onNone: () => dead(tag, cause),
              onSome: (delay) =>
                Settlement.retry(
                  route.after === undefined ? delay : Duration.max(delay, route.after),
                  render(cause),
                  { name: row, count, since: since ?? now },
                  Failure.said(cause)
                )
            })
          )
        )
      }).pipe(
        // A schedule is user code too: it may die or interrupt itself.
        Effect.catchCause((broken) => Effect.succeed(defective(broken)))
      )
  }
}

/** Longer causes are truncated: they travel with the message, for people to read. */
const maxRendered = 4096

/** The cause as text, at most 4096 characters. */
export const render = (cause: Cause.Cause<unknown>): string => {
  const values = cause.reasons.slice(0, maxReasons).map(valueOf)
  const names: Names = new WeakMap()
  if (cause.reasons.length <= maxReasons && values.every((value) => isSmall(value, names))) {
    try {
      return shorten(Cause.pretty(cause)).toWellFormed()
    } catch {
      return "a failure that cannot be rendered: reading it throws"
    }
  }
  const stack = stackOf(values[0])
  const text = values.map((value) => outline(value, names)).join("\n")
  return (shorten(text, maxRendered - stack.length) + stack).toWellFormed()
}

/** How many simultaneous failures are rendered one by one. */
const maxReasons = 20

const valueOf = (reason: Cause.Reason<unknown>): unknown => {
  switch (reason._tag) {
    case "Fail":
      return reason.error
    case "Die":
      return reason.defect
    case "Interrupt":
      return "interrupted"
  }
}

/** At most so many characters, 4096 by default, without cutting one in two. */
export const shorten = (text: string, most = maxRendered): string => {
  if (text.length <= most) return text
  const end = most - 3
  const last = text.charCodeAt(end - 1)
  return `${text.slice(0, last >= 0xd800 && last <= 0xdbff ? end - 1 : end)}...`
}
