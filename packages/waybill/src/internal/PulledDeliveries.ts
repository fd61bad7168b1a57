/**
 * Deliveries that a stream settles itself. To the worker each is a handler that ends when the stream has settled it, so
 * leases are renewed meanwhile, and each worker has at most one delivery out.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type { Delivery } from "../Delivery.ts"
import * as Settlement from "../Settlement.ts"
import { finiteOf } from "./Limits.ts"
import type { Outcome } from "./SettleLoop.ts"
import type { Told } from "./Workers.ts"

const stale = Effect.succeed("Stale" as const)

export type Settled = "Settled" | "Stale"

export class PulledDelivery<out P> implements Told {
  readonly payload: P
  readonly delivery: Delivery
  /** Whether the stream has it; before, it only waits. */
  pulled = false
  settlement: Settlement.Settlement = Settlement.release
  #resume: ((exit: Exit.Exit<Told, unknown>) => void) | undefined
  readonly #settled = Deferred.makeUnsafe<Settled>()

  constructor(payload: P, delivery: Delivery, resume: (exit: Exit.Exit<Told, unknown>) => void) {
    this.payload = payload
    this.delivery = delivery
    this.#resume = resume
  }

  readonly ack: Effect.Effect<Settled> = Effect.suspend(() => this.#settle(Settlement.ack))

  readonly release: Effect.Effect<Settled> = Effect.suspend(() => this.#settle(Settlement.release))

  readonly retry = (delay: Duration.Input, cause = "retried by the stream"): Effect.Effect<Settled> =>
    Effect.suspend(() => this.#settle(Settlement.retry(finiteOf("delay", delay), cause)))

  readonly deadLetter = (reason: string, cause = reason): Effect.Effect<Settled> =>
    Effect.suspend(() => this.#settle(Settlement.deadLetter(reason, cause)))

  /** The stream has ended: the handler ends like this unless it was settled before. */
  give(exit: Exit.Exit<Told, unknown>): void {
    const resume = this.#resume
    if (resume === undefined) return
    this.tell("Stale")
    resume(exit)
  }

  /** The outcome of the settlement. */
  tell(settled: Settled): void {
    this.#resume = undefined
    Deferred.doneUnsafe(this.#settled, Exit.succeed(settled))
  }

  #settle(settlement: Settlement.Settlement): Effect.Effect<Settled> {
    const resume = this.#resume
    if (resume !== undefined) {
      this.#resume = undefined
      this.settlement = settlement
      resume(Exit.succeed(this))
    }
    // The first settlement counts; only equal ones share its outcome.
    return this.settlement._tag === settlement._tag ? Deferred.await(this.#settled) : stale
  }
}

/** The deliveries of one stream. */
export class PulledDeliveries<P, E> {
  readonly #queue: Queue.Queue<PulledDelivery<P>, E>
  readonly #open = new Set<PulledDelivery<P>>()
  #ended = false

  constructor(queue: Queue.Queue<PulledDelivery<P>, E>) {
    this.#queue = queue
  }

  /** What the worker runs for a delivery; interrupted when its lease is lost. */
  handle(payload: P, delivery: Delivery): Effect.Effect<Told, unknown> {
    return Effect.callback((resume) => {
      const pulled = new PulledDelivery<P>(payload, delivery, resume)
      if (this.#ended) return pulled.give(Exit.succeed(pulled))
      this.#open.add(pulled)
      Queue.offerUnsafe(this.#queue, pulled)
      return Effect.sync(() => this.#close(pulled, "Stale"))
    })
  }

  /** The next delivery for the stream. Skips those that were lost or settled while they waited. */
  readonly next: Effect.Effect<PulledDelivery<P>, E> = Effect.flatMap(
    Effect.suspend(() => Queue.take(this.#queue)),
    (pulled) => {
      if (!this.#open.has(pulled)) return this.next
      pulled.pulled = true
      return Effect.succeed(pulled)
    }
  )

  /** The store has replied. */
  readonly observe = (outcomes: ReadonlyArray<Outcome>): Effect.Effect<void> =>
    Effect.sync(() => {
      for (const { settled, value } of outcomes) {
        // Everything that succeeds here came from `handle`.
        if (Option.isSome(value)) this.#close(value.value as PulledDelivery<P>, settled)
      }
    })

  /** The stream has ended: if it failed, what it had pulled counts an attempt; everything else is released. */
  end(exit: Exit.Exit<unknown, unknown>): void {
    this.#ended = true
    const failed = Exit.isFailure(exit) && (Exit.hasFails(exit) || Exit.hasDies(exit))
    for (const pulled of this.#open) {
      // A defect is the stream's, and most of its messages are innocent: no reason to dead-letter them at once.
      pulled.give(failed && pulled.pulled ? Exit.fail(Cause.squash(exit.cause)) : Exit.succeed(pulled))
    }
  }

  /** The consumer has stopped: nothing is settled any more. */
  stop(): void {
    for (const pulled of this.#open) this.#close(pulled, "Stale")
  }

  #close(pulled: PulledDelivery<P>, settled: Settled): void {
    this.#open.delete(pulled)
    pulled.tell(settled)
  }
}
