/**
 * One consumer group of an in-memory stream: who holds what, what waits for its next attempt, what died. A message is
 * in exactly one of these places until it is acked.
 *
 * Everything here is plain state and takes the time as an argument, so a step is atomic and costs no fiber.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Latch from "effect/Latch"
import type { Delivery } from "../Delivery.ts"
import type { ConsumerInfo, GroupInfo } from "../Inspector.ts"
import type { Event } from "../Lifecycle.ts"
import type { Message } from "../Message.ts"
import * as Settlement from "../Settlement.ts"
import type { Settled, Subscription } from "../Transport.ts"
import { type DeadLetterLimits, DeadLetters } from "./DeadLetters.ts"
import { DueQueue, wholeMillis } from "./DueQueue.ts"
import { Fifo } from "./Fifo.ts"

export interface Stored extends Message {
  /** How many groups have not settled it. */
  open: number
}

export type Fact = Exclude<Event, { readonly _tag: "Published" }>

/** What a group needs of the topic it belongs to. */
export interface StreamHome {
  readonly name: string
  readonly log: Fifo<Stored>
  /** A group is done with this message in the log. */
  readonly settled: (message: Stored) => void
  readonly nextReceipt: () => string
  /** Tells the lifecycle, once the present step is complete. */
  readonly report: (fact: Fact) => void
  /** Lets every waiting receiver look again, once the present step is complete. */
  readonly change: () => void
  /** Has this latch opened, once the present step is complete. */
  readonly open: (latch: Latch.Latch) => void
}

/** A message on its way through this group. */
interface Work {
  readonly message: Message
  /** The same message while it still lies in the topic's log for this group. */
  logged: Stored | undefined
  attempt: number
  fence: number
  /** How many consumers died holding it. */
  deaths: number
  delivery: Delivery | undefined
  deliveredAt: number
}

/** A receiver, as its group knows it. */
export class Member {
  readonly consumer: string
  readonly leaseMillis: number
  readonly maxDeliveries: number
  /** By receipt, oldest delivery first. */
  readonly held = new Map<string, Work>()
  /** Since when it renews nothing; `undefined` while it lives. */
  silentSince: number | undefined = undefined
  #lost: Array<Delivery> = []
  #robbed = Latch.makeUnsafe()

  constructor(consumer: string, subscription: Subscription) {
    this.consumer = consumer
    this.leaseMillis = Duration.toMillis(subscription.lease)
    this.maxDeliveries = subscription.maxDeliveries
  }

  /** Opens when others have taken something from it. */
  get robbed(): Latch.Latch {
    return this.#robbed
  }

  rob(delivery: Delivery): void {
    this.#lost.push(delivery)
  }

  /** What others have taken since it was asked last. */
  losses(): Array<Delivery> {
    const lost = this.#lost
    if (lost.length > 0) {
      this.#lost = []
      this.#robbed = Latch.makeUnsafe()
    }
    return lost
  }

  expiresAt(): number {
    return this.silentSince === undefined ? Infinity : this.silentSince + this.leaseMillis
  }
}

export class StreamGroup {
  readonly name: string
  readonly #topic: StreamHome
  readonly #members = new Set<Member>()
  /** Handed back unfinished, and redriven: goes out before everything else. */
  readonly #returned = new Fifo<Work>()
  readonly #retries = new DueQueue<Work>()
  readonly #deadLetters: DeadLetters
  /** Position in the topic's log of the first message that this group has not seen. */
  #next: number
  #retryTurn = true
  paused = false

  constructor(topic: StreamHome, name: string, next: number, deadLetters: DeadLetterLimits) {
    this.#topic = topic
    this.name = name
    this.#next = next
    this.#deadLetters = new DeadLetters(deadLetters)
  }

  join(member: Member): void {
    this.#members.add(member)
  }

  /** What the member still holds goes back, in the order it was delivered. */
  leave(member: Member): void {
    this.#members.delete(member)
    for (const work of member.held.values()) this.#release(work)
    member.held.clear()
  }

  /** A silent member neither takes nor renews. */
  setSilent(member: Member, since: number | undefined): void {
    member.silentSince = since
    this.#topic.change()
  }

