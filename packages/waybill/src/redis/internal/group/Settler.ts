/**
 * Ends deliveries. An ack that needs no check is sent in one plain command, where the pattern has one; anything else makes the
 * server check ownership in the same step.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type { Delivery } from "../../../Delivery.ts"
import * as Settlement from "../../../Settlement.ts"
import type { Ending, Reason, Settled, TransportError } from "../../../Transport.ts"
import type { Held, InFlight } from "./InFlight.ts"
import { RetryAmbiguous } from "./RetryAmbiguous.ts"
import { fit, SettlementBatch } from "./SettlementBatch.ts"
import { delayOf, isAside, type Settling, type Step, tell } from "./Settling.ts"

export interface SettlerOptions<H extends Held> {
  readonly topic: string
  readonly consumer: string
  readonly inFlight: InFlight<H>
  readonly settling: Settling<H>
  /** While the server applies the commits of one call, those of the next may be on their way. */
  readonly callsAtATime: number
  /** These were handed back, and are dead letters, because an operator has cancelled them. */
  readonly deadLettered: (deliveries: ReadonlyArray<Delivery>) => Effect.Effect<void>
  /** The cap dropped that many dead letters. */
  readonly dropped: (count: number) => Effect.Effect<void>
  /** A message that others may read is about to be set aside for that many milliseconds. */
  readonly setAside: (millis: number) => void
}

/** How many acks one run of the script ends. */
const maxAcks = 1000

export class Settler<H extends Held> {
  readonly #options: SettlerOptions<H>
  readonly #retryAmbiguous: RetryAmbiguous

  constructor(options: SettlerOptions<H>) {
    this.#options = options
    this.#retryAmbiguous = new RetryAmbiguous(options.topic)
  }

  /** From now on nothing is retried. */
  close(): void {
    this.#retryAmbiguous.close()
  }

