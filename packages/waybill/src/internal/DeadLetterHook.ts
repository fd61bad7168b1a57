/**
 * Runs a consumer's hook for the dead letters of its group: claims some, keeps the claims while the hook runs, and confirms
 * each once the hook has ended. What is unconfirmed when the process dies is claimed by another.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type { DeadLetter } from "../Inspector.ts"
import type { Lifecycle } from "../Lifecycle.ts"
import type { ClaimedDeadLetters, DeadLetterClaim, TransportError } from "../Transport.ts"
import { render } from "./Routing.ts"
import { Wakeup } from "./Wakeup.ts"

export interface Options {
  readonly topic: string
  readonly group: string
  readonly lease: Duration.Duration
  readonly claim: (claim: DeadLetterClaim) => Effect.Effect<ClaimedDeadLetters, TransportError>
  /** Waits until there may be something to claim. */
  readonly unclaimed: Effect.Effect<void> | undefined
  readonly run: (letter: DeadLetter) => Effect.Effect<unknown, unknown>
  readonly lifecycle: Lifecycle
}

/** How many letters are handled at a time. */
const most = 16
/** How often to ask a transport that does not tell. */
const poll = Effect.sleep("1 second")

export class DeadLetterHook {
  readonly #options: Options
  readonly #running = new Map<string, Fiber.Fiber<unknown>>()
  readonly #handled: Array<string> = []
  #position: string | undefined
  #hurried = false
  #stopping = false
  readonly #hurry = new Wakeup(() => this.#hurried)
  readonly #idle = new Wakeup(() => this.#running.size === 0)

  constructor(options: Options) {
    this.#options = options
  }

  /** There is something to claim or to confirm. */
  hurry(): void {
    this.#hurried = true
    this.#hurry.notify()
  }

  /** Claims, and begins with what it got; returns how many. Letters from after the first time are the hook's. */
  readonly claim: Effect.Effect<number, TransportError> = Effect.gen({ self: this }, function* () {
    const { claim, group, lease, topic } = this.#options
    const handled = [...this.#handled]
    const held = [...this.#running.keys()]
    const limit = this.#room
    const asked = { topic, group, lease, handled, held, limit, from: this.#position }
    const { letters, position } = yield* claim(asked)
    // Confirmed again until the store replies, or the hook would run again.
    this.#handled.splice(0, handled.length)
    this.#position = position
    for (const letter of letters) {
      // The claim had expired before it was renewed.
      if (!this.#running.has(letter.entry)) this.#running.set(letter.entry, yield* Effect.forkDetach(this.#run(letter)))
    }
    return letters.length
  })

  readonly run: Effect.Effect<never, TransportError> = Effect.gen({ self: this }, function* () {
    const { lease, unclaimed = poll } = this.#options
    const renewal = Effect.sleep(Duration.divideUnsafe(lease, 3))
    while (true) {
      this.#hurried = false
      if ((yield* this.claim) > 0) continue
      const more = this.#room > 0 ? unclaimed : Effect.never
      const waits = this.#running.size > 0 ? Effect.raceFirst(more, renewal) : more
      yield* Effect.raceFirst(this.#hurry.wait, waits)
    }
  })

  /** How many letters may begin. */
  get #room(): number {
    return this.#stopping ? 0 : most - this.#running.size
  }

  /** Takes nothing new. `run` has to continue, to keep the claims. */
  stop(): void {
    this.#stopping = true
  }

  /** Waits until nothing is under way. */
  get idle(): Effect.Effect<void> {
    return this.#idle.wait
  }

  /** Gives up what is still under way, and confirms the rest. */
  readonly leave: Effect.Effect<void> = Effect.suspend(() => {
    const { claim, group, topic } = this.#options
    const held = [...this.#running.keys()]
    for (const fiber of this.#running.values()) fiber.interruptUnsafe()
    const given = { topic, group, limit: 0, from: this.#position, lease: Duration.zero }
    return Effect.ignore(claim({ ...given, held, handled: this.#handled }))
  })

  #run(letter: DeadLetter): Effect.Effect<void> {
    const { group, lifecycle, run, topic } = this.#options
    const { entry, id } = letter
    return Effect.suspend(() => run(letter)).pipe(
      Effect.annotateLogs({ topic, group, messageId: id }),
      Effect.onExit((exit) => {
        this.#running.delete(entry)
        this.#idle.notify()
        // Given up: another consumer handles it.
        if (this.#stopping && Exit.isFailure(exit) && Exit.hasInterrupts(exit)) return Effect.void
        this.#handled.push(entry)
        this.hurry()
        if (Exit.isSuccess(exit)) return Effect.void
        return lifecycle.report({ _tag: "DeadLetterUnhandled", topic, group, id, entry, error: render(exit.cause) })
      }),
      Effect.exit,
      Effect.asVoid
    )
  }
}
