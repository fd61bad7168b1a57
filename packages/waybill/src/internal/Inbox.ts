/**
 * A subscriber's share of messages that are not stored: a bounded buffer, what waits for its next attempt, and what is
 * in a handler. It never loses anything in silence: what the buffer has no room for is a gap before what follows.
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

/** Messages that are missing in front of another one. */
export type MissingRange = Omit<Gap, "before">

/** One message on its way through one subscriber. Always in this shape: tens of thousands a second are made. */
export class LocalDelivery implements Delivery {
  readonly topic: string
  readonly group: string
  readonly id: string
  readonly body: Body
  readonly headers: Headers
  /** What was published, whatever a handler writes into the body: bytes cannot be frozen, and each subscriber has its own. */
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
  /** Who answers for it, from being taken to being settled. */
  holder: Inbox | undefined
  /** What it was taken with. */
  batch: Batch | undefined
  /** When it arrived, counted; with the fence it names the delivery. */
  number: number
  /** Which batch of dead letters it was sent with. */
  burial: number

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
    this.burial = 0
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
  /** Called with each gap as its delivery is taken; quick, and does not throw. */
  readonly gap: (gap: Gap) => void
  /** Stores dead letters. Repeated with the same ones when the outcome is unknown. */
  readonly bury: (
    letters: NonEmptyReadonlyArray<readonly [copy: LocalDelivery, settlement: DeadLetter]>
  ) => Effect.Effect<void, TransportError>
}

/** Deliveries that were taken at the same time, and how many of them are not settled. */
interface Batch {
  /** In milliseconds since the epoch. */
  readonly takenAt: number
  open: number
}

interface Waiting {
  readonly due: number
  readonly copy: LocalDelivery
}

/** Longer than this no timer of a runtime lasts; who waits longer looks again. */
const longestSleep = 24 * 60 * 60 * 1000

export class Inbox implements Receiver {
  readonly #options: InboxOptions
  readonly #recalls = new Recalls()
  /** What has arrived, from `#first` on. */
  #arrived: Array<LocalDelivery> = []
  #first = 0
  #arrivedBytes = 0
  /** Handed back, and due again: goes out before what is new. */
  #returned: Array<LocalDelivery> = []
  /** In the order in which it is due. */
  readonly #retries: Array<Waiting> = []
  /** Taken and not settled. */
  #held = 0
  /** In the order in which they were taken; those in front may be settled. */
  #batches: Array<Batch> = []
  #numbered = 0
  #takes = 0
  /** Missing in front of the first that has arrived, and behind the last. */
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

  /** Taken and not settled. */
  get pending(): number {
    return this.#held
  }

  /** Since when the oldest of them has been held. */
  get oldestTakenAt(): number | undefined {
    return this.#batches.find(({ open }) => open > 0)?.takenAt
  }

  /** How often something was taken. */
  get takes(): number {
    return this.#takes
  }

  /** More than half of what may wait does wait for a consumer that could take it, or leaves no room for so many bytes. */
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

  /** Whether taking waits although there is something to take. */
  set paused(paused: boolean) {
    this.#paused = paused
    this.#wake()
  }

  readonly recalled: Effect.Effect<Recall> = this.#recalls.next

  /** Asks for everything back that has not begun; returns when nothing of it will. */
  get recall(): Effect.Effect<void> {
    return this.#recalls.ask(everything)
  }

  /** Takes in what has arrived; `missing` is what did not, just before. */
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

  /** Fails who waits, or the next who comes. */
  fail(error: TransportError): void {
    this.#failure = error
    this.#wake()
  }

  /** One message has room in any case. */
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
      // Interrupted between this step and the caller's next one, the fiber would lose what it took: yield before, not there.
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
        // Not empty: just looked.
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
        // Not empty: made with the first.
        this.#options.bury(letters as unknown as NonEmptyReadonlyArray<readonly [LocalDelivery, DeadLetter]>),
        () => this.#end(endings)
      )
    })

  /** There are no leases: no other consumer has ever been given the same delivery. */
  readonly lost: Receiver["lost"] = Effect.never

  /** Gives up everything; answers how many messages are lost with it. */
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
    // In front of what came back before: it was delivered before that.
    if (released.length > 0) this.#returned = [...released, ...this.#returned]
    if (woken) this.#wake()
    return answers
  }

  /** Equal times keep the order in which they came. */
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
    // One note for all that is taken at once: one for each would cost a tenth of what a message costs here.
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

  /** Copying only when half is empty keeps the price of dropping one constant. */
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

  /** Once for everything that arrives in one go: what wakes up takes all of it. */
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

/** Two ranges in a row are one. */
const joined = (a: MissingRange | undefined, b: MissingRange | undefined): MissingRange | undefined => {
  if (a === undefined || b === undefined) return a ?? b
  return {
    missed: a.missed === undefined || b.missed === undefined ? undefined : a.missed + b.missed,
    after: a.after,
    reason: a.reason === b.reason ? a.reason : "disconnected"
  }
}
