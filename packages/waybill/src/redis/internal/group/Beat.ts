/**
 * What a member of a group tells the server with each beat, and the reply, whatever the pattern.
 *
 * @module
 */
import { type Reason, Rejected } from "../../../Transport.ts"
import { flag, type Given, number, type Shaped } from "../connection/Script.ts"
import { cap } from "../wire/Lua.ts"

/** Who it is; the lease in ms. */
export const member = { group: "text", consumer: "text", lease: "number" } as const

export const beatArgs = {
  ...member,
  /** The most to move of each kind, besides about a megabyte. */
  limit: "number",
  /** How long the oldest delivery has been held, ms, or "". */
  age: "text",
  ...cap,
  /** 1: it knows that the group is paused, and begins nothing. */
  quiet: "text",
  /** Its filter, "" for none. */
  only: "text",
  /** 1: it has hooks for dead letters. */
  hooks: "text"
} as const

export type BeatArgs = Given<typeof beatArgs>

export const beaten = {
  /** The previous heartbeat had not expired. */
  alive: flag,
  paused: flag,
  /** More can be brought in at once. */
  more: flag,
  /** Milliseconds until something is due, -1 if nothing waits. */
  next: number,
  /** How many dead letters the cap has dropped. */
  dropped: number,
  /** How many deliveries the server attributes to the consumer. */
  held: number,
  /** Its hooks may have dead letters to claim. */
  unclaimed: flag
}

export type Beaten = Shaped<typeof beaten>

/** The group does not exist, or has got another filter while this member had no heartbeat: it has to join again. */
export const groupGone = new Rejected({ command: "xreadgroup", detail: "NOGROUP the group does not exist" })

/** Recognises it in all its forms. A blocked read is woken with UNBLOCKED when its stream is deleted; everything else says NOGROUP. */
export const isGroupGone = (reason: Reason): boolean =>
  (reason._tag === "Rejected" && reason.detail.includes("NOGROUP")) ||
  (reason._tag === "Refused" && reason.code === "UNBLOCKED")
