/**
 * The schedules of the topics of one layer, in memory.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Drift, ScheduleStore, StoredSchedule } from "../../internal/ScheduleStore.ts"
import type { Lifecycle } from "../../Lifecycle.ts"
import { completed, step } from "./Step.ts"
import type { Topic } from "./Topic.ts"

/** Those that are not due at all come last. */
const byDue = (a: StoredSchedule, b: StoredSchedule): number => {
  const [x, y] = [a.next ?? Infinity, b.next ?? Infinity]
  return x === y ? (a.id < b.id ? -1 : 1) : x - y
}

/** By topic and id. */
export type All = Map<string, Map<string, StoredSchedule>>

export const make = (store: {
  readonly schedules: All
  readonly lifecycle: Lifecycle
  readonly open: (topic: string) => Topic
}): ScheduleStore => {
  const all = store.schedules
  const listeners = new Map<string, Set<() => void>>()
  /** By topic and schedule. Processes withdraw what they have recorded as they end, so none of it is too old. */
  const drifts = new Map<string, Map<string, Drift>>()
  let revisions = 0
  const sorted = (topic: string) => [...(all.get(topic)?.values() ?? [])].sort(byDue)
  return {
    pollMillis: Infinity,
    due: (topic) =>
      step((now) => {
        let next = Infinity
        const schedules: Array<StoredSchedule> = []
        for (const schedule of all.get(topic)?.values() ?? []) {
          const due = schedule.next ?? Infinity
          next = Math.min(next, due)
          if (due <= now) schedules.push(schedule)
        }
        return Effect.succeed({ now, schedules: schedules.sort(byDue), next: next < Infinity ? next : undefined })
      }),
    find: (topic, ids) =>
      step((now) => {
        const found = all.get(topic)
        const none = { revision: "", next: undefined, text: "" }
        return Effect.succeed({ now, schedules: ids.map((id) => found?.get(id) ?? { id, ...none }) })
      }),
    page: (topic, after, limit) =>
      step((now) => {
        const schedules = sorted(topic)
        const last = Option.getOrUndefined(after)
        const from = last === undefined ? 0 : schedules.findIndex((one) => byDue(last, one) < 0)
        return Effect.succeed({ now, schedules: from < 0 ? [] : schedules.slice(from, from + limit) })
      }),
    change: (name, changes, announce) =>
      step((now, fiber) => {
        const topic = store.open(name)
        const schedules = all.get(name) ?? new Map<string, StoredSchedule>()
        all.set(name, schedules)
        const made = changes.map(({ id, messages, next, revision, text }) => {
          if ((schedules.get(id)?.revision ?? "") !== revision) return undefined
          if (text === "") schedules.delete(id)
          else schedules.set(id, { id, next, text, revision: String(++revisions) })
          if (messages.length === 0) return []
          const receipts = topic.publish(messages, now)
          if (store.lifecycle.active) store.lifecycle.emit({ _tag: "Published", topic: name, messages, receipts })
          return receipts
        })
        if (announce) for (const heard of listeners.get(name) ?? []) heard()
        return completed(store.lifecycle, topic, fiber, made)
      }),
    note: (topic, found, over) =>
      Effect.sync(() => {
        const known = drifts.get(topic) ?? new Map<string, Drift>()
        drifts.set(topic, known)
        for (const { schedule } of over) known.delete(schedule)
        for (const drift of found) known.set(drift.schedule, drift)
      }),
    drifts: (topic, limit) => Effect.sync(() => [...(drifts.get(topic)?.values() ?? [])].slice(0, limit)),
    listen: (topic, heard) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const heeding = listeners.get(topic) ?? new Set()
          listeners.set(topic, heeding.add(heard))
          return heeding
        }),
        (heeding) => Effect.sync(() => heeding.delete(heard))
      )
  }
}
