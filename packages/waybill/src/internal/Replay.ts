/**
 * Replays a retry policy: its delay after a number of failures, and how long it may go on in all.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import type { RetryPolicy } from "../RetryPolicy.ts"

/**
 * The policy's delay after so many failures, including the present one, or none if it has ended by then.
 *
 * The schedule is run again from its beginning with the present error as input; jitter is drawn anew. Its clock is
 * reconstructed: the first failure was at `since`, each later one when the delay before it had passed, and the last
 * one is now. So a calendar means today, and `upTo({ duration })` limits the time since the first failure. Without
 * `since` the first failure counts as now, and the delays add up from there.
 *
 * A policy that has not ended after 10,000 failures counts as endless: from then on it is not replayed but continues
 * from where it was, one step for each failure of any message.
 */
export const delayAfter = Effect.fnUntraced(function* <E>(
  policy: RetryPolicy<E>,
  failures: number,
  error: E,
  since?: number
) {
  const now = yield* Clock.currentTimeMillis
  const run = function* (step: Step<E>, count: number) {
    let at = Math.min(since ?? now, now)
    let delay = Duration.zero
    for (let i = 1; i <= count; i++) {
      if (since !== undefined && i === failures) at = now
      const next = yield* Pull.catchDone(step(at, error), () => Effect.undefined)
      if (next === undefined) return Option.none<Duration.Duration>()
      delay = next[1]
      at += Duration.toMillis(delay)
      if (since !== undefined) at = Math.min(at, now)
    }
    return Option.some(delay)
  }
  if (failures <= endless) return yield* run(yield* Schedule.toStep(policy), failures)
  let step = beyond.get(policy) as Step<E> | undefined // it was made of this policy
  if (step === undefined) {
    step = yield* Schedule.toStep(policy)
    if (Option.isNone(yield* run(step, endless))) return Option.none<Duration.Duration>()
    beyond.set(policy, step)
  }
  const next = yield* Pull.catchDone(step(now, error), () => Effect.undefined)
  return Option.map(Option.fromUndefinedOr(next), ([, delay]) => delay)
}, Effect.orDie)

type Step<E> = (now: number, input: E) => Pull.Pull<[unknown, Duration.Duration], unknown, unknown>

/** Endless policies, in their state after that many steps. */
const beyond = new WeakMap<object, Step<never>>()

/**
 * The sum of all delays of the policy, each at least `least`, with the greatest jitter; infinite if it does not end.
 * A policy that reads the error is followed as far as it goes without one.
 */
export const longest = (policy: RetryPolicy, least: Duration.Duration): Effect.Effect<Duration.Duration> =>
  Effect.gen(function* () {
    // Only a policy that reads the error could notice that there is none, and its failure is caught below.
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

/** Beyond this many steps a policy counts as unbounded. */
const endless = 10_000
