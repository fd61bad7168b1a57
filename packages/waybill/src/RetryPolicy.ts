/**
 * A retry policy is a `Schedule`: its delays are replayed from the persisted attempt, and its end means dead letter.
 *
 * @module
 */
import * as Schedule from "effect/Schedule"

/**
 * A policy as a route accepts it: any schedule that reads the error and needs no service. One that fails, such as `Schedule.cron` of what
 * is not a calendar, is a defect.
 */
export type RetryPolicy<E = never> = Schedule.Schedule<unknown, E, unknown>

/**
 * 1 s doubling to 1 minute, each delay spread by 0.8 to 1.2, ten retries, then dead letter: about 5 minutes in all
 * (1 + 2 + 4 + 8 + 16 + 32 + 4 x 60 s).
 */
export const standard: RetryPolicy<unknown> = Schedule.min([
  Schedule.exponential("1 second"),
  Schedule.spaced("1 minute")
]).pipe(Schedule.jittered, Schedule.upTo({ times: 10 }))
