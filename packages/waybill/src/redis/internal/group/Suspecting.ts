/**
 * What scripts are told about suspects, so that no consumer gets too many of them together (Suspects.ts of core).
 *
 * @module
 */
import { loadOf } from "../../../internal/Suspects.ts"
import type { Subscription } from "../../../Transport.ts"
import type { Held } from "./InFlight.ts"

export const suspectArgs = {
  /** How often a message may be delivered to consumers that die. */
  most: "number",
  /** How many suspects the consumer holds, and the most it may hold, or -1. */
  held: "number",
  limit: "number"
} as const

/** Computed for a consumer that holds these. */
export const suspectsAmong = (handles: ReadonlyArray<Held>, { maxDeliveries }: Subscription) => {
  const { held, most } = loadOf(
    handles.map(({ tally }) => tally.deaths),
    maxDeliveries
  )
  return { most: maxDeliveries, held, limit: most === Infinity ? -1 : most }
}
