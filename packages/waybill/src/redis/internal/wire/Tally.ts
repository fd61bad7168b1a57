/**
 * What a store notes about a message from one attempt to the next, beside its attempts and its fence, as a short text that
 * travels with it: how many consumers died with it, whether some of its commit was applied (1 or 0), and how often each row of
 * the routing table has retried it; a semicolon between, and behind a further one, where there are any, its attempts
 * (Attempts.ts). A row is its tag, percent-encoded, `=`, how often, `@`, when first; a
 * comma between; `?` when they were not counted. A build that knows nothing of it hands it on as a field of the message.
 *
 * @module
 */
import type { Failures } from "../../../Delivery.ts"

export interface Tally {
  readonly deaths: number
  readonly failures: ReadonlyMap<string, Failures> | undefined
  /** Some of its commit was applied: none of it is to be applied again, however often it comes back. */
  readonly partial: boolean
  /** Its attempts so far. */
  readonly log: string
}

/** Of a message that has come for the first time. */
export const fresh: Tally = { deaths: 0, partial: false, failures: new Map(), log: "" }

/** Of a message that an older build has retried. */
export const unknown: Tally = { ...fresh, failures: undefined }

/** Nothing where it is none of ours. */
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
      // Somebody else wrote it.
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

/** Two tags that are alike for so long share a count. */
const encoded = (name: string): string => encodeURIComponent(name.toWellFormed().slice(0, maxName).toWellFormed())
const maxName = 64
