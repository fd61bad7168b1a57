/**
 * How a delivery ends: exactly one of four ways, each one atomic step in the transport.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import type { Commit } from "./Commit.ts"
import type { Failures } from "./Delivery.ts"
import type { Failure, Said } from "./Failure.ts"

/** Done: the group never sees the message again. */
export interface Ack {
  readonly _tag: "Ack"
  /** Applied in the same step, or not at all. Only transports that keep `transactional` are given one. */
  readonly commit?: Commit
}

/** Failed for now: the message waits in the transport, no fiber or slot does, and comes back after `delay`. */
export interface Retry {
  readonly _tag: "Retry"
  readonly delay: Duration.Duration
  /** The rendered failure, kept with the waiting message. */
  readonly cause: string
  /** Which row of the routing table says so, and how often it has by now: the next delivery knows it as one of its `failures`. */
  readonly row?: Failures & { readonly name: string }
  /** The tag and message of the failure, when a handler failed. */
  readonly failure?: Said
}

/** Failed for good: the message, with its raw bytes, moves to the dead letters of its group. */
export interface DeadLetter {
  readonly _tag: "DeadLetter"
  /**
   * A short, stable word to filter by: an error's tag, `DecodeFailure`, `Defect`, `CrashLoop`, what the route said; or of a
   * commit `CommitRejected`, of which nothing was applied, and `PartialCommit`, of which some was and will not be again.
   */
  readonly reason: string
  /** The rendered cause. */
  readonly cause: string
  /** The failure with its fields, when a handler failed. */
  readonly failure?: Failure
}

/** Handed back unfinished, because the consumer stops. The attempt is not counted. */
export interface Release {
  readonly _tag: "Release"
}

export type Settlement = Ack | Retry | DeadLetter | Release

/** One value for the hot path. */
export const ack: Ack & { readonly commit?: undefined } = { _tag: "Ack" }

/** Done, and this is to become true with it. */
export const commit = (commit: Commit): Ack => ({ _tag: "Ack", commit })

/** Failed for now, to be tried again after `delay`; no time means at once. What else is given is kept with what waits. */
export const retry = (delay: Duration.Duration, cause: string, row?: Retry["row"], failure?: Said): Retry => ({
  _tag: "Retry",
  delay,
  cause,
  ...(row && { row }),
  ...(failure && { failure })
})

/** A reason is cut to so many bytes in UTF-8. */
const maxReasonBytes = 1024

/**
 * Failed for good: `reason` is the word to filter by, cut to 1 KiB, and `Failure` where it is empty; `cause` what a
 * human reads, and `failure` the same as data.
 */
export const deadLetter = (reason: string, cause: string, failure?: Failure): DeadLetter => ({
  _tag: "DeadLetter",
  reason: shortened(reason) || "Failure",
  cause,
  ...(failure && { failure })
})

const utf8 = new TextEncoder()

const shortened = (reason: unknown): string => {
  // The types say so; JavaScript does not.
  const text = typeof reason === "string" ? reason : String(reason)
  if (text.length * 3 <= maxReasonBytes) return text.toWellFormed()
  const { read } = utf8.encodeInto(text, new Uint8Array(maxReasonBytes))
  if (read === text.length) return text.toWellFormed()
  // Never in the middle of a character.
  const fits = utf8.encodeInto(text, new Uint8Array(maxReasonBytes - ellipsis.length)).read
  return text.slice(0, fits).toWellFormed() + ellipsis
}

const ellipsis = "..."

/** Handed back, the attempt not counted. */
export const release: Settlement = { _tag: "Release" }
