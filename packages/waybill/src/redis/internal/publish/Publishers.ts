/**
 * The senders of a layer: one per topic, opened by the first publish, and closed when unused for a while.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Durability, Outgoing, Receipt } from "../../../Message.ts"
import type { TransportError } from "../../../Transport.ts"
import type { Outbox } from "./Outbox.ts"

/** One for each topic, and for each durability. */
type Make = (topic: string, durability: Durability, scope: Scope.Scope) => Outbox

/** A sender, and whether it was used since the last sweep. */
interface Opened {
  readonly sender: Outbox
  readonly scope: Scope.Closeable
  used: boolean
}

/** A sender that is unused for this long, or up to twice as long, is closed: a process may publish to thousands of topics. */
const sweepMillis = 5000

export class Publishers {
  readonly #scope: Scope.Scope
  readonly #make: Make
  readonly #opened = new Map<string, Opened>()
  #sweeping = false

  /** All of them are closed with the scope. */
  constructor(scope: Scope.Scope, make: Make) {
    this.#scope = scope
    this.#make = make
  }

  publish(
    topic: string,
    messages: NonEmptyReadonlyArray<Outgoing>,
    durability: Durability
  ): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    // Looked up when it runs: a sender that is known now may be closed until then.
    return Effect.suspend(() => {
      // No name of a topic has white space.
      const name = durability === "stored" ? topic : `${topic} ${durability}`
      const known = this.#opened.get(name)
      if (known === undefined) {
        return Effect.flatMap(this.#open(name, topic, durability), (sender) => sender.publish(messages))
      }
      known.used = true
      return known.sender.publish(messages)
    })
  }

  #open(name: string, topic: string, durability: Durability): Effect.Effect<Outbox> {
    const scope = Scope.forkUnsafe(this.#scope)
    const sender = this.#make(topic, durability, scope)
    this.#opened.set(name, { sender, scope, used: true })
    return Scope.addFinalizer(scope, sender.close).pipe(
      Effect.andThen(Effect.forkIn(sender.run, scope)),
      Effect.andThen(
        Effect.suspend(() => {
          if (this.#sweeping) return Effect.void
          this.#sweeping = true
          return Effect.forkIn(this.#sweep, this.#scope)
        })
      ),
      Effect.as(sender)
    )
  }

  /** Closes those that were unused from one sweep to the next, until none is left. */
  get #sweep(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      while (this.#opened.size > 0) {
        yield* Effect.sleep(sweepMillis)
        for (const [name, one] of this.#opened) {
          if (one.used || one.sender.busy) {
            one.used = false
          } else {
            this.#opened.delete(name)
            yield* Scope.close(one.scope, Exit.void)
          }
        }
      }
      this.#sweeping = false
    })
  }
}
