/**
 * The fibers that run handlers. Each pulls a delivery or a batch, runs the handler, and puts the outcome into the
 * settle loop: exactly one settlement for each delivery whose lease was not lost.
 *
 * @module
 */
import * as Arr from "effect/Array"
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Commit from "../Commit.ts"
import type { Delivery, Handle as Named } from "../Delivery.ts"
import * as Settlement from "../Settlement.ts"
import { Sized } from "./CommitSize.ts"
import type { Durations } from "./Durations.ts"
import { HandlerContext } from "./HandlerContext.ts"
import type { Prefetch } from "./Prefetch.ts"
import { decide, decideDecoding, decideNewer, type Routes, shorten } from "./Routing.ts"
import type { SettleLoop } from "./SettleLoop.ts"

export interface One {
  readonly _tag: "One"
  /** What the handler returns: a commit, a settlement, or anything at all, which means done. */
  readonly returns: "anything" | "commit" | "settlement"
  readonly run: (delivery: Delivery) => Effect.Effect<unknown, unknown>
}

export interface Batch {
  readonly _tag: "Batch"
  readonly size: number
  readonly within: Duration.Duration
  /** One exit per delivery, in the same order. */
  readonly run: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<ReadonlyArray<Exit.Exit<unknown, unknown>>>
}

export type Handle = One | Batch

/** How a handler that returns its settlement reports it. */
export interface Told {
  readonly settlement: Settlement.Settlement
}

/** An issue if the schema rejected the body, a cause if decoding died, or the newest version that the consumer reads. */
type Why = string | Cause.Cause<never> | number

/**
 * How `Handle.run` says that the body never reached the handler. A class of its own, so that no user error can be
 * mistaken for it.
 */
export class Undecodable {
  readonly #why: Why
  constructor(why: Why) {
    this.#why = why
  }

  /** The reason, if the failure is one of these. Never inspects the failure, which may throw on any access. */
  static whyOf(failure: unknown): Why | undefined {
    return typeof failure === "object" && failure !== null && #why in failure ? failure.#why : undefined
  }
}

interface Worker {
  fiber: Fiber.Fiber<unknown> | undefined
  /** What the worker holds at this moment. */
  readonly working: Array<Delivery>
  readonly lost: Set<Delivery>
  readonly cancelled: Set<Delivery>
  interrupted: boolean
  /** Whether it waits for its batch to fill: the handler has not begun. */
  gathering: boolean
}

/** Since when a worker has not yielded, and when its handler began. */
interface Turn {
  startedAt: number
  now: number
}

export interface Options {
  readonly handle: Handle
  readonly routes: Routes
  readonly concurrency: number
  readonly lease: Duration.Duration
  readonly prefetch: Prefetch
  readonly settling: SettleLoop
  readonly handlerDuration: Durations
  /** Whether a message outlives its consumer. */
  readonly stores: boolean
  /** Whether a message of a commit goes to a transport other than the commit's. */
  readonly elsewhere: (publication: Commit.Publication) => boolean
}

/** A worker whose handlers never wait yields after this long. */
const turnMillis = 5

/** From a late timer until its news has reached the workers. */
const aLittleLater = Effect.repeat(Effect.yieldNow, { times: 8 })

export class Workers {
  readonly #options: Options
  readonly #workers: ReadonlyArray<Worker>
  /** After a turn of this length the process may have stood still: leases are checked before anything else begins. */
  readonly #standstillMillis: number
  readonly #checked: (exit: Exit.Exit<unknown, unknown>) => Exit.Exit<unknown, unknown>
  readonly #settlementOf: (value: unknown) => Settlement.Settlement

