/**
 * A consumer as a member of its group: joins, keeps the loops running until it is interrupted or the transport fails
 * permanently, then drains and leaves.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { DeadLetter } from "../Inspector.ts"
import * as Settlement from "../Settlement.ts"
import {
  type DeadLetterClaim,
  NotOffered,
  type Receiver,
  type Subscription,
  type Transport,
  TransportError
} from "../Transport.ts"
import { consumerMetrics } from "./ConsumerMetrics.ts"
import { DeadLetterHook } from "./DeadLetterHook.ts"
import { Prefetch } from "./Prefetch.ts"
import { render, type Routes } from "./Routing.ts"
import { type Observe, SettleLoop } from "./SettleLoop.ts"
import { type Handle, Workers } from "./Workers.ts"

/** A consumer with its types erased, as the loops need it. */
export interface Program {
  readonly transport: Transport
  readonly subscription: Subscription
  readonly concurrency: number
  readonly prefetch: number
  readonly prefetchBytes: number
  readonly routes: Routes
  readonly handle: Handle
  /** Runs for each dead letter of the group; undefined if the consumer has no hook for them. */
  readonly deadLettered: ((letter: DeadLetter) => Effect.Effect<unknown, unknown>) | undefined
  /** Runs for what was settled, and delays further settlements until it returns. */
  readonly settled: Observe | undefined
}

/** Deadlines for each step after the handlers' own: ten seconds in all. */
const limits = {
  /** For interrupted handlers and loops to end. */
  end: Duration.seconds(1),
  /** For the last settlements. */
  flush: Duration.seconds(3),
  /** For leaving the group. */
  leave: Duration.seconds(5)
}

const reconnect = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

/**
 * Runs until interrupted, or until the transport fails permanently. `started` runs once the group is joined; `observe`
 * sees what was settled, and delays further work until it returns.
 *
 * Interruption drains: nothing new is taken, handlers get `subscription.shutdown` to finish, and the rest is
 * interrupted and released, all within that time plus ten seconds, even if a handler cannot be interrupted.
 */
export const run = Effect.fnUntraced(function* (
  program: Program,
  started: Effect.Effect<unknown>,
  observe: Observe | undefined
): Effect.fn.Return<never, TransportError> {
  const { transport } = program
  return yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      let scope = yield* Scope.make()
      const leave = (exit: Exit.Exit<unknown, unknown>) => atMost(limits.leave, Scope.close(scope, exit))
      const join = Effect.gen(function* () {
        // Close what a failed try has opened before the next one.
        yield* leave(Exit.void)
        scope = yield* Scope.make()
        return yield* Scope.provide(transport.receive(program.subscription), scope)
      })
      const joined = yield* join.pipe(
        persistently(transport, program.subscription),
        restore,
        Effect.onError((cause) => leave(Exit.failCause(cause)))
      )
      const member = yield* Effect.onError(start(program, joined, observe), (cause) => leave(Exit.failCause(cause)))
      const exit = yield* Effect.exit(restore(Effect.andThen(started, Deferred.await(member.failed))))
      // A fiber of its own: this one may already be interrupted, and leaving needs timeouts that work.
      yield* Fiber.await(yield* Effect.forkDetach(Effect.andThen(Effect.exit(member.stop), leave(exit))))
      return yield* exit
    })
  )
})

/** How often a consumer that is up tries again after a permanent failure. */
const revival = Schedule.spaced("30 seconds")

/**
 * `run` in the background until the scope closes. Returns once the group is joined, and fails if that fails. Later failures
 * are retried: bugs too, because a consumer that has stopped unnoticed is worse.
 */
export const inBackground = Effect.fnUntraced(function* <R>(
  run: (started: Effect.Effect<unknown>) => Effect.Effect<never, TransportError, R>
): Effect.fn.Return<void, TransportError, R | Scope.Scope> {
  const joined = yield* Deferred.make<void, TransportError>()
  yield* run(Deferred.succeed(joined, undefined)).pipe(
    Effect.tapCause((cause) => Deferred.failCause(joined, cause)),
    Effect.sandbox,
    Effect.retry(revival),
    Effect.forkScoped
  )
  yield* Deferred.await(joined)
})

