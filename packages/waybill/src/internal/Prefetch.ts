/**
 * The deliveries that a consumer has taken and no worker has begun, and how many more to take. Holds at most `window
 * + prefetch` deliveries and `bytes` bytes, including those of the workers. Deliveries that no worker gets to are
 * released, so that other consumers of the group may have them.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type { Delivery, Handle } from "../Delivery.ts"
import type { TransportError } from "../Transport.ts"
import { unitsOf } from "./Budget.ts"
import type { ConsumerMetrics } from "./ConsumerMetrics.ts"
import { everything } from "./Recalls.ts"
import { Wakeup } from "./Wakeup.ts"

export interface Options {
  /** How many deliveries handlers may have at a time. */
  readonly window: number
  /** The most to take ahead of the handlers, which is also what it begins with. */
  readonly prefetch: number
  readonly initial: number
  readonly bytes: number
  readonly lease: Duration.Duration
  readonly metrics: Pick<ConsumerMetrics, "received" | "buffered" | "waitingTime">
  /** Sends deliveries back to the store, unbegun. */
  readonly release: (deliveries: ReadonlyArray<Delivery>) => void
}

type Take = (max: number, bytes: number) => Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError>

const maxTake = 1000

/** Below this size, overlapping is not worth it. */
const small = 100

/**
 * Deliveries that the workers do not get to within about this time were too many to take ahead: others could have had
 * them.
 */
const lingerMillis = 200

/** The longest timer that runtimes support. */
const longestSleep = 24 * 60 * 60 * 1000

export class Prefetch {
  readonly #options: Options
  #buffer: ReadonlyArray<Delivery> = []
  #next = 0
  /** Taken but not settled: buffered, in a handler, or waiting to be settled. */
  #held = 0
  #heldBytes = 0
  /** How many to take ahead of the workers. Doubles while they starve, and follows their pace while deliveries pile up. */
  #ahead: number
  #filledAt = 0
  /** How many were pulled since `#since`. */
  #pulled = 0
  #measuredAt = 0
  #pulledAt = 0
  /** How far into the buffer waiting times have been counted. */
  #waited = 0
  /** This consumer's share of the gauge, which other consumers of the group add to. */
  #shown = 0
  /** How many the pending take asked for. */
  #asked = 0
  /** The workers were slower than expected when that was last looked at. */
  #slow = false
  #fetcher: Fiber.Fiber<never, TransportError> | undefined
  #retreating = false
  #closed = false
  readonly #parked: Array<() => void> = []
  readonly #room = new Wakeup(() => this.wanted > 0)
  readonly #some = new Wakeup(() => this.size > 0)

  constructor(options: Options) {
    this.#options = options
    this.#ahead = Math.min(options.initial, options.prefetch)
  }

  /** How many are buffered. */
  get size(): number {
    return this.#buffer.length - this.#next
  }

  /** Nothing new is begun any more. */
  get closed(): boolean {
    return this.#closed
  }

