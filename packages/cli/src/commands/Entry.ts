/**
 * The entry of a dead letter: its position among the dead letters of its group.
 *
 * @module
 */
import { Option } from "effect"

/** The position after which a page starts with this entry, so that one entry is found without reading those before it. */
export const justBefore = (entry: string): Option.Option<string> => {
  const [, millis, count] = /^(\d{1,15})-(\d{1,19})$/.exec(entry) ?? []
  if (millis === undefined || count === undefined) return Option.none()
  return Option.some(
    BigInt(count) > 0n ? `${millis}-${BigInt(count) - 1n}` : `${Math.max(0, Number(millis) - 1)}-${last}`
  )
}

/** The highest second part that an entry can have. */
const last = 2n ** 64n - 1n
