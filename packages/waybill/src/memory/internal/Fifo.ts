/**
 * A queue whose items keep their position for as long as they are in it; what left the front costs no memory.
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

  /** Position that the next item will have. */
  get end(): number {
    return this.#first + this.length
  }

  get length(): number {
    return this.#items.length - this.#head
  }

  push(item: A): void {
    // An array that a first item is pushed to makes room for sixteen more.
    if (this.#items.length === 0) this.#items = [item]
    else this.#items.push(item)
  }

  /** Puts it where so many are in front of it. */
  insert(place: number, item: A): void {
    this.#items.splice(this.#head + place, 0, item)
  }

  at(position: number): A | undefined {
    return position < this.#first ? undefined : this.#items[position - this.#first + this.#head]
  }

  entries(): ReadonlyArray<A> {
    // Behind the head there are only items.
    return this.#items.slice(this.#head) as Array<A>
  }

  peek(): A | undefined {
    return this.#items[this.#head]
  }

  /** Takes the newest one. */
  pop(): A | undefined {
    return this.length === 0 ? undefined : this.#items.pop()
  }

  shift(): A | undefined {
    if (this.#head === this.#items.length) return undefined
    const item = this.#items[this.#head]
    this.#items[this.#head++] = undefined
    this.#first++
    // Copying only when half is empty keeps the price of a shift constant.
    if (this.#head >= 1024 && this.#head * 2 >= this.#items.length) {
      this.#items = this.#items.slice(this.#head)
      this.#head = 0
    }
    return item
  }
}