  constructor(options: Options) {
    const { concurrency, elsewhere, handle, lease } = options
    this.#options = options
    this.#standstillMillis = Duration.toMillis(lease) / 10
    const commits = handle._tag === "One" && handle.returns === "commit"
    this.#checked = commits ? (exit) => committed(exit, elsewhere) : (exit) => exit
    this.#settlementOf = settlementsOf[handle._tag === "One" ? handle.returns : "anything"]
    this.#workers = Arr.makeBy(concurrency, () => ({
      fiber: undefined,
      working: [],
      lost: new Set(),
      cancelled: new Set(),
      interrupted: false,
      gathering: false
    }))
  }

  /** One loop per worker. It ends once the prefetch is closed and the worker's deliveries are done. */
  get loops(): ReadonlyArray<Effect.Effect<void>> {
    return this.#workers.map((worker) => this.#spawn(worker))
  }

  /** Takes deliveries back from workers whose handlers have not begun. */
  recall(concerns: (delivery: Delivery) => boolean): Array<Delivery> {
    const recalled: Array<Delivery> = []
    for (const { gathering, working } of this.#workers) {
      if (!gathering) continue
      const kept: Array<Delivery> = []
      for (const delivery of working) (concerns(delivery) ? recalled : kept).push(delivery)
      working.splice(0, Infinity, ...kept)
    }
    return recalled
  }

  /** Interrupts the handlers of these deliveries; nothing is settled for them. */
  revoke(lost: ReadonlySet<Named>): void {
    for (const worker of this.#workers) {
      const mine = worker.working.filter((delivery) => lost.has(delivery.handle ?? delivery))
      if (mine.length === 0) continue
      for (const delivery of mine) worker.lost.add(delivery)
      interrupt(worker)
    }
  }

  /** Interrupts the handlers of these deliveries, which end as cancelled unless they succeed before. */
  cancel(cancelled: ReadonlySet<Named>): void {
    for (const worker of this.#workers) {
      const mine = worker.working.filter((delivery) => cancelled.has(delivery.handle ?? delivery))
      if (mine.length === 0) continue
      for (const delivery of mine) worker.cancelled.add(delivery)
      interrupt(worker)
    }
  }

  /** Interrupts every handler and releases their deliveries. */
  interrupt(): void {
    for (const worker of this.#workers) if (worker.working.length > 0) interrupt(worker)
  }

  /** A worker that was interrupted for one delivery is replaced, because an interrupted fiber stays interrupted. */
  readonly #spawn = (worker: Worker): Effect.Effect<void> =>
    Effect.gen({ self: this }, function* () {
      const { prefetch } = this.#options
      while (!prefetch.closed) {
        worker.interrupted = false
        worker.fiber = yield* Effect.forkDetach(this.#work(worker), { startImmediately: true })
        const exit = yield* Fiber.await(worker.fiber)
        if (Exit.isSuccess(exit)) continue
        // A handler can end its fiber without unwinding it, by yielding something that is not an effect.
        const unfinished = worker.working.splice(0)
        for (const delivery of unfinished) yield* this.#conclude(worker, delivery, exit)
        if (unfinished.length === 0 && !wasInterrupted(exit)) yield* exit
      }
    })

  readonly #work = (worker: Worker): Effect.Effect<void> =>
    Effect.withFiber((fiber) => {
      const { handle } = this.#options
      const context = new HandlerContext(fiber)
      return Effect.ensuring(
        handle._tag === "One" ? this.#workOne(worker, handle, context) : this.#workBatch(worker, handle, context),
        context.end
      )
    })

  readonly #workOne = (worker: Worker, handle: One, context: HandlerContext): Effect.Effect<void> => {
    const { handlerDuration, prefetch } = this.#options
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function* () {
        const clock = yield* Clock.Clock
        const turn = { startedAt: clock.currentTimeMillisUnsafe(), now: clock.currentTimeMillisUnsafe() }
        while (!worker.interrupted) {
          const handler = this.#begin(worker, handle, context, clock, turn)
          const delivery = worker.working[0]
          if (handler === undefined || delivery === undefined) {
            if (prefetch.closed) return
            context.leave()
            yield* restore(prefetch.park)
            turn.startedAt = turn.now = clock.currentTimeMillisUnsafe()
            continue
          }
          let ended: Exit.Exit<unknown, unknown>
          if (Exit.isExit(handler)) ended = handler
          else {
            context.enter(delivery)
            ended = yield* Effect.exit(restore(handler))
          }
          if (context.used) ended = yield* context.close(ended)
          const exit = this.#checked(ended)
          const endedAt = clock.currentTimeMillisUnsafe()
          handlerDuration.add(endedAt - turn.now)
          turn.now = endedAt
          worker.working.length = 0
          const concluded = this.#conclude(worker, delivery, exit)
          if (!Exit.isExit(concluded)) yield* concluded
          if (wasInterrupted(exit)) return
          // A handler that never waits would starve the rest of this process.
          if (turn.now - turn.startedAt >= turnMillis) {
            yield* turn.now - turn.startedAt >= this.#standstillMillis ? aLittleLater : Effect.yieldNow
            turn.startedAt = turn.now = clock.currentTimeMillisUnsafe()
          }
        }
      })
    )
  }

  /**
   * Begins handlers until one does not succeed at once, or until the turn is over. Returns that one, or nothing if no
   * delivery is left. A plain loop: generators cost more than handlers that do not wait.
   */
  #begin(
    worker: Worker,
    handle: One,
    context: HandlerContext,
    clock: Clock.Clock,
    turn: Turn
  ): Effect.Effect<unknown, unknown> | undefined {
    const { handlerDuration, prefetch, settling } = this.#options
    while (true) {
      const delivery = prefetch.pull(turn.now)
      if (delivery === undefined) return undefined
      worker.working[0] = delivery
      let handler: Effect.Effect<unknown, unknown>
      try {
        handler = handle.run(delivery)
      } catch (defect) {
        return Exit.die(defect)
      }
      if (!Exit.isExit(handler)) return handler
      const exit = this.#checked(handler)
      if (Exit.isFailure(exit) || context.used || worker.lost.size > 0 || worker.interrupted) return exit
      const endedAt = clock.currentTimeMillisUnsafe()
      if (endedAt - turn.startedAt >= turnMillis) return handler
      handlerDuration.add(endedAt - turn.now)
      turn.now = endedAt
      worker.working.length = 0
      settling.put(delivery, this.#settlementOf(exit.value), exit)
    }
  }

  readonly #workBatch = (worker: Worker, handle: Batch, context: HandlerContext): Effect.Effect<void> => {
    const { handlerDuration, prefetch } = this.#options
    const { working } = worker
    return Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function* () {
        const clock = yield* Clock.Clock
        while (!worker.interrupted) {
          const first = prefetch.pull(clock.currentTimeMillisUnsafe())
          if (first === undefined) {
            if (prefetch.closed) return
            context.leave()
            yield* restore(prefetch.park)
            continue
          }
          working.push(first)
          this.#gather(worker, handle.size, clock)
          if (working.length < handle.size && !prefetch.closed && Duration.isPositive(handle.within)) {
            const more = Effect.whileLoop({
              while: () => working.length < handle.size && !prefetch.closed,
              body: () => prefetch.park,
              step: () => this.#gather(worker, handle.size, clock)
            })
            worker.gathering = true
            // However it is interrupted here, the handler has not seen these yet: they are released.
            const waited = yield* Effect.exit(restore(Effect.timeoutOption(more, handle.within)))
            worker.gathering = false
            if (Exit.isFailure(waited)) worker.interrupted = true
            // They were recalled meanwhile.
            else if (working.length === 0) continue
          }
          const worked = working.slice()
          let ran: Exit.Exit<ReadonlyArray<Exit.Exit<unknown, unknown>>> = Exit.interrupt()
          let took = 0
          if (!worker.interrupted) {
            const startedAt = clock.currentTimeMillisUnsafe()
            context.enterBatch(worked)
            ran = yield* Effect.exit(restore(Effect.suspend(() => handle.run(worked))))
            if (context.used) ran = yield* context.close(ran)
            took = clock.currentTimeMillisUnsafe() - startedAt
            handlerDuration.add(took)
          }
          working.length = 0
          for (let i = 0; i < worked.length; i++) {
            const exit = Exit.isFailure(ran) ? ran : (ran.value[i] ?? Exit.die(missingOutcome))
            yield* this.#conclude(worker, worked[i]!, exit)
          }
          if (wasInterrupted(ran)) return
          if (took >= this.#standstillMillis) yield* aLittleLater
        }
      })
    )
  }

  #gather({ working }: Worker, size: number, clock: Clock.Clock): void {
    const now = clock.currentTimeMillisUnsafe()
    while (working.length < size) {
      const delivery = this.#options.prefetch.pull(now)
      if (delivery === undefined) return
      working.push(delivery)
    }
  }

  /** Settles the delivery, or not, depending on the exit of the handler and on the lease. */
  #conclude(worker: Worker, delivery: Delivery, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    const { prefetch, routes, settling, stores } = this.#options
    if (worker.lost.delete(delivery)) {
      prefetch.letGo(delivery)
      return Exit.void
    }
    const isCancelled = worker.cancelled.size > 0 && worker.cancelled.delete(delivery)
    if (Exit.isSuccess(exit)) {
      settling.put(delivery, this.#settlementOf(exit.value), exit)
      return Exit.void
    }
    if (isCancelled) {
      settling.put(delivery, Settlement.cancelled)
      return Exit.void
    }
    if (worker.interrupted && Exit.hasInterrupts(exit)) {
      settling.put(delivery, Settlement.release)
      return Exit.void
    }
    const failure = Exit.findErrorOption(exit)
    const why = Option.isSome(failure) ? Undecodable.whyOf(failure.value) : undefined
    if (typeof why === "string") {
      settling.put(delivery, Settlement.deadLetter("DecodeFailure", shorten(why)))
      return Exit.void
    }
    const decided =
      why === undefined
        ? decide(exit, routes, delivery)
        : typeof why === "number"
          ? decideNewer(why, delivery, stores)
          : decideDecoding(why, delivery)
    return Effect.map(decided, (settlement) => settling.put(delivery, settlement))
  }
}

