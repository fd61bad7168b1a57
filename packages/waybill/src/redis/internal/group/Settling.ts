/**
 * What a pattern says to the server to end deliveries, and what the scripts are told about each.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type { Delivery } from "../../../Delivery.ts"
import { untimed } from "../../../internal/Attempts.ts"
import { failuresAfter } from "../../../internal/RetryCounts.ts"
import type { Message } from "../../../Message.ts"
import type { DeadLetter, Retry, Settlement } from "../../../Settlement.ts"
import type { Reason } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Argument } from "../connection/Script.ts"
import type { More } from "../connection/ScriptReply.ts"
import { failureText } from "../wire/Fields.ts"
import { type Tally, write } from "../wire/Tally.ts"
import type { Held } from "./InFlight.ts"

export interface Settling<H extends Held> {
  /** Only for a pattern that applies commits. */
  readonly committer: Committer<H> | undefined
  /** Whether a plain ack is enough; `since`: no other consumer can have what was renewed after this. */
  readonly isPlain: (handle: H, since: number) => boolean
  /** Ends plain acks without checking ownership, and returns how many of them were ours. Absent if the script ends them. */
  readonly ack?: (handles: ReadonlyArray<H>) => Effect.Effect<number, Reason>
  /** Runs the script, with the places of these plain acks before the steps. */
  readonly run: (acks: ReadonlyArray<H>, more: More) => Effect.Effect<Settlements, Reason>
  /** Names a delivery to the script. */
  readonly placeOf: (handle: H) => ReadonlyArray<Argument>
  /** A message that the store has lost. */
  readonly encode: (message: Message) => Argument
  /** Something is about to be handed back, and has been. */
  readonly releasing?: () => void
  readonly released: () => void
  /** Some ended; of these a message will be available in that many milliseconds, if any. */
  readonly settled: (millis: number) => void
  /** It was acknowledged. */
  readonly acked?: (handle: H) => void
}

export interface Settlements {
  /**
   * A letter for each: `O` done, `F` no longer ours, `G` the store does not have the message: repeat with it, `C` an operator has
   * cancelled it: it is a dead letter.
   */
  readonly answers: string
  /** How many dead letters the cap has dropped. */
  readonly dropped: number
}

/** A delivery that a script ends, and its place among the results. */
export interface Step<H> {
  readonly index: number
  readonly handle: H
  readonly settlement: Settlement
  /** The message, if it was given: an ack only names the delivery. */
  readonly message: Delivery | undefined
  /** The store no longer has it: its content comes from here. */
  gone: boolean
  /** Its commit was refused; this is the settlement, and the result. */
  readonly refused?: DeadLetter
}

/**
 * Arguments of the script, and the further keys that they number. For each step: `A` ack, `S` ack of a message that has its id to
 * itself, `L` release, `R` retry, `N` one that was set aside for its version, which does not count, `D` dead letter; the place; for
 * `S` the id and where it was first; and for `R`, `N` and `D`: the delay in ms or the reason, cause, tally, failure, id, published at,
 * attempt, fence, the number of the key that is the marker of a commit that was refused in part or 0, and the message or "".
 */
export const tell = <H extends Held>(
  steps: ReadonlyArray<Step<H>>,
  { committer, encode, placeOf }: Settling<H>,
  consumer: string
) => {
  const keys: Array<string> = []
  const args: Array<Argument> = []
  for (const step of steps) {
    const { gone, handle, message, settlement } = step
    const { attempt, detached, fence, first, id, publishedAt } = handle
    const isBack = settlement._tag === "Release" && detached !== true
    if (settlement._tag === "Ack" || isBack) {
      const isUnique = first !== undefined && !isBack
      args.push(isBack ? "L" : isUnique ? "S" : "A", ...placeOf(handle))
      if (isUnique) args.push(id, first)
      continue
    }
    const letter = settlement._tag === "DeadLetter" ? settlement : undefined
    args.push(letter !== undefined ? "D" : isAside(settlement) ? "N" : "R", ...placeOf(handle))
    if (settlement._tag === "DeadLetter") args.push(settlement.reason, settlement.cause.slice(0, maxDeadCause))
    else if (settlement._tag === "Retry") args.push(delayOf(settlement), settlement.cause.slice(0, maxWaitingCause))
    // The group's pending entries are gone with it: the message can only come back as a retry.
    else args.push(0, "released")
    args.push(write(tallyAfter(step, consumer)), failureText(letter?.failure), id, publishedAt)
    args.push(settlement._tag === "Release" || isAside(settlement) ? attempt - 1 : attempt, fence)
    args.push(isPartial(step) && committer !== undefined ? keys.push(committer.done(id)) : 0)
    args.push(gone && message !== undefined ? encode(message) : "")
  }
  return { keys, args }
}

/** Set aside because the consumer does not read its version. */
export const isAside = (settlement: Settlement): settlement is Retry =>
  settlement._tag === "Retry" && settlement.newerThan !== undefined

/** Longer causes of waiting and dead messages are truncated. */
const maxWaitingCause = 100
export const maxDeadCause = 8000

/** Redis keeps due times as floating point numbers; this is far enough away. */
const longest = 2 ** 52

/** Milliseconds until the next attempt. */
export const delayOf = (retry: Retry): number => Math.min(longest, Math.ceil(Duration.toMillis(retry.delay)))

/** The commit was refused in part now, not in an earlier delivery. */
const isPartial = ({ refused }: Step<unknown>): boolean => refused?.reason === "PartialCommit"

/** The tally of the message when it comes back or is dead; the server adds the time of the attempt. */
const tallyAfter = (step: Step<{ readonly attempt: number; readonly tally: Tally }>, consumer: string): Tally => {
  const { handle, settlement } = step
  const { tally } = handle
  if (settlement._tag !== "Retry" && settlement._tag !== "DeadLetter") return tally
  const log = isAside(settlement) ? tally.log : untimed(tally.log, handle.attempt, consumer, settlement)
  return settlement._tag === "Retry"
    ? { ...tally, log, failures: failuresAfter(tally.failures, settlement) }
    : { ...tally, log, partial: tally.partial || isPartial(step) }
}
