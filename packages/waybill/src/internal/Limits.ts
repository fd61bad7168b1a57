/**
 * What a store remembers and for how long, in memory as on Redis. An invalid number throws when the layer is described, not
 * when a message meets it.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import { isName } from "./Name.ts"
import { safe } from "./SafeText.ts"

/**
 * @category models
 */
export interface LimitOptions {
  /**
   * How long the id of a published message is remembered; publishing it again in that time stores nothing. 10 minutes
   * by default.
   */
  readonly deduplicationWindow?: Duration.Input
  /**
   * How many dead letters a group keeps, and for how long. The oldest are dropped first and reported as
   * `DeadLettersDropped`. 100,000 and 30 days by default.
   */
  readonly deadLetters?: { readonly maxCount?: number; readonly maxAge?: Duration.Input }
}

/**
 * @category models
 */
export interface TopicOptions<Options> {
  /** Options of single topics, by name: each replaces the one of the layer. */
  readonly topics?: Readonly<Record<string, Options>>
}

/**
 * How much of a stream is kept. A message is dropped once it exceeds one of the limits.
 *
 * @category models
 */
export interface RetentionLimits {
  /** About how many messages. */
  readonly maxLength?: number
  /** How long after it was stored. */
  readonly maxAge?: Duration.Input
  /** About how many bytes, as the store counts them: on Redis its memory, which consumers need permission to measure, `MEMORY USAGE`. */
  readonly maxBytes?: number
  /**
   * What to do with a message that exceeds a limit while some group has not settled it. `newest`, the default: drop it, and
   * report it as `Truncated`. `unsettled`: keep it until every group has settled it.
   */
  readonly keep?: "newest" | "unsettled"
}

/**
 * @category models
 */
export interface RetentionOptions {
  /**
   * Which messages a topic keeps. `settled`, the default: those that some group has not settled, or everything while there is no
   * group. With limits on their number, age or bytes: the messages within all of them, settled or not, for late groups, replays and
   * `Log`. What exceeds a limit is dropped even if a slow group has not seen it, which is reported as `Truncated`; with
   * `keep: "unsettled"` it is dropped once every group has settled it.
   */
  readonly retention?: "settled" | RetentionLimits
}

/** The same as numbers; Infinity where there is no limit. */
export interface KeptLimits {
  readonly maxLength: number
  readonly maxAgeMillis: number
  readonly maxBytes: number
  readonly keep: "newest" | "unsettled"
}

/** Undefined for `settled`. */
export const keptLimitsOf = ({ retention = "settled" }: RetentionOptions): KeptLimits | undefined => {
  if (typeof retention !== "object") {
    oneOf("retention", retention, ["settled"])
    return undefined
  }
  const { keep = "newest", maxAge, maxBytes, maxLength } = retention
  if (maxAge === undefined && maxBytes === undefined && maxLength === undefined) {
    throw new Error("retention needs maxLength, maxAge or maxBytes")
  }
  return {
    maxLength: maxLength === undefined ? Infinity : wholeOf("retention.maxLength", maxLength),
    maxAgeMillis: maxAge === undefined ? Infinity : millisOf("retention.maxAge", maxAge),
    maxBytes: maxBytes === undefined ? Infinity : wholeOf("retention.maxBytes", maxBytes),
    keep: oneOf("retention.keep", keep, ["newest", "unsettled"])
  }
}

/** What publishing may wait for. */
export const durabilities = ["stored", "replicated", "fsynced"] as const

/** The options with their defaults. */
export interface Limits {
  readonly deduplicationMillis: number
  readonly deadLetters: DeadLetterCap
}

export interface DeadLetterCap {
  readonly maxCount: number
  readonly maxAgeMillis: number
}

export const limitsOf = (options: LimitOptions, deadLetterAge: Duration.Input = "30 days"): Limits => ({
  deduplicationMillis: millisOf("deduplicationWindow", options.deduplicationWindow ?? "10 minutes"),
  deadLetters: {
    maxCount: wholeOf("deadLetters.maxCount", options.deadLetters?.maxCount ?? 100_000),
    maxAgeMillis: millisOf("deadLetters.maxAge", options.deadLetters?.maxAge ?? deadLetterAge)
  }
})

/** The options of each topic: its own over those of the layer. Throws on invalid ones. */
export const byTopic = <Options, A>(
  { topics = {}, ...shared }: Options & TopicOptions<NoInfer<Options>>,
  of: (options: Options) => A
): ((topic: string) => A) => {
  // What is left of the options without those of single topics.
  const all = of(shared as Options)
  const own = new Map(
    Object.entries(topics).map(([topic, mine]) => {
      if (!isName(topic)) throw new Error(`topics has an invalid topic name ${shown(topic)}`)
      return [topic, of({ ...(shared as Options), ...mine })] as const
    })
  )
  return (topic) => own.get(topic) ?? all
}

/** The longest that anything may wait: a thousand years. */
const longestMillis = 1000 * 365 * 24 * 60 * 60 * 1000

export const millisOf = (option: string, input: Duration.Input): number => {
  const millis = Duration.toMillis(durationOf(option, input))
  if (!(millis > 0)) throw new Error(`${option} must be longer than 0`)
  return Math.min(Math.ceil(millis), longestMillis)
}

/** Refuses invalid durations, such as NaN or negative ones, which would otherwise turn into something else. */
export const durationOf = (option: string, input: Duration.Input): Duration.Duration => {
  const duration = Option.getOrUndefined(Duration.fromInput(input))
  if (duration === undefined || holdsNaN(input) || Duration.toMillis(duration) < 0) {
    throw new Error(`${option} must be a duration, such as "10 seconds" or milliseconds from 0, got ${shown(input)}`)
  }
  return duration
}

const holdsNaN = (input: Duration.Input): boolean =>
  typeof input === "object" ? Object.values(input).some(Number.isNaN) : Number.isNaN(input)

/** The same for a duration that must be finite. */
export const finiteOf = (option: string, input: Duration.Input): Duration.Duration => {
  const duration = durationOf(option, input)
  if (!(Duration.toMillis(duration) <= longestMillis)) {
    throw new Error(`${option} must end within a thousand years, got ${shown(input)}`)
  }
  return duration
}

export const wholeOf = (option: string, count: number, least = 1, most = Infinity): number => {
  if (!Number.isSafeInteger(count) || count < least)
    throw new Error(`${option} must be an integer >= ${least}, got ${shown(count)}`)
  if (count > most) throw new Error(`${option} must be at most ${most}, got ${count}`)
  return count
}

/** A threshold or a rate. */
export const numberOf = (option: string, value: number, above: number): number => {
  if (!(Number.isFinite(value) && value > above))
    throw new Error(`${option} must be a number greater than ${above}, got ${shown(value)}`)
  return value
}

export const oneOf = <A extends string>(option: string, value: A, allowed: ReadonlyArray<NoInfer<A>>): A => {
  if (!allowed.includes(value)) {
    throw new Error(`${option} must be ${allowed.map((one) => `"${one}"`).join(" or ")}, got ${shown(value)}`)
  }
  return value
}

/** Callers without types may pass anything, of any size. */
export const shown = (value: unknown): string =>
  safe(typeof value === "string" ? `"${value.slice(0, 200).toWellFormed()}"` : asText(value).slice(0, 200))

/** Converting an object to text may fail. */
const asText = (value: unknown): string => {
  try {
    return String(value)
  } catch {
    return `a value of type ${typeof value}`
  }
}
