/**
 * Ends deliveries. Each is ended by a script that asks first whether it is still its consumer's, a whole batch in one
 * call.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type { Delivery } from "../../../Delivery.ts"
import type { DeadLetterCap } from "../../../internal/Limits.ts"
import type { Settlement } from "../../../Settlement.ts"
import type { Settled, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Connection } from "../connection/Connection.ts"
import type { Argument } from "../connection/Script.ts"
import { evaluate, type More } from "../connection/ScriptReply.ts"
import type { InFlight } from "../group/InFlight.ts"
import { RetryAmbiguous } from "../group/RetryAmbiguous.ts"
import {
  delayOf,
  fit,
  isPartial,
  maxDeadCause,
  maxWaitingCause,
  SettlementBatch,
  type Step,
  tallyAfter
} from "../group/SettlementBatch.ts"
import { failureText } from "../inspect/DeadLetterEntry.ts"
import type { ClaimsKeys } from "../wire/Keys.ts"
import { write } from "../wire/PackedMessage.ts"
import { write as writeTally } from "../wire/Tally.ts"
import type { ClaimedDelivery } from "./ClaimedDelivery.ts"
import type { ClaimsScripts } from "./Scripts.ts"

export interface SettlerOptions {
  readonly commands: Connection
  readonly topic: string
  readonly pattern: string
  readonly consumer: string
  readonly script: ClaimsScripts["settle"]
  readonly keys: ClaimsKeys
  readonly inFlight: InFlight<ClaimedDelivery>
  readonly deadLetters: DeadLetterCap
  /** Something ended; a message will be there to take in so many milliseconds, if any. */
  readonly settled: (millis: number) => void
  readonly dropped: (count: number) => Effect.Effect<void>
  /** Of a pattern that applies commits. */
  readonly committer: Committer<ClaimedDelivery> | undefined
}

/** How many plain acks one run of the script ends. */
const maxAcks = 1000
export class ClaimsSettler {
  readonly #options: SettlerOptions
  readonly #retryAmbiguous: RetryAmbiguous

  constructor(options: SettlerOptions) {
    this.#options = options
    this.#retryAmbiguous = new RetryAmbiguous(options.topic)
  }

  /** From now on nothing is tried again. */
  close(): void {
    this.#retryAmbiguous.close()
  }

  settle(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.suspend(() => {
      const { committer, inFlight, settled } = this.#options
      const batch = new SettlementBatch<ClaimedDelivery>(settlements, {
        inFlight,
        commits: committer !== undefined,
        isPlain: ({ fence }) => fence === 1,
        isGone: () => false
      })
      if (committer === undefined || batch.bound.length === 0) return batch.through(this.#end(batch))
      const committed = batch.commit(committer, this.#retryAmbiguous, () => settled(Infinity))
      return batch.through(Effect.andThen(committed, this.#end(batch)))
    })
  }

  /** Runs the script until everything has an answer. */
  #end({ acks, answers, places, steps }: SettlementBatch<ClaimedDelivery>): Effect.Effect<void, TransportError> {
    const { dropped, inFlight, settled } = this.#options
    return Effect.gen({ self: this }, function* () {
      let from = 0
      let open: ReadonlyArray<Step<ClaimedDelivery>> = newestReleaseFirst(steps)
      while (from < acks.length || open.length > 0) {
        const plain = from === 0 && acks.length <= maxAcks ? acks : acks.slice(from, from + maxAcks)
        const some = open.slice(0, fit(open))
        const more = this.#encode(plain, some)
        const { ambiguous, reply } = yield* this.#retryAmbiguous.try(() => this.#evaluate(plain.length, more))
        const { answers: told, dropped: lost } = reply
        const since = inFlight.sureSince()
        const answer = (
          delivery: ClaimedDelivery,
          index: number,
          letter: string | undefined,
          done: Settled = "Settled"
        ) => {
          // After a lost answer, "not yours" is also what our own success looks like.
          if (letter === "O" || (ambiguous && delivery.renewedAt > since)) answers[index] = done
          inFlight.forget(delivery)
        }
        plain.forEach((delivery, i) => answer(delivery, places[from + i] as number, told[i])) // as many as acks
        const gone: Array<Step<ClaimedDelivery>> = []
        let soonest = Infinity
        let ready = false
        some.forEach((step, i) => {
          const letter = told[plain.length + i]
          if (letter === "G") {
            step.gone = true
            gone.push(step)
            return
          }
          answer(step.delivery, step.index, letter, step.refused)
          const delay = step.settlement._tag === "Retry" ? delayOf(step.settlement) : undefined
          if (delay !== undefined && delay > 0) soonest = Math.min(soonest, delay)
          else if (delay !== undefined || step.settlement._tag === "Release") ready = true
        })
        if (ready) settled(0)
        settled(soonest)
        if (lost > 0) yield* dropped(lost)
        from += plain.length
        open = [...gone, ...open.slice(some.length)]
      }
    })
  }

  #encode(acks: ReadonlyArray<ClaimedDelivery>, steps: ReadonlyArray<Step<ClaimedDelivery>>): More {
    const { committer } = this.#options
    const markers: Array<string> = []
    const args: Array<Argument> = []
    for (const { receipt } of acks) args.push(receipt)
    for (const step of steps) {
      const { delivery, gone, settlement } = step
      const { id, publishedAt, receipt } = delivery
      switch (settlement._tag) {
        case "Ack":
          args.push("A", receipt)
          break
        case "Retry":
          args.push("R", receipt, delayOf(settlement), settlement.cause.slice(0, maxWaitingCause))
          args.push(writeTally(tallyAfter(step)))
          break
        case "DeadLetter": {
          const cause = settlement.cause.slice(0, maxDeadCause)
          args.push("D", receipt, settlement.reason, cause, writeTally(tallyAfter(step)))
          args.push(failureText(settlement.failure), id, publishedAt)
          args.push(gone ? write(delivery) : "")
          if (isPartial(step) && committer !== undefined) {
            args.push(markers.push(committer.done(id)), committer.markerMillis)
          } else {
            args.push(0, 0)
          }
          break
        }
        case "Release":
          args.push("L", receipt)
          break
      }
    }
    return { keys: markers, args }
  }

  #evaluate(acks: number, more: More) {
    const { commands, consumer, deadLetters, keys, pattern, script, topic } = this.#options
    const { maxAgeMillis: maxAge, maxCount: maxDead } = deadLetters
    return evaluate(commands, { topic, pattern }, script, keys, { consumer, maxDead, maxAge, acks }, more)
  }
}

/** Each of them goes in front of those that went back before, so the last one has to be the first. */
const newestReleaseFirst = (steps: ReadonlyArray<Step<ClaimedDelivery>>): ReadonlyArray<Step<ClaimedDelivery>> => {
  const releases = steps.filter(({ settlement }) => settlement._tag === "Release")
  return releases.length < 2 ? steps : [...steps.filter((step) => !releases.includes(step)), ...releases.reverse()]
}
