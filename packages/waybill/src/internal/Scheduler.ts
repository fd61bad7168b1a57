/**
 * Watches the schedules of one topic, and publishes each tick when it is due. Every process may do so: a tick and the time of the
 * next one are stored in one step, which only the first of them gets to make.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { Lifecycle } from "../Lifecycle.ts"
import type { Outgoing } from "../Message.ts"
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
const messageOf = (id: string, tick: number, definition: Definition): Outgoing => {
  const message = messageAs(messageIdOf(id, tick, definition), id, tick, definition)
  return definition.overlap === "skip" ? { ...message, unique: "until-settled" } : message
}

export const messageIdOf = (id: string, tick: number, { overlap }: Pick<Definition, "overlap">): string =>
  overlap === "skip" ? `${id}@tick` : `${id}@${new Date(tick).toISOString()}`

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

/** What is to be done about a schedule that is due. */
export interface Planned {
  readonly change: ScheduleChange
  /** How many ticks are left out because they are noticed too late. */
  readonly skipped: number
}

/** What to do about a schedule; undefined if it is not due, or this process cannot read it. */
export const planned = ({ id, next: tick, revision, text }: StoredSchedule, now: number): Planned | undefined => {
  if (tick === undefined || tick > now) return undefined
  const entry = read(text)
  if (entry === undefined) return undefined
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

/** Computing what was missed takes a while: handlers and leases go on in between. */
const plansOf = Effect.fnUntraced(function* (schedules: ReadonlyArray<StoredSchedule>, now: number) {
  const plans: Array<Planned> = []
  for (const schedule of schedules) {
    const plan = planned(schedule, now)
    if (plan !== undefined) plans.push(plan)
    yield* Effect.yieldNow
  }
  return plans
})

/** As many of the first ones as one call may carry. */
const fitting = (plans: ReadonlyArray<Planned>): ReadonlyArray<Planned> => {
  let messages = 0
  for (let i = 0; i < plans.length; i++) {
    messages += plans[i]?.change.messages.length ?? 0
    if (i === mostChanges || messages > mostChanges) return plans.slice(0, i)
  }
  return plans
}

/** Publishes what is planned, as far as no other process did so before, and reports what is left out. */
export const publish = Effect.fnUntraced(function* (
  store: Pick<ScheduleStore, "change">,
  lifecycle: Lifecycle,
  topic: string,
  plans: ReadonlyArray<Planned>
) {
  const made = yield* store.change(
    topic,
    plans.map(({ change }) => change),
    false
  )
  for (const [i, { change, skipped }] of plans.entries()) {
    const receipts = made[i]
    if (receipts === undefined) continue
    const told = { _tag: "TicksMissed", topic, schedule: change.id } as const
    if (skipped > 0) yield* lifecycle.report({ ...told, count: skipped, reason: "late" })
    const overlapping = receipts.filter(({ state }) => state !== undefined).length
    if (overlapping > 0) yield* lifecycle.report({ ...told, count: overlapping, reason: "overlap" })
  }
})

/** Publishes what is due; returns when to look again, in milliseconds from now. */
const round = Effect.fnUntraced(function* (store: ScheduleStore, lifecycle: Lifecycle, topic: string) {
  while (true) {
    const { next, now, schedules } = yield* store.due(topic)
    const pause = (at = Infinity) => Math.min(store.pollMillis, Math.max(0, at - now))
    if (schedules.length === 0) return next === undefined ? unscheduled * store.pollMillis : pause(next)
    let plans = yield* plansOf(schedules, now)
    // Those that only another build can read are left to it, and do not hold up the ones behind them.
    for (let last = schedules.at(-1); plans.length === 0;) {
      const { schedules: more } = yield* store.page(topic, Option.fromUndefinedOr(last), mostChanges)
      plans = yield* plansOf(more, now)
      last = more.at(-1)
      if (plans.length === 0 && !(last?.next !== undefined && last.next <= now)) {
        return Math.min(pauseMillis, pause(more.find(({ next = -Infinity }) => next > now)?.next))
      }
    }
    yield* publish(store, lifecycle, topic, fitting(plans))
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
    const exit = yield* Effect.exit(round(store, lifecycle, topic))
    if (Exit.isSuccess(exit)) {
      failing = false
      return Math.min(exit.value, longestMillis)
    }
    if (!failing) {
      failing = true
      // A defect may be gone, too, once the data are others.
      const failure = Option.getOrUndefined(Cause.findErrorOption(exit.cause))
      const { message, permanent } =
        failure === undefined
          ? { message: Cause.pretty(exit.cause), permanent: false }
          : { message: failure.message, permanent: failure.reason.permanent }
      yield* lifecycle.report({ _tag: "SchedulesFailing", topic, permanent, error: message })
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
