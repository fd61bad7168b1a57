/**
 * Inspecting and controlling topics without consuming them: figures, dead letters, redrive, pause, removal. Reading never
 * changes anything, redriving a dead letter twice never doubles the message, and removing never takes anything unsettled.
 *
 * @module
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { FailedAttempt, Failure } from "./Failure.ts"
import type { Body, Message } from "./Message.ts"
import { TopicInUse, type TransportError } from "./TransportError.ts"

export class Inspector extends Context.Service<
  Inspector,
  {
    /** Names of the topics that were opened, sorted. */
    readonly topics: Effect.Effect<ReadonlyArray<string>, TransportError>
    readonly describe: (topic: string) => Effect.Effect<TopicInfo, TransportError>
    /**
     * One page of the topic's stored messages, in the order of delivery. Includes settled messages that are not
     * trimmed yet, but not delayed ones. Consumes nothing. Always empty on a pattern that stores nothing.
     */
    readonly messages: (
      topic: string,
      page: Page | BackwardPage
    ) => Effect.Effect<ReadonlyArray<StoredMessage>, TransportError>
    /** One page of the messages that consumers of the group hold unsettled. */
    readonly pending: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<PendingMessage>, TransportError>
    /** One page of the messages that wait for their next attempt, the next one first. */
    readonly waiting: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<WaitingMessage>, TransportError>
    /** One page of a group's dead letters, oldest first. Their positions are `DeadLetter.entry`. */
    readonly deadLetters: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<DeadLetter>, TransportError>
    /** Sends dead letters back to their group with a fresh count of attempts. Returns how many were still there. */
    readonly redrive: (
      topic: string,
      group: string,
      deadLetters: ReadonlyArray<string>
    ) => Effect.Effect<number, TransportError>
    /** Deletes dead letters. Returns how many were still there. */
    readonly discard: (
      topic: string,
      group: string,
      deadLetters: ReadonlyArray<string>
    ) => Effect.Effect<number, TransportError>
    /**
     * Stops the group's consumers from starting anything until `resume`. Running handlers finish, and what has not
     * begun is handed back. Survives restarts. Returns when every live consumer has confirmed it, or its heartbeat
     * would have expired.
     */
    readonly pause: (topic: string, group: string) => Effect.Effect<void, TransportError>
    readonly resume: (topic: string, group: string) => Effect.Effect<void, TransportError>
    /**
     * Deletes everything that is kept for an emptied topic, its groups included, in one step. `TopicInUse` says what
     * prevents it. Removing an absent topic succeeds. Publishing to it or consuming it later creates it again.
     */
    readonly remove: (topic: string) => Effect.Effect<void, TransportError>
  }
>()("waybill/Inspector") {}

/** Why a topic with these figures may not be removed. */
export const inUse = ({ delayed, depth, groups, topic }: TopicInfo): TopicInUse | undefined => {
  if (delayed > 0) return new TopicInUse({ topic, found: "delayed" })
  if (groups.length === 0 && depth > 0) return new TopicInUse({ topic, found: "messages" })
  for (const { consumers, deadLetters, group, lag, pending, waiting } of groups) {
    const found =
      lag > 0
        ? "messages"
        : pending > 0
          ? "pending"
          : waiting > 0
            ? "waiting"
            : deadLetters > 0
              ? "deadLetters"
              : consumers.length > 0
                ? "consumers"
                : undefined
    if (found !== undefined) return new TopicInUse({ topic, group, found })
  }
  return undefined
}

/**
 * At most `limit` entries after a position from an earlier page, or the first ones without it. A page that reaches
 * about 1 MiB ends early, with at least one entry: only an empty page is the end.
 */
export interface Page {
  readonly after: Option.Option<string>
  readonly before?: undefined
  readonly limit: number
}

/**
 * The newest `limit` entries before a position from an earlier page, or the newest of all without it, in the same order
 * as those of `Page`. Empty if everything before the position is gone.
 */
export interface BackwardPage {
  readonly before: Option.Option<string>
  readonly after?: undefined
  readonly limit: number
}

/** A message in the store. */
export interface StoredMessage extends Message {
  /** Its place, for the next page. */
  readonly position: string
  /** When it was stored, by the store's clock, if that is recorded. A delayed message is stored when it is due. */
  readonly storedAt?: number | undefined
}

