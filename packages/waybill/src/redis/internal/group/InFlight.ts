/**
 * The deliveries of a receiver: those waiting to be taken, those taken and not settled, and those lost, with the fibers that wait
 * for any of them. No input or output happens here.
 *
 * A delivery is only handed out while its lease is certain, by the clock of this process. When it is not, because the process
 * stood still, the server has to be asked first.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery, Handle } from "../../../Delivery.ts"
import { fitting } from "../../../internal/Budget.ts"
import { Wakeup } from "../../../internal/Wakeup.ts"
import type { TransportError } from "../../../Transport.ts"
import type { Tally } from "../wire/Tally.ts"

/** What a receiver keeps of a delivery until it is settled, whatever its pattern. */
export interface Held extends Handle {
  readonly publishedAt: number
  /** What was recorded about the message in earlier attempts. */
  readonly tally: Tally
  /** When it was last known to be ours, and when it arrived, by the receiver's clock. */
  renewedAt: number
  readonly takenAt: number
  /** It is being settled: if the server says it is no longer ours, that may be our own doing. */
  settling: boolean
  /** The store has lost it: no other consumer can be given it, and it stays ours. */
  readonly detached?: boolean
  /** Where the message was first, if it has its id to itself until it is settled. */
  readonly first?: string | undefined
  /** The object responsible for it until it is settled or lost, and its neighbours there. */
  holder: object | undefined
  before: this | undefined
  after: this | undefined
}

/** The delivery itself, as it is handed out: only its handler needs to keep it. */
export interface Carrying<H extends Held> extends Delivery {
  readonly handle: H
}

interface Waiter<H extends Held> {
  readonly max: number
  readonly bytes: number
  readonly resume: (effect: Effect.Effect<NonEmptyReadonlyArray<Carrying<H>>, TransportError>) => void
}

export class InFlight<H extends Held> {
  /** The ends of the chain of held deliveries, in order of arrival. A map would cost more than everything else here. */
  #first: H | undefined
  #last: H | undefined
  readonly #waiters: Array<Waiter<H>> = []
  readonly #now: () => number
  readonly #demanded: () => void
  readonly #paused: () => boolean
  /** A tenth less than the lease, for the differences of network and clocks. */
  readonly #sureMillis: number
  #buffer: Array<Carrying<H>> = []
  #failure: TransportError | undefined
  #lost: Array<H> = []
  readonly #someLost = new Wakeup(() => this.#lost.length > 0)
  #cancelled: Array<H> = []
  readonly #someCancelled = new Wakeup(() => this.#cancelled.length > 0)
  readonly #told = new WeakSet<H>()
  #lastTake = { at: -Infinity, max: 0 }
  /** When the last heartbeat that arrived was sent: nothing considers us dead until a lease after it. */
  beatAt = -Infinity
  /** Those whose handlers have ended, and whose settlements have failed. */
  readonly unsettled = new Set<H>()

  /** `demanded` is called when takes wait for more than there is. While it is `paused` nothing is handed out. */
  constructor(options: {
    readonly now: () => number
    readonly leaseMillis: number
    readonly demanded: () => void
    readonly paused: () => boolean
  }) {
    this.#now = options.now
    this.#paused = options.paused
    this.#sureMillis = Math.floor(options.leaseMillis * 0.9)
    this.#demanded = options.demanded
  }

  /** How many deliveries are being waited for. */
  get demand(): number {
    return this.#waiters[0]?.max ?? 0
  }

  /** About how many bytes of them. */
  get demandBytes(): number {
    return this.#waiters[0]?.bytes ?? 0
  }

  get buffered(): number {
    return this.#buffer.length
  }

