/**
 * A consumer that runs for as long as the test does, and two ways to let it go on without moving the clock.
 */
import { assert } from "@effect/vitest"
import { Effect, type Fiber, type Layer } from "effect"
import { TestClock } from "effect/testing"
import { Consumer } from "waybill"

/** Lets the other fibers go on until the condition holds. */
export const until = Effect.fnUntraced(function* (what: string, condition: () => boolean) {
  for (let turn = 0; turn < 20_000; turn++) {
    if (condition()) return
    yield* Effect.yieldNow
  }
  assert.fail(`never came true: ${what}`)
})

/** Enough turns for whatever can happen without time passing: nothing in these tests leaves the process. */
export const quiet = Effect.fnUntraced(function* () {
  for (let turn = 0; turn < 100; turn++) yield* Effect.yieldNow
})

/** Interrupts the fiber and moves the clock as far as it takes; answers the exit and how many milliseconds that was. */
export const stop = Effect.fnUntraced(function* <A, E>(fiber: Fiber.Fiber<A, E>) {
  fiber.interruptUnsafe()
  let millis = 0
  yield* quiet()
  for (; fiber.pollUnsafe() === undefined && millis < 120_000; millis += 100) {
    yield* TestClock.adjust(100)
    yield* Effect.yieldNow
  }
  const exit = fiber.pollUnsafe()
  return exit === undefined ? assert.fail("not stopped within two minutes") : { exit, millis }
})

/** Runs the consumer; it is stopped at the end of the test at the latest. */
export const run = <A, R, RT>(consumer: Consumer.Consumer<A, never, R>, transport: Layer.Layer<RT>) =>
  Effect.acquireRelease(
    Effect.forkDetach(Effect.provide(Consumer.run(consumer), transport), { startImmediately: true }),
    (fiber) => (fiber.pollUnsafe() === undefined ? stop(fiber) : Effect.void)
  )
