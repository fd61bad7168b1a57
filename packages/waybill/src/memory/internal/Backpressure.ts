/**
 * Gives subscribers with much to take a turn: publishing takes no time here, and would fill the buffers of consumers
 * that had no chance to run.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import { unitsOf } from "../../internal/Budget.ts"
import type { Inbox } from "../../internal/Inbox.ts"
import type { Outgoing } from "../../Message.ts"
import type { Channels } from "./Channels.ts"

/** How many turns a subscriber may miss before it counts as one that takes nothing. */
const patience = 16

/** The size with an id as long as generated ones. */
export const sizeOf = (message: Outgoing): number => unitsOf(message) + (message.id === undefined ? 24 : 0)

const takesOf = (inboxes: ReadonlyArray<Inbox>) => inboxes.reduce((sum, { takes }) => sum + takes, 0)

export class Backpressure {
  readonly #channels: Channels
  /** How many messages, and how many bytes, are published before subscribers that need one get a turn. */
  readonly #part: number
  readonly #partBytes: number
  #relief: Latch.Latch | undefined

  constructor(channels: Channels, capacity: number, capacityBytes: number) {
    this.#channels = channels
    this.#part = Math.max(1, Math.floor(capacity / 4))
    this.#partBytes = Math.floor(capacityBytes / 4)
  }

  /** The messages that may be published at once, and their bytes. */
  partOf(messages: ReadonlyArray<Outgoing>, from: number): { next: ReadonlyArray<Outgoing>; bytes: number } {
    const next: Array<Outgoing> = []
    let bytes = 0
    for (let i = from; i < messages.length && next.length < this.#part; i++) {
      const message = messages[i]! // within bounds
      const size = sizeOf(message)
      if (next.length > 0 && bytes + size > this.#partBytes) break
      next.push(message)
      bytes += size
    }
    return { next, bytes }
  }

  /** Returns once subscribers have room. Does not wait for a consumer that takes nothing in its turn. */
  relieved(topic: string, bytes: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#crowded(topic, bytes).length === 0) return Exit.void
      // One publisher watches on behalf of all.
      if (this.#relief !== undefined) return Effect.flatMap(this.#relief.await, () => this.relieved(topic, bytes))
      const over = Latch.makeUnsafe()
      this.#relief = over
      return this.#relieving(topic, bytes).pipe(
        Effect.ensuring(
          Effect.sync(() => {
            this.#relief = undefined
            over.openUnsafe()
          })
        ),
        // Others that waited may have gone first.
        Effect.andThen(this.relieved(topic, bytes))
      )
    })
  }

  #crowded(topic: string, bytes: number): ReadonlyArray<Inbox> {
    return this.#channels.crowded(topic, bytes, bytes > this.#partBytes)
  }

  #relieving(topic: string, bytes: number): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      let inVain = 0
      for (let crowd = this.#crowded(topic, bytes); crowd.length > 0; crowd = this.#crowded(topic, bytes)) {
        if (inVain === patience) return this.#channels.giveUp(crowd)
        const before = takesOf(crowd)
        yield* Effect.yieldNow
        inVain = takesOf(crowd) === before ? inVain + 1 : 0
      }
    })
  }
}
