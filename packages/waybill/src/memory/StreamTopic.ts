/**
 * One in-memory stream: a log that several groups read, the messages that are not due yet, and the ids seen lately. A
 * message leaves the log when every group has settled it; while there is no group, it stays.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Latch from "effect/Latch"
import type { TopicInfo } from "../Inspector.ts"
import type { Outgoing, Receipt } from "../Message.ts"
import type { DeadLetterLimits } from "./DeadLetters.ts"
import { DueQueue, wholeMillis } from "./DueQueue.ts"
import { Fifo } from "./Fifo.ts"
import { type Fact, StreamGroup, type Stored, type StreamHome } from "./StreamGroup.ts"

export interface StreamLimits {
  readonly dedupMillis: number
  readonly deadLetters: DeadLetterLimits
  readonly maxLength: number
}

export class StreamTopic implements StreamHome {
  readonly name: string
  /** What nobody has been told yet. */
  readonly facts: Array<Fact> = []
  readonly log = new Fifo<Stored>()
  readonly #paused = new Set<string>()
  readonly #groups = new Map<string, StreamGroup>()
  readonly #delayed = new DueQueue<Stored>()
  readonly #seen = new Set<string>()
  readonly #forgetting = new Fifo<{ readonly id: string; readonly at: number }>()
  readonly #limits: StreamLimits
  #changed = Latch.makeUnsafe()
  #stirred = false
  #opening: Array<Latch.Latch> = []
  #receipts = 0
  #idMillis = 0
  #idSequence = 0

  constructor(name: string, limits: StreamLimits) {
    this.name = name
    this.#limits = limits
  }

  publish(messages: ReadonlyArray<Outgoing>, now: number): ReadonlyArray<Receipt> {
    this.#forget(now)
    const receipts = messages.map((message) => this.#accept(message, now))
    this.#trimToLength()
    this.change()
    return receipts
  }

  /** Moves what has become due into the log. */
  promote(now: number): void {
    if (this.#delayed.length === 0) return
    let message = this.#delayed.shift(now)
    if (message === undefined) return
    for (; message !== undefined; message = this.#delayed.shift(now)) this.#append(message)
    this.#trimToLength()
  }

  group(name: string): StreamGroup | undefined {
    return this.#groups.get(name)
  }

  /** The group of this name; a new one begins where `start` says. */
  join(name: string, start: "earliest" | "latest"): StreamGroup {
    const known = this.#groups.get(name)
    if (known !== undefined) return known
    const { log } = this
    const group = new StreamGroup(this, name, start === "earliest" ? log.first : log.end, this.#limits.deadLetters)
    group.paused = this.#paused.has(name)
    this.#groups.set(name, group)
    if (start === "earliest") {
      for (let position = log.first; position < log.end; position++) {
        const message = log.at(position)
        if (message !== undefined) message.open++
      }
    } else {
      this.#trim()
    }
    return group
  }

  settled(message: Stored): void {
    if (--message.open === 0) this.#trim()
  }

  /** Also for a group that does not exist yet. */
  setPaused(name: string, paused: boolean): void {
    if (this.#paused.has(name) === paused) return
    if (paused) this.#paused.add(name)
    else this.#paused.delete(name)
    const group = this.#groups.get(name)
    if (group !== undefined) group.paused = paused
    this.change()
    this.report({ _tag: paused ? "ConsumerPaused" : "ConsumerResumed", topic: this.name, group: name })
  }

  nextReceipt(): string {
    return String(++this.#receipts)
  }

  /** Opens at the next change that may give a waiting receiver something to take. */
  get changed(): Latch.Latch {
    return this.#changed
  }

  change(): void {
    this.#stirred = true
  }

  open(latch: Latch.Latch): void {
    this.#opening.push(latch)
  }

  report(fact: Fact): void {
    this.facts.push(fact)
  }

  /** The latches to open now that a step is complete. */
  opening(): ReadonlyArray<Latch.Latch> {
    if (this.#stirred) {
      this.#opening.push(this.#changed)
      this.#changed = Latch.makeUnsafe()
      this.#stirred = false
    }
    if (this.#opening.length === 0) return this.#opening
    const opening = this.#opening
    this.#opening = []
    return opening
  }

  get nextDelayedAt(): number | undefined {
    return this.#delayed.nextDue
  }

  describe(now: number): TopicInfo {
    this.promote(now)
    return {
      topic: this.name,
      pattern: "streams",
      depth: this.log.length,
      delayed: this.#delayed.length,
      nextDelayedAt: this.#delayed.nextDue,
      groups: Array.from(this.#groups.values(), (group) => group.describe(now))
    }
  }

  #accept(message: Outgoing, now: number): Receipt {
    const id = message.id ?? this.#nextId(now)
    if (message.id !== undefined) {
      if (this.#seen.has(id)) return { _tag: "Duplicate", id }
      this.#seen.add(id)
      this.#forgetting.push({ id, at: now + this.#limits.dedupMillis })
    }
    const { body, due, headers, key, version } = message
    const stored: Stored = { id, body, headers, key, version, publishedAt: now, open: 0 }
    const at = due === undefined ? now : due._tag === "After" ? now + Duration.toMillis(due.delay) : due.epochMillis
    if (at > now) this.#delayed.push(wholeMillis(at), stored)
    else this.#append(stored)
    return { _tag: "Stored", id }
  }

  #append(message: Stored): void {
    message.open = this.#groups.size
    this.log.push(message)
  }

  #nextId(now: number): string {
    if (now > this.#idMillis) {
      this.#idMillis = now
      this.#idSequence = 0
    }
    return `${this.#idMillis}-${this.#idSequence++}`
  }

  #forget(now: number): void {
    for (let first = this.#forgetting.peek(); first !== undefined && first.at <= now; first = this.#forgetting.peek()) {
      this.#seen.delete(first.id)
      this.#forgetting.shift()
    }
  }

  #trim(): void {
    while (this.log.peek()?.open === 0) this.log.shift()
  }

  #trimToLength(): void {
    if (this.log.length <= this.#limits.maxLength) return
    while (this.log.length > this.#limits.maxLength) this.log.shift()
    for (const group of this.#groups.values()) {
      const count = group.cut(this.log.first)
      if (count > 0) this.report({ _tag: "Truncated", topic: this.name, group: group.name, count })
    }
  }
}
