/**
 * A step changes the state of one topic at one instant, and notifies others afterwards.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Latch from "effect/Latch"
import { logFailures } from "../../internal/FailureLog.ts"
import type { Lifecycle } from "../../Lifecycle.ts"
import type { Fact } from "./Source.ts"

/** The notifications that a step leaves behind. */
export interface Traces {
  readonly facts: Array<Fact>
  readonly opening: () => ReadonlyArray<Latch.Latch>
}

export const step = <A, E, R>(f: (now: number, fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<A, E, R>) =>
  Effect.withFiber<A, E, R>((fiber) => f(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(), fiber))

/** Resumes no other fiber before the one that made the step yields. */
export const completed = <A>(
  lifecycle: Lifecycle,
  traces: Traces,
  fiber: Fiber.Fiber<unknown, unknown>,
  value: A
): Effect.Effect<A> => {
  const latches = traces.opening()
  if (latches.length > 0) {
    // A task of its own, because an effect might be interrupted before it opens what others wait for.
    fiber.currentDispatcher.scheduleTask(() => {
      for (const latch of latches) latch.openUnsafe()
    }, 0)
  }
  return traces.facts.length === 0 ? Exit.succeed(value) : Effect.as(tell(lifecycle, traces.facts), value)
}

const tell = Effect.fnUntraced(function* (lifecycle: Lifecycle, facts: Array<Fact>) {
  for (let fact = facts.shift(); fact !== undefined; fact = facts.shift()) {
    if (fact._tag === "Settled") {
      lifecycle.emit(fact)
      yield* logFailures(fact.topic, fact.group, [[fact.delivery, fact.settlement]])
    } else yield* lifecycle.report(fact)
  }
})
