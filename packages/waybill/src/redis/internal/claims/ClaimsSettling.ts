/**
 * How deliveries that the group keeps claims of end: a whole batch by one script, which asks first whether each is still its
 * consumer's.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Reason } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Argument } from "../connection/Script.ts"
import type { More } from "../connection/ScriptReply.ts"
import type { Belonging } from "../group/GroupReceiver.ts"
import {
  delayOf,
  isPartial,
  maxDeadCause,
  maxWaitingCause,
  type Settlements,
  type Settling,
  type Step,
  tallyAfter
} from "../group/Settling.ts"
import { failureText } from "../inspect/DeadLetterEntry.ts"
import type { ClaimsKeys } from "../wire/Keys.ts"
import { write } from "../wire/PackedMessage.ts"
import { write as writeTally } from "../wire/Tally.ts"
import type { ClaimedHandle } from "./ClaimedDelivery.ts"
import type { ClaimsScripts } from "./Scripts.ts"

export interface SettlingOptions
  extends Belonging<ClaimedHandle, ClaimsKeys>, Pick<Settling<ClaimedHandle>, "committer" | "settled"> {
  readonly script: ClaimsScripts["settle"]
}

/** How many deliveries one call hands back. */
const handBackLimit = 500

export class ClaimsSettling implements Settling<ClaimedHandle> {
  readonly committer: Committer<ClaimedHandle> | undefined
  readonly settled: (millis: number) => void
  readonly #options: SettlingOptions

  constructor(options: SettlingOptions) {
    this.#options = options
    this.committer = options.committer
    this.settled = options.settled
  }

  releasing(): void {}

  released(): void {
    this.settled(0)
  }

  acked(): void {}

  isPlain({ fence }: ClaimedHandle): boolean {
    return fence === 1
  }

  isGone(): boolean {
    return false
  }

  run(
    acks: ReadonlyArray<ClaimedHandle>,
    steps: ReadonlyArray<Step<ClaimedHandle>>
  ): Effect.Effect<Settlements, Reason> {
    const { committer } = this
    const markers: Array<string> = []
    const args: Array<Argument> = []
    for (const { receipt } of acks) args.push(receipt)
    for (const step of steps) {
      const { gone, handle, message, settlement } = step
      const { id, publishedAt, receipt } = handle
      switch (settlement._tag) {
        case "Ack":
          args.push("A", receipt)
          break
        case "Retry":
          args.push("R", receipt, delayOf(settlement), settlement.cause.slice(0, maxWaitingCause))
          args.push(writeTally(tallyAfter(step, this.#options.receiver.consumer)))
          break
        case "DeadLetter": {
          const cause = settlement.cause.slice(0, maxDeadCause)
          args.push(
            "D",
            receipt,
            settlement.reason,
            cause,
            writeTally(tallyAfter(step, this.#options.receiver.consumer))
          )
          args.push(failureText(settlement.failure), id, publishedAt)
          args.push(gone && message !== undefined ? write(message) : "")
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
    return this.#evaluate(acks.length, { keys: markers, args })
  }

  /** Gives these to others: `U` counts as an attempt, `L` does not. The newest first: each goes in front of what came back before. */
  handBack(members: ReadonlyArray<readonly [op: "L" | "U", member: string]>): Effect.Effect<void, Reason> {
    const newestFirst = members.toSorted(([, a], [, b]) => nth(b) - nth(a))
    return Effect.gen({ self: this }, function* () {
      for (let from = 0; from < newestFirst.length; from += handBackLimit) {
        yield* this.#evaluate(0, { args: newestFirst.slice(from, from + handBackLimit).flat() })
      }
    })
  }

  #evaluate(acks: number, more: More) {
    const { call, deadLetters, receiver, script } = this.#options
    return call(script, { consumer: receiver.consumer, ...deadLetters, acks }, more)
  }
}

/** The last number in the name of a delivery. */
const nth = (member: string): number => Number(/(\d*)(?:#\d+)?$/.exec(member)?.[1])
