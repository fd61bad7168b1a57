/**
 * What a store records about a message from one attempt to the next, beside its attempts and its fence, as a short text that
 * travels with it. Three parts separated by semicolons: how many consumers died with it, whether part of its commit was applied
 * (1 or 0), and how often each row of the routing table has retried it; a fourth, if any, lists its attempts (Attempts.ts). A row
 * is its percent-encoded tag, `=`, the count, `@`, and when it first did; rows are separated by commas, and `?` stands for rows
 * that were not counted. A build that does not know the tally passes it on as a field of the message.
 *
 * @module
 */
import type { Failures } from "../../../Delivery.ts"

export interface Tally {
  readonly deaths: number
  readonly failures: ReadonlyMap<string, Failures> | undefined
  /** Part of its commit was applied: none of it may be applied again, however often it comes back. */
  readonly partial: boolean
  /** Its attempts so far. */
  readonly log: string
}

/** For a message's first delivery. */
export const fresh: Tally = { deaths: 0, partial: false, failures: new Map(), log: "" }

/** For a message that an older build has retried. */
export const unknown: Tally = { ...fresh, failures: undefined }

/** Undefined if it is not one of ours. */
export const read = (text: string | undefined): Tally | undefined => {
  const parts = text === undefined ? null : /^(\d{1,15});([01]);([^\s;]*);?(\S*)$/.exec(text)
  if (parts === null) return undefined
  const [, deaths, partial, rows = "", log = ""] = parts
  return { deaths: Number(deaths), partial: partial === "1", failures: rows === "?" ? undefined : rowsOf(rows), log }
}

const rowsOf = (text: string): ReadonlyMap<string, Failures> => {
  const rows = new Map<string, Failures>()
  for (const [, name = "", count, since] of text.matchAll(/([^=,]+)=(\d{1,15})@(\d{1,15})/g)) {
    try {
      rows.set(decodeURIComponent(name), { count: Number(count), since: Number(since) })
    } catch {
      // Written by another program.
    }
  }
  return rows
}

export const write = ({ deaths, failures, log, partial }: Tally): string => {
  const rows =
    failures === undefined
      ? "?"
      : Array.from(failures, ([name, { count, since }]) => `${encoded(name)}=${count}@${since}`).join(",")
  return `${deaths};${partial ? 1 : 0};${rows}${log === "" ? "" : `;${log}`}`
}

/** Tags that agree up to this length share a count. */
const encoded = (name: string): string => encodeURIComponent(name.toWellFormed().slice(0, maxName).toWellFormed())
const maxName = 64
