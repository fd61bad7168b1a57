/**
 * What a store remembers and for how long, in memory as on Redis. A number that makes no sense throws while the layer is
 * described, and not when a message meets it.
 *
 * @module
 */
import * as Duration from "effect/Duration"

/**
 * @category models
 */
export interface LimitOptions {
  /** For how long a message id that was published is remembered, and publishing it again stores nothing. 10 minutes by default. */
  readonly deduplicationWindow?: Duration.Input
  /** How many dead letters a group keeps, and for how long; the oldest go first, and `DeadLettersDropped` says so. 100,000 and 30 days by default. */
  readonly deadLetters?: { readonly maxCount?: number; readonly maxAge?: Duration.Input }
}

/** The options with their defaults. */
export interface Limits {
  readonly deduplicationMillis: number
  readonly deadLetters: DeadLetterCap
}

export interface DeadLetterCap {
  readonly maxCount: number
  readonly maxAgeMillis: number
}

export const limitsOf = (options: LimitOptions): Limits => ({
  deduplicationMillis: millisOf("deduplicationWindow", options.deduplicationWindow ?? "10 minutes"),
  deadLetters: {
    maxCount: wholeOf("deadLetters.maxCount", options.deadLetters?.maxCount ?? 100_000),
    maxAgeMillis: millisOf("deadLetters.maxAge", options.deadLetters?.maxAge ?? "30 days")
  }
})

export const millisOf = (option: string, input: Duration.Input): number => {
  const millis = Duration.toMillis(Duration.fromInputUnsafe(input))
  if (!(millis > 0)) throw new Error(`${option} must be longer than nothing`)
  // As long as anyone will wait: a thousand years.
  return Math.min(Math.ceil(millis), 1000 * 365 * 24 * 60 * 60 * 1000)
}

export const wholeOf = (option: string, count: number): number => {
  if (!Number.isSafeInteger(count) || count < 1)
    throw new Error(`${option} must be a whole number from 1, not ${count}`)
  return count
}
