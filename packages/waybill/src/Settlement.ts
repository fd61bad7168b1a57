/**
 * How a delivery ends: in exactly one of four ways, each one atomic step in the transport.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type { Commit, Condition } from "./Commit.ts"
import type { Failures } from "./Delivery.ts"
import type { Failure, Said } from "./Failure.ts"

/** Done: the group never sees the message again. */
export interface Ack {
  readonly _tag: "Ack"
  /** Applied in the same step, or not at all. Only passed to transports that keep `transactional`. */
  readonly commit?: Commit<Condition>
}

/** Failed for now: the message waits in the transport without occupying a fiber or slot, and comes back after `delay`. */
export interface Retry {
  readonly _tag: "Retry"
  readonly delay: Duration.Duration
  /** The rendered failure, kept with the waiting message. */
  readonly cause: string
  /**
   * The row of the routing table that decided this, and how often it now has: the next delivery has it among its
   * `failures`.
   */
  readonly row?: Failures & { readonly name: string }
  /** The tag and message of the failure, if a handler failed. */
  readonly failure?: Said
  /**
   * No handler has seen the message, because it is of a newer version than this one, the newest that the consumer reads:
   * it is set aside, and the attempt does not count.
   */
  readonly newerThan?: number
}

/** Failed for good: the message, with its raw bytes, moves to the dead letters of its group. */
export interface DeadLetter {
  readonly _tag: "DeadLetter"
  /**
   * A short, stable word to filter by: an error's tag, `DecodeFailure`, `Defect`, `CrashLoop`, or the route's own.
   * For a commit, `CommitRejected` if nothing was applied, and `PartialCommit` if some of it was and will not be
   * again.
   */
  readonly reason: string
  /** The rendered cause. */
  readonly cause: string
  /** The failure with its fields, if a handler failed. */
  readonly failure?: Failure
}

/** Handed back unfinished because the consumer stops. The attempt does not count. */
export interface Release {
  readonly _tag: "Release"
}

export type Settlement = Ack | Retry | DeadLetter | Release

/** One shared value for the hot path. */
export const ack: Ack & { readonly commit?: undefined } = { _tag: "Ack" }

/** Done, and the commit is applied with it. */
export const commit = (commit: Commit<Condition>): Ack => ({ _tag: "Ack", commit })

/** Failed for now, to be retried after `delay`; zero means at once. The rest is kept with the waiting message. */
export const retry = (delay: Duration.Duration, cause: string, row?: Retry["row"], failure?: Said): Retry => ({
  _tag: "Retry",
  delay,
  cause,
  ...(row && { row }),
  ...(failure && { failure })
})

/** The most bytes of a reason, in UTF-8. */
const maxReasonBytes = 1024

/**
 * Failed for good. `reason` is the word to filter by, truncated to 1 KiB, and `Failure` if empty. `cause` is for people to
 * read, and `failure` is the same as data.
 */
export const deadLetter = (reason: string, cause: string, failure?: Failure): DeadLetter => ({
  _tag: "DeadLetter",
  reason: shortened(reason) || "Failure",
  cause,
  ...(failure && { failure })
})

const utf8 = new TextEncoder()

const shortened = (reason: unknown): string => {
  // The types guarantee a string; JavaScript does not.
  const text = typeof reason === "string" ? reason : String(reason)
  if (text.length * 3 <= maxReasonBytes) return text.toWellFormed()
  const { read } = utf8.encodeInto(text, new Uint8Array(maxReasonBytes))
  if (read === text.length) return text.toWellFormed()
  // Never in the middle of a character.
  const fits = utf8.encodeInto(text, new Uint8Array(maxReasonBytes - ellipsis.length)).read
  return text.slice(0, fits).toWellFormed() + ellipsis
}

const ellipsis = "..."

/** Handed back without counting the attempt. */
export const release: Settlement = { _tag: "Release" }

/** How a delivery ends that an operator has cancelled. */
export const cancelled: DeadLetter = deadLetter("Cancelled", "cancelled while a consumer held it")
