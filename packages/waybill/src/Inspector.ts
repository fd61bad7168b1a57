/**
 * Inspecting and controlling topics without consuming them: figures, dead letters, redrive, pause, removal. Reading never
 * changes anything, redriving a dead letter twice never doubles the message, and nothing is removed under a living consumer.
 *
 * @module
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { FailedAttempt, Failure } from "./Failure.ts"
import type { Body, Message, Priority } from "./Message.ts"
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
    /**
     * Where the message with the id of a receipt is, in each group; none if it is not stored, or no longer. On
     * Redis its cost does not grow with the number of messages. Of several messages with the same id, the one that was
     * published last.
     */
    readonly message: (topic: string, id: string) => Effect.Effect<Option.Option<LocatedMessage>, TransportError>
    /** One page of the messages that are not due yet, the next one first. */
    readonly delayed: (topic: string, page: Page) => Effect.Effect<ReadonlyArray<DelayedMessage>, TransportError>
    /**
     * Deletes a message everywhere: no handler begins with it any more. Fails with `MessageInUse` while a consumer holds
     * it, and with `MessageNotFound` if it is not stored. What groups have settled stays settled.
     */
    readonly removeMessage: (topic: string, id: string) => Effect.Effect<void, TransportError>
    /**
     * Ends a message that is no longer wanted. Where no consumer holds it, it is deleted, so no handler begins with it.
     * Where a consumer holds it, in whatever process, its handler is interrupted within a poll interval (1 s), nothing is
     * retried, and the message becomes a dead letter, `Cancelled`, also if that consumer dies. A handler of another group
     * that begins meanwhile is interrupted as well. A handler that succeeds before it is interrupted wins. Returns the
     * groups that are interrupted.
     * Fails with `MessageSettled` if every group has settled it before, and with `MessageNotFound` if it is not stored.
     */
    readonly cancel: (topic: string, id: string) => Effect.Effect<ReadonlyArray<string>, TransportError>
    /**
     * Makes a message due at a time, in milliseconds since the epoch by the store's clock: one that is not due yet, or
     * one that waits for its next attempt, in every group in which it waits. A time in the past means at once. Fails
     * with `MessageNotWaiting` if it waits nowhere, and with `MessageNotFound` if it is not stored.
     */
    readonly reschedule: (topic: string, id: string, at: number) => Effect.Effect<void, TransportError>
    /** Makes a message due at once, see `reschedule`. */
    readonly runNow: (topic: string, id: string) => Effect.Effect<void, TransportError>
    /**
     * Changes how urgent a message is, on a layer that orders by priority, as if it had been published with this one. It goes
     * behind the others of that urgency; while a consumer holds it, the change counts once it comes back. Fails with
     * `NotOffered` on other layers, with `MessageSettled` if it is settled or a dead letter, and with `MessageNotFound` if it
     * is not stored.
     */
    readonly changePriority: (topic: string, id: string, priority: Priority) => Effect.Effect<void, TransportError>
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
     * Deletes the stored messages of a topic that no consumer holds: those not delivered to a group yet, those that are
     * not due, and those that wait for their next attempt. Consumers settle what they hold as usual; groups and dead
     * letters stay. Messages published meanwhile may be deleted or not.
     */
    readonly purge: (topic: string) => Effect.Effect<void, TransportError>
    /**
     * Moves a group to another place among the stored messages: it goes on from there, once it has handled what it had
     * taken and not settled before that place. Messages after it come again, settled or not, as far as they are still
     * stored. `TopicInUse` while one of its consumers is alive, `MessageNotFound` if `after` is not a position. Returns
     * whether there is such a group.
     */
    readonly move: (topic: string, group: string, to: Place) => Effect.Effect<boolean, TransportError>
    /**
     * Removes a group and everything it holds: its retries, its dead letters, and its place in the topic, which then
     * keeps nothing for it. `retirement` says beforehand how much that is. A queue keeps its messages, also those that
     * the group has not settled, for the next group. `TopicInUse` while one of its consumers is alive. Retiring an
     * absent group succeeds. A consumer that joins later creates it anew.
     */
    readonly retire: (topic: string, group: string) => Effect.Effect<void, TransportError>
    /**
     * Deletes everything that is kept for an emptied topic, its groups included, in one step. `TopicInUse` says what
     * prevents it. With `force`, only a living consumer does: unsettled messages and dead letters are deleted too.
     * Removing an absent topic succeeds. Publishing to it or consuming it later creates it again.
     */
    readonly remove: (topic: string, options?: RemoveOptions) => Effect.Effect<void, TransportError>
  }
>()("waybill/Inspector") {}

/**
 * Where a group begins to read.
 *
 * | | |
 * |---|---|
 * | `earliest` | with everything stored |
 * | `latest` | with what is stored later |
 * | `{ at }` | with what was stored at this time or later, in milliseconds since the epoch by the store's clock |
 */
export type Start = "earliest" | "latest" | { readonly at: number }

