/**
 * The options of every Redis pattern, and the same as numbers that scripts can use. Invalid numbers throw when the layer is
 * described: a script that met one after its first write would leave half a batch.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import {
  byTopic,
  durabilities,
  type LimitOptions,
  type Limits,
  limitsOf,
  millisOf,
  oneOf,
  shown,
  type TopicOptions
} from "../../internal/Limits.ts"
import { isName } from "../../internal/Name.ts"
import type { Durability } from "../../Message.ts"

export { durationOf, millisOf, oneOf, wholeOf } from "../../internal/Limits.ts"

/**
 * Everything has a default; programs that share topics must agree on `prefix`.
 *
 * @category models
 */
export interface StoreOptions extends LimitOptions, TopicOptions<LimitOptions> {
  /** The beginning of all keys, `waybill` by default. No white space, no braces, no colon. */
  readonly prefix?: string
  /** How long a due message may go unnoticed if no program that knows of it is alive. 1 second by default. */
  readonly pollInterval?: Duration.Input
  /**
   * How long publishing keeps trying before it fails: 5 seconds by default. A message waiting behind others waits for as long as they
   * take.
   */
  readonly publishTimeout?: Duration.Input
  /**
   * What publishing waits for: `stored` by default. A producer may choose otherwise for a message. Messages of commits and ticks of
   * schedules do not wait.
   */
  readonly durability?: Durability
}

/** The options with their defaults. Commits remember ids for as long as the layer says, whatever topic they publish to. */
export interface Settings extends Limits {
  readonly limitsOf: (topic: string) => Limits
  readonly prefix: string
  readonly pollMillis: number
  readonly publishMillis: number
  readonly durability: Durability
}

export const settingsOf = (options: StoreOptions, deadLetterAge?: Duration.Input): Settings => ({
  ...limitsOf(options, deadLetterAge),
  limitsOf: byTopic<LimitOptions, Limits>(options, (own) => limitsOf(own, deadLetterAge)),
  prefix: prefixOf(options.prefix ?? "waybill"),
  pollMillis: millisOf("pollInterval", options.pollInterval ?? "1 second"),
  publishMillis: millisOf("publishTimeout", options.publishTimeout ?? "5 seconds"),
  durability: oneOf("durability", options.durability ?? "stored", durabilities)
})

/** A colon separates the prefix from the topic: with one inside, two prefixes could mean the same key. */
const prefixOf = (prefix: string): string => {
  if (!isName(prefix) || prefix.includes(":")) {
    throw new Error(`invalid prefix ${shown(prefix)}: use 1 to 200 characters without white space, braces or colons`)
  }
  return prefix
}
