/**
 * The contract of a transport as tests: one line runs them all on a transport of your own. Every bug found in one
 * transport becomes a check for all.
 *
 * Checks wait for facts. With `time: "test"` they move `TestClock`, so the transport must take its time from `Clock`; with
 * `time: "live"` they wait on the real clock, no longer than necessary, and as many at a time as vitest's `maxConcurrency`
 * allows.
 */
import { layer as itLayer } from "@effect/vitest"
import { Context, Duration, Effect, type Layer, References, type Scope } from "effect"
import type { Transport } from "waybill"
import { administering } from "./suite/Administering.ts"
import type { Check, Features } from "./suite/Check.ts"
import { coalescing } from "./suite/Coalescing.ts"
import { committing } from "./suite/Committing.ts"
import { deadLetterClaims } from "./suite/DeadLetterClaims.ts"
import * as Fixture from "./suite/Fixture.ts"
import { groups } from "./suite/Groups.ts"
import { inspecting } from "./suite/Inspecting.ts"
import { locating } from "./suite/Locating.ts"
import { outages } from "./suite/Outages.ts"
import { publishing } from "./suite/Publishing.ts"
import { pulling } from "./suite/Pulling.ts"
import { removing } from "./suite/Removing.ts"
import { scheduled } from "./suite/Scheduled.ts"
import { settling } from "./suite/Settling.ts"
import { unique } from "./suite/Unique.ts"

/**
 * @category models
 */
export interface Options<R, E> {
  /** The transport, and what the hooks below need. Built once for all checks; each uses a topic of its own. */
  readonly layer: Layer.Layer<Transport.AtMostOnce | R, E>
  readonly time: "test" | "live"
  /** The promises of the transport: by default everything but `transactional`, `priorities`, `untilSettled`, `untilTaken`, `coalescing`
   * and `filters`. */
  readonly features?: Partial<Features>
  /**
   * The lease that checks let expire: by default 30 seconds under `TestClock`, 400 milliseconds on the real clock.
   * Checks in which it must not expire ask for at least 2 seconds on the real clock, because a process that is held
   * up for its whole lease loses it.
   */
  readonly lease?: Duration.Input
  /**
   * Until the scope closes, the receiver takes and renews nothing, as if its process stood still; it still settles
   * what it is told to. `freeze` does this for Waybill's transports. Without it, the checks about dead and late
   * consumers are skipped.
   */
  readonly freeze?: (receiver: Transport.Receiver) => Effect.Effect<void, unknown, R | Scope.Scope>
  /** Makes the topic one that another pattern has opened. Without it, that check is skipped. */
  readonly conflict?: (topic: string) => Effect.Effect<void, unknown, R>
}

/**
 * All checks, in the order of a message's life.
 *
 * @category checks
 */
export const checks: ReadonlyArray<Check> = [
  ...publishing,
  ...unique,
  ...coalescing,
  ...groups,
  ...settling,
  ...deadLetterClaims,
  ...pulling,
  ...outages,
  ...committing,
  ...scheduled,
  ...inspecting,
  ...locating,
  ...removing,
  ...administering
]

/**
 * One check as an effect that dies when the transport fails it. With `time: "test"` it needs a `TestClock`, which
 * `it.effect` provides.
 *
 * @category checks
 */
export const verify = Effect.fn("TransportSuite.verify")(
  <R, E>(check: Check, options: Options<R, E>): Effect.Effect<void, unknown> =>
    attempt(check, options).pipe(Effect.scoped, Effect.provide(options.layer))
)

/**
 * Declares the suite: a `describe` block with one test per check. Checks that need a feature which is not promised are
 * shown as skipped.
 *
 * @example
 * ```ts
 * import { freeze, TransportSuite } from "@waybill/testing"
 * import { MemoryStreams } from "waybill/memory"
 *
 * TransportSuite.run("MemoryStreams", {
 *   layer: MemoryStreams.layer(),
 *   time: "test",
 *   freeze
 * })
 * ```
 *
 * @category running
 */
export const run = <R, E>(name: string, options: Options<R, E>): void => {
  const features = featuresOf(options)
  const live = options.time === "live"
  itLayer(options.layer, { excludeTestServices: live, concurrent: live, timeout: "60 seconds" })(name, (it) => {
    for (const check of checks) {
      it.effect.skipIf(check.needs.some((need) => !features[need]))(check.name, () => attempt(check, options), 60_000)
    }
  })
}

const featuresOf = <R, E>({ conflict, features, freeze }: Options<R, E>): Features => ({
  groups: true,
  sharing: true,
  history: true,
  order: true,
  deduplication: true,
  delay: true,
  retry: true,
  redelivery: true,
  fencedAck: true,
  deadLetters: true,
  deadLetterHooks: true,
  pause: true,
  positions: true,
  trimming: true,
  lookup: true,
  cancel: true,
  priorities: false,
  untilSettled: false,
  untilTaken: false,
  coalescing: false,
  transactional: false,
  filters: false,
  schedules: true,
  freeze: freeze !== undefined,
  conflict: conflict !== undefined,
  ...features
})

const attempt = Effect.fnUntraced(function* <R, E>(check: Check, options: Options<R, E>) {
  const context = yield* Effect.context<R>()
  const lease = Duration.fromInputUnsafe(options.lease ?? (options.time === "test" ? "30 seconds" : "400 millis"))
  const fixture = yield* Fixture.make({
    time: options.time,
    history: featuresOf(options).history,
    lease,
    safeLease: options.time === "test" ? lease : Duration.max(lease, Duration.seconds(2)),
    freeze: (receiver) =>
      options.freeze === undefined
        ? missing("freeze")
        : // The scope is the caller's, not the one of this check: closing it ends the freeze.
          Effect.updateContext(options.freeze(receiver), (given: Context.Context<Scope.Scope>) =>
            Context.merge(context, given)
          ),
    conflict: (topic) =>
      options.conflict === undefined ? missing("conflict") : Effect.provideContext(options.conflict(topic), context)
  })
  yield* check.effect.pipe(
    Effect.provideService(Fixture.Fixture, fixture),
    // Checks provoke warnings.
    Effect.provideService(References.MinimumLogLevel, "Error")
  )
})

const missing = (hook: string) => Effect.die(new Error(`this check needs the hook "${hook}"`))