/** Waits no longer than that, even for effects that cannot be interrupted. */
const atMost = Effect.fnUntraced(function* <A, E>(limit: Duration.Duration, effect: Effect.Effect<A, E>) {
  const fiber = yield* Effect.forkDetach(effect, { startImmediately: true })
  const ended = yield* Effect.timeoutOption(Fiber.await(fiber), limit)
  if (Option.isNone(ended)) fiber.interruptUnsafe()
})

/** How many different errors of one outage are logged; the lifecycle events report all of them. */
const maxErrorsLogged = 10

/**
 * Waits out temporary failures and reports them; fails on permanent ones. An outage leads to many tries: each new
 * error in it gets one log line, and its end gets another.
 */
const persistently = (transport: Transport, { group, topic }: Subscription) => {
  const { lifecycle } = transport
  const logged = new Set<string>()
  let failing = 0
  let tries = 0
  const report = ({ message, reason: { permanent } }: TransportError): Effect.Effect<void> => {
    const event = { _tag: "ConsumerFailing", topic, group, permanent, error: message } as const
    tries++
    if (!permanent && (logged.has(message) || logged.size === maxErrorsLogged)) {
      return Effect.sync(() => lifecycle.emit(event))
    }
    logged.add(message)
    return lifecycle.report(event)
  }
  const ended = (recovered: boolean): Effect.Effect<void> => {
    if (--failing > 0) return Effect.void
    const event = { _tag: "ConsumerRecovered", topic, group, tries } as const
    logged.clear()
    tries = 0
    return recovered ? lifecycle.report(event) : Effect.void
  }
  return <A, R>(self: Effect.Effect<A, TransportError, R>): Effect.Effect<A, TransportError, R> =>
    Effect.suspend(() => {
      let failed = false
      return self.pipe(
        Effect.tapError((error) => {
          if (!failed) failing++
          failed = true
          return report(error)
        }),
        Effect.retry({ schedule: reconnect, while: (error) => !error.reason.permanent }),
        Effect.onExit((exit) => (failed ? ended(Exit.isSuccess(exit)) : Effect.void))
      )
    })
}

/** Ends what operators cancel, begun or not. */
const cancelling = Effect.fnUntraced(function* (
  { cancelled = Effect.never }: Receiver,
  prefetch: Prefetch,
  workers: Workers,
  settling: SettleLoop
): Effect.fn.Return<never> {
  while (true) {
    const some = new Set(yield* cancelled)
    for (const delivery of prefetch.withdraw(some)) settling.put(delivery, Settlement.cancelled)
    workers.cancel(some)
  }
})

