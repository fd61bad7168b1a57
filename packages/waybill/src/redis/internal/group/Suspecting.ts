/**
 * What scripts are told of suspects, so that nobody gets too many of them beside one another (Suspects.ts of core).
 *
 * @module
 */
import { loadOf } from "../../../internal/Suspects.ts"
import type { Subscription } from "../../../Transport.ts"
import type { Held } from "./InFlight.ts"

export const suspectArgs = {
  /** How often a message may be delivered to consumers that die. */
  most: "number",
  /** How many suspects the consumer holds, and how many they are to be at most, or -1. */
  held: "number",
  limit: "number"
} as const

/** What is said of a consumer that holds these. */
export const suspectsAmong = (handles: ReadonlyArray<Held>, { maxDeliveries }: Subscription) => {
  const { held, most } = loadOf(
    handles.map(({ tally }) => tally.deaths),
    maxDeliveries
  )
  return { most: maxDeliveries, held, limit: most === Infinity ? -1 : most }
}
