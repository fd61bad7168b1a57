/**
 * A batch of deliveries that are to end, sorted by how the server is asked to end them, and the answers so far. Every
 * delivery gets an answer, in the order in which they were given.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery } from "../../../Delivery.ts"
import { unitsOf } from "../../../internal/Budget.ts"
import type { DeadLetter, Settlement } from "../../../Settlement.ts"
import type { Settled, TransportError } from "../../../Transport.ts"
import type { Committed, Committer, Committing } from "../commit/Committer.ts"
import type { Held, InFlight } from "./InFlight.ts"
import type { RetryAmbiguous } from "./RetryAmbiguous.ts"
import type { Settling, Step } from "./Settling.ts"

/** A delivery that ends with a commit, and its place among the answers. */
interface Bound<D extends Held> {
  readonly index: number
  readonly entry: Committing<D>
}

/** How many deliveries one call ends, and how much of messages it moves, here or in the server. */
const maxSteps = 100
const maxReleases = 1000
const maxUnits = 4 * 1024 * 1024

/** As many of the first steps as one call may carry; at least one. */
export const fit = <D extends Delivery>(steps: ReadonlyArray<Step<D>>): number => {
  let units = 0
  let others = 0
  for (let i = 0; i < steps.length; i++) {
    const { delivery, settlement } = steps[i] as Step<D> // within bounds
    if (settlement._tag === "Retry" || settlement._tag === "DeadLetter") units += unitsOf(delivery)
    // What goes back together is seen by others together: apart, the later ones could overtake the earlier.
    if (settlement._tag !== "Release") others++
    if (others > maxSteps || i === maxReleases || (i > 0 && units > maxUnits)) return i
  }
  return steps.length
}

export class SettlementBatch<D extends Held> {
  /** Plain acks, and the place of each among the answers. */
  readonly acks: Array<D> = []
  readonly places: Array<number> = []
  readonly steps: Array<Step<D>> = []
  readonly bound: Array<Bound<D>> = []
  readonly answers: Array<Settled> = []
  readonly #inFlight: InFlight<D>
  readonly #settling: Settling<D>

  /** What is not held by us any more is stale. */
  constructor(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement]>,
    inFlight: InFlight<D>,
    settling: Settling<D>
  ) {
    this.#inFlight = inFlight
    this.#settling = settling
    const since = inFlight.sureSince()
    for (let index = 0; index < settlements.length; index++) {
      const [given, settlement] = settlements[index] as (typeof settlements)[0] // within bounds
      const delivery = inFlight.find(given)
      this.answers.push("Stale")
      if (delivery === undefined) continue
      delivery.settling = true
      if (settling.committer !== undefined && settlement._tag === "Ack" && settlement.commit !== undefined) {
        this.bound.push({ index, entry: [delivery, settlement.commit] })
      } else if (settlement._tag === "Ack" && settling.isPlain(delivery, since)) {
        this.acks.push(delivery)
        this.places.push(index)
      } else {
        this.steps.push({ index, delivery, settlement, gone: settling.isGone(delivery) })
      }
    }
  }

  /** Runs what ends them; those that were not ended are held as before. */
  through(work: Effect.Effect<void, TransportError>): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.onExit(Effect.as(work, this.answers), (exit) => {
      if (Exit.isSuccess(exit)) return Effect.void
      for (const delivery of this.acks) this.#keep(delivery, true)
      for (const { delivery, settlement } of this.steps) this.#keep(delivery, settlement._tag !== "Release")
      for (const { entry } of this.bound) this.#keep(entry[0], true)
      return Effect.void
    })
  }

  /** It was not ended. `handled`: a handler has had it. */
  #keep(delivery: D, handled: boolean): void {
    delivery.settling = false
    if (handled && this.#inFlight.find(delivery) === delivery) this.#inFlight.unsettled.add(delivery)
  }

  /** Applies the commits; those that are refused become steps. `settled` runs after each call of the server. */
  commit(
    committer: Committer<D>,
    retryAmbiguous: RetryAmbiguous,
    settled: () => void
  ): Effect.Effect<void, TransportError> {
    return Effect.gen({ self: this }, function* () {
      let open: Array<Bound<D>> = []
      for (const one of this.bound) {
        const objection = committer.objection(one.entry[1])
        if (objection === undefined) open.push(one)
        else this.#refuse(one, objection)
      }
      while (open.length > 0) {
        const entries = open.map(({ entry }) => entry)
        const some = committer.fit(entries)
        const { ambiguous, reply } = yield* retryAmbiguous.try(() => committer.apply(entries.slice(0, some)))
        const since = this.#inFlight.sureSince()
        for (let i = 0; i < some; i++) {
          const one = open[i] as Bound<D> // some of them
          const told = reply[i] as Committed // one for each
          if (typeof told === "object") {
            this.#refuse(one, told)
            continue
          }
          const [delivery] = one.entry
          // After a lost answer, "not yours" is also what is left of an older delivery that was done.
          if (told === "Done" || (ambiguous && delivery.renewedAt > since)) this.answers[one.index] = "Settled"
          this.#inFlight.forget(delivery)
        }
        open = open.slice(some)
        settled()
      }
    })
  }

  #refuse({ entry: [delivery], index }: Bound<D>, settlement: DeadLetter): void {
    this.steps.push({ index, delivery, settlement, gone: this.#settling.isGone(delivery), refused: settlement })
  }
}