/** Where a group goes on reading: `after` is the position of a stored message. */
export type Place = Start | { readonly after: string }

export interface RemoveOptions {
  /** Whether to delete unsettled messages, dead letters and schedules with the topic. False by default. */
  readonly force?: boolean | undefined
}

/** Why a topic with these figures may not be removed. */
export const inUse = (
  { delayed, depth, groups, topic }: TopicInfo,
  { force = false }: RemoveOptions = {}
): TopicInUse | undefined => {
  if (!force && delayed > 0) return new TopicInUse({ topic, found: "delayed" })
  if (!force && groups.length === 0 && depth > 0) return new TopicInUse({ topic, found: "messages" })
  for (const { consumers, deadLetters, group, lag, pending, waiting } of groups) {
    const living = consumers.length > 0 ? "consumers" : undefined
    const found = force
      ? living
      : lag > 0
        ? "messages"
        : pending > 0
          ? "pending"
          : waiting > 0
            ? "waiting"
            : deadLetters > 0
              ? "deadLetters"
              : living
    if (found !== undefined) return new TopicInUse({ topic, group, found })
  }
  return undefined
}

/** What retiring a group would do: see `retirement`. */
export interface Retirement {
  /** Messages the group has not settled: not given to it yet, held by a consumer, or waiting for their next attempt. */
  readonly unsettled: number
  readonly deadLetters: number
  /** About how many stored messages the topic keeps for this group only, and drops once it is retired. */
  readonly heldBack: number
  /** Living consumers. While there are any, the group cannot be retired. */
  readonly consumers: ReadonlyArray<ConsumerInfo>
  /** For how long there have been none, if that is known. */
  readonly unattendedMillis?: number | undefined
}

/** What retiring this group of a topic with these figures would do. */
export const retirement = ({ depth, groups, retention }: TopicInfo, group: GroupInfo): Retirement => {
  const { consumers, deadLetters, lag, pending, unattendedMillis, waiting } = group
  const others = groups.filter((one) => one.group !== group.group).map((one) => one.lag + one.pending)
  // Without another group, the messages stay for the next one.
  const kept = retention === "settled" && others.length > 0 ? Math.max(...others) : Infinity
  return {
    unsettled: lag + pending + waiting,
    deadLetters,
    heldBack: Math.max(0, Math.min(depth, lag + pending) - kept),
    consumers,
    ...(unattendedMillis !== undefined && { unattendedMillis })
  }
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

/** A message that is not due yet. */
export interface DelayedMessage extends StoredMessage {
  /** When it is due, in milliseconds since the epoch by the store's clock. */
  readonly dueAt: number
  /** Milliseconds until then, by the same clock; 0 when a consumer may have it now. */
  readonly dueInMillis: number
}

/** A message and where it is. */
export interface LocatedMessage extends Message {
  /** When it is due, in milliseconds since the epoch by the store's clock, if it is not due yet: then no group has it. */
  readonly dueAt: number | undefined
  /** When it was stored, by the store's clock, if that is recorded. A delayed message is stored when it is due. */
  readonly storedAt?: number | undefined
  readonly groups: ReadonlyArray<MessageInGroup>
}

/**
 * Where a message is in one group.
 *
 * | | |
 * |---|---|
 * | `Ready` | no consumer has been given it |
 * | `Pending` | a consumer holds it |
 * | `Waiting` | it waits for its next attempt, or was handed back |
 * | `Dead` | it is a dead letter |
 * | `Settled` | none of these: the group has settled it, or began after it |
 */
export type MessageInGroup =
  | { readonly _tag: "Ready" | "Settled"; readonly group: string }
  | ({ readonly _tag: "Pending"; readonly group: string } & Omit<PendingMessage, keyof StoredMessage> & {
        /** The last ten failed attempts, the oldest first. */
        readonly attemptLog: ReadonlyArray<FailedAttempt>
      })
  | ({ readonly _tag: "Waiting"; readonly group: string } & Omit<WaitingMessage, keyof StoredMessage>)
  | { readonly _tag: "Dead"; readonly group: string; readonly deadLetter: DeadLetter }

/**
 * How long a topic keeps a message.
 *
 * | | |
 * |---|---|
 * | `settled` | until every group has settled it |
 * | `length` | while it is within the limits of the layer on length, age or bytes, settled or not |
 * | `history` | until every group has settled it and it exceeds such a limit |
 * | `expiry` | until it expires |
 * | `none` | it is not stored |
 */
export type Retention = "settled" | "length" | "history" | "expiry" | "none"

export interface TopicInfo {
  readonly topic: string
  /** The pattern that opened the topic, such as `streams`. */
  readonly pattern: string
  /** How long it keeps a message. Limits are known once a consumer has joined with it. */
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
  /**
   * Milliseconds since its last consumer left or its heartbeat expired. Undefined while one is alive, and if that is
   * unknown: it never had one, or the last one was of an older build, or the pattern stores no messages.
   */
  readonly unattendedMillis?: number | undefined
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