/** A message that a consumer holds. */
export interface PendingMessage extends StoredMessage {
  readonly consumer: string
  /** The number of the attempt, from 1. */
  readonly attempt: number
  /**
   * The longest its consumer can have had it, in milliseconds. Exact unless the store only records, for each
   * consumer, since when it has held its oldest message.
   */
  readonly heldMillis: number
}

/** A message waiting for its next attempt. */
export interface WaitingMessage extends StoredMessage {
  /** Attempts so far. */
  readonly attempts: number
  /** When it is due, in milliseconds since the epoch by the store's clock. */
  readonly dueAt: number
  /** Milliseconds until then, by the same clock; 0 when a consumer may have it now. */
  readonly dueInMillis: number
  /** The rendered failure of the last attempt, truncated. */
  readonly cause: string
  /** The last ten attempts, the oldest first. */
  readonly attemptLog: ReadonlyArray<FailedAttempt>
}

/**
 * How long a topic keeps a message.
 *
 * | | |
 * |---|---|
 * | `settled` | until every group has settled it |
 * | `length` | while it is among the newest, about as many as the pattern was told to keep, settled or not |
 * | `expiry` | until it expires |
 * | `none` | it is not stored |
 */
export type Retention = "settled" | "length" | "expiry" | "none"

export interface TopicInfo {
  readonly topic: string
  /** The pattern that opened the topic, such as `streams`. */
  readonly pattern: string
  /** How long it keeps a message. A limit on the length is known once a consumer has joined with it. */
  readonly retention: Retention
  /** Messages in the store, including settled ones that are not trimmed yet. */
  readonly depth: number
  /** How many messages were ever stored and due, if the store counts them. Its growth is the publishing rate. */
  readonly published?: number | undefined
  /** Published but not yet due. */
  readonly delayed: number
  /** When the next delayed message is due, in milliseconds since the epoch by the store's clock. */
  readonly nextDelayedAt: number | undefined
  readonly groups: ReadonlyArray<GroupInfo>
}

export interface GroupInfo {
  readonly group: string
  /** Stored but never delivered to this group. */
  readonly lag: number
  /**
   * Position in `messages` up to which the group has been given them; everything it was never given comes after it.
   * Undefined if messages leave when they are given, or before the group was given any.
   */
  readonly reached?: string | undefined
  /** Delivered but not settled. */
  readonly pending: number
  /** Milliseconds since the oldest pending message was delivered; 0 when nothing is pending. */
  readonly oldestPendingMillis: number
  /** Waiting for their next attempt. */
  readonly waiting: number
  /** When the next waiting message is due, in milliseconds since the epoch by the store's clock. */
  readonly nextRetryAt: number | undefined
  readonly deadLetters: number
  /** Dead letters that the cap has dropped so far. */
  readonly deadLettersDropped: number
  readonly paused: boolean
  /**
   * Set if consumers have set messages aside within the last two minutes because they are of a newer version than they
   * read: says which. The messages are among those that wait.
   */
  readonly newer?: string | undefined
  /** Consumers whose heartbeat is alive. */
  readonly consumers: ReadonlyArray<ConsumerInfo>
}

export interface ConsumerInfo {
  readonly consumer: string
  readonly pending: number
  /**
   * Milliseconds until the consumer counts as dead unless it beats before. Undefined in memory, where only consumers
   * that were frozen for a test need to beat.
   */
  readonly leaseLeftMillis: number | undefined
}

export interface DeadLetter extends Message {
  /** Its id among the dead letters; `Message.id` is the id that it was published under. */
  readonly entry: string
  readonly topic: string
  readonly group: string
  readonly reason: string
  /** The failure for people to read, with its stack, truncated. */
  readonly cause: string
  /** The failure as data. Undefined if no handler failed, or if an older version stored the letter. */
  readonly failure?: Failure | undefined
  readonly attempts: number
  /**
   * The last ten attempts since it was published or redriven, the oldest first. Empty if an older version stored the
   * letter.
   */
  readonly attemptLog: ReadonlyArray<FailedAttempt>
  readonly diedAt: number
  /**
   * The parts of the message when none of them is a payload: names, and values as text or bytes. The body is then
   * empty.
   */
  readonly fields?: ReadonlyArray<readonly [name: string, value: Body]> | undefined
}
