/**
 * Letting other fibers run: without time passing, or with all the time they need.
 *
 * @module
 */
import { type Clock, Effect, Predicate } from "effect"
import type { TestClock } from "effect/testing"

/** Enough turns for every runnable fiber to run until it waits, and for those it wakes to do the same. */
export const yieldToOthers: Effect.Effect<void> = Effect.gen(function* () {
  for (let i = 0; i < 10; i++) yield* Effect.yieldNow
})

export const isTestClock = (clock: Clock.Clock): clock is TestClock.TestClock => Predicate.hasProperty(clock, "adjust")

/**
 * Moves the clock until it is done, after a moment for work that needs no time: some hours in all, but never more
 * than needed.
 */
export const passTimeUntil = Effect.fnUntraced(function* <E>(
  clock: TestClock.TestClock,
  done: Effect.Effect<boolean, E>
) {
  yield* clock.withLive(Effect.sleep("50 millis"))
  for (let seconds = 1; seconds < 300 && !(yield* done); seconds++) {
    yield* clock.adjust(seconds * 1000)
    yield* yieldToOthers
  }
})
