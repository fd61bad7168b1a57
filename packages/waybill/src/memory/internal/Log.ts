/**
 * The messages of a stream in order of arrival. Each group reads all of them. A message leaves once every group has settled
 * it; while there is no group, it stays.
 *
 * @module
 */
import type { Place as Destination, Start } from "../../Inspector.ts"
import { Fifo } from "./Fifo.ts"
import type { Cursor, Place, Source, Stored } from "./Source.ts"

export class Log implements Source {
  readonly #messages = new Fifo<Stored>()
  /** Created with the first group: there may be thousands of topics without one. */
  #cursors: Map<string, LogCursor> | undefined
  readonly #place: Place
  readonly #maxLength: number

  /** With a `maxLength`, the oldest are trimmed, settled or not. */
  constructor(place: Place, maxLength: number) {
    this.#place = place
    this.#maxLength = maxLength
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
    message.open = this.#cursors?.size ?? 0
    this.#messages.push(message)
  }

  trim(): void {
    const messages = this.#messages
    if (messages.length <= this.#maxLength) return
    while (messages.length > this.#maxLength) messages.shift()
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
    const cursor = new LogCursor(this, group, messages, this.placeOf(start))
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
    const needed = ({ open }: Stored) => open > 0 && this.#cursors !== undefined && this.#cursors.size > 0
    for (let oldest = messages.peek(); oldest !== undefined && !needed(oldest); oldest = messages.peek())
      messages.shift()
  }

  /** Drops messages that are not needed, unless that many are kept regardless, or there is no group. */
  drop(): void {
    if (this.#maxLength < Infinity || this.#cursors?.size === 0) return
    while (this.#messages.peek()?.open === 0) this.#messages.shift()
  }
}

class LogCursor implements Cursor {
  /** Position of the first message that the group has not seen. */
  position: number
  readonly #log: Log
  readonly #group: string
  readonly #messages: Fifo<Stored>

  constructor(log: Log, group: string, messages: Fifo<Stored>, position: number) {
    this.#log = log
    this.#group = group
    this.#messages = messages
    this.position = position
  }

  get lag(): number {
    return this.#messages.end - this.position
  }

  get reached(): string {
    return String(this.position - 1)
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
