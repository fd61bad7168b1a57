/**
 * Turns of the event loop, for everything that can run without time passing.
 *
 * @module
 */
import { Effect } from "effect"

/** Enough turns for every fiber that can run to run until it waits, and for what it wakes to do the same. */
export const othersRun: Effect.Effect<void> = Effect.gen(function* () {
  for (let i = 0; i < 10; i++) yield* Effect.yieldNow
})
