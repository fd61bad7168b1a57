/**
 * One consumer group of an in-memory topic: which deliveries are held, which wait for their next attempt, which died.
 * Until it is acked, a message is in exactly one of these places, or still unseen in the source.
 *
 * Everything here is plain state and takes the time as an argument, so a step is atomic and costs no fiber.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Commit, Condition, ConditionFailed } from "../../Commit.ts"
import type { Delivery, Failures, Handle } from "../../Delivery.ts"
import type { ConsumerInfo, GroupInfo, MessageInGroup, PendingMessage, Place, WaitingMessage } from "../../Inspector.ts"
import { consumerDied, noted, read } from "../../internal/Attempts.ts"
import { unitsOf } from "../../internal/Budget.ts"
import { wants } from "../../internal/Filter.ts"
import type { DeadLetterCap } from "../../internal/Limits.ts"
import { plain } from "../../internal/PlainMessage.ts"
import { everything } from "../../internal/Recalls.ts"
import { failuresAfter } from "../../internal/RetryCounts.ts"
import { admits, loadOf, suspicious } from "../../internal/Suspects.ts"
import type { Filter, Message } from "../../Message.ts"
import * as Settlement from "../../Settlement.ts"
import type { ClaimedDeadLetters, DeadLetterClaim, Settled } from "../../Transport.ts"
import { DeadLetters } from "./DeadLetters.ts"
import { DueQueue, wholeMillis } from "./DueQueue.ts"
import { Fifo } from "./Fifo.ts"
import type { Member, Work } from "./Member.ts"
import type { Cursor, Fact, Stored } from "./Source.ts"

/** What a group needs from its topic. */
export interface Home {
  readonly name: string
  readonly nextReceipt: () => string
  /** Reports to the lifecycle once the current step is complete. */
  readonly report: (fact: Fact) => void
  /** Lets every waiting receiver check again once the current step is complete. */
  readonly change: () => void
  /** Opens this latch once the current step is complete. */
  readonly open: (latch: Latch.Latch) => void
  /** This group has settled the message, or a consumer of it has been given it. */
  readonly settled: (message: Stored, group: string) => void
  readonly taken: (message: Stored) => void
  /** Applies the commit of a delivery that is ours. Returns how the delivery ends if it is refused, or that it has not ended. */
  readonly commit: (
    delivery: Delivery,
    commit: Commit<Condition>,
    now: number,
    partial: boolean
  ) => Settlement.DeadLetter | ConditionFailed | undefined
}

export class Group {
  readonly name: string
  readonly #topic: Home
  readonly #cursor: Cursor
  readonly #members = new Set<Member>()
  /**
   * Handed back unfinished, or redriven. Delivered before everything else or, with priorities, before what is not
   * more urgent.
   */
  readonly #returned = new Fifo<Work>()
  /** Those among them that several consumers have died with. */
  readonly #suspects = new Fifo<Work>()
  readonly #retries = new DueQueue<Work>()
  readonly #deadLetters: DeadLetters
  #deadLettered: Latch.Latch | undefined
  #retryTurn = true
  /** How many bytes the current take may still bring. */
  #room = 0
  /** Expired before a handler saw them, and not reported yet. */
  #missed = 0
  #lastId: string | undefined
  /** When and why a message was last set aside. */
  #newer = { at: -Infinity, cause: "" }
  /** When the last member left. */
  #left = -Infinity
  paused = false
  /** Which messages it wants. */
  only: Filter | undefined = undefined

  constructor(topic: Home, name: string, cursor: Cursor, deadLetters: DeadLetterCap) {
    this.#topic = topic
    this.name = name
    this.#cursor = cursor
    this.#deadLetters = new DeadLetters(deadLetters)
  }

  get isEmpty(): boolean {
    return this.#members.size === 0
  }

  join(member: Member): void {
    this.#members.add(member)
  }

  /** The member's held deliveries go back, in the order they were delivered. */
  leave(member: Member, now: number): void {
    this.#members.delete(member)
    this.#left = now
    member.recalls.close()
    const works = [...member.held.values()]
    for (const work of works) work.attempt--
    this.#returnAll(works)
    member.held.clear()
    member.suspects.clear()
  }

