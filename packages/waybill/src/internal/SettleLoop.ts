/**
 * Sends settlements to the store: those that arrive while one batch is in flight travel together in the next one.
 * Deliveries that no handler has begun go back alongside.
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Delivery } from "../Delivery.ts"
import type { Lifecycle } from "../Lifecycle.ts"
import * as Settlement from "../Settlement.ts"
import type { Ending, Receiver, Settled, TransportError } from "../Transport.ts"
import type { ConsumerMetrics } from "./ConsumerMetrics.ts"
import { logFailures } from "./FailureLog.ts"
import { decide, type Routes } from "./Routing.ts"
import { Wakeup } from "./Wakeup.ts"

export interface Outcome {
  readonly delivery: Delivery
  readonly settlement: Settlement.Settlement
  readonly settled: "Settled" | "Stale"
  /** What the handler returned, if it succeeded. */
  readonly value: Option.Option<unknown>
}

/** Sees what was settled, and delays further settlements until it returns. */
export type Observe = (outcomes: Arr.NonEmptyReadonlyArray<Outcome>) => Effect.Effect<unknown>

export interface Options {
  readonly topic: string
  readonly group: string
  readonly settle: Receiver["settle"]
  /** Of a delivery whose commit was not applied because a condition failed. */
  readonly routes: Routes
  readonly observe: Observe | undefined
  /** Like `observe`, but waited for even when the consumer stops. */
  readonly hook?: Observe | undefined
  readonly metrics: Pick<ConsumerMetrics, "ack" | "retry" | "release" | "stale" | "deadLettered" | "settleDuration">
  readonly lifecycle: Lifecycle
  /** Told of a delivery of which only the handle is held from now on. */
  readonly unloaded: (delivery: Delivery) => void
  /** Told which endings the store has confirmed. */
  readonly settled: (endings: ReadonlyArray<Ending>) => void
}

const maxSettle = 1000

export class SettleLoop {
  readonly #options: Options
  readonly #observed: boolean
  #outbox: Array<Ending> = []
  #values: Array<Option.Option<unknown>> = []
  #settling = false
  /** On the way back unbegun, in the order of delivery. */
  #returning: Array<Delivery> = []
  #releasing = false
  /** The newer versions that the log has named. */
  readonly #newer = new Set<number>()
  readonly #halting = Deferred.makeUnsafe<void>()
  readonly #some = new Wakeup(() => this.#outbox.length > 0)
  readonly #flushed = new Wakeup(() => this.#outbox.length === 0 && !this.#settling)
  readonly #unbegun = new Wakeup(() => this.#returning.length > 0)
  readonly #returned = new Wakeup(() => this.#returning.length === 0 && !this.#releasing)

  constructor(options: Options) {
    this.#options = options
    this.#observed = options.observe !== undefined || options.hook !== undefined
  }

  /** A handler has ended. From here on only the delivery's handle is needed, and what observers are shown. */
  put(delivery: Delivery, settlement: Settlement.Settlement, exit?: Exit.Exit<unknown, unknown>): void {
    const { lifecycle, unloaded } = this.#options
    const { handle } = delivery
    if (handle !== undefined && settlement === Settlement.ack && !this.#observed && !lifecycle.active) {
      // Held through the round trip, payloads would outlive the young generation.
      this.#outbox.push([handle, Settlement.ack])
      unloaded(delivery)
    } else {
      this.#outbox.push([delivery, settlement])
    }
    if (this.#observed) {
      this.#values.push(exit !== undefined && Exit.isSuccess(exit) ? Option.some(exit.value) : Option.none())
    }
    this.#some.notify()
  }

  /** Hands back what no handler has begun, before what was handed back earlier: that was delivered later. */
  release(deliveries: ReadonlyArray<Delivery>): void {
    if (deliveries.length === 0) return
    this.#returning = [...deliveries, ...this.#returning]
    this.#unbegun.notify()
  }

  /** Waits until everything that was put is settled. */
  get flushed(): Effect.Effect<void> {
    return this.#flushed.wait
  }

  /** Waits until everything that was to be released is. */
  get returned(): Effect.Effect<void> {
    return this.#returned.wait
  }

