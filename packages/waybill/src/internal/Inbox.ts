/**
 * A subscriber's share of messages that are not stored: a bounded buffer, messages waiting for their next attempt,
 * and those being handled. Loses nothing silently: what the buffer cannot hold becomes a gap before the next message.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery, Failures, Handle } from "../Delivery.ts"
import type { Gap } from "../Gap.ts"
import type { Body, Headers, Message } from "../Message.ts"
import type { DeadLetter } from "../Settlement.ts"
import { type Ending, Overflow, type Recall, type Receiver, type Settled, TransportError } from "../Transport.ts"
import { noted } from "./Attempts.ts"
import { fitting, unitsOf } from "./Budget.ts"
import { everything, Recalls } from "./Recalls.ts"
import { failuresAfter } from "./RetryCounts.ts"

/** No row has retried it yet. */
const unfailed: ReadonlyMap<string, Failures> = new Map()

/** Messages missing before another one. */
export type MissingRange = Omit<Gap, "before">

/** One message on its way through one subscriber. Always of this shape: tens of thousands are made per second. */
export class LocalDelivery implements Delivery {
  readonly topic: string
  readonly group: string
  readonly id: string
  readonly body: Body
  readonly headers: Headers
  /**
   * The message as published, whatever a handler writes into the body: bytes cannot be frozen, so each subscriber has
   * its own.
   */
  readonly published: Pick<Message, "body" | "headers">
  readonly key: string | undefined
  readonly version: number
  readonly publishedAt: number
  attempt: number
  failures: ReadonlyMap<string, Failures> | undefined
  /** Its attempts so far (Attempts.ts). */
  log: string
  fence: number
  gap: Gap | undefined
  /** The inbox responsible for it, from being taken to being settled. */
  holder: Inbox | undefined
  /** The batch it was taken with. */
  batch: Batch | undefined
  /** Its number in order of arrival; together with the fence it names the delivery. */
  number: number
  /** The batch of dead letters that it was sent with. */
  letterBatch: number

  constructor(
    topic: string,
    group: string,
    id: string,
    published: Pick<Message, "body" | "headers">,
    key: string | undefined,
    version: number,
    publishedAt: number,
    fence: number
  ) {
    const { body, headers } = published
    this.topic = topic
    this.group = group
    this.id = id
    this.body = typeof body === "string" ? body : body.slice()
    this.headers = headers
    this.published = published
    this.key = key
    this.version = version
    this.publishedAt = publishedAt
    this.attempt = 1
    this.failures = unfailed
    this.log = ""
    this.fence = fence
    this.gap = undefined
    this.holder = undefined
    this.batch = undefined
    this.number = 0
    this.letterBatch = 0
  }

  get receipt(): string {
    return `${this.number}:${this.fence}`
  }

  /** The next delivery of the same message. */
  again(attempt: number): LocalDelivery {
    const { gap, group, id, key, number, published, publishedAt, topic, version } = this
    const copy = new LocalDelivery(topic, group, id, published, key, version, publishedAt, this.fence + 1)
    copy.attempt = attempt
    copy.failures = this.failures
    copy.log = this.log
    copy.gap = gap
    copy.number = number
    return copy
  }
}

export interface InboxOptions {
  readonly topic: string
  readonly group: string
  readonly consumer: string
  /** How many messages may wait for the consumer to take them, and how many bytes of them. */
  readonly capacity: number
  readonly capacityBytes: number
  readonly overflow: "drop-oldest" | "drop-newest" | "fail"
  readonly clock: Clock.Clock
  /** Called with each gap as its delivery is taken. Must be quick and must not throw. */
  readonly gap: (gap: Gap) => void
  /** Stores dead letters. Repeated with the same ones when the outcome is unknown. */
  readonly deadLetter: (
    letters: NonEmptyReadonlyArray<readonly [copy: LocalDelivery, settlement: DeadLetter]>
  ) => Effect.Effect<void, TransportError>
}

