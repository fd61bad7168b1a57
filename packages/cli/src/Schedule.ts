/**
 * A schedule as the command and the page show it.
 *
 * @module
 */
import type { Schedules } from "waybill"

export interface Schedule extends Schedules.Info {
  /** Undefined if it has had no tick, or its topic does not find messages by id. */
  readonly outcome: Schedules.Outcome | undefined
  /** How it differs from what a running program declares. */
  readonly drift: Schedules.Drift["found"] | undefined
}

/** A tick that is published later counts as missed. */
export const lateMillis = 60_000

/** Its state, and what is wrong with it. */
export const stateText = ({ drift, overdueMillis, state }: Schedule): string =>
  [
    state,
    ...(overdueMillis > lateMillis ? ["overdue"] : []),
    ...(drift === "changed" ? ["declared differently"] : drift === "undeclared" ? ["no longer declared"] : [])
  ].join(", ")

/** What has become of its last tick, such as `dead in mail: Bounced`. */
export const outcomeText = ({ outcome }: Schedule): string => {
  if (outcome === undefined) return ""
  const { group, reason, state } = outcome
  return (group === undefined ? state : `${state} in ${group}`) + (reason === undefined ? "" : `: ${reason}`)
}