  /** Stops waiting for observers. */
  halt(): void {
    Deferred.doneUnsafe(this.#halting, Exit.void)
  }

  readonly settle: Effect.Effect<never, TransportError> = Effect.gen({ self: this }, function* () {
    const { hook, lifecycle, metrics, observe, routes, settle, settled: told } = this.#options
    const { group, topic } = this.#options
    const clock = yield* Clock.Clock
    while (true) {
      if (this.#outbox.length === 0) {
        this.#settling = false
        this.#flushed.notify()
        yield* this.#some.wait
        this.#settling = true
        // The worker that woke this loop goes on first, so that what it finishes now travels in the same round trip.
        yield* Effect.yieldNow
      }
      const batch = this.#outbox.length <= maxSettle ? this.#outbox : this.#outbox.slice(0, maxSettle)
      this.#outbox = batch === this.#outbox ? [] : this.#outbox.slice(maxSettle)
      const returned = this.#values.length <= maxSettle ? this.#values : this.#values.slice(0, maxSettle)
      this.#values = returned === this.#values ? [] : this.#values.slice(maxSettle)
      if (!Arr.isReadonlyArrayNonEmpty(batch)) continue
      const startedAt = clock.currentTimeMillisUnsafe()
      const answers = yield* settle(batch)
      metrics.settleDuration.add(clock.currentTimeMillisUnsafe() - startedAt)
      let unmet = false
      for (let i = 0; i < batch.length; i++) {
        const instead = answers[i]
        const [given] = batch[i]!
        if (typeof instead !== "object" || !("body" in given)) continue
        if (instead._tag === "DeadLetter") batch[i] = [given, instead]
        else {
          // As if the handler had failed with it.
          this.put(given, yield* decide(Exit.fail(instead), routes, given))
          unmet = true
        }
      }
      const ended = <A>(all: ReadonlyArray<A>) => (unmet ? all.filter((_, i) => !isUnmet(answers[i])) : all)
      const entries = ended(batch)
      const settled = ended(answers)
      const values = ended(returned)
      if (!Arr.isReadonlyArrayNonEmpty(entries)) continue
      told(entries)
      const failed = this.#count(entries, settled)
      if (failed.length > 0) {
        yield* logFailures(topic, group, failed)
        yield* this.#tellNewer(failed)
      }
      if (lifecycle.active) {
        for (let i = 0; i < entries.length; i++) {
          const [delivery, settlement] = entries[i]!
          // A listener that was attached after the handler ended is not told.
          if (!("body" in delivery)) continue
          lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement, stale: settled[i] === "Stale" })
        }
      }
      if (!this.#observed) continue
      const outcomes = Arr.map(entries, ([delivery, settlement], i): Outcome => ({
        delivery: delivery as Delivery, // put whole if there is an observer
        settlement,
        settled: settled[i] === "Stale" ? "Stale" : "Settled",
        value: values[i]!
      }))
      if (hook !== undefined) yield* hook(outcomes)
      // The observer first: until the end it gets whatever it can take at once.
      if (observe !== undefined) yield* Effect.raceFirst(observe(outcomes), Deferred.await(this.#halting))
    }
  })

  /** Runs beside `settle`, which may wait for its observer. */
  readonly releases: Effect.Effect<never, TransportError> = Effect.gen({ self: this }, function* () {
    const { group, lifecycle, metrics, settle, settled: told, topic } = this.#options
    while (true) {
      if (this.#returning.length === 0) yield* this.#unbegun.wait
      // The last part first: each goes before those that went earlier.
      const part = this.#returning.slice(-maxSettle)
      this.#returning = this.#returning.slice(0, -maxSettle)
      if (!Arr.isReadonlyArrayNonEmpty(part)) continue
      this.#releasing = true
      const entries = Arr.map(part, (delivery) => [delivery, Settlement.release] as const)
      const settled = yield* settle(entries)
      this.#releasing = false
      metrics.release.update(part.length)
      if (lifecycle.active) {
        part.forEach((delivery, i) => {
          const stale = settled[i] === "Stale"
          lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement: Settlement.release, stale })
        })
      }
      told(entries)
      this.#returned.notify()
    }
  })

  /** One event for each version; the log names a version once. */
  #tellNewer(failed: ReadonlyArray<Ending>): Effect.Effect<void> {
    const { group, lifecycle, topic } = this.#options
    const versions = new Map<number, { readonly reads: number; count: number }>()
    for (const [given, settlement] of failed) {
      if (settlement._tag !== "Retry" || settlement.newerThan === undefined || !("body" in given)) continue
      const told = versions.get(given.version) ?? { reads: settlement.newerThan, count: 0 }
      told.count++
      versions.set(given.version, told)
    }
    return Effect.forEach(
      versions,
      ([version, told]) => {
        const event = { _tag: "NewerVersion", topic, group, version, ...told } as const
        if (this.#newer.has(version)) return Effect.sync(() => lifecycle.emit(event))
        this.#newer.add(version)
        return lifecycle.report(event)
      },
      { discard: true }
    )
  }

  /** Counts a settled batch; returns the failures in it. */
  #count(entries: ReadonlyArray<Ending>, settled: ReadonlyArray<Settled>): ReadonlyArray<Ending> {
    const { metrics } = this.#options
    let acks = 0
    const failed: Array<Ending> = []
    for (let i = 0; i < entries.length; i++) {
      const settlement = entries[i]![1]
      if (settled[i] === "Stale") metrics.stale.update(1)
      else if (settlement._tag === "Ack") acks++
      else if (settlement._tag === "Release") metrics.release.update(1)
      else {
        if (settlement._tag === "Retry")
          (settlement.newerThan === undefined ? metrics.retry : metrics.release).update(1)
        else metrics.deadLettered(settlement.reason)
        failed.push(entries[i]!)
      }
    }
    if (acks > 0) metrics.ack.update(acks)
    return failed
  }
}

const isUnmet = (answer: Settled | undefined) => typeof answer === "object" && answer._tag === "ConditionFailed"
