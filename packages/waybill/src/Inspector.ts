/**
 * Looking at topics and steering them, without consuming: figures, dead letters, redrive, pause, removal. Reading never
 * changes anything; redriving the same dead letter twice never doubles the message; removing takes nothing that is unsettled.
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
    /** Names of the topics that were opened, in order. */
    readonly topics: Effect.Effect<ReadonlyArray<string>, TransportError>
    readonly describe: (topic: string) => Effect.Effect<TopicInfo, TransportError>
    /**
     * One page of what is stored for the topic, in the order of delivery: settled messages that are not trimmed yet
     * included, delayed ones not. Nothing is consumed. A pattern that stores nothing has none.
     */
    readonly messages: (topic: string, page: NewestPage) => Effect.Effect<ReadonlyArray<StoredMessage>, TransportError>
    /** One page of what consumers of the group have been given and have not settled. */
    readonly pending: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<PendingMessage>, TransportError>
    /** One page of what waits for its next attempt, the next one first. */
    readonly waiting: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<WaitingMessage>, TransportError>
    /** One page of a group's dead letters, oldest first; their positions are `DeadLetter.entry`. */
    readonly deadLetters: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<DeadLetter>, TransportError>
    /** Sends dead letters back to their group with a fresh count of attempts; answers how many were still there. */
    readonly redrive: (
      topic: string,
      group: string,
      deadLetters: ReadonlyArray<string>
    ) => Effect.Effect<number, TransportError>
    /** Deletes dead letters; answers how many were still there. */
    readonly discard: (
      topic: string,
      group: string,
      deadLetters: ReadonlyArray<string>
    ) => Effect.Effect<number, TransportError>
    /**
     * Consumers of the group begin nothing until `resume`; handlers that run end, and what has not begun goes back. Survives
     * restarts. Returns when every living consumer has said so, or its heartbeat would have run out.
     */
    readonly pause: (topic: string, group: string) => Effect.Effect<void, TransportError>
    readonly resume: (topic: string, group: string) => Effect.Effect<void, TransportError>
    /**
     * Deletes what is kept for a topic that is emptied, its groups too, in one step; `TopicInUse` says what is in the way.
     * One that is not there is removed already. Publishing to it or consuming it afterwards makes it anew.
     */
    readonly remove: (topic: string) => Effect.Effect<void, TransportError>
  }
>()("waybill/Inspector") {}

/** The reason why a topic with these figures may not be removed. */
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
 * At most `limit` after the position that an earlier page has named; the first ones without. A page that is full at about
 * 1 MiB ends before, behind at least one: the end is where a page is empty.
 */
export interface Page {
  readonly after: Option.Option<string>
  readonly limit: number
}

export interface NewestPage extends Page {
  /** With `after` none: the newest `limit` instead of the oldest, in the same order. */
  readonly newest?: boolean
  /**
   * With `after` none: the newest `limit` of those that lie in front of this position, in the same order; none where what
   * lay there is gone.
   */
  readonly before?: string | undefined
}

/** A message as it lies in the store. */
export interface StoredMessage extends Message {
  /** Where it lies, for the next page. */
  readonly position: string
  /** When it was stored, by the store's clock, where that is noted: a delayed message is stored when it is due. */
  readonly storedAt?: number | undefined
}

/** A message that is with a consumer. */
export interface PendingMessage extends StoredMessage {
  readonly consumer: string
  /** Which attempt it is, from 1. */
  readonly attempt: number
  /**
   * For how many milliseconds its consumer has had it, at most: a store that notes for each consumer only since when it
   * holds the oldest of what it holds says that.
   */
  readonly heldMillis: number
}

/** A message that waits for its next attempt. */
export interface WaitingMessage extends StoredMessage {
  /** Attempts so far. */
  readonly attempts: number
  /** When it is due, in milliseconds since the epoch by the store's clock. */
  readonly dueAt: number
  /** In how many milliseconds that is, by the same clock; 0 when a consumer may have it now. */
  readonly dueInMillis: number
  /** The rendered failure of the last attempt; shortened. */
  readonly cause: string
  /** The last ten attempts, the oldest first. */
  readonly attemptLog: ReadonlyArray<FailedAttempt>
}

/**
 * Until when a topic keeps a message.
 *
 * | | |
 * |---|---|
 * | `settled` | until every group has settled it, unless a pattern was told to keep more or less |
 * | `expiry` | until it expires |
 * | `none` | it is not stored |
 */
export type Retention = "settled" | "expiry" | "none"

export interface TopicInfo {
  readonly topic: string
  /** The pattern that opened it, such as `streams`. */
  readonly pattern: string
  /** Until when it keeps a message: until every group has settled it, until it expires, or not at all. */
  readonly retention: Retention
  /** Messages in the store, settled ones that are not trimmed yet included. */
  readonly depth: number
  /** How many messages were ever stored and due, where the store counts them: its growth is the rate of publishing. */
  readonly published?: number | undefined
  /** Published, and not yet due. */
  readonly delayed: number
  /** When the next of the delayed ones is due, in milliseconds since the epoch by the store's clock. */
  readonly nextDelayedAt: number | undefined
  readonly groups: ReadonlyArray<GroupInfo>
}

export interface GroupInfo {
  readonly group: string
  /** Stored and never delivered to this group. */
  readonly lag: number
  /**
   * Position among `messages` up to which the group was given them: what it was never given comes after it. None where
   * messages leave as they are given, or before the group was given any.
   */
  readonly reached?: string | undefined
  /** Delivered and not settled. */
  readonly pending: number
  /** Milliseconds since the oldest pending message was delivered; 0 when nothing is pending. */
  readonly oldestPendingMillis: number
  /** Waiting for their next attempt. */
  readonly waiting: number
  /** When the next of the waiting ones is due, in milliseconds since the epoch by the store's clock. */
  readonly nextRetryAt: number | undefined
  readonly deadLetters: number
  /** Dead letters that the cap has dropped so far. */
  readonly deadLettersDropped: number
  readonly paused: boolean
  /** Consumers whose heartbeat is alive. */
  readonly consumers: ReadonlyArray<ConsumerInfo>
}

export interface ConsumerInfo {
  readonly consumer: string
  readonly pending: number
  /**
   * Milliseconds until it is taken for dead, unless it beats before. Undefined in memory, where consumers that are not
   * told to be silent need no beat.
   */
  readonly leaseLeftMillis: number | undefined
}

export interface DeadLetter extends Message {
  /** Its id among the dead letters; `Message.id` is the id it was published under. */
  readonly entry: string
  readonly topic: string
  readonly group: string
  readonly reason: string
  /** The failure as a human reads it, with its stack; shortened. */
  readonly cause: string
  /** The failure as data. None where no handler failed, and where an older build stored the letter. */
  readonly failure?: Failure | undefined
  readonly attempts: number
  /** The last ten attempts since it was published or sent back from the dead letters, the oldest first; none where an older build stored it. */
  readonly attemptLog: ReadonlyArray<FailedAttempt>
  readonly diedAt: number
  /**
   * The parts of the message, where none of them is a payload: names, and values as text or bytes. Then the body is
   * empty.
   */
  readonly fields?: ReadonlyArray<readonly [name: string, value: Body]> | undefined
}