const start = Effect.fnUntraced(function* (program: Program, receiver: Receiver, observe: Observe | undefined) {
  const { concurrency, handle, routes, subscription, transport } = program
  const { group, lease, topic } = subscription
  const { consumer } = receiver
  const context = yield* Effect.context<never>()
  const { lifecycle } = transport
  const failed = yield* Deferred.make<never, TransportError>()
  const retrying = persistently(transport, subscription)
  const metrics = consumerMetrics(topic, group, context)
  const hook = yield* hookOf(program, receiver, retrying)

  const settling = new SettleLoop({
    topic,
    group,
    settle: (endings) => retrying(receiver.settle(endings)),
    routes,
    observe,
    hook: program.settled,
    metrics,
    lifecycle,
    unloaded: (delivery) => prefetch.unloaded(delivery),
    settled: (endings) => {
      prefetch.settled(endings)
      if (hook !== undefined && endings.some(([, { _tag }]) => _tag === "DeadLetter")) hook.hurry()
    }
  })
  const prefetch: Prefetch = new Prefetch({
    window: handle._tag === "Batch" ? concurrency * handle.size : concurrency,
    prefetch: program.prefetch,
    initial: concurrency,
    bytes: program.prefetchBytes,
    lease,
    metrics,
    release: (deliveries) => settling.release(deliveries)
  })
  const { handlerDuration } = metrics
  const workers = new Workers({
    handle,
    routes,
    concurrency,
    lease,
    prefetch,
    settling,
    handlerDuration,
    stores: transport.guarantee !== "at-most-once",
    elsewhere: ({ on }) => on !== undefined && Context.getOrUndefined(context, on) !== transport
  })

  const watch = Effect.gen(function* () {
    while (true) {
      const lost = new Set(yield* receiver.lost)
      metrics.lost.update(lost.size)
      prefetch.drop(lost)
      // With "continue", handlers run on and their settlements are refused.
      if (subscription.leaseLost !== "continue") workers.revoke(lost)
    }
  })
  const cancel = cancelling(receiver, prefetch, workers, settling)

  const recall = Effect.gen(function* () {
    const { recalled } = receiver
    if (recalled === undefined) return yield* Effect.never
    while (true) {
      const { concerns, done } = yield* recalled
      prefetch.recall(concerns)
      settling.release(workers.recall(concerns))
      yield* settling.returned
      yield* done
    }
  })

  /** A loop that ends has failed, even if it succeeds. Only a `TransportError` has already been reported. */
  const keep = <A>(loop: Effect.Effect<A, TransportError>) =>
    Effect.forkDetach(
      Effect.onExit(loop, (exit) => {
        if (prefetch.closed && (Exit.isSuccess(exit) || !Exit.hasDies(exit))) return Effect.void
        const cause = Exit.isFailure(exit) ? exit.cause : Cause.die(loopEnded)
        const fail = Deferred.failCause(failed, cause)
        if (Cause.hasFails(cause)) return fail
        const error = render(cause)
        return Effect.andThen(fail, lifecycle.report({ _tag: "ConsumerFailing", topic, group, permanent: true, error }))
      }),
      { startImmediately: true }
    )

  metrics.bufferSize.modify(program.prefetch)
  yield* lifecycle.report({ _tag: "ConsumerStarted", topic, group, consumer })
  const working = yield* Effect.forEach(workers.loops, keep)
  const settler = yield* keep(settling.settle)
  const loops = [watch, cancel, recall, settling.releases, prefetch.tend, hook?.run ?? Effect.never]
  const helpers = yield* Effect.forEach(loops, keep)
  const feeder = yield* keep(prefetch.run((max, bytes) => retrying(receiver.take(max, bytes))))

  const stop = Effect.gen(function* () {
    // Before settling makes room: nothing may be taken into it any more.
    prefetch.close()
    feeder.interruptUnsafe()
    metrics.bufferSize.modify(-program.prefetch)
    yield* lifecycle.report({ _tag: "ConsumerStopping", topic, group, consumer })
    settling.halt()
    hook?.stop()
    const gone = Fiber.awaitAll(working)
    const all = hook === undefined ? gone : Effect.andThen(gone, hook.idle)
    const drained = yield* Effect.timeoutOption(all, subscription.shutdown)
    if (Option.isNone(drained)) {
      workers.interrupt()
      yield* Effect.timeoutOption(gone, limits.end)
    }
    yield* Effect.timeoutOption(Effect.raceFirst(settling.flushed, Fiber.await(settler)), limits.flush)
    yield* Effect.timeoutOption(Fiber.interruptAll([feeder, settler, ...helpers, ...working]), limits.end)
    if (hook !== undefined) yield* atMost(limits.end, hook.leave)
    yield* lifecycle.report({ _tag: "ConsumerStopped", topic, group, consumer })
  })

  return { failed, stop }
})

/** The hook for dead letters, which has claimed once before any handler begins: whatever dies from now on is the hook's. */
const hookOf = Effect.fnUntraced(function* (
  program: Program,
  { unclaimed }: Receiver,
  retrying: ReturnType<typeof persistently>
) {
  const { deadLettered: run, subscription, transport } = program
  if (run === undefined) return undefined
  const { group, lease, topic } = subscription
  const { claimDeadLetters, lifecycle } = transport
  if (claimDeadLetters === undefined) {
    const reason = new NotOffered({ feature: "hooks for dead letters", detail: "this transport hands out none" })
    return yield* new TransportError({ operation: "receive", topic, reason })
  }
  const claim = (claim: DeadLetterClaim) => retrying(claimDeadLetters(claim))
  const hook = new DeadLetterHook({ topic, group, lease, run, lifecycle, claim, unclaimed })
  yield* hook.claim
  return hook
})

const loopEnded = new Error("a consumer loop ended by itself: a bug in waybill")
