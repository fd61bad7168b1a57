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
export const mostMissed = 1000

/** How many ticks of one schedule are published in one step. */
const mostAtOnce = 100

/** A parsed expression, and the last answer: computing the next tick in a time zone takes most of a millisecond. */
interface Known {
  readonly cron: Result.Result<Cron.Cron, Cron.CronParseError>
  /** There is no tick after `from` and before `tick`. */
  from: number
  tick: number
}

/** Many schedules have the same expression, and are due at the same time. */
const known = new Map<string, Known>()
const mostKnown = 1000

const knownOf = (expression: string, zone = "UTC"): Known => {
  const key = `${zone} ${expression}`
  let one = known.get(key)
  if (one === undefined) {
    if (known.size === mostKnown) known.clear()
    known.set(key, (one = { cron: Cron.parse(expression, zone), from: 0, tick: 0 }))
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

/** An instant that at most `count` ticks lie between and `now`, for a schedule that many more are due of. */
const recently = (timing: Timing, count: number, now: number): number => {
  if (timing.cron === undefined) return now - (timing.every ?? leastEvery) * count
  const cron = cronOf(timing.cron, timing.zone)
  let at = now
  if (Result.isSuccess(cron)) {
    for (let left = count; left > 0; left--) at = Cron.prev(cron.success, new Date(at)).getTime()
  }
  return at
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
  const due: Array<number> = []
  let next: number | undefined = tick
  let passed = 0
  for (let jumped = false; next !== undefined && next <= now;) {
    if (due.length === mostMissed && !jumped) {
      jumped = true
      const recent = recently(timing, mostMissed, now)
      if (recent > next) {
        passed = due.length
        due.length = 0
        next = tickAfter(timing, recent)
        continue
      }
    }
    due.push(next)
    next = tickAfter(timing, next)
  }
  const last = due.at(-1) ?? tick
  const inWindow = due.filter((one) => now - one <= window)
  let publish = missed === "all" ? inWindow : missed === "last" || now - last <= lateMillis ? inWindow.slice(-1) : []
  const skipped = passed + due.length - publish.length
  const left = (timing.times ?? Infinity) - published
  publish = publish.slice(0, left)
  if (publish.length > mostAtOnce) return { publish: publish.slice(0, mostAtOnce), skipped, next: publish[mostAtOnce] }
  return { publish, skipped, next: publish.length >= left ? undefined : next }
}
