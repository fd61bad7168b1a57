/**
 * How long the marker of a commit must last.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import type { Subscription } from "../Transport.ts"
import { MarkerTooShort } from "../TransportError.ts"

/**
 * Why a marker of this length is too short for the subscription, if it is. A message may stay in the dead letters, then
 * take down as many consumers as permitted, and then be retried until its policy ends.
 */
export const markerProblem = (
  markerMillis: number,
  deadLetterMillis: number,
  { lease, maxDeliveries, redelivery }: Subscription
): MarkerTooShort | undefined => {
  if (redelivery === undefined) return undefined
  const neededMillis = deadLetterMillis + maxDeliveries * Duration.toMillis(lease) + Duration.toMillis(redelivery)
  return markerMillis < neededMillis ? new MarkerTooShort({ markerMillis, neededMillis }) : undefined
}
