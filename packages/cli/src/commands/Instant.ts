/**
 * Times in arguments. One without a zone is refused: it would mean something else on another machine.
 *
 * @module
 */
import { Option } from "effect"

/** An instant such as 2026-01-31T12:00:00Z, in milliseconds since the epoch. */
export const instantOf = (text: string): Option.Option<number> => {
  const at = /^\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)$/.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(at) ? Option.none() : Option.some(at)
}
