/**
 * The loop under every consumer: takes batches from a receiver, hands deliveries to worker fibers, gathers settlements
 * while one batch is in flight. Holds at most `concurrency + prefetch` deliveries and `prefetchBytes` bytes; settles or
 * releases each of them. What no worker comes to is released, so that others of the group may have it.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as Commit from "../Commit.ts"
import type { Delivery } from "../Delivery.ts"
import * as Metrics from "../Metrics.ts"
import { decide, decideDecoding, render, type Routes, shorten } from "../Routing.ts"
import * as Settlement from "../Settlement.ts"
import { type Receiver, type Settled, type Subscription, Transport, type TransportError } from "../Transport.ts"
import { unitsOf } from "./Budget.ts"
import { durationsOf } from "./Durations.ts"
import { HandlerScope } from "./HandlerScope.ts"
import { everything } from "./Recalls.ts"

/** A consumer with its types erased: what the loop needs to know. */
export interface Program {
  readonly subscription: Subscription
  readonly concurrency: number
  readonly prefetch: number
  readonly prefetchBytes: number
  readonly routes: Routes
  readonly handle: Handle
}

export type Handle =
  | {
      readonly _tag: "One"
      /** What the handler returns is a commit. */
      readonly commits: boolean
      readonly run: (delivery: Delivery) => Effect.Effect<unknown, unknown>
    }
  | {
      readonly _tag: "Batch"
      readonly size: number
      readonly within: Duration.Duration
      /** One exit a delivery, in the same order. */
      readonly run: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Exit.Exit<unknown, unknown>>>
    }

export interface Outcome {
  readonly delivery: Delivery
  readonly settlement: Settlement.Settlement
  readonly settled: "Settled" | "Stale"
  /** What the handler returned, when it succeeded. */
  readonly value: Option.Option<unknown>
}

/**
 * How `Handle.run` says that the body never reached the handler: what the schema refuses has an issue; when decoding died
 * there is a cause. A class of its own: no user error can be taken for it.
 */
export class Undecodable {
  readonly #why: string | Cause.Cause<never>
  constructor(why: string | Cause.Cause<never>) {
    this.#why = why
  }

  /** Why, if the failure is one of these. Asks nothing of the failure, which may throw whatever it is asked. */
  static whyOf(failure: unknown): string | Cause.Cause<never> | undefined {
    return typeof failure === "object" && failure !== null && #why in failure ? failure.#why : undefined
  }
}

/** What comes after the handlers' own deadline has its own: ten seconds in all. */
const limits = {
  /** For interrupted handlers and loops to end. */
  end: Duration.seconds(1),
  /** For the last settlements. */
  flush: Duration.seconds(3),
  /** For leaving the group. */
  leave: Duration.seconds(5)
}

/** What the workers do not come to within about this time was too much to take ahead: others could have it. */
const lingerMillis = 200

/** Longer than this no timer of a runtime lasts. */
const longestSleep = 24 * 60 * 60 * 1000

const maxSettle = 1000

/** A worker whose handlers never wait steps back after so long. */
const turnMillis = 5

/** From a timer that is late until what it says has reached the workers. */
const aLittleLater = Effect.repeat(Effect.yieldNow, { times: 8 })

const reconnect = Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("5 seconds")])

interface Slot {
  fiber: Fiber.Fiber<unknown> | undefined
  /** What the worker holds at this moment. */
  readonly working: Array<Delivery>
  readonly lost: Set<Delivery>
  interrupted: boolean
  /** It waits for its batch to fill: the handler has not begun. */
  gathering: boolean
}

type Entry = readonly [Delivery, Settlement.Settlement]

/**
 * Runs until interrupted, or until the transport fails for good. `started` runs once the group is joined; `observe`
 * sees what was settled and holds back further work until it returns.
 *
 * Interruption drains: nothing new is taken, handlers get `subscription.shutdown` to finish, the rest is interrupted and
 * released, all within that time plus ten seconds, whoever refuses to be interrupted.
 */
