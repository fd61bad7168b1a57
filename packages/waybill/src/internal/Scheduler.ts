/**
 * Watches the schedules of one topic, and publishes each tick when it is due. Every process may do so: a tick and the time of the
 * next one are stored in one step, which only the first of them gets to make.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Lifecycle } from "../Lifecycle.ts"
import type { Outgoing } from "../Message.ts"
import type { TransportError } from "../TransportError.ts"
import {
  type Definition,
  mostChanges,
  read,
  type ScheduleChange,
  type ScheduleStore,
  type StoredSchedule,
  write
} from "./ScheduleStore.ts"
import { turn } from "./Timing.ts"

/** How long to wait after a failure, and when nothing that is due can be read here. */
const pauseMillis = 1000

/** How many times as long a topic without schedules is left alone: most topics are. */
const unscheduled = 6

/** A timer cannot be set for longer. */
const longestMillis = 2 ** 31 - 1

/**
 * The message of a tick. Its id is the tick, so that it is stored once whatever happens. Where ticks must not overlap, they share an
 * id, and the message of one has it to itself until it is settled.
 */
export const messageOf = (id: string, tick: number, definition: Definition): Outgoing =>
  definition.overlap === "skip"
    ? { ...messageAs(`${id}@tick`, id, tick, definition), unique: "until-settled" }
    : messageAs(`${id}@${new Date(tick).toISOString()}`, id, tick, definition)

/** The message of a schedule under an id of its own. */
export const messageAs = (
  messageId: string,
  id: string,
  tick: number,
  { jitter, message: { body, headers, key, v } }: Definition
): Outgoing => ({
  id: messageId,
  body,
  headers: Object.freeze({ ...headers, schedule: id, tick: new Date(tick).toISOString() }),
  key,
  version: v ?? 1,
  due: jitter === undefined ? undefined : { _tag: "At", epochMillis: tick + spread(`${id}@${tick}`, jitter) }
})

/** A number from 0 to `most`, the same for the same text in every process. */
const spread = (text: string, most: number): number => {
  let hash = 2166136261
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619)
  return (hash >>> 0) % (most + 1)
}

interface Planned {
  readonly change: ScheduleChange
  /** How many ticks are left out because they are noticed too late. */
  readonly skipped: number
}

/** What to do about a schedule that is due; undefined if this build cannot read it. */
const planned = ({ id, next: tick, revision, text }: StoredSchedule, now: number): Planned | undefined => {
  const entry = read(text)
  if (entry === undefined || tick === undefined) return undefined
  const { definition, progress } = entry
  const { count = 0 } = progress
  const { next, publish, skipped } = turn(definition, tick, now, count)
  const last = publish.at(-1)
  return {
    skipped,
    change: {
      id,
      revision,
      next,
      text:
        last === undefined
          ? text
          : write({ definition, progress: { ...progress, last, count: count + publish.length } }),
      messages: publish.map((at) => messageOf(id, at, definition))
    }
  }
}

/** As many of the first ones as one call may carry. */
const fitting = (plans: ReadonlyArray<Planned>): ReadonlyArray<Planned> => {
  let messages = 0
  for (let i = 0; i < plans.length; i++) {
    messages += plans[i]?.change.messages.length ?? 0
    if (i === mostChanges || messages > mostChanges) return plans.slice(0, i)
  }
  return plans
}

/** Publishes what is due; returns when to look again, in milliseconds from now. */
const round = Effect.fnUntraced(function* (store: ScheduleStore, lifecycle: Lifecycle, topic: string) {
  while (true) {
    const { next, now, schedules } = yield* store.due(topic)
    if (schedules.length === 0) {
      return next === undefined ? unscheduled * store.pollMillis : Math.min(store.pollMillis, Math.max(0, next - now))
    }
    const plans = schedules.flatMap((schedule) => planned(schedule, now) ?? [])
    // Left to a build that can read it.
    if (plans.length === 0) return pauseMillis
    const some = fitting(plans)
    const made = yield* store.change(
      topic,
      some.map(({ change }) => change),
      false
    )
    for (const [i, { change, skipped }] of some.entries()) {
      const receipts = made[i]
      if (receipts === undefined) continue
      const told = { _tag: "TicksMissed", topic, schedule: change.id } as const
      if (skipped > 0) yield* lifecycle.report({ ...told, count: skipped, reason: "late" })
      const overlapping = receipts.filter(({ state }) => state !== undefined).length
      if (overlapping > 0) yield* lifecycle.report({ ...told, count: overlapping, reason: "overlap" })
    }
  }
})

/** Watches a topic until the scope closes. */
export const watch = (
  store: ScheduleStore,
  lifecycle: Lifecycle,
  topic: string
): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.forkScoped(Effect.scoped(watching(store, lifecycle, topic))))

const watching = Effect.fnUntraced(function* (
  store: ScheduleStore,
  lifecycle: Lifecycle,
  topic: string
): Effect.fn.Return<never, never, Scope.Scope> {
  const changed = Latch.makeUnsafe(false)
  yield* store.listen(topic, () => changed.openUnsafe())
  let failing = false
  const attempt = Effect.gen(function* () {
    changed.closeUnsafe()
    const result: Result.Result<number, TransportError> = yield* Effect.result(round(store, lifecycle, topic))
    if (Result.isSuccess(result)) {
      failing = false
      return Math.min(result.success, longestMillis)
    }
    const { message, reason } = result.failure
    if (!failing) {
      failing = true
      yield* lifecycle.report({ _tag: "SchedulesFailing", topic, permanent: reason.permanent, error: message })
    }
    return pauseMillis
  })
  return yield* attempt.pipe(
    Effect.flatMap((millis) =>
      millis >= longestMillis ? changed.await : Effect.race(Effect.sleep(millis), changed.await)
    ),
    Effect.forever
  )
})
