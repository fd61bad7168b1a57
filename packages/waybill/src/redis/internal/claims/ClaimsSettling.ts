/**
 * How claimed deliveries end: a whole batch by one script, which first checks whether each still belongs to its
 * consumer.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Reason } from "../../../Transport.ts"
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
  const { call, committer, deadLetters, receiver, script, settled } = options
  const { consumer } = receiver
  const ttl = committer?.markerMillis ?? 0
  const run = (acks: number, more: More) => call(script, { consumer, ...deadLetters, acks, ttl }, more)
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
        yield* run(0, { args: newestFirst.slice(from, from + handBackLimit).flat() })
      }
    })
  }
}

/** The last number in the name of a delivery. */
const nth = (member: string): number => Number(/(\d*)(?:#\d+)?$/.exec(member)?.[1])
