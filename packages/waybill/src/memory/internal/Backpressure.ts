/**
 * Lets subscribers run that have much to take: what is published takes no time here, and would meet full buffers of consumers that
 * had no turn.
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

/** How many turns a subscriber may let pass before it counts as one that takes nothing. */
const patience = 16

/** With an id as long as those that are given here. */
export const sizeOf = (message: Outgoing): number => unitsOf(message) + (message.id === undefined ? 24 : 0)

const takesOf = (inboxes: ReadonlyArray<Inbox>) => inboxes.reduce((sum, { takes }) => sum + takes, 0)

export class Backpressure {
  readonly #channels: Channels
  /** How many, and how many bytes, are published before subscribers get a turn that need one. */
  readonly #part: number
  readonly #partBytes: number
  #relief: Latch.Latch | undefined

  constructor(channels: Channels, capacity: number, capacityBytes: number) {
    this.#channels = channels
    this.#part = Math.max(1, Math.floor(capacity / 4))
    this.#partBytes = Math.floor(capacityBytes / 4)
  }

  /** What of the messages may be published at once, and its bytes. */
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

  /** Returns when subscribers have room. A consumer that takes nothing when it is its turn is not waited for. */
  relieved(topic: string, bytes: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#crowded(topic, bytes).length === 0) return Exit.void
      // One looks for all who publish.
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
        // Those that waited may have gone on first.
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
