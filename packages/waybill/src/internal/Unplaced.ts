/**
 * What inspectors and groups do not support on every pattern: places that can be chosen, and priorities.
 *
 * @module
 */
import type { Start } from "../Inspector.ts"
import { NotOffered } from "../Transport.ts"

/** Why a group may not begin here, if it may not. */
export const startProblem = (start: Start): NotOffered | undefined => (typeof start === "object" ? noTimes : undefined)

const noTimes = new NotOffered({
  feature: "starting a group at a time",
  detail: 'when a message was stored is not recorded. Use "earliest" or "latest", or streams'
})

export const noPriorities = new NotOffered({
  feature: "priorities",
  detail: "only queues with the order `priority` deliver by urgency"
})

export const noMoves = new NotOffered({
  feature: "moving a group",
  detail: "its place cannot be chosen. Purge the topic to skip everything, or use streams"
})
