/**
 * Topics that keep no messages: their subscribers, and each group's dead letters.
 *
 * @module
 */
import type { DeadLetter, GroupInfo, TopicInfo } from "../../Inspector.ts"
import { matcher } from "../../internal/Glob.ts"
import { kept } from "../../internal/Headers.ts"
import { LocalDelivery, type Inbox } from "../../internal/Inbox.ts"
import type { DeadLetterCap } from "../../internal/Limits.ts"
import type { Outgoing, Receipt } from "../../Message.ts"
import type { ClaimedDeadLetters, DeadLetterClaim } from "../../Transport.ts"
import { DeadLetters } from "./DeadLetters.ts"

/** Subscribers that share dead letters and are paused together. */
export class SubscriberGroup {
  readonly name: string
  readonly inboxes = new Set<Inbox>()
  readonly dead: DeadLetters
  paused = false

  constructor(name: string, deadLetters: DeadLetterCap) {
    this.name = name
    this.dead = new DeadLetters(deadLetters)
  }
}

/** A topic or a pattern of topics, as subscribed to. */
class Channel {
  readonly topic: string
  readonly fits: (topic: string) => boolean
  readonly groups = new Map<string, SubscriberGroup>()

  constructor(topic: string) {
    this.topic = topic
    this.fits = matcher(topic)
  }
}

export class Channels {
  /** Topics that were published or subscribed to. */
  readonly #topics = new Set<string>()
  readonly #channels = new Map<string, Channel>()
  readonly #deadLetters: (topic: string) => DeadLetterCap
  readonly #instance: string
  #published = 0
  /** Whether some inbox may be crowded. */
  #tight = false
  /** Inboxes that were waited for without success, and what they had taken by then. */
  readonly #stalled = new WeakMap<Inbox, number>()

  constructor(deadLetters: (topic: string) => DeadLetterCap, instance: string) {
    this.#deadLetters = deadLetters
    this.#instance = instance
  }

  get topics(): ReadonlyArray<string> {
    return Array.from(this.#topics).sort()
  }

  publish(topic: string, messages: ReadonlyArray<Outgoing>, now: number): Array<Receipt> {
    this.#topics.add(topic)
    const receipts: Array<Receipt> = []
    for (const { body, headers: sent, id: given, key, version } of messages) {
      const published = { body, headers: kept(sent) }
      const id = given ?? `${this.#instance}-${++this.#published}`
      for (const channel of this.#channels.values()) {
        if (!channel.fits(topic)) continue
        for (const { inboxes, name } of channel.groups.values()) {
          for (const inbox of inboxes) {
            inbox.add(new LocalDelivery(topic, name, id, published, key, version, now, 1))
            this.#tight ||= inbox.isCrowdedFor(0)
          }
        }
      }
      receipts.push({ _tag: "Sent", id })
    }
    return receipts
  }

  /**
   * The subscribers that should get a turn before so many more bytes are published; `large` if that is more than one
   * part.
   */
  crowded(topic: string, bytes: number, large: boolean): ReadonlyArray<Inbox> {
    if (!this.#tight && !large) return []
    const crowded: Array<Inbox> = []
    this.#tight = false
    for (const channel of this.#channels.values()) {
      for (const { inboxes } of channel.groups.values()) {
        for (const inbox of inboxes) {
          if (!inbox.isCrowdedFor(bytes)) continue
          this.#tight = true
          if (this.#stalled.get(inbox) !== inbox.takes && channel.fits(topic)) crowded.push(inbox)
        }
      }
    }
    return crowded
  }

  /** These take nothing: they are not waited for again until they do. */
  giveUp(inboxes: ReadonlyArray<Inbox>): void {
    for (const inbox of inboxes) this.#stalled.set(inbox, inbox.takes)
  }

  group(topic: string, group: string): SubscriberGroup {
    let channel = this.#channels.get(topic)
    if (channel === undefined) this.#channels.set(topic, (channel = new Channel(topic)))
    this.#topics.add(topic)
    const { groups } = channel
    let subscribers = groups.get(group)
    if (subscribers === undefined)
      groups.set(group, (subscribers = new SubscriberGroup(group, this.#deadLetters(topic))))
    return subscribers
  }

  /** A letter that no subscriber would receive stays where it is. */
  redrive(topic: string, group: string, entries: ReadonlyArray<string>, now: number): number {
    const { dead, inboxes } = this.group(topic, group)
    dead.expire(now)
    let count = 0
    if (inboxes.size === 0) return count
    for (const entry of entries) {
      const found = dead.take(entry)
      if (found === undefined) continue
      const { letter } = found
      const { id, key, publishedAt, version } = letter
      for (const inbox of inboxes) {
        inbox.add(new LocalDelivery(letter.topic, group, id, letter, key, version, publishedAt, found.fence + 1))
      }
      count++
    }
    return count
  }

  discard(topic: string, group: string, entries: ReadonlyArray<string>, now: number): number {
    const { dead } = this.group(topic, group)
    dead.expire(now)
    return entries.filter((entry) => dead.take(entry) !== undefined).length
  }

  deadLetters(
    topic: string,
    group: string,
    { after, limit }: { readonly after: string | undefined; readonly limit: number },
    now: number
  ): ReadonlyArray<DeadLetter> {
    const dead = this.#channels.get(topic)?.groups.get(group)?.dead
    dead?.expire(now)
    return dead?.page(after, limit) ?? []
  }

  claimDeadLetters(claim: DeadLetterClaim, now: number): ClaimedDeadLetters {
    const { dead } = this.group(claim.topic, claim.group)
    dead.expire(now)
    return dead.claim(claim, now)
  }

  describe(topic: string, pattern: string, now: number): TopicInfo {
    const known = this.#channels.get(topic)?.groups.values() ?? []
    const groups = Array.from(known, (group) => figuresOf(group, now))
    return {
      topic,
      pattern,
      retention: "none",
      depth: 0,
      published: undefined,
      delayed: 0,
      nextDelayedAt: undefined,
      groups
    }
  }

  /** Whether the group is gone: one with subscribers stays. */
  retire(topic: string, group: string): boolean {
    const groups = this.#channels.get(topic)?.groups
    if ((groups?.get(group)?.inboxes.size ?? 0) > 0) return false
    groups?.delete(group)
    return true
  }

  remove(topic: string): void {
    this.#topics.delete(topic)
    this.#channels.delete(topic)
  }
}

const figuresOf = ({ dead, inboxes, name, paused }: SubscriberGroup, now: number): GroupInfo => {
  dead.expire(now)
  let pending = 0
  let waiting = 0
  let nextRetryAt: number | undefined
  let oldest = now
  for (const inbox of inboxes) {
    pending += inbox.pending
    waiting += inbox.waiting
    oldest = Math.min(oldest, inbox.oldestTakenAt ?? now)
    if (inbox.nextDue !== undefined) nextRetryAt = Math.min(inbox.nextDue, nextRetryAt ?? Infinity)
  }
  return {
    group: name,
    lag: 0,
    pending,
    oldestPendingMillis: now - oldest,
    waiting,
    nextRetryAt,
    deadLetters: dead.size,
    deadLettersDropped: dead.dropped,
    paused,
    consumers: Array.from(inboxes, ({ consumer, pending }) => ({ consumer, pending, leaseLeftMillis: undefined }))
  }
}
