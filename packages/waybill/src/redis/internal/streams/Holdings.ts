/**
 * What a receiver has in its hands: deliveries that wait to be taken, those that were taken and are not settled, those
 * it has lost, and the fibers that wait for any of it. No input or output happens here.
 *
 * A delivery is handed out only while the lease on it is sure, by the clock of this process. When it is not, because
 * the process stood still, the server has to be asked first.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery } from "../../../Delivery.ts"
import type { TransportError } from "../../../Transport.ts"
import { type Source, StreamDelivery } from "./StreamDelivery.ts"

type Taken = NonEmptyReadonlyArray<StreamDelivery>

interface Waiter {
  readonly max: number
  readonly resume: (effect: Effect.Effect<Taken, TransportError>) => void
}

export class Holdings {
  readonly #held = [new Map<string, StreamDelivery>(), new Map<string, StreamDelivery>()] as const
  readonly #waiters: Array<Waiter> = []
  readonly #now: () => number
  readonly #demanded: () => void
  readonly #leaseMillis: number
  #buffer: Array<StreamDelivery> = []
  #failure: TransportError | undefined
  #lost: Array<Delivery> = []
  #tellLost: (() => void) | undefined
  #lastTake = { at: -Infinity, max: 0 }
  /** When the last heartbeat that arrived was sent: nobody takes us for dead until a lease after it. */
  beatAt = -Infinity

  /** `demanded` is called when somebody waits for more than there is. */
  constructor(options: { readonly now: () => number; readonly leaseMillis: number; readonly demanded: () => void }) {
    this.#now = options.now
    this.#leaseMillis = options.leaseMillis
    this.#demanded = options.demanded
  }

  /** How many deliveries somebody waits for at this moment. */
  get demand(): number {
    return this.#waiters[0]?.max ?? 0
  }

  get buffered(): number {
    return this.#buffer.length
  }

  get size(): number {
    return this.#held[0].size + this.#held[1].size
  }

  /** How many more the consumer could use: it waits for them, or asked for as many less than `millis` ago. */
  wanted(millis: number): number {
    const { at, max } = this.#lastTake
    return Math.max(0, Math.max(this.demand, this.#now() - at < millis ? max : 0) - this.#buffer.length)
  }

  take(max: number): Effect.Effect<Taken, TransportError> {
    return Effect.withFiber((fiber) => {
      // A fiber that is about to yield may be interrupted there, with the deliveries in its hands.
      if (fiber.currentOpCount + 64 > fiber.cache.maxOpsBeforeYield) {
        return Effect.flatMap(Effect.yieldNow, () => this.take(max))
      }
      const count = Math.max(1, max)
      this.#lastTake = { at: this.#now(), max: count }
      const failure = this.#failure
      if (failure !== undefined) {
        this.#failure = undefined
        return Exit.fail(failure)
      }
      const taken = this.#waiters.length === 0 ? this.#cut(count) : undefined
      return taken !== undefined ? Exit.succeed(taken) : this.#wait(count)
    })
  }

  #wait(max: number): Effect.Effect<Taken, TransportError> {
    return Effect.callback((resume) => {
      const waiter: Waiter = { max, resume }
      this.#waiters.push(waiter)
      this.#demanded()
      return Effect.sync(() => {
        const index = this.#waiters.indexOf(waiter)
        if (index >= 0) this.#waiters.splice(index, 1)
      })
    })
  }

  /** Takes charge of deliveries and hands them to whoever waits. An older delivery of the same entry is lost by it. */
  add(deliveries: ReadonlyArray<StreamDelivery>): ReadonlyArray<StreamDelivery> {
    let superseded: Array<StreamDelivery> | undefined
    for (const delivery of deliveries) {
      const held = this.#held[delivery.source]
      const before = held.get(delivery.entry)
      if (before !== undefined) (superseded ??= []).push(before)
      held.set(delivery.entry, delivery)
    }
    const lost = superseded === undefined ? none : this.#drop(superseded)
    if (this.#buffer.length === 0) this.#buffer = deliveries.slice()
    else this.#buffer.push(...deliveries)
    this.handOut()
    return lost
  }

  handOut(): void {
    while (this.#waiters.length > 0) {
      const waiter = this.#waiters[0] as Waiter // just looked
      const taken = this.#cut(waiter.max)
      if (taken === undefined) return
      this.#waiters.shift()
      // The fiber goes on inside this call, as far as it can.
      waiter.resume(Exit.succeed(taken))
    }
  }

  /** The next deliveries, if there are any and they are surely ours. */
  #cut(max: number): Taken | undefined {
    const buffer = this.#buffer
    if (buffer.length === 0 || this.#now() >= this.#sureUntil(this.#oldestBuffered())) return undefined
    if (buffer.length <= max) {
      this.#buffer = []
      return buffer as unknown as Taken // not empty: just looked
    }
    this.#buffer = buffer.slice(max)
    return buffer.slice(0, max) as unknown as Taken // max is at least 1
  }

  #oldestBuffered(): number {
    let oldest = Infinity
    for (const delivery of this.#buffer) oldest = Math.min(oldest, delivery.renewedAt)
    return oldest
  }

  #sureUntil(renewedAt: number): number {
    // A tenth of the lease for what the network and two clocks may differ.
    return Math.min(this.beatAt, renewedAt) + this.#leaseMillis * 0.9
  }

  /** Nobody else can have been given this delivery yet. */
  isSure(delivery: StreamDelivery): boolean {
    return this.#now() < this.#sureUntil(delivery.renewedAt)
  }

  /** The delivery that is meant, if it is still held; a copy of it will do. */
  find(delivery: Delivery): StreamDelivery | undefined {
    if (delivery instanceof StreamDelivery) {
      return this.#held[delivery.source].get(delivery.entry) === delivery ? delivery : undefined
    }
    const [source, entry] = delivery.receipt.split(":")
    const held = entry === undefined ? undefined : this.#held[source === "0" ? 0 : 1].get(entry)
    return held?.receipt === delivery.receipt ? held : undefined
  }

  holds(source: Source, entry: string): boolean {
    return this.#held[source].has(entry)
  }

  /** The delivery is over. */
  forget(delivery: StreamDelivery): void {
    this.#held[delivery.source].delete(delivery.entry)
  }

  *all(): Iterable<StreamDelivery> {
    for (const held of this.#held) yield* held.values()
  }

  /** For how long the oldest delivery has been held, in milliseconds. */
  age(): number | undefined {
    // Maps keep the order of insertion.
    let oldest = Infinity
    for (const held of this.#held) {
      for (const delivery of held.values()) {
        oldest = Math.min(oldest, delivery.takenAt)
        break
      }
    }
    return oldest === Infinity ? undefined : this.#now() - oldest
  }

  /** Takes back what has waited in the buffer for longer than `millis`: others could have had it. */
  unclaimed(millis: number): Array<StreamDelivery> {
    const limit = this.#now() - millis
    const old = this.#buffer.filter((delivery) => delivery.takenAt < limit)
    if (old.length > 0) this.#buffer = this.#buffer.filter((delivery) => delivery.takenAt >= limit)
    return old
  }

  /** These are no longer ours. Answers those that somebody had been given. */
  lose(deliveries: ReadonlyArray<StreamDelivery>): ReadonlyArray<StreamDelivery> {
    for (const delivery of deliveries) this.forget(delivery)
    return this.#drop(deliveries)
  }

  #drop(deliveries: ReadonlyArray<StreamDelivery>): ReadonlyArray<StreamDelivery> {
    if (deliveries.length === 0) return deliveries
    const gone = new Set(deliveries)
    const before = this.#buffer.length
    let unseen: ReadonlySet<StreamDelivery> = nobody
    if (before > 0) {
      unseen = new Set(this.#buffer.filter((delivery) => gone.has(delivery)))
      if (unseen.size > 0) this.#buffer = this.#buffer.filter((delivery) => !gone.has(delivery))
    }
    const lost = deliveries.filter((delivery) => !unseen.has(delivery))
    if (lost.length > 0) {
      this.#lost.push(...lost)
      this.#tellLost?.()
    }
    return lost
  }

  /** Waits for deliveries that were lost after they had been taken. */
  readonly lost: Effect.Effect<NonEmptyReadonlyArray<Delivery>> = Effect.suspend(() =>
    this.#lost.length > 0 ? this.#takeLost : Effect.flatMap(this.#someLost, () => this.lost)
  )

  readonly #takeLost: Effect.Effect<NonEmptyReadonlyArray<Delivery>> = Effect.sync(() => {
    const lost = this.#lost
    this.#lost = []
    return lost as unknown as NonEmptyReadonlyArray<Delivery> // the caller looked
  })

  readonly #someLost: Effect.Effect<void> = Effect.callback((resume) => {
    this.#tellLost = () => {
      this.#tellLost = undefined
      resume(Effect.void)
    }
    return Effect.sync(() => {
      this.#tellLost = undefined
    })
  })

  /** Fails those who wait; with nobody waiting, and if it is worth keeping, the next who comes. */
  fail(error: TransportError): void {
    if (this.#waiters.length === 0) {
      if (error.reason.permanent) this.#failure = error
      return
    }
    for (const { resume } of this.#waiters.splice(0)) resume(Exit.fail(error))
  }

  /** What was wrong is not wrong any more. */
  recover(): void {
    this.#failure = undefined
  }
}

const none: ReadonlyArray<StreamDelivery> = []
const nobody: ReadonlySet<StreamDelivery> = new Set()
