/**
 * Items ordered by due time; equal times keep their order of arrival.
 *
 * @module
 */
/** Clocks count whole milliseconds: a sleep until a fraction of one would end too early, again and again. */
export const wholeMillis = Math.ceil

interface Entry<A> {
  readonly due: number
  readonly order: number
  readonly item: A
}

const before = <A>(a: Entry<A>, b: Entry<A>): boolean => (a.due === b.due ? a.order < b.order : a.due < b.due)

export class DueQueue<A> {
  readonly #heap: Array<Entry<A>> = []
  #order = 0

  get length(): number {
    return this.#heap.length
  }

  /** When the first item is due. */
  get nextDue(): number | undefined {
    return this.#heap[0]?.due
  }

  /** All items with their due times, in order. */
  entries(): ReadonlyArray<readonly [due: number, item: A]> {
    return this.#heap
      .toSorted((a, b) => (before(a, b) ? -1 : 1))
      .map(({ due, item }): readonly [number, A] => [due, item])
  }

  push(due: number, item: A): void {
    const heap = this.#heap
    const entry = { due, order: this.#order++, item }
    let index = heap.length
    while (index > 0) {
      const parent = (index - 1) >> 1
      const above = heap[parent]
      if (above === undefined || before(above, entry)) break
      heap[index] = above
      index = parent
    }
    heap[index] = entry
  }

  /** Takes the first item if it is due at `now`. */
  shift(now: number): A | undefined {
    const heap = this.#heap
    const top = heap[0]
    if (top === undefined || top.due > now) return undefined
    const last = heap.pop()
    if (last !== undefined && last !== top) this.#sink(last)
    return top.item
  }

  /** Takes out the items of which `is` says so, with their due times. */
  remove(is: (item: A) => boolean): ReadonlyArray<readonly [due: number, item: A]> {
    const [out, left] = [[] as Array<readonly [number, A]>, [] as Array<readonly [number, A]>]
    for (const entry of this.entries()) (is(entry[1]) ? out : left).push(entry)
    if (out.length === 0) return out
    this.#heap.length = 0
    for (const [due, item] of left) this.push(due, item)
    return out
  }

  /** Moves `entry` down from the top to its place. */
  #sink(entry: Entry<A>): void {
    const heap = this.#heap
    let index = 0
    while (true) {
      let child = index * 2 + 1
      let below = heap[child]
      if (below === undefined) break
      const right = heap[child + 1]
      if (right !== undefined && before(right, below)) {
        below = right
        child++
      }
      if (before(entry, below)) break
      heap[index] = below
      index = child
    }
    heap[index] = entry
  }
}
