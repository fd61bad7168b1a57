/**
 * The messages between the dashboard's server and its page, as JSON. The page bundles nothing of the server.
 *
 * @module
 */
import type { Inspector, Message } from "waybill"
import type { Schedule } from "../Schedule.ts"
import type { Failover } from "../Server.ts"

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
  /** The last failover since the dashboard was started. */
  readonly failover?: Failover
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

export interface ScheduleList extends Page<Schedule> {
  /** Those that a running program declares and that are not stored. */
  readonly missing: ReadonlyArray<string>
}

export type Steering = "run" | "pause" | "resume" | "remove"

/** The list in which a message was seen and the start of its page: the search for it begins there. */
export interface Seen {
  readonly list: "dead" | "pending" | "waiting" | "messages"
  readonly at: string | undefined
}

export type Stored = Json<Inspector.StoredMessage>
export type Pending = Json<Inspector.PendingMessage>
export type Waiting = Json<Inspector.WaitingMessage>
export type Delayed = Json<Inspector.DelayedMessage>
export type Dead = Omit<Json<Inspector.DeadLetter>, "fields"> & {
  /** Bytes that are not text as base64. */
  readonly fields?: ReadonlyArray<readonly [name: string, value: string]>
}

/** Where one message is, in each group of its topic. */
export interface Life {
  /** Whether the store found it by its id: only then it can be steered. Otherwise it was searched in each list. */
  readonly isFound: boolean
  /** The message, while it is stored; if the store found it, in whatever place. */
  readonly message: Json<Message.Message> | undefined
  /** When it is due, or when it became due, if it was delayed and the store records that. */
  readonly dueAt: number | undefined
  /** It is not due yet, so no group has it. */
  readonly isDelayed: boolean
  readonly groups: ReadonlyArray<{
    readonly group: string
    readonly lag: number
    /** Whether the message was ever delivered to the group; undefined if unknown. */
    readonly given: boolean | undefined
    readonly pending: Omit<Pending, "position"> | undefined
    readonly waiting: Omit<Waiting, "position"> | undefined
    readonly dead: Dead | undefined
  }>
}

/** What can be done with a message that the store finds. `cancel` interrupts its handler, `reschedule` needs a time. */
export type MessageSteering = "run" | "remove" | "cancel"

/** When a message is to be due, in milliseconds since the epoch. */
export interface Rescheduling {
  readonly at: number
}

/** A change of a topic or a group. A dry run only returns what it would do. */
export interface Change {
  readonly dryRun: boolean
}

/** What retiring a group does. */
export type Retirement = Inspector.Retirement

/** What purging a topic deletes; `held`: what consumers keep. */
export interface Purge {
  readonly depth: number
  readonly delayed: number
  readonly waiting: number
  readonly held: number
}

/** Where a group is moved to. */
export interface Move extends Change {
  readonly to: Inspector.Place
}

/** What moving a group does. */
export interface Moved {
  /** How many messages it has to go. */
  readonly lag: number
  /** How many it has to go afterwards; undefined in a dry run, unless it is known. */
  readonly after: number | undefined
  /** While there are any, the group cannot be moved. */
  readonly consumers: number
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
