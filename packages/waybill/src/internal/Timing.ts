/**
 * When a schedule is due: pure functions of its definition. Every process that knows the definition computes the same ticks.
 *
 * @module
 */
import * as Cron from "effect/Cron"
import * as Result from "effect/Result"

/** All times are milliseconds since the epoch. */
export interface Timing {
  /** A cron expression of five or six fields, in this time zone; UTC without one. */
  readonly cron?: string | undefined
  readonly zone?: string | undefined
  /** Instead of `cron`: milliseconds from one tick to the next, counted from `start` or the epoch. */
  readonly every?: number | undefined
  /** No tick is before `start` or after `end`. */
  readonly start?: number | undefined
  readonly end?: number | undefined
  /** How many ticks there are in all. */
  readonly times?: number | undefined
  /** Which of the missed ticks are published: the last one by default. */
  readonly missed?: "skip" | "last" | "all" | undefined
  /** Ticks that are noticed later than this are not published at all. */
  readonly window?: number | undefined
  /** How long the messages may be delayed. */
  readonly jitter?: number | undefined
}

/** A tick that is noticed later than this was missed. */
const lateMillis = 60_000

/** How many missed ticks are published with `missed: "all"`, the newest. */
const mostMissed = 1000

/** How many ticks of an expression are counted where only the last one matters: each takes most of a millisecond. */
const mostCounted = 100

/** How many ticks of one schedule are published in one step. */
const mostAtOnce = 100

/** A parsed expression, and the last answer: computing the next tick in a time zone takes most of a millisecond. */
interface Known {
  readonly cron: Result.Result<Cron.Cron, Cron.CronParseError>
  /** There is no tick after `from` and before `tick`. */
  from: number
  tick: number
  /** Ticks in a row, the latest first, as far as they were needed. */
  recent: Array<number>
}

/** Many schedules have the same expression, and are due at the same time. */
const known = new Map<string, Known>()
const mostKnown = 1000

const hourOf = (expression: string): string => expression.trim().split(/\s+/).at(-4) ?? ""

const knownOf = (expression: string, zone = "UTC"): Known => {
  const key = `${zone} ${expression}`
  let one = known.get(key)
  if (one === undefined) {
    if (known.size === mostKnown) known.clear()
    // What is due in any hour does not pause when a clock is set back.
    const onDstOverlap = hourOf(expression).startsWith("*") ? "both" : "earlier"
    known.set(key, (one = { cron: Cron.parse(expression, zone, { onDstOverlap }), from: 0, tick: 0, recent: [] }))
  }
  return one
}

const cronOf = (expression: string, zone?: string) => knownOf(expression, zone).cron

/** The shortest interval: anything faster is a loop, not a schedule. */
const leastEvery = 1000

/** What is wrong with it, if something is. */
export const problemOf = (timing: Timing): string | undefined => {
  const { cron, end, every, jitter = 0, missed = "last", start, times = 1, window = 0 } = timing
  if (cron === undefined) {
    if (every === undefined || !Number.isSafeInteger(every) || every < leastEvery)
      return "the interval must be at least one second, and finite"
  } else {
    const result = cronOf(cron, timing.zone)
    if (Result.isFailure(result)) {
      const { input = "", message } = result.failure
      return `${message}: ${input}`
    }
    if (isImpossible(cron, result.success)) return `no date fits the expression ${cron}`
  }
  if (start !== undefined && end !== undefined && end < start) return "it ends before it starts"
  if (!Number.isSafeInteger(times) || times < 1) return "times must be an integer >= 1"
  if (!["skip", "last", "all"].includes(missed)) return 'missed must be "skip", "last" or "all"'
  if (!isMillis(window)) return "window must be at least 0"
  if (!isMillis(jitter)) return "jitter must be at least 0"
  return undefined
}

const isMillis = (millis: number): boolean => Number.isSafeInteger(millis) && millis >= 0

const longestMonths = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]

/** Whether none of its months has one of its days, such as the 30th of February. Looking for a date would take seconds. */
const isImpossible = (expression: string, { days, months }: Cron.Cron): boolean => {
  // A day of the week would do as well.
  if (days.size === 0 || !/\s\*\S*$/.test(expression.trim())) return false
  const first = Math.min(...days)
  return longestMonths.every((length, i) => (months.size > 0 && !months.has(i + 1)) || length < first)
}