  settle(endings: NonEmptyReadonlyArray<Ending>): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.suspend(() => {
      const { inFlight, settling } = this.#options
      const batch = new SettlementBatch<H>(endings, inFlight, settling)
      return Effect.tap(batch.through(this.#end(batch)), (answers) => {
        for (const { entry, index } of batch.bound) if (answers[index] === "Settled") settling.acked?.(entry[0])
        for (const { handle, index, settlement } of batch.steps) {
          if (settlement._tag === "Ack" && answers[index] === "Settled") settling.acked?.(handle)
        }
        return Effect.void
      })
    })
  }

  #end(batch: SettlementBatch<H>): Effect.Effect<void, TransportError> {
    const { acks, bound, steps } = batch
    const { callsAtATime, setAside, settling } = this.#options
    return Effect.gen({ self: this }, function* () {
      const scripted = settling.ack === undefined ? acks : []
      if (settling.ack !== undefined && acks.length > 0) yield* this.#ack(batch, settling.ack(acks))
      if (bound.length > 0 && settling.committer !== undefined) {
        yield* batch.commit(settling.committer, this.#retryAmbiguous, callsAtATime, () => settling.settled(Infinity))
      }
      for (const { settlement } of steps) if (isAside(settlement)) setAside(delayOf(settlement))
      const releases = steps.some(({ settlement }) => settlement._tag === "Release")
      if (releases) settling.releasing?.()
      let open: ReadonlyArray<Step<H>> = releases ? newestReleaseFirst(steps) : steps
      for (let from = 0; from < scripted.length || open.length > 0; from += maxAcks) {
        const plain = scripted.length <= maxAcks && from === 0 ? scripted : scripted.slice(from, from + maxAcks)
        const some = open.slice(0, fit(open))
        const gone = yield* this.#run(batch, from, plain, some)
        open = [...gone, ...open.slice(some.length)]
      }
    })
  }

  /** Acks in one command while all leases are certain; otherwise the script decides. */
  #ack(
    { acks, answers, places, steps }: SettlementBatch<H>,
    acked: Effect.Effect<number, Reason>
  ): Effect.Effect<void, TransportError> {
    const { inFlight, settling } = this.#options
    const sure = () => {
      const since = inFlight.sureSince()
      return acks.every(({ detached, renewedAt }) => detached === true || renewedAt > since)
    }
    return Effect.map(
      this.#retryAmbiguous.try((repeated) => (repeated && !sure() ? unknown : acked)),
      ({ ambiguous, reply: count }) => {
        if (count === undefined) {
          acks.forEach((handle, i) => {
            const index = places[i] as number // as many as acks
            steps.push({ index, handle, settlement: Settlement.ack, message: undefined, gone: false })
          })
          return
        }
        let owned = 0
        for (const handle of acks) {
          if (handle.detached !== true) owned++
          inFlight.forget(handle)
          // Without its group the server counts none of them, yet they are done.
          settling.acked?.(handle)
        }
        settling.settled(Infinity)
        // Fewer than we had: another consumer took some over before the command arrived, and it is unknown which. After a lost
        // reply this is also what our own success looks like.
        const all = count >= owned || (ambiguous && sure())
        for (let i = 0; i < acks.length; i++) {
          if (all || acks[i]?.detached === true) answers[places[i] as number] = "Settled" // as many as acks
        }
      }
    )
  }

  /** Runs the script once; returns the steps for which it needs the message. `from`: where the acks begin. */
  #run(
    { answers, places }: SettlementBatch<H>,
    from: number,
    acks: ReadonlyArray<H>,
    steps: ReadonlyArray<Step<H>>
  ): Effect.Effect<ReadonlyArray<Step<H>>, TransportError> {
    const { consumer, deadLettered, dropped, inFlight, settling } = this.#options
    return Effect.gen({ self: this }, function* () {
      const { args, keys } = tell(steps, settling, consumer)
      const run = settling.run(acks, { keys, args: [...acks.flatMap(settling.placeOf), ...args] })
      const { ambiguous, reply } = yield* this.#retryAmbiguous.try(() => run)
      const since = inFlight.sureSince()
      const end = (handle: H, index: number, letter: string | undefined, done: Settled = "Settled") => {
        // After a lost reply, "not yours" is also what our own success looks like.
        if (letter === "O" || letter === "C" || (ambiguous && handle.renewedAt > since)) answers[index] = done
        inFlight.forget(handle)
      }
      acks.forEach((handle, i) => end(handle, places[from + i] as number, reply.answers[i])) // as many as acks
      const gone: Array<Step<H>> = []
      const cancelled: Array<Delivery> = []
      let soonest = Infinity
      let isReady = false
      let isReleased = false
      steps.forEach((step, i) => {
        const letter = reply.answers[acks.length + i]
        if (letter === "G" && step.message !== undefined) {
          step.gone = true
          gone.push(step)
          return
        }
        end(step.handle, step.index, letter, step.refused)
        const { settlement } = step
        if (settlement._tag === "Release") isReleased = true
        // Its consumer has not been told, so nothing else reports it.
        if (settlement._tag === "Release" && letter === "C" && step.message !== undefined) cancelled.push(step.message)
        if (settlement._tag !== "Retry") return
        const delay = delayOf(settlement)
        if (delay === 0) isReady = true
        else soonest = Math.min(soonest, delay)
      })
      if (isReleased) settling.released()
      if (isReady) settling.settled(0)
      settling.settled(soonest)
      yield* deadLettered(cancelled)
      if (reply.dropped > 0) yield* dropped(reply.dropped)
      return gone
    })
  }
}

const unknown = Effect.succeed(undefined)

/** Each goes before those handed back earlier, so the last one has to be the first. */
const newestReleaseFirst = <H>(steps: ReadonlyArray<Step<H>>): ReadonlyArray<Step<H>> => {
  const releases = steps.filter(({ settlement }) => settlement._tag === "Release")
  return [...steps.filter((step) => !releases.includes(step)), ...releases.reverse()]
}
