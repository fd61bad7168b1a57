/** Where the naive consumers work, and what they are told. */
export const stream = "naive:jobs"
export const group = "naive"

export interface NaiveOrders {
  readonly url: string
  readonly mode: "ackFirst" | "copyToRetry"
  /** Milliseconds after which another one may take over what this one has taken. */
  readonly lease: number
  /** The process blocks itself in this handling, counted from 1, until the test says so. */
  readonly blockIn?: number
  /** The process kills itself between the two round trips of this retry, counted from 1. */
  readonly dieInRetry?: number
  /** The process kills itself in the middle of this handling, counted from 1. */
  readonly dieIn?: number
}

export const list = "naive:list"

export interface NaiveListOrders {
  readonly url: string
  readonly mode: "pop" | "lremFinally"
  /** The process kills itself in the middle of this handling, counted from 1. */
  readonly dieIn?: number
}
