/**
 * Messages that consumers have died with may have killed them, or may only have been nearby. The fewer deaths such a
 * message may still cause, the fewer suspects a consumer is given beside it, and in the end none: a consumer that
 * dies of it then takes no innocent one along. Deaths with another cause delay almost nothing.
 *
 * @module
 */

/** From this many deaths on. */
export const suspicious = 2

/**
 * How many suspects a consumer may hold together if one of them has seen so many deaths: 1 before its last permitted
 * death, 8 before the one before, then 64 and so on. So the killer is found in about 8 rounds for every factor of 8
 * among the suspects, and all others are through by then.
 */
export const company = (deaths: number, maxDeliveries: number): number =>
  base ** Math.max(0, maxDeliveries - deaths - 1)

export const base = 8

/** How many suspects a consumer holds, and the most it may hold. */
export interface Load {
  readonly held: number
  readonly most: number
}

/** Computed from the deaths of the messages that a consumer holds. */
export const loadOf = (deaths: Iterable<number>, maxDeliveries: number): Load => {
  let held = 0
  let most = Infinity
  for (const each of deaths) {
    if (each < suspicious) continue
    held++
    most = Math.min(most, company(each, maxDeliveries))
  }
  return { held, most }
}

/** Whether one more may join them. */
export const admits = ({ held, most }: Load, deaths: number, maxDeliveries: number): boolean =>
  held < Math.min(most, company(deaths, maxDeliveries))