  /** How many more the consumer could use: it waits for them, or asked for as many less than `millis` ago. */
  wanted(millis: number): number {
    const { at, max } = this.#lastTake
    return Math.max(0, Math.max(this.demand, this.#now() - at < millis ? max : 0) - this.#buffer.length)
  }

  take(max: number, bytes = Infinity): Effect.Effect<NonEmptyReadonlyArray<Carrying<H>>, TransportError> {
    return Effect.withFiber((fiber) => {
      // A fiber that is about to yield may be interrupted there, holding the deliveries.
      if (fiber.currentOpCount + 64 > fiber.cache.maxOpsBeforeYield) {
        return Effect.flatMap(Effect.yieldNow, () => this.take(max, bytes))
      }
      const count = Math.max(1, max)
      this.#lastTake = { at: this.#now(), max: count }
      const failure = this.#failure
      if (failure !== undefined) {
        this.#failure = undefined
        return Exit.fail(failure)
      }
      const taken = this.#waiters.length === 0 ? this.#cut(count, bytes) : undefined
      return taken !== undefined ? Exit.succeed(taken) : this.#wait(count, bytes)
    })
  }

  #wait(max: number, bytes: number): Effect.Effect<NonEmptyReadonlyArray<Carrying<H>>, TransportError> {
    return Effect.callback((resume) => {
      const waiter: Waiter<H> = { max, bytes, resume }
      this.#waiters.push(waiter)
      this.#demanded()
      return Effect.sync(() => {
        const index = this.#waiters.indexOf(waiter)
        if (index >= 0) this.#waiters.splice(index, 1)
      })
    })
  }

  /** Adds deliveries and gives them to waiting takes if they are `offered`. */
  add(deliveries: ReadonlyArray<Carrying<H>>, offered = true): void {
    for (const { handle } of deliveries) {
      handle.holder = this
      handle.before = this.#last
      if (this.#last === undefined) this.#first = handle
      else this.#last.after = handle
      this.#last = handle
    }
    if (!offered) return
    if (this.#buffer.length === 0) this.#buffer = deliveries.slice()
    else this.#buffer.push(...deliveries)
    this.handOut()
  }

  handOut(): void {
    while (this.#waiters.length > 0) {
      const waiter = this.#waiters[0] as Waiter<H> // just checked
      const taken = this.#cut(waiter.max, waiter.bytes)
      if (taken === undefined) return
      this.#waiters.shift()
      // The fiber continues inside this call, as far as it can.
      waiter.resume(Exit.succeed(taken))
    }
  }

  /** The next deliveries, if there are any and they are certainly ours. */
  #cut(max: number, bytes: number): NonEmptyReadonlyArray<Carrying<H>> | undefined {
    const buffer = this.#buffer
    if (buffer.length === 0 || this.#paused()) return undefined
    const since = this.sureSince()
    if (buffer.some(({ handle }) => handle.renewedAt <= since)) return undefined
    const count = fitting(buffer, max, bytes)
    if (count === buffer.length) {
      this.#buffer = []
      return buffer as unknown as NonEmptyReadonlyArray<Carrying<H>> // not empty: just checked
    }
    this.#buffer = buffer.slice(count)
    return buffer.slice(0, count) as unknown as NonEmptyReadonlyArray<Carrying<H>> // count is at least 1
  }

  /** No other consumer can have been given yet what was renewed after this. */
  sureSince(): number {
    const since = this.#now() - this.#sureMillis
    return this.beatAt > since ? since : Infinity
  }

  /** For how many more milliseconds nothing considers us dead, whether or not we are heard. */
  sureFor(): number {
    return this.beatAt + this.#sureMillis - this.#now()
  }

  /** The delivery that is meant, if it is still held; a copy identifies it too. */
  find(given: Handle | Delivery): H | undefined {
    const handle = ("handle" in given ? given.handle : undefined) ?? given
    // Only deliveries given to `add` have this holder.
    if ("holder" in handle) return handle.holder === this ? (handle as H) : undefined
    return this.all().find(({ fence, receipt }) => receipt === handle.receipt && fence === handle.fence)
  }

  /** The delivery is over. */
  forget(handle: H): void {
    if (handle.holder !== this) return
    const { after, before } = handle
    if (before === undefined) this.#first = after
    else before.after = after
    if (after === undefined) this.#last = before
    else after.before = before
    handle.holder = handle.before = handle.after = undefined
    if (this.unsettled.size > 0) this.unsettled.delete(handle)
  }

  all(): Array<H> {
    const all: Array<H> = []
    for (let handle = this.#first; handle !== undefined; handle = handle.after) all.push(handle)
    return all
  }

  /** Those that were handed out. */
  taken(): Array<H> {
    const buffered = new Set(this.#buffer.map(({ handle }) => handle))
    return this.all().filter((handle) => !buffered.has(handle))
  }

  /** How long the oldest delivery has been held, in milliseconds. */
  age(): number | undefined {
    return this.#first === undefined ? undefined : this.#now() - this.#first.takenAt
  }

  /** Takes back everything in the buffer. */
  empty(): ReadonlyArray<Carrying<H>> {
    const buffer = this.#buffer
    this.#buffer = []
    return buffer
  }

  /** Takes back what has waited in the buffer for longer than `millis`: others could have had it. */
  unclaimed(millis: number): ReadonlyArray<Carrying<H>> {
    const limit = this.#now() - millis
    const old = this.#buffer.filter(({ handle }) => handle.takenAt < limit)
    if (old.length > 0) this.#buffer = this.#buffer.filter(({ handle }) => handle.takenAt >= limit)
    return old
  }

  /** These are no longer ours. Returns those that had been handed out. */
  lose(handles: ReadonlyArray<H>): ReadonlyArray<H> {
    for (const handle of handles) this.forget(handle)
    const gone = new Set(handles)
    const unseen = new Set(this.#buffer.map(({ handle }) => handle).filter((handle) => gone.has(handle)))
    if (unseen.size > 0) this.#buffer = this.#buffer.filter(({ handle }) => !gone.has(handle))
    const lost = handles.filter((handle) => !unseen.has(handle))
    if (lost.length > 0) {
      this.#lost.push(...lost)
      this.#someLost.notify()
    }
    return lost
  }

  /** Waits for deliveries that were lost after they had been taken. */
  readonly lost: Effect.Effect<NonEmptyReadonlyArray<H>> = Effect.map(this.#someLost.wait, () => {
    const lost = this.#lost
    this.#lost = []
    return lost as unknown as NonEmptyReadonlyArray<H> // there are some
  })

  /** Those of these receipts that were taken have been cancelled; each is told once. */
  cancel(receipts: ReadonlySet<string>): void {
    for (const handle of this.taken()) {
      if (!receipts.has(handle.receipt) || this.#told.has(handle)) continue
      this.#told.add(handle)
      this.#cancelled.push(handle)
    }
    this.#someCancelled.notify()
  }

  /** Waits for deliveries that were cancelled. */
  readonly cancelled: Effect.Effect<NonEmptyReadonlyArray<H>> = Effect.map(this.#someCancelled.wait, () => {
    const cancelled = this.#cancelled
    this.#cancelled = []
    return cancelled as unknown as NonEmptyReadonlyArray<H> // there are some
  })

  /** Fails the waiting takes; without any, and if the error is worth keeping, the next one. */
  fail(error: TransportError): void {
    if (this.#waiters.length === 0) {
      if (error.reason.permanent) this.#failure = error
      return
    }
    for (const { resume } of this.#waiters.splice(0)) resume(Exit.fail(error))
  }

  /** The problem is over. */
  recover(): void {
    this.#failure = undefined
  }
}
