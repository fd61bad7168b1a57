/**
 * What a store notes about a message from one attempt to the next, beside its attempts and its fence, as a short text that
 * travels with it: how many consumers died with it, whether some of its commit was applied (1 or 0), and how often each row of
 * the routing table has retried it; a semicolon between. A build that knows nothing of it hands it on as a field of the message.
 *
 * @module
 */

export interface Tally {
  readonly deaths: number
  /** Some of its commit was applied: none of it is to be applied again, however often it comes back. */
  readonly partial: boolean
}

/** Of a message that has come for the first time. */
export const fresh: Tally = { deaths: 0, partial: false }

/** Nothing where it is none of ours. */
export const read = (text: string | undefined): Tally | undefined => {
  const parts = text === undefined ? null : /^(\d{1,15});([01]);\S*$/.exec(text)
  return parts === null ? undefined : { deaths: Number(parts[1]), partial: parts[2] === "1" }
}

export const write = ({ deaths, partial }: Tally): string => `${deaths};${partial ? 1 : 0};`
