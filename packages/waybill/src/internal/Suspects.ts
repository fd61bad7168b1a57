/**
 * Messages that consumers have died with may have killed them, or may only have been near. The fewer deaths such a message
 * may still see, the fewer others like it a consumer is given beside it, and in the end none: a consumer that dies of it then takes
 * no innocent one along. Deaths that somebody else has caused hold up nearly nothing.
 *
 * @module
 */

/** From so many deaths on. */
export const suspicious = 2

/**
 * How many suspects a consumer may hold beside one another when one of them has seen so many deaths: 1 before the last death
 * that it may see, then 8, 64 and so on. So the one that kills is found in about 8 rounds each time that 8 times as many
 * are with it, and everybody else is through by then.
 */
export const company = (deaths: number, maxDeliveries: number): number =>
  base ** Math.max(0, maxDeliveries - deaths - 1)

export const base = 8

/** How many suspects a consumer holds, and how many they are to be at most. */
export interface Load {
  readonly held: number
  readonly most: number
}

/** Of what a consumer holds, given by how many deaths each has seen. */
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

/** Whether one more may be beside them. */
export const admits = ({ held, most }: Load, deaths: number, maxDeliveries: number): boolean =>
  held < Math.min(most, company(deaths, maxDeliveries))