  /**
   * How many may be taken now; none while the buffer is still well filled. At most a third of all that may be held: while the
   * store brings some, the workers have others, and those before are being settled.
   */
  get wanted(): number {
    const { bytes, window } = this.#options
    const { size } = this
    if (size > this.#ahead >> 1) return 0
    // A message larger than the limit is held alone.
    if (this.#held > 0 && this.#heldBytes > (size > 0 ? bytes >> 1 : bytes - 1)) return 0
    const most = window + this.#ahead
    return Math.min(most - this.#held, Math.max(small, Math.ceil(most / 3)), maxTake)
  }

  /** The next delivery for a worker, if there is one. */
  pull(at: number): Delivery | undefined {
    if (this.#next >= this.#buffer.length) return undefined
    if (at !== this.#pulledAt) {
      this.#countWaits()
      this.#pulledAt = at
    }
    const delivery = this.#buffer[this.#next++]!
    this.#pulled++
    if (at - this.#measuredAt > lingerMillis) this.#adapt(at)
    if (this.size <= this.#ahead >> 1) this.#room.notify()
    return delivery
  }

  /** Waits until there is something to pull, or nothing more will come. */
  readonly park: Effect.Effect<void> = Effect.callback((resume) => {
    // Like `Wakeup`, but for many fibers.
    if (this.#closed || this.size > 0) return resume(Effect.void)
    const wake = () => resume(Effect.void)
    this.#parked.push(wake)
    return Effect.sync(() => {
      const index = this.#parked.indexOf(wake)
      if (index >= 0) this.#parked.splice(index, 1)
    })
  })

  /** How many to ask for now; the caller adds what arrives. */
  ask(): number {
    return (this.#asked = this.wanted)
  }

  add(batch: ReadonlyArray<Delivery>, now: number): void {
    const { metrics, prefetch } = this.#options
    // More would have been used up as quickly, if these were.
    if (this.size === 0 && batch.length >= this.#asked && now - this.#filledAt <= lingerMillis) {
      this.#ahead = Math.min(prefetch, this.#ahead * 2 + 1)
    }
    this.#asked = 0
    this.#filledAt = now
    this.#held += batch.length
    for (let i = 0; i < batch.length; i++) this.#heldBytes += unitsOf(batch[i]!)
    if (this.size === 0) {
      this.#refill(batch)
      this.#pulled = 0
      this.#measuredAt = now
      this.#some.notify()
    } else {
      this.#refill([...this.#buffer.slice(this.#next), ...batch])
    }
    metrics.received.update(batch.length)
    // The next take is sent first, so that the store works on it while they work on this. Only that: a socket that was read
    // once more before they begin would fill the buffers of subscribers.
    if (batch.length < small) this.#wakeWorkers()
    else queueMicrotask(this.#wakeWorkers)
    this.#show()
  }

  /** A pulled delivery is no longer held, although it was not settled. */
  letGo(delivery: Delivery): void {
    this.#forget(delivery)
    this.#room.notify()
  }

  /** From now on only its handle is held. */
  unloaded(delivery: Delivery): void {
    this.#heldBytes -= unitsOf(delivery)
  }

  /** These were settled: the room they took is free again. */
  settled(endings: ReadonlyArray<readonly [given: Handle | Delivery, unknown]>): void {
    for (let i = 0; i < endings.length; i++) this.#forget(endings[i]![0])
    this.#countWaits()
    this.#show()
    this.#room.notify()
  }

  /** These no longer belong to this consumer. */
  drop(lost: ReadonlySet<Handle>): void {
    const kept: Array<Delivery> = []
    for (const delivery of this.#buffer.slice(this.#next)) {
      if (lost.has(delivery.handle ?? delivery)) this.#forget(delivery)
      else kept.push(delivery)
    }
    this.#refill(kept)
    this.#room.notify()
  }

  /** Takes these out of the buffer. They are held until they are settled. */
  withdraw(some: ReadonlySet<Handle>): ReadonlyArray<Delivery> {
    const kept: Array<Delivery> = []
    const out: Array<Delivery> = []
    for (const delivery of this.#buffer.slice(this.#next)) {
      ;(some.has(delivery.handle ?? delivery) ? out : kept).push(delivery)
    }
    if (out.length > 0) this.#refill(kept)
    return out
  }

  /** Hands back deliveries that are wanted elsewhere. The more often that happens, the fewer are taken ahead. */
  recall(concerns: (delivery: Delivery) => boolean): void {
    if (this.#handBack(concerns)) this.#ahead >>= 1
  }

  /** Takes until that fails. */
  readonly run = (take: Take): Effect.Effect<never, TransportError> =>
    Effect.gen({ self: this }, function* () {
      while (true) {
        this.#fetcher = yield* Effect.forkDetach(this.#fill(take), { startImmediately: true })
        const exit = yield* Fiber.await(this.#fetcher)
        this.#asked = 0
        // A take that was given up is followed by the next.
        if (!this.#retreating || !Exit.isFailure(exit) || !Exit.hasInterrupts(exit)) return yield* exit
        this.#retreating = false
      }
    }).pipe(Effect.onInterrupt(() => (this.#fetcher === undefined ? Effect.void : Fiber.interrupt(this.#fetcher))))

  /** Hands everything back that has waited for a third of a lease while no worker pulled: all workers may hang. */
  readonly tend: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const clock = yield* Clock.Clock
    const lyingMillis = Math.min(longestSleep, Math.ceil(Duration.toMillis(this.#options.lease) / 3))
    while (true) {
      if (this.size === 0) {
        yield* this.#some.wait
        continue
      }
      const left = Math.max(this.#pulledAt, this.#measuredAt) + lyingMillis - clock.currentTimeMillisUnsafe()
      if (left > 0) {
        yield* Effect.sleep(left)
        continue
      }
      this.#ahead = 0
      this.#handBack(everything)
    }
  })

  /** Nothing in the buffer will begin any more; the receiver releases it as it leaves. */
  close(): void {
    this.#closed = true
    this.#refill([])
    this.#show()
    this.#wakeWorkers()
  }

  readonly #fill = (take: Take): Effect.Effect<never, TransportError> =>
    Effect.gen({ self: this }, function* () {
      const clock = yield* Clock.Clock
      while (true) {
        const want = this.ask()
        if (want <= 0) {
          yield* this.#room.wait
          continue
        }
        const batch = yield* take(want, Math.max(1, this.#options.bytes - this.#heldBytes))
        this.add(batch, clock.currentTimeMillisUnsafe())
      }
    })

  readonly #wakeWorkers = (): void => {
    // A resumed worker runs at once, as far as it can: often one of them empties the buffer.
    while (this.#parked.length > 0 && (this.#closed || this.size > 0)) this.#parked.pop()!()
  }

  #forget(given: Handle | Delivery): void {
    this.#held--
    if ("body" in given) this.#heldBytes -= unitsOf(given)
  }

  #refill(deliveries: ReadonlyArray<Delivery>): void {
    this.#countWaits()
    this.#buffer = deliveries
    this.#next = 0
    this.#waited = 0
  }

  /** Takes no more ahead than the workers have lately got to, and hands back what is far more than that. */
  #adapt(now: number): void {
    const pace = Math.floor((this.#pulled * lingerMillis) / (now - this.#measuredAt))
    this.#pulled = 0
    this.#measuredAt = now
    const slow = pace < this.#ahead
    if (slow) this.#ahead = pace
    // Handed back only when slow twice in a row: a process that paused once is not slow, and a take that was under way then
    // has arrived, so that it does not overtake what goes back. A few per worker stay: they are not worth the round trip.
    const kept = 2 * Math.max(this.#options.window, pace)
    if (this.#slow) this.#handBack((_, place) => place >= kept)
    this.#slow = slow
  }

  /**
   * Releases the unbegun deliveries that `concerned` selects. A pending take that asks for more than is wanted now is
   * given up, because it would bring the same ones again. Returns whether there were any.
   */
  #handBack(concerned: (delivery: Delivery, place: number) => boolean): boolean {
    const kept: Array<Delivery> = []
    const back: Array<Delivery> = []
    for (let i = this.#next; i < this.#buffer.length; i++) {
      const delivery = this.#buffer[i]!
      if (concerned(delivery, i - this.#next)) back.push(delivery)
      else kept.push(delivery)
    }
    if (back.length > 0) {
      this.#refill(kept)
      this.#show()
      this.#options.release(back)
    }
    if (this.#asked > Math.max(0, this.wanted) && this.#fetcher !== undefined) {
      this.#retreating = true
      this.#fetcher.interruptUnsafe()
    }
    return back.length > 0
  }

  /**
   * Counts those pulled in the same millisecond together: one by one would cost 5 % of a message whose handler takes
   * no time.
   */
  #countWaits(): void {
    const { waitingTime } = this.#options.metrics
    for (; this.#waited < this.#next; this.#waited++) {
      const { fence, publishedAt } = this.#buffer[this.#waited]!
      // Later deliveries have waited for more than a handler.
      if (fence === 1) waitingTime.add(Math.max(0, this.#pulledAt - publishedAt))
    }
  }

  #show(): void {
    const now = this.size
    if (now !== this.#shown) this.#options.metrics.buffered.modify(now - this.#shown)
    this.#shown = now
  }
}
