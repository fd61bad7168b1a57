/**
 * What differs between patterns: where a topic keeps the messages that are due, and how a group comes by those it has
 * not seen. All the rest of a group is the same for every pattern.
 *
 * @module
 */
import type { GroupInfo } from "../../Inspector.ts"
import type { Event } from "../../Lifecycle.ts"
import type { Message } from "../../Message.ts"
import type { TopicConflict } from "../../Transport.ts"

export interface Stored extends Message {
  /** How many groups have not settled it, where the source counts that. */
  open: number
  /** From when on it is not delivered any more; `undefined` where messages live until they are settled, and costs nothing. */
  expiresAt: number | undefined
}

/** The message without what the store knows of it. */
export const plain = ({ body, headers, id, key, publishedAt, version }: Message): Message => ({
  id,
  body,
  headers,
  key,
  version,
  publishedAt
})

export type Fact = Exclude<Event, { readonly _tag: "Published" }>

/** What a source knows of its topic. */
export interface Place {
  readonly topic: string
  /** Tells the lifecycle, once the present step is complete. */
  readonly report: (fact: Fact) => void
}

export interface Source {
  /** Keeps a message that is due. */
  readonly add: (message: Stored, now: number) => void
  /** Drops what is too much or too old. */
  readonly trim: (now: number) => void
  /** How many messages are in the store, when its groups stand like this. */
  readonly depth: (groups: ReadonlyArray<GroupInfo>) => number
  /** What it keeps, in the order of delivery, each with a name that nothing else in here has. */
  readonly entries: () => Iterable<readonly [position: string, message: Stored]>
  /** Where a new group begins. */
  readonly join: (group: string, start: "earliest" | "latest") => Cursor | TopicConflict
}

/** How far one group has come. */
export interface Cursor {
  /** The next message that the group has not seen; with `urgency`, only one that is at least so urgent. */
  readonly next: (urgency?: number) => Stored | undefined
  /** How urgent a message is, 0 most of all, where that decides on the order. */
  readonly urgencyOf?: ((message: Stored) => number) | undefined
  /** How many of those there are. */
  readonly lag: number
  /** Position of the last one that it has seen, where the source keeps those. */
  readonly reached: string | undefined
  /** How many expired unseen since this was asked last. */
  readonly missed: (now: number) => number
  /** The group needs a message that came from `next` no longer in its place: it is done with it, or keeps it itself. */
  readonly settled: (message: Stored) => void
}
