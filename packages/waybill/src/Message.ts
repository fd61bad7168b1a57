/**
 * A message is an id, bytes and some metadata. Nothing in this module runs.
 *
 * @module
 */
import type * as Duration from "effect/Duration"

/**
 * The body of a message as it travels: text (JSON, from our producers), or the raw bytes if they are not valid UTF-8. Bytes
 * are never repaired or replaced on the way.
 */
export type Body = string | Uint8Array

/** Free-form metadata that travels with a message. W3C `traceparent` lives here. Names are case-sensitive. */
export type Headers = Readonly<Record<string, string>>

/** A message as a consumer sees it. */
export interface Message {
  /** The producer's id if it gave one, otherwise the one assigned by the transport. Survives retries and redrives. */
  readonly id: string
  readonly body: Body
  readonly headers: Headers
  /** Messages with the same key must stay in order, where the transport supports it. */
  readonly key: string | undefined
  /** Version of the payload's schema; 1 unless the topic sets another. */
  readonly version: number
  /** Milliseconds since the epoch, by the clock of the store. */
  readonly publishedAt: number
}

/** How urgent a message is, on a layer that orders by priority. It travels as the header `priority`. */
export type Priority = "high" | "normal" | "low"

/**
 * For how long a message has its id to itself. `window`: for the transport's window, whatever becomes of the message.
 * `until-settled`: until every group has settled it, whether acked or dead-lettered, or it has expired. `until-taken`: until a
 * consumer has been given it; for queues only. `Coalescing`: until it begins, and meanwhile it stands for all of its id.
 */
export type Unique = "window" | "until-settled" | "until-taken" | Coalescing

/**
 * Messages of an id that are published before the first of them begins become one message. Made by `Topic.latest`,
 * `Topic.debounce` and `Topic.throttle`.
 */
export interface Coalescing {
  readonly _tag: "Coalescing"
  /** Whose payload, headers, key and version it has. */
  readonly keep: "first" | "last"
  /** How long it is delayed, unless its publisher says otherwise. */
  readonly delay: Duration.Duration
  /** How long after the first of them it may be put back; zero if its time stays. */
  readonly limit: Duration.Duration
}

/**
 * What a transport offers of `Unique`. `coalescing`: of messages that are delayed and, where it offers `until-taken`, of those that
 * no consumer has been given yet.
 */
export type Uniqueness = Exclude<Unique, Coalescing> | "coalescing"

/**
 * What publishing waits for. `stored`: the server has the message in memory, and on disk as its `appendfsync` says.
 * `replicated`: a replica has it as well. `fsynced`: it is on the server's disk.
 */
export type Durability = "stored" | "replicated" | "fsynced"

/** A message to publish. */
export interface Outgoing {
  /** De-duplication key. Publishing it again while the message has it to itself stores nothing. */
  readonly id: string | undefined
  /** For how long it has its id to itself: for the window, if undefined. */
  readonly unique?: Unique | undefined
  readonly body: string
  readonly headers: Headers
  readonly key: string | undefined
  readonly version: number
  /** When it may be delivered; `undefined` means at once. */
  readonly due: Due | undefined
}

/** A delay is counted by the clock of the server that stores the message; an instant is compared with that clock. */
export type Due =
  | { readonly _tag: "After"; readonly delay: Duration.Duration }
  | { readonly _tag: "At"; readonly epochMillis: number }

/**
 * Which messages a group wants, by what the store can see of them: each part that is given must have one of its values. A
 * message without the key or header is not wanted.
 */
export interface Filter {
  readonly key?: ReadonlyArray<string> | undefined
  /** By name. Topics of `Topic.union` have the header `type`. */
  readonly headers?: Readonly<Record<string, ReadonlyArray<string>>> | undefined
}

/**
 * What `publish` returns: the message was stored (or waits until it is due), it had been stored before under the same
 * id, it has replaced the one that was, or it was sent to the current subscribers by a pattern that stores nothing.
 */
export interface Receipt {
  readonly _tag: "Stored" | "Duplicate" | "Replaced" | "Sent"
  /** The message id that consumers will see. */
  readonly id: string
  /**
   * The state of the message that has the id, unless a window made this one a duplicate. `delayed`: it is not due yet; `open`: it
   * is not settled yet or, if it is unique until it is taken or begins, not taken yet.
   */
  readonly state?: "delayed" | "open" | undefined
}