export const run = Effect.fnUntraced(function* (
  program: Program,
  started: Effect.Effect<unknown>,
  observe: ((outcomes: Arr.NonEmptyReadonlyArray<Outcome>) => Effect.Effect<unknown>) | undefined
): Effect.fn.Return<never, TransportError, Transport> {
  const transport = yield* Transport
  return yield* Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      let scope = yield* Scope.make()
      const leave = (exit: Exit.Exit<unknown, unknown>) => atMost(limits.leave, Scope.close(scope, exit))
      const join = Effect.gen(function* () {
        // What a failed try has opened is closed before the next one.
        yield* leave(Exit.void)
        scope = yield* Scope.make()
        return yield* Scope.provide(transport.receive(program.subscription), scope)
      })
      const joined = yield* join.pipe(
        persistently(transport, program.subscription),
        restore,
        Effect.onError((cause) => leave(Exit.failCause(cause)))
      )
      const crew = yield* Effect.onError(makeCrew(program, joined, observe), (cause) => leave(Exit.failCause(cause)))
      const exit = yield* Effect.exit(restore(Effect.andThen(started, Deferred.await(crew.failed))))
      // A fiber of its own: this one may be interrupted already, and leaving needs timeouts that work.
      yield* Fiber.await(yield* Effect.forkDetach(Effect.andThen(Effect.exit(crew.dismiss), leave(exit))))
      return yield* exit
    })
  )
})

/** Waits that long and no longer, even for what cannot be interrupted. */
const atMost = Effect.fnUntraced(function* <A, E>(limit: Duration.Duration, effect: Effect.Effect<A, E>) {
  const fiber = yield* Effect.forkDetach(effect, { startImmediately: true })
  const ended = yield* Effect.timeoutOption(Fiber.await(fiber), limit)
  if (Option.isNone(ended)) fiber.interruptUnsafe()
})

/** How many different errors of one outage are written to the log; the lifecycle events tell all of them. */
const maxErrorsLogged = 10

/**
 * Waits out what passes, reports it, and fails with what does not pass. An outage is tried again many times: the log has a
 * line for each error that is new in it, and one for its end.
 */
