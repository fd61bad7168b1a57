/**
 * The messages between the dashboard's server and its page, as JSON. The page carries nothing of the server.
 *
 * @module
 */
import type { Inspector, Message } from "waybill"

/** A name as a part of a path. Dots alone would be no part of it but a step along it, so a mark stands in front of them. */
export const partOf = (name: string): string => encodeURIComponent(/^(\.\.?$|~)/.test(name) ? `~${name}` : name)

/** The name that such a part means, once it is decoded. */
export const nameIn = (part = ""): string => (part.startsWith("~") ? part.slice(1) : part)

/** A message with its body as text; `base64` when the bytes are not text. */
export type Json<A extends Message.Message> = Omit<A, "body"> & { readonly body: string; readonly base64?: true }

export interface Overview {
  /** The server's address and the prefix, to tell dashboards apart. */
  readonly address: string
  readonly prefix: string
  /** Whether the page may change anything. `locked`: with the token it may, and it has not sent that. */
  readonly writes: "no" | "locked" | "yes"
  /** Milliseconds since the epoch, by the clock of the dashboard's server: it tells one look from the next, and is held against nothing. */
  readonly now: number
  readonly topics: ReadonlyArray<Inspector.TopicInfo>
  /** Topics that cannot be looked at. */
  readonly unreadable: ReadonlyArray<{ readonly topic: string; readonly why: string }>
}

/** One page of a list. Of each body only the beginning: the whole one is in the message's `Life`. */
export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Whether there may be something behind them. */
  readonly more: boolean
}

/** In which list a message was seen, and the position that named its page: it is looked for from there on. */
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
  /** As it is stored, as long as it is. */
  readonly message: Stored | undefined
  /** When it became due, where it was delayed and the store tells. */
  readonly dueAt: number | undefined
  /** How many messages of the topic are not due yet. These cannot be looked at. */
  readonly delayed: number
  readonly groups: ReadonlyArray<{
    readonly group: string
    readonly lag: number
    /** Whether the group was ever given it; undefined where that is unknown. */
    readonly given: boolean | undefined
    readonly pending: Pending | undefined
    readonly waiting: Waiting | undefined
    readonly dead: Dead | undefined
  }>
}

/** Which dead letters are meant: the named ones, or all that died of a reason. */
export interface Selection {
  readonly entries?: ReadonlyArray<string> | undefined
  readonly reason?: string | undefined
  readonly dryRun: boolean
}

/** `selected`: how many were meant, or in a dry run, how many of them are there. */
export interface Report {
  readonly examined: number
  readonly selected: number
  readonly done: number
}
