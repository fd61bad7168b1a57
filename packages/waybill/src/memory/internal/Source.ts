/**
 * What differs between patterns: where a topic keeps the messages that are due, and how a group gets those it has not seen.
 * Everything else about a group is the same for every pattern.
 *
 * @module
 */
import type { GroupInfo, Place as Destination, Start } from "../../Inspector.ts"
import type { Event } from "../../Lifecycle.ts"
import type { Headers, Message, Unique } from "../../Message.ts"
import type { NotOffered, TopicConflict } from "../../Transport.ts"

export interface Stored extends Message {
  /** Its priority may change. */
  headers: Headers
  /** When it was stored, due at once or later. */
  storedAt: number
  /** How many groups have not settled it, if the source counts that. */
  open: number
  /** When it expires; `undefined`, and free, where messages live until they are settled. */
  expiresAt: number | undefined
  /**
   * While it has its id to itself: for how long, whether it is due, whether its source has dropped it, and the groups that have
   * yet to settle it.
   */
  held?: { readonly unique: Unique; due: boolean; dropped: boolean; readonly by: Set<string> } | undefined
}

export type Fact = Exclude<Event, { readonly _tag: "Published" }>

/** What a source knows about its topic. */
export interface Place {
  readonly topic: string
  /** Reports to the lifecycle once the current step is complete. */
  readonly report: (fact: Fact) => void
}

export interface Source {
  /** Keeps a message that is due. */
  readonly add: (message: Stored, now: number) => void
  /** Drops excess and expired messages. */
  readonly trim: (now: number) => void
  /** How many messages are in the store, given the state of its groups. */
  readonly depth: (groups: ReadonlyArray<GroupInfo>) => number
  /** Deletes a message that it keeps. */
  readonly remove: (message: Stored) => void
  /** Its messages in the order of delivery, each with a unique position. */
  readonly entries: () => Iterable<readonly [position: string, message: Stored]>
  /** Every group has been skipped to the end: drops what none of them needs any more. */
  readonly purge: () => void
  /** Adds a group, which begins at `start`. */
  readonly join: (group: string, start: Start) => Cursor | TopicConflict | NotOffered
}

/** How far one group has read. */
export interface Cursor {
  /** The next message that the group has not seen; with `urgency`, only one at least that urgent. */
  readonly next: (urgency?: number) => Stored | undefined
  /** How urgent a message is, 0 being the most, where urgency decides the order. */
  readonly urgencyOf?: ((message: Stored) => number) | undefined
  /** How many messages it has not seen. */
  readonly lag: number
  readonly unseen: () => Iterable<Stored>
  /** Position of the last message it has seen, if the source keeps those. */
  readonly reached: string | undefined
  /** How many have expired unseen since the last call. */
  readonly missed: (now: number) => number
  /** The group no longer needs a message from `next` to stay in its place: it is done with it, or keeps it itself. */
  readonly settled: (message: Stored) => void
  /** Moves the group, where its place can be chosen. Returns what it has seen and will see again. */
  readonly move?: (to: Destination) => ReadonlySet<Stored>
  /** Skips everything that the group has not seen. */
  readonly skip: () => void
  /** The group is retired. It had taken these messages, the first to be delivered first, and not settled them. */
  readonly close: (unsettled: ReadonlyArray<Stored>) => void
}