/** Deliveries that were taken together, and how many of them are unsettled. */
interface Batch {
  /** In milliseconds since the epoch. */
  readonly takenAt: number
  open: number
}

interface Waiting {
  readonly due: number
  readonly copy: LocalDelivery
}

/** The longest timer that runtimes support; longer waits are repeated. */
const longestSleep = 24 * 60 * 60 * 1000

export class Inbox implements Receiver {
  readonly #options: InboxOptions
  readonly #recalls = new Recalls()
  /** Arrived messages, starting at `#first`. */
  #arrived: Array<LocalDelivery> = []
  #first = 0
  #arrivedBytes = 0
  /** Handed back, or due again: delivered before new messages. */
  #returned: Array<LocalDelivery> = []
  /** Ordered by due time. */
  readonly #retries: Array<Waiting> = []
  /** Taken but not settled. */
  #held = 0
  /** Ordered by when they were taken; the first ones may be settled. */
  #batches: Array<Batch> = []
  #numbered = 0
  #takes = 0
  /** Missing before the first message that arrived, and after the last. */
  #before: MissingRange | undefined
  #behind: MissingRange | undefined
  #lastTaken: string | undefined
  #failure: TransportError | undefined
  #paused = false
  #waiters: Array<() => void> = []
  #waking = false

  constructor(options: InboxOptions) {
    this.#options = options
  }

  get consumer(): string {
    return this.#options.consumer
  }

  /** Taken but not settled. */
  get pending(): number {
    return this.#held
  }

  /** Since when the oldest of them has been held. */
  get oldestTakenAt(): number | undefined {
    return this.#batches.find(({ open }) => open > 0)?.takenAt
  }

  /** How many times messages were taken. */
  get takes(): number {
    return this.#takes
  }