const persistently = (transport: typeof Transport.Service, { group, topic }: Subscription) => {
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

const makeCrew = Effect.fnUntraced(function* (
  program: Program,
  receiver: Receiver,
  observe: ((outcomes: Arr.NonEmptyReadonlyArray<Outcome>) => Effect.Effect<unknown>) | undefined
) {
  const { concurrency, handle, prefetch, prefetchBytes, routes, subscription } = program
  const { group, topic } = subscription
  const window = handle._tag === "Batch" ? concurrency * handle.size : concurrency
  const transport = yield* Transport
  const lifecycle = transport.lifecycle
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const failed = yield* Deferred.make<never, TransportError>()
  const halting = yield* Deferred.make<void>()
  const retrying = persistently(transport, subscription)

  const counted = Metrics.countedAs(topic, group, context)
  const seriesOf = <Input, State>(metric: Metric.Metric<Input, State>) => Metrics.seriesOf(metric, context)
  const metrics = {
    received: seriesOf(Metrics.received(counted.topic, counted.group)),
    lost: seriesOf(Metrics.leasesLost(counted.topic, counted.group)),
    ack: seriesOf(Metrics.settled(counted.topic, counted.group, "ack")),
    retry: seriesOf(Metrics.settled(counted.topic, counted.group, "retry")),
    release: seriesOf(Metrics.settled(counted.topic, counted.group, "release")),
    stale: seriesOf(Metrics.settled(counted.topic, counted.group, "stale")),
    buffered: seriesOf(Metrics.buffered(counted.topic, counted.group)),
    bufferSize: seriesOf(Metrics.bufferSize(counted.topic, counted.group))
  }
  const handlerDuration = durationsOf(Metrics.handlerDuration(counted.topic, counted.group), context)
  const settleDuration = durationsOf(Metrics.settleDuration(counted.topic, counted.group), context)
  const waitingTime = durationsOf(Metrics.waitingTime(counted.topic, counted.group), context)
  const deadLettered = Metrics.deadLettered(counted.topic, counted.group, context)

  /** After a turn of so long this process may have stood still: then leases are looked at before anything else begins. */
  const standstillMillis = Duration.toMillis(subscription.lease) / 10

  let stopping = false
  let buffer: ReadonlyArray<Delivery> = []
  let next = 0
  let filledAt = 0
  /** Taken and not settled: buffered, in a handler, or waiting to be settled. */
  let held = 0
  let heldBytes = 0
  /** How much to take ahead of the workers. Doubles while they starve, and follows their pace while deliveries lie about. */
  let ahead = Math.min(concurrency, prefetch)
  /** How many were pulled since when. */
  let pulled = 0
  let measuredAt = 0
  /** On the way back to the store, unbegun, in the order of delivery. */
  let returning: Array<Delivery> = []
  let outbox: Array<Entry> = []
  let values: Array<Option.Option<unknown>> = []

  // Callbacks instead of queues: resuming a fiber directly costs no allocation and no turn of the event loop.
  const idle: Array<() => void> = []
  let wakeFeeder: (() => void) | undefined
  let wakeSettler: (() => void) | undefined
  let wakeFlushed: (() => void) | undefined
  let wakeTender: (() => void) | undefined
  let wakeRecaller: (() => void) | undefined
  let wakeReleaser: (() => void) | undefined

  const buffered = () => buffer.length - next

  /** What the gauge shows of this consumer: others of the group may show theirs beside it. */
  let shown = 0
  const showBuffer = () => {
    const now = buffered()
    if (now !== shown) metrics.buffered.modify(now - shown, context)
    shown = now
  }

  let pulledAt = 0
  /** How far in the buffer waiting times are counted. */
  let waited = 0
  /** For those pulled in the same millisecond together: one by one it would cost 5 % of a message that takes no time. */
  const countWaits = () => {
    for (; waited < next; waited++) {
      const { fence, publishedAt } = buffer[waited]!
      // Later deliveries have waited for more than a handler.
      if (fence === 1) waitingTime.add(Math.max(0, pulledAt - publishedAt))
    }
  }

  const refill = (deliveries: ReadonlyArray<Delivery>) => {
    countWaits()
    buffer = deliveries
    next = 0
    waited = 0
  }

  /** How much a take that waits has asked for. */
  let asking = 0
  let taker: Fiber.Fiber<never, TransportError> | undefined
  let retreating = false

  /**
   * Hands back what no worker has begun and `concerned` picks out. A take that still waits for more than is wanted now is
   * given up: it would bring the same again. Returns whether there was any.
   */
  const handBack = (concerned: (delivery: Delivery, place: number) => boolean) => {
    const kept: Array<Delivery> = []
    const back: Array<Delivery> = []
    for (let i = next; i < buffer.length; i++) {
      const delivery = buffer[i]!
      if (concerned(delivery, i - next)) back.push(delivery)
      else kept.push(delivery)
    }
    if (back.length > 0) {
      refill(kept)
      showBuffer()
      // They go in front of what was handed back before: it came later.
      returning = [...back, ...returning]
      wakeReleaser?.()
    }
    if (asking > Math.max(0, wanted()) && taker !== undefined) {
      retreating = true
      taker.interruptUnsafe()
    }
    return back.length > 0
  }

  /** Takes no more ahead than the workers have come to lately; what is much more than that goes back. */
  const adapt = (now: number) => {
    const pace = Math.floor((pulled * lingerMillis) / (now - measuredAt))
    pulled = 0
    measuredAt = now
    if (pace >= ahead) return
    ahead = pace
    // A few for each worker stay: they are not worth the way there and back.
    const kept = 2 * Math.max(window, pace)
    handBack((_, place) => place >= kept)
  }

  const pull = (at: number): Delivery | undefined => {
    if (next >= buffer.length) return undefined
    if (at !== pulledAt) {
      countWaits()
      pulledAt = at
    }
    const delivery = buffer[next++]!
    pulled++
    if (at - measuredAt > lingerMillis) adapt(at)
    if (buffered() <= ahead >> 1) wakeFeeder?.()
    return delivery
  }

  // Who is about to wait looks once more at the last moment: between looking and waiting a fiber may have been made to
  // yield, and whoever wanted to wake it then found nobody asleep.
  const park = Effect.callback<void>((resume) => {
    if (stopping || buffered() > 0) return resume(Effect.void)
    const wake = () => resume(Effect.void)
    idle.push(wake)
    return Effect.sync(() => {
      const index = idle.indexOf(wake)
      if (index >= 0) idle.splice(index, 1)
    })
  })

  const wakeWorkers = () => {
    // A resumed worker runs at once, as far as it can: often one of them empties the buffer.
    while (idle.length > 0 && (stopping || buffered() > 0)) idle.pop()!()
  }

  const letGo = (delivery: Delivery) => {
    held--
    heldBytes -= unitsOf(delivery)
  }

  const ackOf: (value: unknown) => Settlement.Settlement =
    handle._tag === "One" && handle.commits
      ? (value) => Settlement.commit(value as Commit.Commit) // the types of `Consumer.transactional` say so
      : () => Settlement.ack

  const put = (
    delivery: Delivery,
    settlement: Settlement.Settlement,
    exit: Exit.Exit<unknown, unknown> | undefined
  ) => {
    outbox.push([delivery, settlement])
    if (observe !== undefined) {
      values.push(exit !== undefined && Exit.isSuccess(exit) ? Option.some(exit.value) : Option.none())
    }
    wakeSettler?.()
  }

  /** Settles, or not, by what became of the handler and of the lease. */
  const conclude = (slot: Slot, delivery: Delivery, exit: Exit.Exit<unknown, unknown>) => {
    if (slot.lost.delete(delivery)) {
      letGo(delivery)
      wakeFeeder?.()
      return Exit.void
    }
    if (slot.interrupted && Exit.isFailure(exit) && Exit.hasInterrupts(exit)) {
      put(delivery, Settlement.release, undefined)
      return Exit.void
    }
    const failure = Exit.isFailure(exit) ? Exit.findErrorOption(exit) : Option.none()
    const why = Option.isSome(failure) ? Undecodable.whyOf(failure.value) : undefined
    if (typeof why === "string") {
      put(delivery, Settlement.deadLetter("DecodeFailure", shorten(why)), undefined)
      return Exit.void
    }
    if (why !== undefined) {
      return Effect.map(decideDecoding(why, delivery), (settlement) => put(delivery, settlement, undefined))
    }
    if (Exit.isSuccess(exit)) return Exit.succeed(put(delivery, ackOf(exit.value), exit))
    return Effect.map(decide(exit, routes, delivery), (settlement) => put(delivery, settlement, exit))
  }

  const workOne = (slot: Slot, handle: Extract<Handle, { _tag: "One" }>, scope: HandlerScope) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        let turnStartedAt = clock.currentTimeMillisUnsafe()
        let startedAt = turnStartedAt
        while (!slot.interrupted) {
          const delivery = pull(startedAt)
          if (delivery === undefined) {
            if (stopping) return
            yield* restore(park)
            turnStartedAt = startedAt = clock.currentTimeMillisUnsafe()
            continue
          }
          slot.working[0] = delivery
          let effect: Effect.Effect<unknown, unknown>
          try {
            effect = handle.run(delivery)
          } catch (defect) {
            effect = Exit.die(defect)
          }
          let ended = Exit.isExit(effect) ? effect : yield* Effect.exit(restore(effect))
          if (scope.used) ended = yield* scope.close(ended)
          const exit = handle.commits && Exit.isSuccess(ended) ? committed(ended.value) : ended
          const endedAt = clock.currentTimeMillisUnsafe()
          handlerDuration.add(endedAt - startedAt)
          startedAt = endedAt
          slot.working.length = 0
          if (Exit.isSuccess(exit) && slot.lost.size === 0) {
            put(delivery, ackOf(exit.value), exit)
          } else {
            yield* conclude(slot, delivery, exit)
            if (wasInterrupted(exit)) return
            startedAt = clock.currentTimeMillisUnsafe()
          }
          // A handler that never waits gives nobody else in this process a turn.
          const turn = endedAt - turnStartedAt
          if (turn >= turnMillis) {
            yield* turn >= standstillMillis ? aLittleLater : Effect.yieldNow
            turnStartedAt = startedAt = clock.currentTimeMillisUnsafe()
          }
        }
      })
    )

  const fill = (slot: Slot, size: number) => {
    const now = clock.currentTimeMillisUnsafe()
    while (slot.working.length < size) {
      const delivery = pull(now)
      if (delivery === undefined) return
      slot.working.push(delivery)
    }
  }

  const workBatch = (slot: Slot, handle: Extract<Handle, { _tag: "Batch" }>, scope: HandlerScope) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function* () {
        while (!slot.interrupted) {
          const first = pull(clock.currentTimeMillisUnsafe())
          if (first === undefined) {
            if (stopping) return
            yield* restore(park)
            continue
          }
          slot.working.push(first)
          fill(slot, handle.size)
          if (slot.working.length < handle.size && !stopping && Duration.isPositive(handle.within)) {
            const more = Effect.whileLoop({
              while: () => slot.working.length < handle.size && !stopping,
              body: () => park,
              step: () => fill(slot, handle.size)
            })
            slot.gathering = true
            // Whoever interrupts it here, the handler has not seen these yet: they are released.
            const waited = yield* Effect.exit(restore(Effect.timeoutOption(more, handle.within)))
            slot.gathering = false
            if (Exit.isFailure(waited)) slot.interrupted = true
            // They were recalled meanwhile.
            else if (slot.working.length === 0) continue
          }
          const worked = slot.working.slice()
          let ran: Exit.Exit<ReadonlyArray<Exit.Exit<unknown, unknown>>> = Exit.interrupt()
          let took = 0
          if (!slot.interrupted) {
            const startedAt = clock.currentTimeMillisUnsafe()
            ran = yield* Effect.exit(restore(Effect.suspend(() => handle.run(worked))))
            if (scope.used) ran = yield* scope.close(ran)
            took = clock.currentTimeMillisUnsafe() - startedAt
            handlerDuration.add(took)
          }
          slot.working.length = 0
          for (let i = 0; i < worked.length; i++) {
            const exit = Exit.isFailure(ran) ? ran : (ran.value[i] ?? Exit.die(missingOutcome))
            yield* conclude(slot, worked[i]!, exit)
          }
          if (wasInterrupted(ran)) return
          if (took >= standstillMillis) yield* aLittleLater
        }
      })
    )

  const work = (slot: Slot) =>
    Effect.withFiber((fiber) => {
      const scope = new HandlerScope(fiber)
      return Effect.ensuring(
        handle._tag === "One" ? workOne(slot, handle, scope) : workBatch(slot, handle, scope),
        scope.end
      )
    })

  /** A worker that was interrupted for one delivery is replaced: an interrupted fiber stays interrupted. */
  const employ = Effect.fnUntraced(function* (slot: Slot) {
    while (!stopping) {
      slot.interrupted = false
      slot.fiber = yield* Effect.forkDetach(work(slot), { startImmediately: true })
      const exit = yield* Fiber.await(slot.fiber)
      if (Exit.isSuccess(exit)) continue
      // A handler can end the fiber it runs in without unwinding it: with something that is no effect.
      const unfinished = slot.working.splice(0)
      for (const delivery of unfinished) yield* conclude(slot, delivery, exit)
      if (unfinished.length === 0 && !wasInterrupted(exit)) yield* exit
    }
  })

  /** How much may be taken now; nothing while the buffer is still well filled. */
  const wanted = () => {
    if (buffered() > ahead >> 1) return 0
    // One that is larger than all that may be held is held alone.
    if (held > 0 && heldBytes > (buffered() > 0 ? prefetchBytes >> 1 : prefetchBytes - 1)) return 0
    return Math.min(window + ahead - held, maxTake)
  }

  const feed = Effect.gen(function* () {
    while (true) {
      const want = wanted()
      if (want <= 0) {
        yield* Effect.callback<void>((resume) => {
          if (wanted() > 0) return resume(Effect.void)
          wakeFeeder = () => {
            wakeFeeder = undefined
            resume(Effect.void)
          }
        })
        continue
      }
      const starved = buffered() === 0
      asking = want
      const batch = yield* retrying(receiver.take(want, Math.max(1, prefetchBytes - heldBytes)))
      asking = 0
      const now = clock.currentTimeMillisUnsafe()
      // More at a time would have been used up as quickly, if these were.
      if (starved && batch.length >= want && now - filledAt <= lingerMillis) ahead = Math.min(prefetch, ahead * 2 + 1)
      filledAt = now
      held += batch.length
      for (let i = 0; i < batch.length; i++) heldBytes += unitsOf(batch[i]!)
      if (buffered() === 0) {
        refill(batch)
        pulled = 0
        measuredAt = now
        wakeTender?.()
      } else {
        refill([...buffer.slice(next), ...batch])
      }
      metrics.received.update(batch.length, context)
      wakeWorkers()
      showBuffer()
    }
  })

  /** Takes along what is new, until it fails; a take that is given up is followed by the next. */
  const feeding = Effect.gen(function* () {
    while (true) {
      taker = yield* Effect.forkDetach(feed, { startImmediately: true })
      const exit = yield* Fiber.await(taker)
      asking = 0
      if (!retreating || !wasInterrupted(exit)) return yield* exit
      retreating = false
    }
  })

  /** Hands everything back that has lain for a third of a lease while no worker took any: all of them may hang. */
  const tend = Effect.gen(function* () {
    const lyingMillis = Math.min(longestSleep, Math.ceil(Duration.toMillis(subscription.lease) / 3))
    while (true) {
      if (buffered() === 0) {
        yield* Effect.callback<void>((resume) => {
          if (buffered() > 0) return resume(Effect.void)
          wakeTender = () => {
            wakeTender = undefined
            resume(Effect.void)
          }
        })
        continue
      }
      const left = Math.max(pulledAt, measuredAt) + lyingMillis - clock.currentTimeMillisUnsafe()
      if (left > 0) {
        yield* Effect.sleep(left)
        continue
      }
      ahead = 0
      handBack(everything)
    }
  })

  const recall = Effect.gen(function* () {
    const { recalled } = receiver
    if (recalled === undefined) return yield* Effect.never
    while (true) {
      const { concerns, done } = yield* recalled
      // The more often something is wanted back, the less is taken ahead.
      if (handBack(concerns)) ahead >>= 1
      for (const slot of slots) {
        if (!slot.gathering) continue
        const back = slot.working.filter(concerns)
        const kept = slot.working.filter((delivery) => !back.includes(delivery))
        slot.working.splice(0, Infinity, ...kept)
        returning = [...back, ...returning]
      }
      wakeReleaser?.()
      yield* Effect.callback<void>((resume) => {
        if (returned()) return resume(Effect.void)
        wakeRecaller = () => {
          if (!returned()) return
          wakeRecaller = undefined
          resume(Effect.void)
        }
      })
      yield* done
    }
  })

  let releasing = false
  const returned = () => returning.length === 0 && !releasing

  /** Beside `settle`, which may wait for its observer. */
  const release = Effect.gen(function* () {
    while (true) {
      if (returning.length === 0) {
        yield* Effect.callback<void>((resume) => {
          if (returning.length > 0) return resume(Effect.void)
          wakeReleaser = () => {
            if (returning.length === 0) return
            wakeReleaser = undefined
            resume(Effect.void)
          }
        })
      }
      // The last of them first: each part goes in front of those that went before.
      const part = returning.slice(-maxSettle)
      returning = returning.slice(0, -maxSettle)
      if (!Arr.isReadonlyArrayNonEmpty(part)) continue
      releasing = true
      const settled = yield* retrying(
        receiver.settle(Arr.map(part, (delivery) => [delivery, Settlement.release] as const))
      )
      releasing = false
      metrics.release.update(part.length, context)
      part.forEach((delivery, i) => {
        letGo(delivery)
        if (!lifecycle.active) return
        const stale = settled[i] === "Stale"
        lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement: Settlement.release, stale })
      })
      wakeFeeder?.()
      wakeRecaller?.()
    }
  })

  const settle = Effect.gen(function* () {
    while (true) {
      if (outbox.length === 0) {
        yield* Effect.callback<void>((resume) => {
          if (outbox.length > 0) return resume(Effect.void)
          wakeSettler = () => {
            wakeSettler = undefined
            resume(Effect.void)
          }
          wakeFlushed?.()
        })
        // The worker that woke us goes on first, so that what it finishes now travels in the same round trip.
        yield* Effect.yieldNow
      }
      const entries = outbox.length <= maxSettle ? outbox : outbox.slice(0, maxSettle)
      outbox = entries === outbox ? [] : outbox.slice(maxSettle)
      const results = values.length <= maxSettle ? values : values.slice(0, maxSettle)
      values = results === values ? [] : values.slice(maxSettle)
      if (!Arr.isReadonlyArrayNonEmpty(entries)) continue
      const startedAt = clock.currentTimeMillisUnsafe()
      const settled = yield* retrying(receiver.settle(entries))
      settleDuration.add(clock.currentTimeMillisUnsafe() - startedAt)
      for (let i = 0; i < entries.length; i++) {
        const instead = settled[i]
        if (typeof instead === "object") entries[i] = [entries[i]![0], instead]
      }
      for (let i = 0; i < entries.length; i++) letGo(entries[i]![0])
      countWaits()
      showBuffer()
      wakeFeeder?.()
      const died = count(entries, settled)
      if (died !== undefined) yield* Effect.logWarning("DeadLettered", { topic, group, reasons: died })
      if (lifecycle.active) {
        for (let i = 0; i < entries.length; i++) {
          const [delivery, settlement] = entries[i]!
          lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement, stale: settled[i] === "Stale" })
        }
      }
      if (observe !== undefined) {
        // The observer first: to the end it gets what it can take at once.
        yield* Effect.raceFirst(
          observe(
            Arr.map(entries, ([delivery, settlement], i) => ({
              delivery,
              settlement,
              settled: settled[i] === "Stale" ? "Stale" : "Settled",
              value: results[i]!
            }))
          ),
          Deferred.await(halting)
        )
      }
    }
  })

  /** Counts a settled batch; answers the dead letters in it by reason, for the log. */
  const count = (entries: ReadonlyArray<Entry>, settled: ReadonlyArray<Settled>) => {
    let acks = 0
    let died: Record<string, number> | undefined
    for (let i = 0; i < entries.length; i++) {
      const settlement = entries[i]![1]
      if (settled[i] === "Stale") metrics.stale.update(1, context)
      else if (settlement._tag === "Ack") acks++
      else if (settlement._tag === "Retry") metrics.retry.update(1, context)
      else if (settlement._tag === "Release") metrics.release.update(1, context)
      else {
        deadLettered(settlement.reason)
        died = { ...died, [settlement.reason]: (died?.[settlement.reason] ?? 0) + 1 }
      }
    }
    if (acks > 0) metrics.ack.update(acks, context)
    return died
  }

  const interrupt = (slot: Slot) => {
    slot.interrupted = true
    slot.fiber?.interruptUnsafe()
  }

  const watch = Effect.gen(function* () {
    while (true) {
      const lost = new Set(yield* receiver.lost)
      metrics.lost.update(lost.size, context)
      const kept: Array<Delivery> = []
      for (const delivery of buffer.slice(next)) {
        if (lost.has(delivery)) letGo(delivery)
        else kept.push(delivery)
      }
      refill(kept)
      // Those that go on are refused when they are settled.
      for (const slot of subscription.leaseLost === "continue" ? [] : slots) {
        const mine = slot.working.filter((delivery) => lost.has(delivery))
        if (mine.length === 0) continue
        for (const delivery of mine) slot.lost.add(delivery)
        interrupt(slot)
      }
      wakeFeeder?.()
    }
  })

  const slots = Arr.makeBy(concurrency, (): Slot => ({
    fiber: undefined,
    working: [],
    lost: new Set(),
    interrupted: false,
    gathering: false
  }))

  /** A loop that ends has failed, whether it says so or not. What is no `TransportError` has not been reported yet. */
  const keep = <A>(loop: Effect.Effect<A, TransportError>) =>
    Effect.forkDetach(
      Effect.onExit(loop, (exit) => {
        if (stopping && (Exit.isSuccess(exit) || !Exit.hasDies(exit))) return Effect.void
        const cause = Exit.isFailure(exit) ? exit.cause : Cause.die(loopEnded)
        const fail = Deferred.failCause(failed, cause)
        if (Cause.hasFails(cause)) return fail
        const error = render(cause)
        return Effect.andThen(fail, lifecycle.report({ _tag: "ConsumerFailing", topic, group, permanent: true, error }))
      }),
      { startImmediately: true }
    )

  metrics.bufferSize.modify(prefetch, context)
  yield* lifecycle.report({ _tag: "ConsumerStarted", topic, group, consumer: receiver.consumer })
  const crew = yield* Effect.forEach(slots, (slot) => keep(employ(slot)))
  const settler = yield* keep(settle)
  const watcher = yield* keep(watch)
  const helpers = [yield* keep(recall), yield* keep(release), yield* keep(tend)]
  const feeder = yield* keep(feeding)

  const dismiss = Effect.gen(function* () {
    stopping = true
    yield* lifecycle.report({ _tag: "ConsumerStopping", topic, group, consumer: receiver.consumer })
    feeder.interruptUnsafe()
    taker?.interruptUnsafe()
    // What was never handed to a handler is released by the receiver as it leaves.
    refill([])
    showBuffer()
    metrics.bufferSize.modify(-prefetch, context)
    // Only now: what is settled makes room, and nothing may be taken into it any more.
    yield* Deferred.succeed(halting, undefined)
    wakeWorkers()
    const gone = Fiber.awaitAll(crew)
    const drained = yield* Effect.timeoutOption(gone, subscription.shutdown)
    if (Option.isNone(drained)) {
      for (const slot of slots) if (slot.working.length > 0) interrupt(slot)
      yield* Effect.timeoutOption(gone, limits.end)
    }
    const flushed = Effect.callback<void>((resume) => {
      wakeFlushed = () => resume(Effect.void)
      if (outbox.length === 0 && wakeSettler !== undefined) resume(Effect.void)
    })
    yield* Effect.timeoutOption(Effect.raceFirst(flushed, Fiber.await(settler)), limits.flush)
    const takers = taker === undefined ? [] : [taker]
    const fibers = [feeder, ...takers, settler, watcher, ...helpers, ...crew]
    yield* Effect.timeoutOption(Fiber.interruptAll(fibers), limits.end)
    yield* lifecycle.report({ _tag: "ConsumerStopped", topic, group, consumer: receiver.consumer })
  })

  return { failed, dismiss }
})

/** What a handler returns that commits: the types say that it is a commit, and JavaScript does not. */
const committed = (value: unknown): Exit.Exit<Commit.Commit> => {
  if (Commit.isCommit(value)) return Exit.succeed(value)
  try {
    const { messages, writes } = value as Commit.Commit // one that was made by hand, or none
    if (Array.isArray(messages) && Array.isArray(writes)) return Exit.succeed(Commit.make({ messages, writes }))
    return Exit.die(noCommit)
  } catch (defect) {
    return Exit.die(defect)
  }
}

const noCommit = new Error("the handler returned no commit")

const wasInterrupted = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) && Exit.hasInterrupts(exit)

const maxTake = 1000

const missingOutcome = new Error("the batch handler returned fewer outcomes than it was given items")

const loopEnded = new Error("a consumer loop ended by itself: a bug in waybill")
