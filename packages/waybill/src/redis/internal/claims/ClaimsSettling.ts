/**
 * How deliveries that the group keeps claims of end: a whole batch by one script, which asks first whether each is still its
 * consumer's.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Reason } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { More } from "../connection/ScriptReply.ts"
import type { Belonging } from "../group/GroupReceiver.ts"
import { type Settlements, type Settling, type Step, tell } from "../group/Settling.ts"
import type { ClaimsKeys } from "../wire/Keys.ts"
import { write } from "../wire/PackedMessage.ts"
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
    const { committer, receiver } = this.#options
    const { args, keys } = tell(steps, { consumer: receiver.consumer, committer, place: placeOf, encode: write })
    return this.#evaluate(acks.length, { keys, args: [...acks.flatMap(placeOf), ...args] })
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
    const { call, committer, deadLetters, receiver, script } = this.#options
    const ttl = committer?.markerMillis ?? 0
    return call(script, { consumer: receiver.consumer, ...deadLetters, acks, ttl }, more)
  }
}

const placeOf = ({ receipt }: ClaimedHandle) => [receipt]

/** The last number in the name of a delivery. */
const nth = (member: string): number => Number(/(\d*)(?:#\d+)?$/.exec(member)?.[1])
