/**
 * The messages between the dashboard's server and its page, as JSON. The page bundles nothing of the server.
 *
 * @module
 */
import type { Inspector, Message, Schedules } from "waybill"

/** A name as a path segment. `.` and `..` would be resolved as steps of the path, so they get a marker in front. */
export const partOf = (name: string): string => encodeURIComponent(/^(\.\.?$|~)/.test(name) ? `~${name}` : name)

/** The name in such a segment, once decoded. */
export const nameIn = (part = ""): string => (part.startsWith("~") ? part.slice(1) : part)

/** A message with its body as text, or as base64 if it is not text. */
export type Json<A extends Message.Message> = Omit<A, "body"> & { readonly body: string; readonly base64?: true }

export interface Overview {
  /** The server's address and the prefix, to tell dashboards apart. */
  readonly address: string
  readonly prefix: string
  /** Whether the page may change anything. `locked`: it may with the token, which it has not sent. */
  readonly writes: "no" | "locked" | "yes"
  /** Milliseconds since the epoch by the clock of the dashboard's server: tells one overview from the next, and is compared with no other clock. */
  readonly now: number
  readonly topics: ReadonlyArray<Inspector.TopicInfo>
  /** Topics that cannot be read. */
  readonly unreadable: ReadonlyArray<{ readonly topic: string; readonly why: string }>
}

/** One page of a list. It holds only the beginning of each body; the whole body is in the message's `Life`. */
export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Whether more may follow. */
  readonly more: boolean
}

export type Schedule = Schedules.Info

export type Steering = "run" | "pause" | "resume" | "remove"

/** The list in which a message was seen and the start of its page: the search for it begins there. */
export interface Seen {
  readonly list: "dead" | "pending" | "waiting" | "messages"
  readonly at: string | undefined
}

export type Stored = Json<Inspector.StoredMessage>
export type Pending = Json<Inspector.PendingMessage>
export type Waiting = Json<Inspector.WaitingMessage>
export type Dead = Omit<Json<Inspector.DeadLetter>, "fields"> & {
  /** Bytes that are not text as base64. */
  readonly fields?: ReadonlyArray<readonly [name: string, value: string]>
}

/** Where one message is, in each group of its topic. */
export interface Life {
  /** The stored message, while it is stored. */
  readonly message: Stored | undefined
  /** When it became due, if it was delayed and the store records that. */
  readonly dueAt: number | undefined
  /** How many messages of the topic are not due yet. They cannot be listed. */
  readonly delayed: number
  readonly groups: ReadonlyArray<{
    readonly group: string
    readonly lag: number
    /** Whether the message was ever delivered to the group; undefined if unknown. */
    readonly given: boolean | undefined
    readonly pending: Pending | undefined
    readonly waiting: Waiting | undefined
    readonly dead: Dead | undefined
  }>
}

/** Which dead letters are selected: the named ones, or all with a reason. */
export interface Selection {
  readonly entries?: ReadonlyArray<string> | undefined
  readonly reason?: string | undefined
  readonly dryRun: boolean
}

/** `selected`: how many were selected, or in a dry run, how many of those exist. */
export interface Report {
  readonly examined: number
  readonly selected: number
  readonly done: number
}
