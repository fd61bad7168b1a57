/**
 * The messages of a stream in order of arrival. Each group reads all of them. A message leaves once every group has settled
 * it; while there is no group, it stays.
 *
 * @module
 */
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

  join(group: string, start: "earliest" | "latest"): Cursor {
    const messages = this.#messages
    const cursor = new LogCursor(this, messages, start === "earliest" ? messages.first : messages.end)
    this.#cursors ??= new Map()
    this.#cursors.set(group, cursor)
    for (let position = cursor.position; position < messages.end; position++) {
      const message = messages.at(position)
      if (message !== undefined) message.open++
    }
    this.drop()
    return cursor
  }

  /** Drops messages that are not needed, unless that many are kept regardless. */
  drop(): void {
    if (this.#maxLength < Infinity) return
    while (this.#messages.peek()?.open === 0) this.#messages.shift()
  }
}

class LogCursor implements Cursor {
  /** Position of the first message that the group has not seen. */
  position: number
  readonly #log: Log
  readonly #messages: Fifo<Stored>

  constructor(log: Log, messages: Fifo<Stored>, position: number) {
    this.#log = log
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
}
