/**
 * The messages of a work queue that no consumer has taken yet. They belong to one group, the first that joins, and
 * each leaves the queue when it is taken.
 *
 * @module
 */
import type { GroupInfo, Start } from "../../Inspector.ts"
import { startProblem } from "../../internal/Unplaced.ts"
import type { Headers } from "../../Message.ts"
import { type NotOffered, TopicConflict } from "../../Transport.ts"
import { Fifo } from "./Fifo.ts"
import type { Cursor, Place, Source, Stored } from "./Source.ts"

export type Order = "fifo" | "lifo" | "priority"

const normal = 1

/** The lane of a message: high, normal, low. */
const laneOf = ({ headers: { priority } }: { readonly headers: Headers }): number =>
  priority === "high" ? 0 : priority === "low" ? 2 : normal

export class Queue implements Source, Cursor {
  readonly #lanes = [new Fifo<Stored>(), new Fifo<Stored>(), new Fifo<Stored>()] as const
  readonly #place: Place
  readonly #order: Order
  readonly reached = undefined
  readonly urgencyOf: Cursor["urgencyOf"]
  #owner: string | undefined

  constructor(place: Place, order: Order) {
    this.#place = place
    this.#order = order
    this.urgencyOf = order === "priority" ? laneOf : undefined
  }

  /** A taken message belongs to the queue until it is settled. */
  depth(groups: ReadonlyArray<GroupInfo>): number {
    return groups.reduce((sum, { pending, waiting }) => sum + pending + waiting, this.lag)
  }

  *entries(): Iterable<readonly [string, Stored]> {
    for (const [number, lane] of this.#lanes.entries()) {
      const messages = lane.entries().map((message, i) => [`${number}:${lane.first + i}`, message] as const)
      yield* this.#order === "lifo" ? messages.toReversed() : messages
    }
  }

  get lag(): number {
    const [high, middle, low] = this.#lanes
    return high.length + middle.length + low.length
  }

  *unseen(): Iterable<Stored> {
    for (const lane of this.#lanes) yield* lane.entries()
  }

  add(message: Stored): void {
    const lane = this.#order === "priority" ? laneOf(message) : normal
    this.#lanes[lane]?.push(message)
  }

  remove(message: Stored): void {
    for (const lane of this.#lanes) lane.remove(message)
  }

  trim(): void {}

  purge(): void {
    for (const lane of this.#lanes) while (lane.shift() !== undefined);
  }

  join(group: string, start: Start): Cursor | TopicConflict | NotOffered {
    const problem = startProblem(start)
    if (problem !== undefined) return problem
    if (this.#owner !== undefined) {
      return new TopicConflict({
        topic: this.#place.topic,
        expected: `a queue of the group ${group} (a queue has one group)`,
        found: `a queue of the group ${this.#owner}`
      })
    }
    this.#owner = group
    if (start === "latest") this.purge()
    return this
  }

  next(urgency = Infinity): Stored | undefined {
    for (const [number, lane] of this.#lanes.entries()) {
      if (number > urgency) return undefined
      const message = this.#order === "lifo" ? lane.pop() : lane.shift()
      if (message !== undefined) return message
    }
    return undefined
  }

  missed(): number {
    return 0
  }

  settled(): void {}

  skip(): void {}

  /** They go before the messages that were never taken, for the next group. */
  close(unsettled: ReadonlyArray<Stored>): void {
    this.#owner = undefined
    for (const message of unsettled.toReversed()) {
      const lane = this.#lanes[this.#order === "priority" ? laneOf(message) : normal]
      lane?.insert(this.#order === "lifo" ? lane.length : 0, message)
    }
  }
}
