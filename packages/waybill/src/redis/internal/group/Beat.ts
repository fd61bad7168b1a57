/**
 * What a member of a group tells the server with each beat, and what it hears, whatever the pattern.
 *
 * @module
 */
import { flag, type Given, number, type Shaped } from "../connection/Script.ts"
import { cap } from "../wire/Lua.ts"

export const beatArgs = {
  group: "text",
  consumer: "text",
  /** In ms. */
  lease: "number",
  /** How many may be moved of each kind at most, and about a megabyte. */
  limit: "number",
  /** For how long the oldest delivery has been held, ms, or "". */
  age: "text",
  ...cap,
  /** 1: it knows that the group is paused, and begins nothing. */
  quiet: "text"
} as const

export type BeatArgs = Given<typeof beatArgs>

export const beaten = {
  /** The heartbeat before this one had not run out. */
  alive: flag,
  paused: flag,
  /** There is more to bring in at once. */
  more: flag,
  /** Ms until something is due, -1 when nothing waits. */
  next: number,
  /** How many dead letters the cap has dropped. */
  dropped: number,
  /** How many deliveries the server counts as the consumer's. */
  held: number
}

export type Beaten = Shaped<typeof beaten>