  /** What members hold whose lease has passed goes back, the attempt counted; what too many have died of, goes no further. */
  reclaim(member: Member, now: number): void {
    if (!this.#mayTake(member)) return
    const from: Array<string> = []
    let count = 0
    for (const silent of this.#members) {
      if (silent.held.size === 0 || silent.expiresAt() > now) continue
      from.push(silent.consumer)
      count += silent.held.size
      for (const work of silent.held.values()) {
        if (work.delivery !== undefined) silent.rob(work.delivery)
        work.deaths++
        if (work.deaths < member.maxDeliveries) this.#return(work)
        else this.#buryUnseen(work, now)
      }
      silent.held.clear()
      this.#topic.open(silent.robbed)
    }
    if (count > 0) this.#topic.report({ _tag: "Claimed", topic: this.#topic.name, group: this.name, from, count })
  }

  /** At most `max` deliveries for this member; none when there is nothing for it now. */
  take(member: Member, max: number, now: number): Array<Delivery> {
    const out: Array<Delivery> = []
    if (!this.#mayTake(member)) return out
    while (out.length < max) {
      const work = this.#returned.shift()
      if (work === undefined) break
      out.push(this.#deliver(work, member, now))
    }
    // Neither a backlog holds up the retries that are due, nor does a message that fails in a tight loop hold up the rest.
    const room = max - out.length
    this.#retryTurn = !this.#retryTurn
    const share = this.#next === this.#topic.log.end ? room : room === 1 ? Number(this.#retryTurn) : room >> 1
    this.#takeRetries(member, out.length + share, now, out)
    this.#takeNew(member, max, now, out)
    this.#takeRetries(member, max, now, out)
    return out
  }

  settle(member: Member, delivery: Delivery, settlement: Settlement.Settlement, now: number): Settled {
    const work = member.held.get(delivery.receipt)
    if (work === undefined) return "Stale"
    member.held.delete(delivery.receipt)
    switch (settlement._tag) {
      case "Ack":
        this.#leaveLog(work)
        break
      case "Retry":
        this.#leaveLog(work)
        this.#retries.push(wholeMillis(now + Duration.toMillis(settlement.delay)), work)
        this.#topic.change()
        break
      case "DeadLetter":
        this.#bury(work, settlement.reason, settlement.cause, now)
        break
      case "Release":
        this.#release(work)
        break
    }
    return "Settled"
  }

  redrive(entries: ReadonlyArray<string>): number {
    let count = 0
    for (const entry of entries) {
      const grave = this.#deadLetters.take(entry)
      if (grave === undefined) continue
      const { id, body, headers, key, version, publishedAt } = grave.letter
      this.#returned.push({
        message: { id, body, headers, key, version, publishedAt },
        logged: undefined,
        attempt: 0,
        fence: grave.fence,
        deaths: 0,
        delivery: undefined,
        deliveredAt: 0
      })
      count++
    }
    if (count > 0) this.#topic.change()
    return count
  }

  discard(entries: ReadonlyArray<string>): number {
    let count = 0
    for (const entry of entries) if (this.#deadLetters.take(entry) !== undefined) count++
    return count
  }

  deadLetters(after: string | undefined, limit: number) {
    return this.#deadLetters.page(after, limit)
  }

  /** The log was cut up to `position`; answers how many messages this group never saw for it. */
  cut(position: number): number {
    const missed = Math.max(0, position - this.#next)
    this.#next += missed
    return missed
  }

  /** When something may become available without anybody acting. */
  nextDue(): number {
    if (this.paused) return Infinity
    let due = this.#retries.nextDue ?? Infinity
    for (const member of this.#members) if (member.held.size > 0) due = Math.min(due, member.expiresAt())
    return due
  }

  describe(now: number): GroupInfo {
    const consumers: Array<ConsumerInfo> = []
    let pending = 0
    let oldest = now
    for (const member of this.#members) {
      pending += member.held.size
      // The first one held is the one delivered first.
      for (const work of member.held.values()) {
        oldest = Math.min(oldest, work.deliveredAt)
        break
      }
      if (member.expiresAt() > now) consumers.push({ consumer: member.consumer, pending: member.held.size })
    }
    return {
      group: this.name,
      lag: this.#topic.log.end - this.#next,
      pending,
      oldestPendingMillis: now - oldest,
      waiting: this.#returned.length + this.#retries.length,
      nextRetryAt: this.#returned.length > 0 ? now : this.#retries.nextDue,
      deadLetters: this.#deadLetters.size,
      deadLettersDropped: this.#deadLetters.dropped,
      paused: this.paused,
      consumers
    }
  }

  #deliver(work: Work, member: Member, now: number): Delivery {
    const { id, body, headers, key, version, publishedAt } = work.message
    const delivery: Delivery = {
      id,
      body,
      headers,
      key,
      version,
      publishedAt,
      topic: this.#topic.name,
      group: this.name,
      attempt: ++work.attempt,
      fence: ++work.fence,
      receipt: this.#topic.nextReceipt()
    }
    work.delivery = delivery
    work.deliveredAt = now
    member.held.set(delivery.receipt, work)
    return delivery
  }

  #takeNew(member: Member, max: number, now: number, out: Array<Delivery>): void {
    const log = this.#topic.log
    while (out.length < max) {
      const message = log.at(this.#next)
      if (message === undefined) return
      this.#next++
      const work = { message, logged: message, attempt: 0, fence: 0, deaths: 0, delivery: undefined, deliveredAt: now }
      out.push(this.#deliver(work, member, now))
    }
  }

  #takeRetries(member: Member, upTo: number, now: number, out: Array<Delivery>): void {
    while (out.length < upTo) {
      const work = this.#retries.shift(now)
      if (work === undefined) return
      out.push(this.#deliver(work, member, now))
    }
  }

  #mayTake(member: Member): boolean {
    return !this.paused && member.silentSince === undefined && this.#members.has(member)
  }

  #release(work: Work): void {
    work.attempt--
    this.#return(work)
  }

  #return(work: Work): void {
    this.#leaveLog(work)
    this.#returned.push(work)
    this.#topic.change()
  }

  #leaveLog(work: Work): void {
    if (work.logged === undefined) return
    this.#topic.settled(work.logged)
    work.logged = undefined
  }

  #bury(work: Work, reason: string, cause: string, now: number): void {
    this.#leaveLog(work)
    const { id, body, headers, key, version, publishedAt } = work.message
    const topic = this.#topic.name
    const letter = { id, body, headers, key, version, publishedAt, topic, group: this.name }
    const count = this.#deadLetters.add({ ...letter, reason, cause, attempts: work.attempt, diedAt: now }, work.fence)
    if (count > 0) this.#topic.report({ _tag: "DeadLettersDropped", topic, group: this.name, count })
  }

  /** No consumer settles it, so nobody else reports it. */
  #buryUnseen(work: Work, now: number): void {
    const cause = `${work.deaths} consumers died while they held this message`
    this.#bury(work, "CrashLoop", cause, now)
    if (work.delivery === undefined) return
    const settlement = Settlement.deadLetter("CrashLoop", cause)
    const { topic, group } = work.delivery
    this.#topic.report({ _tag: "Settled", topic, group, delivery: work.delivery, settlement, stale: false })
  }
}
