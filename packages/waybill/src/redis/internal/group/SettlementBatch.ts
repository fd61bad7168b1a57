/**
 * A batch of deliveries to end, sorted by how the server is asked to end them, and the results so far. Every delivery gets a
 * result, in the order in which they were given.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery } from "../../../Delivery.ts"
import { unitsOf } from "../../../internal/Budget.ts"
import type { DeadLetter } from "../../../Settlement.ts"
import type { Ending, Settled, TransportError } from "../../../Transport.ts"
import type { Committed, Committer, Committing } from "../commit/Committer.ts"
import type { Held, InFlight } from "./InFlight.ts"
import type { RetryAmbiguous } from "./RetryAmbiguous.ts"
import type { Settling, Step } from "./Settling.ts"

/** A delivery that ends with a commit, and its place among the results. */
interface Bound<H extends Held> {
  readonly index: number
  readonly entry: Committing<H>
  readonly message: Delivery | undefined
}

/** How many deliveries one call ends, and how much message data it moves, here or in the server. */
const maxSteps = 100
const maxReleases = 1000
const maxUnits = 4 * 1024 * 1024

/** How many of the first steps one call may carry; at least one. */
export const fit = <H>(steps: ReadonlyArray<Step<H>>): number => {
  let units = 0
  let others = 0
  for (let i = 0; i < steps.length; i++) {
    const { message, settlement } = steps[i] as Step<H> // within bounds
    if (message !== undefined && settlement._tag !== "Release") units += unitsOf(message)
    // Messages handed back together become visible together: separately, later ones could overtake earlier ones.
    if (settlement._tag !== "Release") others++
    if (others > maxSteps || i === maxReleases || (i > 0 && units > maxUnits)) return i
  }
  return steps.length
}

export class SettlementBatch<H extends Held> {
  /** Plain acks, and the place of each among the results. */
  readonly acks: Array<H> = []
  readonly places: Array<number> = []
  readonly steps: Array<Step<H>> = []
  readonly bound: Array<Bound<H>> = []
  readonly answers: Array<Settled> = []
  readonly #inFlight: InFlight<H>

  /** Deliveries that are no longer held by us are stale. */
  constructor(endings: NonEmptyReadonlyArray<Ending>, inFlight: InFlight<H>, settling: Settling<H>) {
    this.#inFlight = inFlight
    const since = inFlight.sureSince()
    for (let index = 0; index < endings.length; index++) {
      const [given, settlement] = endings[index] as Ending // within bounds
      const handle = inFlight.find(given)
      this.answers.push("Stale")
      if (handle === undefined) continue
      handle.settling = true
      const message = "body" in given ? given : undefined
      if (settling.committer !== undefined && settlement._tag === "Ack" && settlement.commit !== undefined) {
        this.bound.push({ index, entry: [handle, settlement.commit], message })
      } else if (settlement._tag === "Ack" && settling.isPlain(handle, since)) {
        this.acks.push(handle)
        this.places.push(index)
      } else {
        this.steps.push({ index, handle, settlement, message, gone: handle.detached === true })
      }
    }
  }

  /** Runs what ends them; those that were not ended are held as before. */
  through(work: Effect.Effect<void, TransportError>): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.onExit(Effect.as(work, this.answers), (exit) => {
      if (Exit.isSuccess(exit)) return Effect.void
      for (const handle of this.acks) this.#keep(handle, true)
      for (const { handle, settlement } of this.steps) this.#keep(handle, settlement._tag !== "Release")
      for (const { entry } of this.bound) this.#keep(entry[0], true)
      return Effect.void
    })
  }

  /** It was not ended. `handled`: a handler has had it. */
  #keep(handle: H, handled: boolean): void {
    handle.settling = false
    if (handled && this.#inFlight.find(handle) === handle) this.#inFlight.unsettled.add(handle)
  }

  /** Applies the commits; refused ones become steps. `settled` runs after each call to the server. */
  commit(
    committer: Committer<H>,
    retryAmbiguous: RetryAmbiguous,
    callsAtATime: number,
    settled: () => void
  ): Effect.Effect<void, TransportError> {
    return Effect.gen({ self: this }, function* () {
      const open: Array<Bound<H>> = []
      for (const one of this.bound) {
        const objection = committer.objection(one.entry[1])
        if (objection === undefined) open.push(one)
        else this.#refuse(one, objection)
      }
      const calls: Array<ReadonlyArray<Bound<H>>> = []
      while (open.length > 0)
        calls.push(
          open.splice(
            0,
            committer.fit(
              open.map(({ entry }) => entry),
              callsAtATime
            )
          )
        )
      yield* Effect.forEach(calls, (call) => this.#apply(call, committer, retryAmbiguous, settled), {
        concurrency: callsAtATime,
        discard: true
      })
    })
  }

  readonly #apply = Effect.fnUntraced(
    { self: this },
    function* (
      call: ReadonlyArray<Bound<H>>,
      committer: Committer<H>,
      retryAmbiguous: RetryAmbiguous,
      settled: () => void
    ): Effect.fn.Return<void, TransportError> {
      const entries = call.map(({ entry }) => entry)
      const { ambiguous, reply } = yield* retryAmbiguous.try(() => committer.apply(entries))
      const since = this.#inFlight.sureSince()
      for (let i = 0; i < call.length; i++) {
        const one = call[i] as Bound<H> // within bounds
        const told = reply[i] as Committed // one for each
        const [handle] = one.entry
        if (typeof told === "object") {
          if (told._tag === "DeadLetter") this.#refuse(one, told)
          else {
            this.answers[one.index] = told
            this.#keep(handle, true)
          }
          continue
        }
        // After a lost reply, "not yours" may also be the trace of an older delivery that was done.
        if (told === "Done" || (ambiguous && handle.renewedAt > since)) this.answers[one.index] = "Settled"
        this.#inFlight.forget(handle)
      }
      settled()
    }
  )

  #refuse({ entry: [handle], index, message }: Bound<H>, settlement: DeadLetter): void {
    this.steps.push({ index, handle, settlement, message, gone: handle.detached === true, refused: settlement })
  }
}
