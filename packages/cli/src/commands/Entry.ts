/**
 * The entry of a dead letter: its place among the dead letters of its group.
 *
 * @module
 */
import { Option } from "effect"

/** The position that a page begins after to begin with this entry: one of many is found as soon as one of few. */
export const justBefore = (entry: string): Option.Option<string> => {
  const [, millis, count] = /^(\d{1,15})-(\d{1,19})$/.exec(entry) ?? []
  if (millis === undefined || count === undefined) return Option.none()
  return Option.some(
    BigInt(count) > 0n ? `${millis}-${BigInt(count) - 1n}` : `${Math.max(0, Number(millis) - 1)}-${last}`
  )
}

/** The highest second part that an entry can have. */
const last = 2n ** 64n - 1n