  /** Forgets everything that no member holds. */
  purge(): void {
    for (const fifo of [this.#returned, this.#suspects]) while (fifo.shift() !== undefined);
    while (this.#retries.shift(Infinity) !== undefined);
    this.#cursor.skip()
  }

  /** The messages that it has yet to settle. */
  *open(): Iterable<Stored> {
    for (const { held } of this.#members) for (const { message } of held.values()) yield message
    for (const { message } of this.#returned.entries()) yield message
    for (const { message } of this.#suspects.entries()) yield message
    for (const [, { message }] of this.#retries.entries()) yield message
    yield* this.#cursor.unseen()
  }

  /**
   * Moves to another place. Messages that come again from there are no longer held by dead members, nor among those handed back;
   * retries that wait come as well.
   */
  move(to: Place): void {
    const again = this.#cursor.move?.(to)
    if (again === undefined) return
    for (const member of this.#members) {
      for (const [receipt, work] of member.held) {
        if (!again.has(work.message)) continue
        if (work.delivery !== undefined) member.lost.add(work.delivery)
        member.held.delete(receipt)
        this.#leaveSource(work)
      }
      this.#topic.open(member.lost.some)
    }
    for (const fifo of [this.#returned, this.#suspects]) {
      const works = fifo.entries()
      while (fifo.shift() !== undefined);
      for (const work of works) if (!again.has(work.message)) fifo.push(work)
    }
  }

  /** Ends the group: nothing of it is left, and consumers that held a delivery have lost it. */
  retire(): void {
    const works: Array<Work> = []
    for (const member of this.#members) {
      for (const work of member.held.values()) {
        if (work.delivery !== undefined) member.lost.add(work.delivery)
        works.push(work)
      }
      member.held.clear()
      this.#topic.open(member.lost.some)
    }
    this.#members.clear()
    works.push(
      ...this.#returned.entries(),
      ...this.#suspects.entries(),
      ...this.#retries.entries().map(([, work]) => work)
    )
    for (const work of works) this.#leaveSource(work)
    this.#cursor.close(works.map(({ message }) => message))
  }

  /** A frozen member neither takes nor renews. */
  freeze(member: Member, since: number | undefined): void {
    member.frozenSince = since
    this.#topic.change()
  }

  /**
   * Takes back deliveries whose lease has expired, counting the attempt. A message that too many consumers died with is
   * dead-lettered. Returns whether there were any.
   */
  reclaim(member: Member, now: number): boolean {
    if (!this.#mayTake(member)) return false
    const from: Array<string> = []
    let count = 0
    for (const frozen of this.#members) {
      if (frozen.held.size === 0 || frozen.expiresAt() > now) continue
      from.push(frozen.consumer)
      count += frozen.held.size
      for (const work of frozen.held.values()) {
        if (work.delivery !== undefined) frozen.lost.add(work.delivery)
        work.deaths++
        work.log = noted(work.log, work.attempt, frozen.consumer, died, now)
        if (work.deaths >= member.maxDeliveries) this.#deadLetterUnseen(work, now)
      }
      this.#returnAll([...frozen.held.values()].filter((work) => work.deaths < member.maxDeliveries))
      frozen.held.clear()
      frozen.suspects.clear()
      this.#topic.open(frozen.lost.some)
    }
    if (count > 0) this.#topic.report({ _tag: "Claimed", topic: this.#topic.name, group: this.name, from, count })
    return count > 0
  }

  /** At most `max` deliveries for this member, of about `bytes` bytes; none if nothing is available to it now. */
  take(member: Member, max: number, bytes: number, now: number): Array<Delivery> {
    const out: Array<Delivery> = []
    this.#room = bytes
    if (!this.#mayTake(member)) return out
    const { urgencyOf } = this.#cursor
    if (urgencyOf !== undefined) this.#promote(now)
    this.#takeSuspects(member, max, now, out)
    if (urgencyOf !== undefined) {
      this.#takeUrgent(member, max, urgencyOf, now, out)
      // Some of the due messages may be among them.
      this.#takeSuspects(member, max, now, out)
      return out
    }
    while (out.length < max && this.#room > 0) {
      const work = this.#returned.shift()
      if (work === undefined) break
      this.#deliver(work, member, now, out)
    }
    // A backlog must not hold up due retries, nor a message that fails in a tight loop everything else.
    const room = max - out.length
    this.#retryTurn = !this.#retryTurn
    const share = this.#cursor.lag === 0 ? room : room === 1 ? Number(this.#retryTurn) : room >> 1
    this.#takeRetries(member, out.length + share, now, out)
    this.#takeNew(member, max, now, out)
    this.#takeRetries(member, max, now, out)
    // Some of the due messages may be among them.
    this.#takeSuspects(member, max, now, out)
    return out
  }

  /** Something has arrived that may be more urgent than what members have not begun. */
  stir(message: Stored): void {
    const { urgencyOf } = this.#cursor
    if (urgencyOf === undefined || this.paused) return
    const urgency = urgencyOf(message)
    for (const { held, recalls } of this.#members) {
      recalls.stir(urgency, ({ receipt }) => {
        const work = held.get(receipt)
        return work === undefined ? 0 : urgencyOf(work.message)
      })
    }
  }

  /** Asks members for deliveries they have not begun; returns once none of them will begin. */
  get quiet(): Effect.Effect<void> {
    return Effect.forEach(this.#members, ({ recalls }) => recalls.ask(everything), {
      concurrency: "unbounded",
      discard: true
    })
  }

  settle(member: Member, handle: Handle, told: Settlement.Settlement, now: number): Settled {
    const work = member.held.get(handle.receipt)
    if (work === undefined) return "Stale"
    const settlement = work.cancelledAt !== undefined && told._tag === "Retry" ? Settlement.cancelled : told
    const refused =
      settlement._tag === "Ack" && settlement.commit !== undefined && work.delivery !== undefined
        ? this.#topic.commit(work.delivery, settlement.commit, now, work.partial)
        : undefined
    if (refused?._tag === "ConditionFailed") return refused
    member.held.delete(handle.receipt)
    if (member.suspects.delete(work) && this.#suspects.length > 0) this.#topic.change()
    switch (settlement._tag) {
      case "Ack": {
        if (refused !== undefined) {
          if (refused.reason === "PartialCommit") work.partial = true
          work.log = noted(work.log, work.attempt, member.consumer, refused, now)
          this.#deadLetter(work, refused, now)
          return refused
        }
        this.#leaveSource(work)
        this.#topic.settled(work.message, this.name)
        break
      }
      case "Retry":
        this.#leaveSource(work)
        if (settlement.newerThan === undefined) {
          work.log = noted(work.log, work.attempt, member.consumer, settlement, now)
        } else {
          work.attempt--
          this.#newer = { at: now, cause: settlement.cause }
        }
        work.cause = settlement.cause
        work.failures = failuresAfter(work.failures, settlement)
        this.#retries.push(wholeMillis(now + Duration.toMillis(settlement.delay)), work)
        this.#topic.change()
        break
      case "DeadLetter":
        work.log = noted(work.log, work.attempt, member.consumer, settlement, now)
        this.#deadLetter(work, settlement, now)
        break
      case "Release":
        this.#release(work)
        break
    }
    return "Settled"
  }

  redrive(entries: ReadonlyArray<string>, now: number): number {
    this.#expire(now)
    const back: Array<Work> = []
    for (const entry of entries) {
      const found = this.#deadLetters.take(entry)
      if (found === undefined) continue
      const { id, body, headers, key, version, publishedAt } = found.letter
      const work: Work = {
        // A redriven message is meant to be seen: it does not expire.
        message: { id, body, headers, key, version, publishedAt, storedAt: now, open: 0, expiresAt: undefined },
        kept: undefined,
        attempt: 0,
        fence: found.fence,
        deaths: 0,
        cause: "",
        log: "",
        failures: unfailed,
        partial: found.partial,
        delivery: undefined,
        deliveredAt: 0
      }
      this.#putBack(work, false)
      back.push(work)
    }
    if (back.length > 0) this.#topic.change()
    for (const { message } of back) this.stir(message)
    return back.length
  }

  discard(entries: ReadonlyArray<string>, now: number): number {
    this.#expire(now)
    let count = 0
    for (const entry of entries) if (this.#deadLetters.take(entry) !== undefined) count++
    return count
  }

  /** Deliveries that members hold, the longest held first. */
  pending(now: number): ReadonlyArray<PendingMessage> {
    const pending: Array<PendingMessage> = []
    for (const { consumer, held } of this.#members) {
      for (const [position, { attempt, deliveredAt, message }] of held) {
        pending.push({ ...plain(message), position, consumer, attempt, heldMillis: now - deliveredAt })
      }
    }
    return pending.sort((a, b) => b.heldMillis - a.heldMillis)
  }

  /** Messages waiting for their next attempt, starting with those that may be taken at once. */
  waiting(now: number): ReadonlyArray<WaitingMessage> {
    const of = (dueAt: number, { attempt, cause, fence, log, message }: Work): WaitingMessage => ({
      ...plain(message),
      // No two messages of a group share both, unless the caller chose ids that are not unique.
      position: `${fence}:${message.id}`,
      attempts: attempt,
      dueAt,
      dueInMillis: Math.max(0, dueAt - now),
      cause,
      attemptLog: read(log)
    })
    return [
      ...[...this.#suspects.entries(), ...this.#returned.entries()].map((work) => of(now, work)),
      ...this.#retries.entries().map(([due, work]) => of(due, work))
    ]
  }

  deadLetters(after: string | undefined, limit: number, now: number) {
    this.#expire(now)
    return this.#deadLetters.page(after, limit)
  }

  /** When hooks have something to claim: a time in the past if they have it now. */
  unclaimedAt(now: number): number {
    this.#expire(now)
    return this.#deadLetters.unclaimedAt
  }

  /** Opens at the next dead letter. */
  get deadLettered(): Latch.Latch {
    return (this.#deadLettered ??= Latch.makeUnsafe())
  }

  claimDeadLetters(claim: DeadLetterClaim, now: number): ClaimedDeadLetters {
    this.#expire(now)
    return this.#deadLetters.claim(claim, now)
  }

  /** Where the message with this id is in the group, and the message, unless the group has settled it or not seen it yet. */
  locate(id: string, now: number): readonly [MessageInGroup, Message] | undefined {
    const group = this.name
    for (const { consumer, held } of this.#members) {
      for (const { attempt, deliveredAt, log, message } of held.values()) {
        if (message.id !== id) continue
        const pending = { _tag: "Pending", group, consumer, attempt, heldMillis: now - deliveredAt } as const
        return [{ ...pending, attemptLog: read(log) }, message]
      }
    }
    const waiting = this.waiting(now).find((message) => message.id === id)
    if (waiting !== undefined) {
      const { attemptLog, attempts, cause, dueAt, dueInMillis } = waiting
      return [{ _tag: "Waiting", group, attempts, dueAt, dueInMillis, cause, attemptLog }, waiting]
    }
    this.#expire(now)
    const deadLetter = this.#deadLetters.find(id)
    return deadLetter && [{ _tag: "Dead", group, deadLetter }, deadLetter]
  }

  /** Tells the member that holds the message that it is cancelled; returns whether one does. */
  cancel(id: string, now: number): boolean {
    for (const member of this.#members) {
      for (const work of member.held.values()) {
        if (work.message.id !== id || work.delivery === undefined) continue
        work.cancelledAt = now
        member.cancelled.add(work.delivery)
        this.#topic.open(member.cancelled.some)
        return true
      }
    }
    return false
  }

  /** Deletes the message wherever the group keeps it itself; none of its consumers holds it. */
  removeMessage(id: string): void {
    for (const queue of [this.#returned, this.#suspects]) {
      for (const work of queue.entries()) if (work.message.id === id) queue.remove(work)
    }
    this.#retries.remove(({ message }) => message.id === id)
    const letter = this.#deadLetters.find(id)
    if (letter !== undefined) this.#deadLetters.take(letter.entry)
  }

  /** Makes the message due then, if it waits; returns whether it does. */
  reschedule(id: string, at: number, now: number): boolean {
    const waits = this.#retries.remove(({ message }) => message.id === id)
    for (const [, work] of waits) this.#retries.push(wholeMillis(Math.max(at, now)), work)
    const isBack = [...this.#returned.entries(), ...this.#suspects.entries()].some(({ message }) => message.id === id)
    return waits.length > 0 || (at <= now && isBack)
  }

  /** Sorts the message by its urgency, which has changed, among those that came back. */
  resort(message: Stored): void {
    const work = this.#returned.entries().find((work) => work.message === message)
    if (work === undefined) return
    this.#returned.remove(work)
    this.#putBack(work, false)
  }

  /** The message with this id that the group has yet to settle. */
  find(id: string): Stored | undefined {
    for (const message of this.open()) if (message.id === id) return message
    return undefined
  }

  /**
   * When something may become available to this member without an action of others; a paused member waits to be
   * resumed.
   */
  nextDue(waiting: Member): number {
    if (!this.#mayTake(waiting)) return Infinity
    let due = this.#retries.nextDue ?? Infinity
    for (const member of this.#members) if (member.held.size > 0) due = Math.min(due, member.expiresAt())
    return due
  }

  describe(now: number): GroupInfo {
    this.#expire(now)
    const consumers: Array<ConsumerInfo> = []
    let pending = 0
    let oldest = now
    let lived = this.#left
    for (const member of this.#members) {
      lived = Math.max(lived, member.expiresAt())
      pending += member.held.size
      // The first one held is the one delivered first.
      for (const work of member.held.values()) {
        oldest = Math.min(oldest, work.deliveredAt)
        break
      }
      const left = member.expiresAt() - now
      if (left <= 0) continue
      const leaseLeftMillis = left === Infinity ? undefined : left
      consumers.push({ consumer: member.consumer, pending: member.held.size, leaseLeftMillis })
    }
    const returned = this.#returned.length + this.#suspects.length
    return {
      group: this.name,
      lag: this.#cursor.lag,
      reached: this.#cursor.reached,
      pending,
      oldestPendingMillis: now - oldest,
      waiting: returned + this.#retries.length,
      nextRetryAt: returned > 0 ? now : this.#retries.nextDue,
      deadLetters: this.#deadLetters.size,
      deadLettersDropped: this.#deadLetters.dropped,
      paused: this.paused,
      ...(now - this.#newer.at < 120_000 && { newer: this.#newer.cause }),
      ...(consumers.length === 0 && lived > -Infinity && { unattendedMillis: now - lived }),
      consumers
    }
  }

  #deliver(work: Work, member: Member, now: number, out: Array<Delivery>): void {
    const { expiresAt } = work.message
    if (expiresAt !== undefined && expiresAt <= now) {
      this.#leaveSource(work)
      this.#topic.settled(work.message, this.name)
      this.#missed++
      return
    }
    const { id, body, headers, key, version, publishedAt } = work.message
    let delivery: Delivery = {
      id,
      body,
      headers,
      key,
      version,
      publishedAt,
      topic: this.#topic.name,
      group: this.name,
      attempt: ++work.attempt,
      failures: work.failures,
      fence: ++work.fence,
      receipt: this.#topic.nextReceipt()
    }
    this.#topic.taken(work.message)
    if (this.#missed > 0) delivery = this.#afterGap(delivery, member)
    this.#lastId = id
    work.delivery = delivery
    work.deliveredAt = now
    member.held.set(delivery.receipt, work)
    this.#room -= unitsOf(work.message)
    out.push(delivery)
  }

  #afterGap(delivery: Delivery, { consumer }: Member): Delivery {
    const gap = { missed: this.#missed, after: this.#lastId, before: delivery.id, reason: "expired" } as const
    this.#missed = 0
    this.#topic.report({ _tag: "Gap", topic: this.#topic.name, group: this.name, consumer, gap })
    return { ...delivery, gap }
  }

  /** Messages that are due for their next attempt join those that came back. */
  #promote(now: number): void {
    for (let due = this.#retries.shift(now); due !== undefined; due = this.#retries.shift(now)) {
      if (due.deaths < suspicious) this.#putBack(due, false)
      else this.#suspects.push(due)
    }
  }

  /** By urgency, then by age. */
  #takeUrgent(
    member: Member,
    max: number,
    urgencyOf: (message: Stored) => number,
    now: number,
    out: Array<Delivery>
  ): void {
    while (out.length < max && this.#room > 0) {
      const back = this.#returned.peek()
      const message = this.#cursor.next(back === undefined ? undefined : urgencyOf(back.message) - 1)
      if (message !== undefined) this.#deliver(newWork(message, now), member, now, out)
      else if (back === undefined) return
      else this.#deliver(this.#returned.shift() ?? back, member, now, out)
    }
  }

  /** Before or behind everything that waits; with priorities, among messages of the same urgency and age. */
  #putBack(work: Work, front: boolean): void {
    const { urgencyOf } = this.#cursor
    const returned = this.#returned
    let place = front ? 0 : returned.length
    if (urgencyOf !== undefined) {
      const order = ({ message }: Work) => [urgencyOf(message), message.publishedAt] as const
      const [urgency, age] = order(work)
      place = returned.entries().findIndex((other) => {
        const [otherUrgency, otherAge] = order(other)
        if (otherUrgency !== urgency) return otherUrgency > urgency
        return front ? otherAge >= age : otherAge > age
      })
      if (place < 0) place = returned.length
    }
    returned.insert(place, work)
  }

  #takeNew(member: Member, max: number, now: number, out: Array<Delivery>): void {
    this.#missed += this.#cursor.missed(now)
    while (out.length < max && this.#room > 0) {
      const message = this.#cursor.next()
      if (message === undefined) return
      if (wants(this.only, message)) this.#deliver(newWork(message, now), member, now, out)
      else {
        this.#cursor.settled(message)
        this.#topic.settled(message, this.name)
      }
    }
  }

  #takeRetries(member: Member, upTo: number, now: number, out: Array<Delivery>): void {
    while (out.length < upTo && this.#room > 0) {
      const work = this.#retries.shift(now)
      if (work === undefined) return
      if (work.deaths < suspicious) this.#deliver(work, member, now, out)
      else this.#suspects.push(work)
    }
  }

  #takeSuspects(member: Member, max: number, now: number, out: Array<Delivery>): void {
    for (let work = this.#suspects.peek(); work !== undefined && out.length < max; work = this.#suspects.peek()) {
      const load = loadOf(deathsOf(member.suspects), member.maxDeliveries)
      if (!admits(load, work.deaths, member.maxDeliveries)) return
      this.#suspects.shift()
      this.#deliver(work, member, now, out)
      if (work.delivery !== undefined && member.held.get(work.delivery.receipt) === work) member.suspects.add(work)
    }
  }

  #mayTake(member: Member): boolean {
    return !this.paused && member.frozenSince === undefined && this.#members.has(member)
  }

  #release(work: Work): void {
    work.attempt--
    this.#return(work)
  }

  /** In the order they were delivered. */
  #returnAll(works: ReadonlyArray<Work>): void {
    for (const work of works) if (work.deaths >= suspicious) this.#return(work)
    for (const work of works.toReversed()) if (work.deaths < suspicious) this.#return(work)
  }

  #return(work: Work): void {
    if (work.cancelledAt !== undefined) return this.#deadLetterUnseen(work, work.cancelledAt, Settlement.cancelled)
    this.#leaveSource(work)
    if (work.deaths < suspicious) this.#putBack(work, true)
    else this.#suspects.push(work)
    this.#topic.change()
  }

  #leaveSource(work: Work): void {
    if (work.kept === undefined) return
    this.#cursor.settled(work.kept)
    work.kept = undefined
  }

  #deadLetter(work: Work, { cause, failure, reason }: Settlement.DeadLetter, now: number): void {
    this.#leaveSource(work)
    this.#topic.settled(work.message, this.name)
    const { id, body, headers, key, version, publishedAt } = work.message
    const topic = this.#topic.name
    const letter = { id, body, headers, key, version, publishedAt, topic, group: this.name }
    const end = {
      reason,
      cause,
      ...(failure && { failure }),
      attempts: work.attempt,
      attemptLog: read(work.log),
      diedAt: now
    }
    this.#tellDropped(this.#deadLetters.add({ ...letter, ...end }, work.fence, work.partial))
    if (this.#deadLettered === undefined) return
    this.#topic.open(this.#deadLettered)
    this.#deadLettered = undefined
  }

  #expire(now: number): void {
    this.#tellDropped(this.#deadLetters.expire(now))
  }

  #tellDropped(count: number): void {
    const topic = this.#topic.name
    if (count > 0) this.#topic.report({ _tag: "DeadLettersDropped", topic, group: this.name, count })
  }

  /** No consumer settles it, so it is reported here. */
  #deadLetterUnseen(work: Work, now: number, settlement = crashed(work)): void {
    this.#deadLetter(work, settlement, now)
    if (work.delivery === undefined) return
    const { topic, group } = work.delivery
    this.#topic.report({ _tag: "Settled", topic, group, delivery: work.delivery, settlement, stale: false })
  }
}

const crashed = ({ deaths }: Work): Settlement.DeadLetter =>
  Settlement.deadLetter("CrashLoop", `${deaths} consumers died while they held this message`)

/** How an attempt ends that a consumer had begun when it died. */
const died = Settlement.retry(Duration.zero, "", undefined, consumerDied)

const newWork = (message: Stored, now: number): Work => ({
  message,
  kept: message,
  attempt: 0,
  fence: 0,
  deaths: 0,
  cause: "",
  log: "",
  failures: unfailed,
  partial: false,
  delivery: undefined,
  deliveredAt: now
})

/** No row has retried it yet. */
const unfailed: ReadonlyMap<string, Failures> = new Map()

function* deathsOf(works: Iterable<Work>) {
  for (const { deaths } of works) yield deaths
}
