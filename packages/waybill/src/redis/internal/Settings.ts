/**
 * What every Redis pattern lets its user choose, and the same in numbers that scripts can use. A number that makes no
 * sense throws while the layer is described: a script that met it after its first write would leave half a batch.
 *
 * @module
 */
import * as Duration from "effect/Duration"

/**
 * Everything has a default; programs that share topics must agree on `prefix`.
 *
 * @category models
 */
export interface StoreOptions {
  /** What all keys begin with, `waybill` by default. No white space, no braces, no colon. */
  readonly prefix?: string
  /** For how long a message id that was published is remembered, and publishing it again stores nothing. 10 minutes by default. */
  readonly deduplicationWindow?: Duration.Input
  /** How many dead letters a group keeps, and for how long; the oldest go first, and `DeadLettersDropped` says so. 100,000 and 30 days by default. */
  readonly deadLetters?: { readonly maxCount?: number; readonly maxAge?: Duration.Input }
  /** How long something that is due may lie unnoticed, when no program that knows of it is alive. 1 second by default. */
  readonly pollInterval?: Duration.Input
  /** How long publishing goes on trying before it fails, 5 seconds by default. */
  readonly publishTimeout?: Duration.Input
}

/** The options with their defaults. */
export interface Settings {
  readonly prefix: string
  readonly deduplicationMillis: number
  readonly deadLetters: DeadLetterCap
  readonly pollMillis: number
  readonly publishMillis: number
}

export interface DeadLetterCap {
  readonly maxCount: number
  readonly maxAgeMillis: number
}

export const settingsOf = (options: StoreOptions): Settings => ({
  prefix: prefixOf(options.prefix ?? "waybill"),
  deduplicationMillis: millisOf("deduplicationWindow", options.deduplicationWindow ?? "10 minutes"),
  deadLetters: {
    maxCount: wholeOf("deadLetters.maxCount", options.deadLetters?.maxCount ?? 100_000),
    maxAgeMillis: millisOf("deadLetters.maxAge", options.deadLetters?.maxAge ?? "30 days")
  },
  pollMillis: millisOf("pollInterval", options.pollInterval ?? "1 second"),
  publishMillis: millisOf("publishTimeout", options.publishTimeout ?? "5 seconds")
})

/** A colon parts the prefix from the topic: with one inside, two prefixes could mean the same key. */
const prefixOf = (prefix: string): string => {
  if (!/^[^\s{}:]{1,200}$/.test(prefix)) {
    throw new Error(`"${prefix}" is no prefix: 1 to 200 characters, no white space, no braces, no colon`)
  }
  return prefix
}

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
