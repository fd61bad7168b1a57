/**
 * How claimed deliveries end: a whole batch by one script, which first checks whether each still belongs to its
 * consumer.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Reason } from "../../../Transport.ts"
import { pack } from "../connection/Evaluation.ts"
import type { More } from "../connection/ScriptReply.ts"
import type { Belonging } from "../group/GroupReceiver.ts"
import type { Settling } from "../group/Settling.ts"
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

export interface ClaimsSettling extends Settling<ClaimedHandle> {
  /** Hands these to others: `U` counts as an attempt, `L` does not. */
  readonly handBack: (members: ReadonlyArray<readonly [op: "L" | "U", member: string]>) => Effect.Effect<void, Reason>
}

export const make = (options: SettlingOptions): ClaimsSettling => {
  const { call, committer, deadLetters, receiver, script, settled, subscription } = options
  const { group } = subscription
  const { consumer } = receiver
  const ttl = committer?.markerMillis ?? 0
  const run = (acks: ReadonlyArray<ClaimedHandle>, more: More) =>
    call(script, { group, consumer, ...deadLetters, acks: acks.length, own: ownOf(acks), ttl }, more)
  return {
    committer,
    settled,
    released: () => settled(0),
    isPlain: ({ fence }) => fence === 1,
    placeOf: ({ receipt }) => [receipt],
    encode: write,
    run,
    handBack: Effect.fnUntraced(function* (members) {
      // The newest first: each goes before what came back earlier.
      const newestFirst = members.toSorted(([, a], [, b]) => nth(b) - nth(a))
      for (let from = 0; from < newestFirst.length; from += handBackLimit) {
        yield* run([], { args: newestFirst.slice(from, from + handBackLimit).flat() })
      }
    })
  }
}

/** Of the messages with ids of their own: the place among all, and the id. */
const ownOf = (acks: ReadonlyArray<ClaimedHandle>): Uint8Array | string => {
  const own: Array<string> = []
  for (let i = 0; i < acks.length; i++) {
    const { first, id } = acks[i] as ClaimedHandle // within bounds
    if (first !== undefined) own.push(String(i + 1), id)
  }
  return own.length === 0 ? "" : pack(own)
}

/** The last number in the name of a delivery. */
const nth = (member: string): number => Number(/(\d*)(?:#\d+)?$/.exec(member)?.[1])
