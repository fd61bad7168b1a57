/**
 * What a worker is told, and where it asks whether it may go on: a file of its own, because workers are bundled and what
 * starts them is not.
 */
import { existsSync } from "node:fs"

/** A worker's instructions, as JSON in its first argument. */
export interface Orders {
  readonly name: string
  readonly history: string
  readonly url: string
  /** Says `handled n` each time it has begun so many. */
  readonly every: number
}

/** Is there once a worker that blocks itself may go on. */
export const gateOf = ({ history }: Orders): string => `${history}.unblocked`

/** Called by a worker that blocks itself: returns once the test has sent `unblock`. */
export const block = (orders: Orders): void => {
  const cell = new Int32Array(new SharedArrayBuffer(4))
  while (!existsSync(gateOf(orders))) Atomics.wait(cell, 0, 0, 5)
}
