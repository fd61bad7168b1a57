/**
 * The senders of a layer: one per topic, opened by the first publish, and closed when unused for a while.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Outgoing, Receipt } from "../../../Message.ts"
import type { TransportError } from "../../../Transport.ts"
import type { Outbox } from "./Outbox.ts"

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
  readonly #make: (topic: string) => Outbox
  readonly #opened = new Map<string, Opened>()
  #sweeping = false

  /** All of them are closed with the scope. */
  constructor(scope: Scope.Scope, make: (topic: string) => Outbox) {
    this.#scope = scope
    this.#make = make
  }

  publish(
    topic: string,
    messages: NonEmptyReadonlyArray<Outgoing>
  ): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    // Looked up when it runs: a sender that is known now may be closed until then.
    return Effect.suspend(() => {
      const known = this.#opened.get(topic)
      if (known === undefined) return Effect.flatMap(this.#open(topic), (sender) => sender.publish(messages))
      known.used = true
      return known.sender.publish(messages)
    })
  }

  #open(topic: string): Effect.Effect<Outbox> {
    const sender = this.#make(topic)
    const scope = Scope.forkUnsafe(this.#scope)
    this.#opened.set(topic, { sender, scope, used: true })
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
        for (const [topic, one] of this.#opened) {
          if (one.used || one.sender.busy) {
            one.used = false
          } else {
            this.#opened.delete(topic)
            yield* Scope.close(one.scope, Exit.void)
          }
        }
      }
      this.#sweeping = false
    })
  }
}
