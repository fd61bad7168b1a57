/**
 * Topics that keep no messages: who listens, and the dead letters of each group.
 *
 * @module
 */
import type { DeadLetter, GroupInfo, TopicInfo } from "../../Inspector.ts"
import { matcher } from "../../internal/Glob.ts"
import { kept } from "../../internal/Headers.ts"
import { Copy, type Inbox } from "../../internal/Inbox.ts"
import type { DeadLetterCap } from "../../internal/Limits.ts"
import type { Outgoing, Receipt } from "../../Message.ts"
import { DeadLetters } from "./DeadLetters.ts"

/** Who shares dead letters and pauses together. */
export class Circle {
  readonly name: string
  readonly inboxes = new Set<Inbox>()
  readonly dead: DeadLetters
  paused = false

  constructor(name: string, deadLetters: DeadLetterCap) {
    this.name = name
    this.dead = new DeadLetters(deadLetters)
  }
}

/** A topic, or a pattern for topics, as it was asked for. */
class Seat {
  readonly topic: string
  readonly fits: (topic: string) => boolean
  readonly circles = new Map<string, Circle>()

  constructor(topic: string) {
    this.topic = topic
    this.fits = matcher(topic)
  }
}

export class Hall {
  /** Those that were published to or subscribed to. */
  readonly #topics = new Set<string>()
  readonly #seats = new Map<string, Seat>()
  readonly #deadLetters: DeadLetterCap
  readonly #instance: string
  #published = 0
  /** Some inbox may have become crowded. */
  #tight = false
  /** Inboxes that were waited for in vain, and what they had taken by then. */
  readonly #stalled = new WeakMap<Inbox, number>()

  constructor(deadLetters: DeadLetterCap, instance: string) {
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
      for (const seat of this.#seats.values()) {
        if (!seat.fits(topic)) continue
        for (const { inboxes, name } of seat.circles.values()) {
          for (const inbox of inboxes) {
            inbox.add(new Copy(topic, name, id, published, key, version, now, 1))
            this.#tight ||= inbox.isCrowdedFor(0)
          }
        }
      }
      receipts.push({ _tag: "Stored", id })
    }
    return receipts
  }

  /** Those who should get a turn before so many more bytes are published to the topic, more than a part has or not. */
  crowded(topic: string, bytes: number, large: boolean): ReadonlyArray<Inbox> {
    if (!this.#tight && !large) return []
    const crowded: Array<Inbox> = []
    this.#tight = false
    for (const seat of this.#seats.values()) {
      for (const { inboxes } of seat.circles.values()) {
        for (const inbox of inboxes) {
          if (!inbox.isCrowdedFor(bytes)) continue
          this.#tight = true
          if (this.#stalled.get(inbox) !== inbox.takes && seat.fits(topic)) crowded.push(inbox)
        }
      }
    }
    return crowded
  }

  /** They do not take anything: they are not waited for again until they do. */
  giveUp(inboxes: ReadonlyArray<Inbox>): void {
    for (const inbox of inboxes) this.#stalled.set(inbox, inbox.takes)
  }

  circle(topic: string, group: string): Circle {
    let seat = this.#seats.get(topic)
    if (seat === undefined) this.#seats.set(topic, (seat = new Seat(topic)))
    this.#topics.add(topic)
    const { circles } = seat
    let circle = circles.get(group)
    if (circle === undefined) circles.set(group, (circle = new Circle(group, this.#deadLetters)))
    return circle
  }

  /** One that no subscriber would hear stays where it is. */
  redrive(topic: string, group: string, entries: ReadonlyArray<string>, now: number): number {
    const { dead, inboxes } = this.circle(topic, group)
    dead.expire(now)
    let count = 0
    if (inboxes.size === 0) return count
    for (const entry of entries) {
      const grave = dead.take(entry)
      if (grave === undefined) continue
      const { letter } = grave
      const { id, key, publishedAt, version } = letter
      for (const inbox of inboxes) {
        inbox.add(new Copy(letter.topic, group, id, letter, key, version, publishedAt, grave.fence + 1))
      }
      count++
    }
    return count
  }

  discard(topic: string, group: string, entries: ReadonlyArray<string>, now: number): number {
    const { dead } = this.circle(topic, group)
    dead.expire(now)
    return entries.filter((entry) => dead.take(entry) !== undefined).length
  }

  deadLetters(
    topic: string,
    group: string,
    { after, limit }: { readonly after: string | undefined; readonly limit: number },
    now: number
  ): ReadonlyArray<DeadLetter> {
    const dead = this.#seats.get(topic)?.circles.get(group)?.dead
    dead?.expire(now)
    return dead?.page(after, limit) ?? []
  }

  describe(topic: string, pattern: string, now: number): TopicInfo {
    const circles = this.#seats.get(topic)?.circles.values() ?? []
    const groups = Array.from(circles, (circle) => figuresOf(circle, now))
    return { topic, pattern, depth: 0, published: undefined, delayed: 0, nextDelayedAt: undefined, groups }
  }

  remove(topic: string): void {
    this.#topics.delete(topic)
    this.#seats.delete(topic)
  }
}

const figuresOf = ({ dead, inboxes, name, paused }: Circle, now: number): GroupInfo => {
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