/** Typed by the constructor of the handle, which determines what the handler returns. */
const settlementsOf: Record<One["returns"], (value: unknown) => Settlement.Settlement> = {
  anything: () => Settlement.ack,
  commit: (value) => Settlement.commit(value as Conditional),
  settlement: (value) => (value as Told).settlement
}

const interrupt = (worker: Worker) => {
  worker.interrupted = true
  worker.fiber?.interruptUnsafe()
}

type Conditional = Commit.Commit<Commit.Condition>

const isCommit = (value: unknown): value is Conditional => Sized.unitsOf(value) !== undefined

/** Checks that a handler that commits returned a commit. The types guarantee that; JavaScript does not. */
const committed = (exit: Exit.Exit<unknown, unknown>, elsewhere: Options["elsewhere"]): Exit.Exit<unknown, unknown> => {
  if (Exit.isFailure(exit)) return exit
  const { value } = exit
  if (isCommit(value)) {
    const stray = value.messages.find(elsewhere)
    if (stray === undefined) return exit
    return Exit.die(
      new Error(`topic ${stray.topic} is on ${stray.on?.key}, and a commit publishes on its own transport only`)
    )
  }
  try {
    const { conditions = [], messages, writes } = value as Conditional // made by hand, or not a commit
    if (!Array.isArray(messages) || !Array.isArray(writes)) return Exit.die(noCommit)
    return committed(Exit.succeed(Commit.make({ conditions, messages, writes })), elsewhere)
  } catch (defect) {
    return Exit.die(defect)
  }
}

const noCommit = new Error("the handler returned no commit")

const wasInterrupted = (exit: Exit.Exit<unknown, unknown>) => Exit.isFailure(exit) && Exit.hasInterrupts(exit)

const missingOutcome = new Error("the batch handler returned fewer outcomes than it was given items")