  /** Whether the buffer is more than half full for a consumer that could take from it, or has no room for so many bytes. */
  isCrowdedFor(bytes: number): boolean {
    const { capacity, capacityBytes } = this.#options
    const count = this.#arrived.length - this.#first
    if (this.#paused || count === 0) return false
    return 2 * count > capacity || this.#arrivedBytes + Math.max(bytes, this.#arrivedBytes) > capacityBytes
  }

  /** Waiting for its next attempt. */
  get waiting(): number {
    return this.#retries.length + this.#returned.length
  }

  get nextDue(): number | undefined {
    return this.#retries[0]?.due
  }

  /** Whether taking waits even if there is something to take. */
  set paused(paused: boolean) {
    this.#paused = paused
    this.#wake()
  }

  readonly recalled: Effect.Effect<Recall> = this.#recalls.next

  /** Asks for everything back that has not begun; returns once none of it will. */
  get recall(): Effect.Effect<void> {
    return this.#recalls.ask(everything)
  }

  /** Adds an arrived message; `missing` describes those missing just before it. */
  add(copy: LocalDelivery, missing?: MissingRange): void {
    const { overflow } = this.#options
    copy.number = ++this.#numbered
    let range = missing
    const size = unitsOf(copy)
    while (this.#isFull(size)) {
      if (overflow === "fail") {
        const reason = new Overflow({ capacity: this.#arrived.length - this.#first })
        return this.fail(new TransportError({ operation: "receive", topic: this.#options.topic, reason }))
      }
      if (overflow === "drop-newest") {
        const after = this.#arrived.at(-1)?.id
        this.#behind = joined(joined(this.#behind, missing), { missed: 1, after, reason: "overflow" })
        return
      }
      const oldest = this.#arrived[this.#first++] as LocalDelivery // it is full
      this.#arrivedBytes -= unitsOf(oldest)
      const dropped: MissingRange = { missed: 1, after: this.#lastTaken, reason: "overflow" }
      this.#before = joined(joined(this.#before, oldest.gap), dropped)
      this.#compact()
    }
    if (this.#behind !== undefined) {
      range = joined(this.#behind, missing)
      this.#behind = undefined
    }
    if (range !== undefined) copy.gap = { ...range, before: copy.id }
    this.#arrived.push(copy)
    this.#arrivedBytes += size
    this.#wake()
  }

  /** Fails the waiting take, or else the next one. */
  fail(error: TransportError): void {
    this.#failure = error
    this.#wake()
  }

  /** A single message always fits. */
  #isFull(size: number): boolean {
    const { capacity, capacityBytes } = this.#options
    const count = this.#arrived.length - this.#first
    return count >= capacity || (count > 0 && this.#arrivedBytes + size > capacityBytes)
  }

  readonly take = (
    max: number,
    bytes = Infinity
  ): Effect.Effect<NonEmptyReadonlyArray<LocalDelivery>, TransportError> =>
    Effect.withFiber((fiber) => {
      // An interruption between this step and the caller's next one would lose the taken messages: yield before, not there.
      if (fiber.currentOpCount + 64 > fiber.cache.maxOpsBeforeYield) {
        return Effect.flatMap(Effect.yieldNow, () => this.take(max, bytes))
      }
      if (this.#failure !== undefined) {
        const failure = this.#failure
        this.#failure = undefined
        return Exit.fail(failure)
      }
      if (!this.#paused) {
        if (this.#retries.length > 0) this.#promote()
        const taken = this.#cut(Math.max(1, max), bytes)
        // Not empty: just checked.
        if (taken.length > 0) return Exit.succeed(taken as unknown as NonEmptyReadonlyArray<LocalDelivery>)
      }
      return Effect.flatMap(this.#change(), () => this.take(max, bytes))
    })

  readonly settle: Receiver["settle"] = (endings) =>
    Effect.suspend(() => {
      let letters: Array<readonly [LocalDelivery, DeadLetter]> | undefined
      for (const [delivery, settlement] of endings) {
        if (settlement._tag !== "DeadLetter" || !this.#holds(delivery)) continue
        letters ??= []
        letters.push([delivery, settlement])
      }
      if (letters === undefined) return Exit.succeed(this.#end(endings))
      return Effect.map(
        // Not empty: created with the first.
        this.#options.deadLetter(letters as unknown as NonEmptyReadonlyArray<readonly [LocalDelivery, DeadLetter]>),
        () => this.#end(endings)
      )
    })

  /** There are no leases: no other consumer is ever given the same delivery. */
  readonly lost: Receiver["lost"] = Effect.never

  /** Gives up everything; returns how many messages are lost. */
  leave(): number {
    this.#recalls.close()
    const count = this.#arrived.length - this.#first + this.#returned.length + this.#retries.length + this.#held
    this.#arrived = []
    this.#first = 0
    this.#arrivedBytes = 0
    this.#returned = []
    this.#retries.length = 0
    this.#held = 0
    this.#batches = []
    return count
  }

  #holds(handle: Handle): handle is LocalDelivery {
    return handle instanceof LocalDelivery && handle.holder === this
  }

  #end(endings: ReadonlyArray<Ending>): Array<Settled> {
    const answers: Array<Settled> = []
    const released: Array<LocalDelivery> = []
    let woken = false
    for (const [delivery, settlement] of endings) {
      if (!this.#holds(delivery)) {
        answers.push("Stale")
        continue
      }
      delivery.holder = undefined
      this.#held--
      if (delivery.batch !== undefined) delivery.batch.open--
      if (settlement._tag === "Retry") {
        const now = this.#options.clock.currentTimeMillisUnsafe()
        const copy = delivery.again(delivery.attempt + 1)
        copy.failures = failuresAfter(delivery.failures, settlement)
        copy.log = noted(delivery.log, delivery.attempt, this.consumer, settlement, now)
        this.#wait(Math.ceil(now + Duration.toMillis(settlement.delay)), copy)
        woken = true
      } else if (settlement._tag === "Release") {
        released.push(delivery.again(delivery.attempt))
        woken = true
      }
      answers.push("Settled")
    }
    // Before what was returned earlier, because it was delivered before that.
    if (released.length > 0) this.#returned = [...released, ...this.#returned]
    if (woken) this.#wake()
    return answers
  }

  /** Equal times keep their order. */
  #wait(due: number, copy: LocalDelivery): void {
    let low = 0
    let high = this.#retries.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#retries[middle]!.due <= due) low = middle + 1
      else high = middle
    }
    this.#retries.splice(low, 0, { due, copy })
  }

  #promote(): void {
    const now = this.#options.clock.currentTimeMillisUnsafe()
    let count = 0
    while (count < this.#retries.length && this.#retries[count]!.due <= now) count++
    for (const { copy } of this.#retries.splice(0, count)) this.#returned.push(copy)
  }

  #cut(max: number, bytes: number): Array<LocalDelivery> {
    let taken: Array<LocalDelivery>
    if (this.#returned.length > 0) {
      taken = this.#returned.splice(0, fitting(this.#returned, max, bytes))
    } else {
      const arrived = this.#arrived
      if (this.#first === 0 && arrived.length <= max && this.#arrivedBytes <= bytes) {
        taken = arrived
        this.#arrived = []
        this.#arrivedBytes = 0
      } else {
        taken = arrived.slice(this.#first, this.#first + max)
        taken.length = fitting(taken, max, bytes)
        for (const copy of taken) this.#arrivedBytes -= unitsOf(copy)
        this.#first += taken.length
        this.#compact()
      }
      const first = taken[0]
      if (first === undefined) return taken
      if (this.#before !== undefined) {
        const range = joined(this.#before, first.gap)
        first.gap = { ...(range as MissingRange), before: first.id } // one of them is there
        this.#before = undefined
      }
      this.#lastTaken = taken[taken.length - 1]!.id
      for (const { gap } of taken) if (gap !== undefined) this.#options.gap(gap)
    }
    this.#takes++
    // One record for the whole batch: one per message would cost a tenth of what a message costs here.
    const batch = { takenAt: this.#options.clock.currentTimeMillisUnsafe(), open: taken.length }
    for (const copy of taken) {
      copy.holder = this
      copy.batch = batch
    }
    this.#held += taken.length
    const open = this.#batches.findIndex((one) => one.open > 0)
    this.#batches = open === 0 ? this.#batches : open < 0 ? [] : this.#batches.slice(open)
    this.#batches.push(batch)
    return taken
  }

  /** Copying only when half is empty keeps dropping at amortised constant cost. */
  #compact(): void {
    if (this.#first < this.#arrived.length && this.#first * 2 < this.#arrived.length) return
    this.#arrived = this.#arrived.slice(this.#first)
    this.#first = 0
  }

  /** Waits until there may be something to take. */
  #change(): Effect.Effect<void> {
    const woken = Effect.callback<void>((resume) => {
      const waiter = () => resume(Effect.void)
      this.#waiters.push(waiter)
      return Effect.sync(() => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter)
      })
    })
    const due = this.#paused ? undefined : this.nextDue
    if (due === undefined) return woken
    const { clock } = this.#options
    const millis = Math.max(1, Math.min(due - clock.currentTimeMillisUnsafe(), longestSleep))
    return Effect.raceFirst(woken, clock.sleep(Duration.millis(millis)))
  }

  /** Once for everything that arrives together: the woken fiber takes all of it. */
  #wake(): void {
    if (this.#waking || this.#waiters.length === 0) return
    this.#waking = true
    queueMicrotask(this.#tell)
  }

  readonly #tell = (): void => {
    this.#waking = false
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) waiter()
  }
}

/** Merges two adjacent ranges. */
const joined = (a: MissingRange | undefined, b: MissingRange | undefined): MissingRange | undefined => {
  if (a === undefined || b === undefined) return a ?? b
  return {
    missed: a.missed === undefined || b.missed === undefined ? undefined : a.missed + b.missed,
    after: a.after,
    reason: a.reason === b.reason ? a.reason : "disconnected"
  }
}