/** The first tick after an instant; undefined if there is none. */
export const tickAfter = (timing: Timing, instant: number): number | undefined => {
  const { end = Infinity, start } = timing
  const from = start === undefined ? instant : Math.max(instant, start - 1)
  const tick = timing.cron === undefined ? nextMultiple(timing, from) : nextOfCron(timing, timing.cron, from)
  return tick === undefined || tick > end ? undefined : tick
}

const nextMultiple = ({ every = leastEvery, start = 0 }: Timing, after: number): number =>
  start + every * (Math.floor((after - start) / every) + 1)

const nextOfCron = ({ zone }: Timing, expression: string, after: number): number | undefined => {
  const one = knownOf(expression, zone)
  if (one.from <= after && after < one.tick) return one.tick
  if (Result.isFailure(one.cron)) return undefined
  try {
    one.tick = Cron.next(one.cron.success, new Date(after)).getTime()
    one.from = after
    return one.tick
  } catch {
    // No date fits, such as the 30th of February.
    return undefined
  }
}

/** The tick before an instant; -Infinity if there is none. */
const before = ({ cron }: Known, instant: number): number => {
  try {
    return Result.isSuccess(cron) ? Cron.prev(cron.success, new Date(instant)).getTime() : -Infinity
  } catch {
    return -Infinity
  }
}

/** The last ticks until an instant: at 0 the last one, at 1 the one before it. */
const recent = (timing: Timing, until: number): ((i: number) => number) => {
  const { cron, every = leastEvery, zone } = timing
  if (cron === undefined) {
    const next = nextMultiple(timing, until)
    return (i) => next - every * (i + 1)
  }
  const one = knownOf(cron, zone)
  const last = before(one, until + 1)
  if (one.recent[0] !== last) one.recent = [last]
  return (i) => {
    for (let at = one.recent.at(-1) ?? last; one.recent.length <= i;) one.recent.push((at = before(one, at)))
    return one.recent[i] ?? -Infinity
  }
}

/** The ticks from `tick` to `now`, the newest ones in order, and whether there are more. */
const newest = (
  timing: Timing,
  tick: number,
  now: number
): { readonly due: ReadonlyArray<number>; readonly more: boolean } => {
  const most = timing.cron === undefined || timing.missed === "all" ? mostMissed : mostCounted
  const at = recent(timing, Math.min(now, timing.end ?? Infinity))
  const due: Array<number> = []
  for (let i = 0; at(i) > tick; i++) {
    if (i === most) return { due: due.reverse(), more: true }
    due.push(at(i))
  }
  if (due.length === most) return { due: due.reverse(), more: true }
  return { due: [tick, ...due.reverse()], more: false }
}

/** What is to be done when a tick is due. */
export interface Turn {
  /** The ticks to publish, in order. */
  readonly publish: ReadonlyArray<number>
  /** How many ticks are not published, at least. */
  readonly skipped: number
  /** The next tick; undefined if the schedule has ended. It may be due already. */
  readonly next: number | undefined
}

/**
 * A tick is due, and `published` were published before. A tick counts as missed when a later one is due as well, or when it is
 * noticed more than a minute late.
 */
export const turn = (timing: Timing, tick: number, now: number, published: number): Turn => {
  const { missed = "last", window = Infinity } = timing
  const next = tickAfter(timing, now)
  const { due, more } = tickAfter(timing, tick) === next ? { due: [tick], more: false } : newest(timing, tick, now)
  const last = due.at(-1) ?? tick
  const inWindow = due.filter((one) => now - one <= window)
  let publish = missed === "all" ? inWindow : missed === "last" || now - last <= lateMillis ? inWindow.slice(-1) : []
  const skipped = due.length - publish.length + (more ? 1 : 0)
  const left = (timing.times ?? Infinity) - published
  publish = publish.slice(0, left)
  if (publish.length > mostAtOnce) return { publish: publish.slice(0, mostAtOnce), skipped, next: publish[mostAtOnce] }
  return { publish, skipped, next: publish.length >= left ? undefined : next }
}
