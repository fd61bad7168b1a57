/**
 * Messages with a lifetime, in order of arrival. Each group, even a late one, reads every message that is alive when
 * it gets there; those that expire before are counted.
 *
 * @module
 */
import type { Start } from "../../Inspector.ts"
import { startProblem } from "../../internal/Unplaced.ts"
import type { NotOffered } from "../../Transport.ts"
import { Fifo } from "./Fifo.ts"
import type { Cursor, Source, Stored } from "./Source.ts"

export class ExpiringLog implements Source {
  readonly #messages = new Fifo<Stored>()
  readonly #cursors = new Set<ExpiringCursor>()
  readonly #ttlMillis: number

  constructor(ttlMillis: number) {
    this.#ttlMillis = ttlMillis
  }

  depth(): number {
    return this.#messages.length
  }

  *entries(): Iterable<readonly [string, Stored]> {
    const { first } = this.#messages
    for (const [i, message] of this.#messages.entries().entries()) yield [String(first + i), message]
  }

  add(message: Stored, now: number): void {
    message.expiresAt = now + this.#ttlMillis
    this.#messages.push(message)
  }

  remove(message: Stored): void {
    const position = this.#messages.remove(message)
    if (position !== undefined) for (const cursor of this.#cursors) cursor.removed(position)
  }

  /** All live equally long, so the oldest expire first. */
  trim(now: number): void {
    const messages = this.#messages
    const { first } = messages
    while ((messages.peek()?.expiresAt ?? Infinity) <= now) messages.shift()
    if (messages.first > first) for (const cursor of this.#cursors) cursor.cut()
  }

  join(_: string, start: Start): Cursor | NotOffered {
    const problem = startProblem(start)
    if (problem !== undefined) return problem
    const { end, first } = this.#messages
    const cursor = new ExpiringCursor(this, this.#messages, start === "earliest" ? first : end)
    this.#cursors.add(cursor)
    return cursor
  }

  purge(): void {
    while (this.#messages.shift() !== undefined);
  }

  leave(cursor: ExpiringCursor): void {
    this.#cursors.delete(cursor)
  }
}

class ExpiringCursor implements Cursor {
  readonly #log: ExpiringLog
  readonly #messages: Fifo<Stored>
  /** Position of the first message that the group has not seen. */
  #position: number
  #missed = 0

  constructor(log: ExpiringLog, messages: Fifo<Stored>, position: number) {
    this.#log = log
    this.#messages = messages
    this.#position = position
  }

  get lag(): number {
    return this.#messages.end - this.#position
  }

  get reached(): string {
    return String(this.#position - 1)
  }

  *unseen(): Iterable<Stored> {
    for (let position = this.#position; position < this.#messages.end; position++) {
      const message = this.#messages.at(position)
      if (message !== undefined) yield message
    }
  }

  next(): Stored | undefined {
    const message = this.#messages.at(this.#position)
    if (message !== undefined) this.#position++
    return message
  }

  /** The log has lost its first messages. */
  cut(): void {
    const { first } = this.#messages
    if (this.#position >= first) return
    this.#missed += first - this.#position
    this.#position = first
  }

  /** The message at that position is gone, and those behind it have moved up. */
  removed(position: number): void {
    if (this.#position > position) this.#position--
  }

  missed(now: number): number {
    this.#log.trim(now)
    const missed = this.#missed
    this.#missed = 0
    return missed
  }

  /** Another group may still come for it, so it lives on. */
  settled(): void {}

  skip(): void {
    this.#position = this.#messages.end
  }

  close(): void {
    this.#log.leave(this)
  }
}
