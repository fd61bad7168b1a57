/**
 * How often each row of the routing table has retried a message.
 *
 * @module
 */
import type { Failures } from "../Delivery.ts"
import type { Retry } from "../Settlement.ts"

/** How often each row has retried the message, including this retry. */
export const failuresAfter = (
  before: ReadonlyMap<string, Failures> | undefined,
  { row }: Retry
): ReadonlyMap<string, Failures> | undefined => {
  if (row === undefined) return before
  const after = new Map(before)
  const { count, name, since } = row
  // The latest ones stay, should there be more rows than anyone writes.
  after.delete(name)
  after.set(name, { count, since })
  for (const [first] of after) {
    if (after.size <= maxRows) break
    after.delete(first)
  }
  return after
}

/** The most rows whose failures are counted. */
const maxRows = 32
