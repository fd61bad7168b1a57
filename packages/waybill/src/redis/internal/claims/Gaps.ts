/**
 * Counts messages that were gone when their turn came, and finds the deliveries between which they are missing. What a lost
 * reply would have reported is reported with the next one.
 *
 * @module
 */
import type { Gap } from "../../../Gap.ts"
import type { ClaimedDelivery } from "./ClaimedDelivery.ts"

const none: ReadonlyArray<Gap> = []

export class Gaps {
  /** How many messages were gone when their turn came, as far as we know, and how many of them no delivery has reported. */
  #gone = 0
  #missed = 0
  #lastId: string | undefined

  /** How many more are gone than at the last call. The server's count starts over when it is lost; -1: not reported. */
  count(gone: number): number {
    if (gone < 0) return 0
    const missed = gone < this.#gone ? gone : gone - this.#gone
    this.#gone = gone
    return missed
  }

  /**
   * Attaches to deliveries what is missing before them, and returns that. `missed` are gone, of which the holes account for some;
   * the rest was in a reply that was lost.
   */
  note(taken: ReadonlyArray<ClaimedDelivery>, missed: number, holes: string): ReadonlyArray<Gap> {
    this.#missed += missed
    const last = taken.at(-1)
    if (last === undefined) return none
    const lastId = this.#lastId
    this.#lastId = last.id
    if (this.#missed === 0) return none
    const pairs = holes === "" ? [] : holes.split(" ").map(Number)
    const before = new Map<number, number>()
    for (let i = 0; i + 1 < pairs.length; i += 2) before.set((pairs[i] ?? 0) - 1, pairs[i + 1] ?? 0)
    const behind = before.get(taken.length) ?? 0
    let inside = 0
    for (let i = 1; i < taken.length; i++) inside += before.get(i) ?? 0
    before.set(0, this.#missed - inside - behind)
    this.#missed = behind
    const gaps: Array<Gap> = []
    for (const [i, delivery] of taken.entries()) {
      const count = before.get(i) ?? 0
      if (count === 0) continue
      const after = i === 0 ? lastId : taken[i - 1]?.id
      const gap: Gap = { missed: count, after, before: delivery.id, reason: "expired" }
      delivery.gap = gap
      gaps.push(gap)
    }
    return gaps
  }
}
