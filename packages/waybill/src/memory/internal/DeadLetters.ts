/**
 * The dead letters of one group, oldest first. Excess and expired ones are dropped and counted with each new one, and
 * before every read.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import type { DeadLetter } from "../../Inspector.ts"
import type { DeadLetterCap } from "../../internal/Limits.ts"
import type { ClaimedDeadLetters, DeadLetterClaim } from "../../Transport.ts"

/** A dead letter, and how often the message was delivered: a redrive continues that count. */
export interface StoredLetter {
  readonly letter: DeadLetter
  readonly fence: number
  /** Part of its commit was applied: none of it may be applied again. */
  readonly partial: boolean
}

export class DeadLetters {
  readonly #letters = new Map<number, StoredLetter>()
  readonly #limits: DeadLetterCap
  #oldest = 1
  #next = 1
  #dropped = 0
  /** Up to which entry hooks were given them; undefined as long as there is none. */
  #given: number | undefined
  /** When the claims of hooks expire, by entry. */
  readonly #claims = new Map<number, number>()

  constructor(limits: DeadLetterCap) {
    this.#limits = limits
  }

  get size(): number {
    return this.#letters.size
  }

  /** How many were dropped so far. */
  get dropped(): number {
    return this.#dropped
  }

  /** Returns how many were dropped to make room. */
  add(letter: Omit<DeadLetter, "entry">, fence: number, partial: boolean): number {
    const entry = this.#next++
    this.#letters.set(entry, { letter: { entry: String(entry), ...letter }, fence, partial })
    return this.expire(letter.diedAt)
  }

  /** Drops excess and expired letters; returns how many. Everything below assumes that this was just done. */
  expire(now: number): number {
    const { maxAgeMillis, maxCount } = this.#limits
    let dropped = 0
    while (this.#oldest < this.#next) {
      const oldest = this.#letters.get(this.#oldest)
      if (oldest !== undefined) {
        if (this.#letters.size <= maxCount && now - oldest.letter.diedAt <= maxAgeMillis) break
        this.#letters.delete(this.#oldest)
        dropped++
      }
      this.#oldest++
    }
    this.#dropped += dropped
    return dropped
  }

  page(after: string | undefined, limit: number): Array<DeadLetter> {
    const page: Array<DeadLetter> = []
    const start = after === undefined ? this.#oldest : Math.max(this.#oldest, Number(after) + 1)
    for (let entry = start; entry < this.#next && page.length < limit; entry++) {
      const found = this.#letters.get(entry)
      if (found !== undefined) page.push({ ...found.letter })
    }
    return page
  }

  /** As `Transport.claimDeadLetters` does. */
  claim({ from, handled, held, lease, limit }: DeadLetterClaim, now: number): ClaimedDeadLetters {
    const until = now + Duration.toMillis(lease)
    this.#given ??= from === undefined ? this.#next - 1 : Number(from)
    for (const entry of handled) this.#claims.delete(Number(entry))
    for (const entry of held) if (this.#claims.has(Number(entry))) this.#claims.set(Number(entry), until)
    const letters: Array<DeadLetter> = []
    const give = (entry: number) => {
      const found = this.#letters.get(entry)
      if (found === undefined) return this.#claims.delete(entry)
      this.#claims.set(entry, until)
      return letters.push({ ...found.letter })
    }
    for (const [entry, expiresAt] of this.#claims) if (expiresAt <= now && letters.length < limit) give(entry)
    for (const { entry } of this.page(String(this.#given), limit - letters.length)) give((this.#given = Number(entry)))
    return { letters, position: String(this.#given) }
  }

  /** When hooks have something to claim: a time in the past if they have it now. */
  get unclaimedAt(): number {
    if (this.#given === undefined || this.page(String(this.#given), 1).length > 0) return -Infinity
    return Math.min(...this.#claims.values())
  }

  /** The newest one of this id. */
  find(id: string): DeadLetter | undefined {
    return [...this.#letters.values()].findLast(({ letter }) => letter.id === id)?.letter
  }

  take(entry: string): StoredLetter | undefined {
    const found = this.#letters.get(Number(entry))
    if (found !== undefined) this.#letters.delete(Number(entry))
    return found
  }
}
