/**
 * A retry policy is a `Schedule`: its delays are replayed from the persisted attempt count, and its end means dead letter.
 *
 * @module
 */
import * as Schedule from "effect/Schedule"

/**
 * A policy that a route accepts: any schedule that may read the error and needs no services. One that fails, such as
 * `Schedule.cron` of an invalid expression, is a defect.
 */
export type RetryPolicy<E = never> = Schedule.Schedule<unknown, E, unknown>

/**
 * 1 s doubling to 1 minute, each delay multiplied by 0.8 to 1.2, ten retries, then dead letter: about 5 minutes in all
 * (1 + 2 + 4 + 8 + 16 + 32 + 4 x 60 s).
 */
export const standard: RetryPolicy<unknown> = Schedule.min([
  Schedule.exponential("1 second"),
  Schedule.spaced("1 minute")
]).pipe(Schedule.jittered, Schedule.upTo({ times: 10 }))
