/**
 * The findings of the judge of a history.
 *
 * @module
 */

/**
 * One broken promise.
 */
export interface Violation {
  readonly _tag:
    | "Lost"
    | "Leftover"
    | "TwoEnds"
    | "Unexplained"
    | "StaleFence"
    | "StaleEffect"
    | "WrongAttempt"
    | "Invented"
    | "EffectTwice"
    | "OutOfOrder"
  readonly group: string
  readonly id: string
  readonly detail: string
}

/**
 * A message that was handled again, and why.
 */
export interface Repetition {
  readonly group: string
  readonly id: string
  readonly fence: number
  readonly because: "Retry" | "Release" | "LeaseLost" | "Killed" | "Stopped" | "Unreachable" | "StateLost"
  /** The process of the previous handling. */
  readonly writer: string
}
