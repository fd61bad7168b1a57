/**
 * A queue whose items keep their position while they are in it. Items that left the front cost no memory.
 *
 * @module
 */
export class Fifo<A> {
  #items: Array<A | undefined> = []
  #head = 0
  #first = 0

  /** Position of the oldest item. */
  get first(): number {
    return this.#first
  }

  /** Position of the next item to be added. */
  get end(): number {
    return this.#first + this.length
  }

  get length(): number {
    return this.#items.length - this.#head
  }

  push(item: A): void {
    // Pushing a first item to an array reserves room for sixteen more.
    if (this.#items.length === 0) this.#items = [item]
    else this.#items.push(item)
  }

  /** Inserts the item behind that many others. */
  insert(place: number, item: A): void {
    this.#items.splice(this.#head + place, 0, item)
  }

  /** Takes the item out; those behind it move up. Returns its position, if it was there. */
  remove(item: A): number | undefined {
    const index = this.#items.indexOf(item, this.#head)
    if (index < 0) return undefined
    this.#items.splice(index, 1)
    return index - this.#head + this.#first
  }

  at(position: number): A | undefined {
    return position < this.#first ? undefined : this.#items[position - this.#first + this.#head]
  }

  entries(): ReadonlyArray<A> {
    // There are only items behind the head.
    return this.#items.slice(this.#head) as Array<A>
  }

  peek(): A | undefined {
    return this.#items[this.#head]
  }

  /** Takes the newest item. */
  pop(): A | undefined {
    return this.length === 0 ? undefined : this.#items.pop()
  }

  shift(): A | undefined {
    if (this.#head === this.#items.length) return undefined
    const item = this.#items[this.#head]
    this.#items[this.#head++] = undefined
    this.#first++
    // Copying only when half is empty keeps a shift at amortised constant cost.
    if (this.#head >= 1024 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return item
  }
}
