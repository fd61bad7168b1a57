/**
 * A retry policy is a `Schedule`: its delays are replayed from the persisted attempt, and its end means dead letter.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"

/** What a route accepts: any schedule that reads the error, cannot fail and needs no service. */
export type RetryPolicy<E = never> = Schedule.Schedule<unknown, E>

/**
 * 1 s doubling to 1 minute, each delay spread by 0.8 to 1.2, ten retries, then dead letter: about 5 minutes in all
 * (1 + 2 + 4 + 8 + 16 + 32 + 4 x 60 s).
 */
export const standard: RetryPolicy<unknown> = Schedule.min([
  Schedule.exponential("1 second"),
  Schedule.spaced("1 minute")
]).pipe(Schedule.jittered, Schedule.upTo({ times: 10 }))

/**
 * The delay before the attempt that follows attempt number `attempt`, or none when the schedule has ended by then.
 *
 * The schedule is run again from its beginning with the present error as input and the summed delays as time: jitter is
 * drawn anew, and `upTo({ duration })` limits the summed delays, not the wall clock.
 */
export const delayAfter = Effect.fnUntraced(function* <E>(policy: RetryPolicy<E>, attempt: number, error: E) {
  const step = yield* Schedule.toStep(policy)
  let now = 0
  let delay = Duration.zero
  for (let i = 0; i < attempt; i++) {
    const next = yield* Pull.catchDone(step(now, error), () => Effect.undefined)
    if (next === undefined) return Option.none<Duration.Duration>()
    delay = next[1]
    now += Duration.toMillis(delay)
  }
  return Option.some(delay)
})

/**
 * All delays of the policy added up, each at least `least`, with the greatest jitter; infinite when it does not end. Of
 * a policy that reads the error: as far as it goes without one.
 */
export const longest = (policy: RetryPolicy, least: Duration.Duration): Effect.Effect<Duration.Duration> =>
  Effect.gen(function* () {
    // Only a policy that reads the error could tell that this is none, and what it makes of it is caught below.
    const step = yield* Schedule.toStep(policy)
    const shortest = Duration.toMillis(least)
    let simulated = 0
    let total = 0
    for (let i = 0; i < endless; i++) {
      const next = yield* Effect.catchCause(step(simulated, undefined as never), () => Effect.undefined)
      if (next === undefined) return Duration.millis(total)
      const millis = Duration.toMillis(next[1])
      simulated += millis
      total += Math.max(millis, shortest)
    }
    return Duration.infinity
  }).pipe(
    Effect.provideService(Random.Random, { nextDoubleUnsafe: () => 1, nextIntUnsafe: () => Number.MAX_SAFE_INTEGER })
  )

/** Who retries so often does not mean to stop. */
const endless = 10_000
