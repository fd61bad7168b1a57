/**
 * The messages of a stream in order of arrival. Each group reads all of them. A message leaves once every group has settled
 * it; while there is no group, or it is within limits that were given, it stays.
 *
 * @module
 */
import type { Place as Destination, Start } from "../../Inspector.ts"
import { unitsOf } from "../../internal/Budget.ts"
import type { KeptLimits } from "../../internal/Limits.ts"
import { Fifo } from "./Fifo.ts"
import type { Cursor, Place, Source, Stored } from "./Source.ts"

export class Log implements Source {
  readonly #messages = new Fifo<Stored>()
  /** Created with the first group: there may be thousands of topics without one. */
  #cursors: Map<string, LogCursor> | undefined
  readonly #place: Place
  readonly #kept: KeptLimits | undefined
  #bytes = 0

  /** With limits, messages stay until they exceed one, settled or not. */
  constructor(place: Place, kept: KeptLimits | undefined) {
    this.#place = place
    this.#kept = kept
  }

  depth(): number {
    return this.#messages.length
  }

  *entries(): Iterable<readonly [string, Stored]> {
    const messages = this.#messages
    for (let position = messages.first; position < messages.end; position++) {
      const message = messages.at(position)
      if (message !== undefined) yield [String(position), message]
    }
  }

  add(message: Stored): void {
    message.open = 0
    for (const cursor of this.#cursors?.values() ?? []) if (!cursor.passes(message)) message.open++
    this.#messages.push(message)
    if (this.#kept !== undefined) this.#bytes += unitsOf(message)
  }

  remove(message: Stored): void {
    const position = this.#messages.remove(message)
    if (position === undefined) return
    if (this.#kept !== undefined) this.#bytes -= unitsOf(message)
    for (const cursor of this.#cursors?.values() ?? []) if (cursor.position > position) cursor.position--
    this.drop()
  }

  trim(now: number): void {
    const kept = this.#kept
    if (kept === undefined) return
    const messages = this.#messages
    const { first } = messages
    const exceeds = ({ storedAt }: Stored) =>
      messages.length > kept.maxLength || this.#bytes > kept.maxBytes || now - storedAt > kept.maxAgeMillis
    for (let oldest = messages.peek(); oldest !== undefined && exceeds(oldest); oldest = messages.peek()) {
      if (kept.keep === "unsettled" && !this.#isSettled(oldest)) break
      this.#shift()
    }
    if (messages.first === first) return
    for (const [group, cursor] of this.#cursors ?? []) {
      const count = messages.first - cursor.position
      if (count <= 0) continue
      cursor.position = messages.first
      this.#place.report({ _tag: "Truncated", topic: this.#place.topic, group, count })
    }
  }

  /** The position with which a group goes on. */
  placeOf(to: Destination): number {
    const { end, first } = this.#messages
    if (to === "earliest") return first
    if (to === "latest") return end
    if ("after" in to) return Math.min(end, Math.max(first, Number(to.after) + 1))
    let position = first
    while (position < end && (this.#messages.at(position)?.storedAt ?? 0) < to.at) position++
    return position
  }

  join(group: string, start: Start): Cursor {
    const messages = this.#messages
    const cursor = new LogCursor(this, group, messages, this.placeOf(start), sinceOf(start))
    this.#cursors ??= new Map()
    this.#cursors.set(group, cursor)
    for (let position = cursor.position; position < messages.end; position++) {
      const message = messages.at(position)
      if (message !== undefined) message.open++
    }
    this.drop()
    return cursor
  }

  leave(group: string): void {
    this.#cursors?.delete(group)
    this.drop()
  }

  /** Without a group, nothing is needed. */
  purge(): void {
    const messages = this.#messages
    const isNeeded = (oldest: Stored) => (this.#cursors?.size ?? 0) > 0 && oldest.open > 0
    for (let oldest = messages.peek(); oldest !== undefined && !isNeeded(oldest); oldest = messages.peek())
      this.#shift()
  }

  /** Drops messages that are not needed, unless they are kept regardless. */
  drop(): void {
    if (this.#kept !== undefined) return
    const messages = this.#messages
    for (let oldest = messages.peek(); oldest !== undefined && this.#isSettled(oldest); oldest = messages.peek()) {
      this.#shift()
    }
  }

  /** While there is no group, nothing is. */
  #isSettled({ open }: Stored): boolean {
    return open === 0 && this.#cursors !== undefined && this.#cursors.size > 0
  }

  #shift(): void {
    const at = this.#messages.first
    const message = this.#messages.shift()
    if (message?.held !== undefined) {
      message.held.dropped = true
      for (const [group, { position }] of this.#cursors ?? []) if (position <= at) message.held.by.delete(group)
    }
    if (message !== undefined && this.#kept !== undefined) this.#bytes -= unitsOf(message)
  }
}

/** From which time on a group gets messages, for a time to come. */
const sinceOf = (place: Destination): number => (typeof place === "object" && "at" in place ? place.at : 0)

class LogCursor implements Cursor {
  /** Position of the first message that the group has not seen. */
  position: number
  readonly #log: Log
  readonly #group: string
  readonly #messages: Fifo<Stored>
  #since: number

  constructor(log: Log, group: string, messages: Fifo<Stored>, position: number, since: number) {
    this.#log = log
    this.#group = group
    this.#messages = messages
    this.position = position
    this.#since = since
  }

  /** Whether it begins at a time after that of a new message. */
  passes({ storedAt }: Stored): boolean {
    if (storedAt >= this.#since || this.lag > 0) return false
    this.position++
    return true
  }

  get lag(): number {
    return this.#messages.end - this.position
  }

  get reached(): string {
    return String(this.position - 1)
  }

  *unseen(): Iterable<Stored> {
    for (let position = this.position; position < this.#messages.end; position++) {
      const message = this.#messages.at(position)
      if (message !== undefined) yield message
    }
  }

  next(): Stored | undefined {
    const message = this.#messages.at(this.position)
    if (message !== undefined) this.position++
    return message
  }

  missed(): number {
    return 0
  }

  settled(message: Stored): void {
    if (--message.open === 0) this.#log.drop()
  }

  move(to: Destination): ReadonlySet<Stored> {
    const place = this.#log.placeOf(to)
    const again = new Set<Stored>()
    for (let position = place; position < this.position; position++) {
      const message = this.#messages.at(position)
      if (message === undefined) continue
      message.open++
      again.add(message)
    }
    while (this.position < place) {
      const message = this.next()
      if (message === undefined) break
      message.open--
    }
    this.position = place
    this.#since = sinceOf(to)
    this.#log.drop()
    return again
  }

  skip(): void {
    for (let message = this.next(); message !== undefined; message = this.next()) message.open--
  }

  close(): void {
    this.skip()
    this.#log.leave(this.#group)
  }
}
