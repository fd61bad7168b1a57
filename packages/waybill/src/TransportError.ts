/**
 * Why an operation on a store failed, and whether waiting can help.
 *
 * @module
 */
import * as Schema from "effect/Schema"
import { safe } from "./internal/SafeText.ts"

/** The connection is down or was lost. `ambiguous`: the command may have run. */
export class Disconnected extends Schema.TaggedError<Disconnected>("waybill/Disconnected")("Disconnected", {
  ambiguous: Schema.Boolean,
  cause: Schema.Defect()
}) {
  readonly permanent = false
  override get message(): string {
    return safe(`the connection is down${this.ambiguous ? "; the command may have run" : ""} (${String(this.cause)})`)
  }
}

/** The server refused for now and changed nothing: it is loading, read-only, out of memory, or its cluster is down. */
export class Refused extends Schema.TaggedError<Refused>("waybill/Refused")("Refused", {
  /** The server's code, such as `OOM` or `LOADING`. */
  code: Schema.String,
  detail: Schema.String
}) {
  readonly permanent = false
  override get message(): string {
    return safe(`the server rejected the command for now: ${this.detail}`)
  }
}

/** A key of the topic holds a foreign value. */
export class WrongKeyType extends Schema.TaggedError<WrongKeyType>("waybill/WrongKeyType")("WrongKeyType", {
  key: Schema.String,
  detail: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(
      `the key ${this.key} holds another type of value: ${this.detail}. Rename or delete it, or choose another prefix`
    )
  }
}

/** The program's user lacks a permission on the server: for the command, or for its key or channel. */
export class NotPermitted extends Schema.TaggedError<NotPermitted>("waybill/NotPermitted")("NotPermitted", {
  command: Schema.String,
  key: Schema.optional(Schema.String),
  channel: Schema.optional(Schema.String),
  detail: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    const [what, grant] =
      this.key !== undefined
        ? [` on the key ${this.key}`, `~${this.key}`]
        : this.channel !== undefined
          ? [` on the channel ${this.channel}`, `&${this.channel}`]
          : ["", this.command.includes("/") ? "" : `+${this.command.toLowerCase()}`]
    return safe(
      `not permitted to run ${this.command}${what}: ${this.detail}. Grant it with ACL SETUSER${grant && ` <user> ${grant}`}`
    )
  }
}

/** Wrong or missing user name or password. */
export class AuthenticationFailed extends Schema.TaggedError<AuthenticationFailed>("waybill/AuthenticationFailed")(
  "AuthenticationFailed",
  {
    detail: Schema.String
  }
) {
  readonly permanent = true
  override get message(): string {
    return safe(`authentication failed: ${this.detail}. Check the user name and password`)
  }
}

/** The address of a server is invalid. None of it is shown, because it may contain a password. */
export class InvalidUrl extends Schema.TaggedError<InvalidUrl>("waybill/InvalidUrl")("InvalidUrl", {
  detail: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(
      `invalid server URL: ${this.detail}. Use redis://user:password@host:port/db, redis-cluster://host:port,host:port, ` +
        "redis-sentinel://host:port,host:port/name, rediss for TLS, or unix:///path?db=0"
    )
  }
}

/** There is no secure connection: the server's certificate is not accepted, or only one side speaks TLS. */
export class TlsFailed extends Schema.TaggedError<TlsFailed>("waybill/TlsFailed")("TlsFailed", {
  detail: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(`no TLS connection: ${this.detail}`)
  }
}

/** The library does not work with this server. */
export class UnsupportedServer extends Schema.TaggedError<UnsupportedServer>("waybill/UnsupportedServer")(
  "UnsupportedServer",
  {
    /** The server and its version, if known. */
    found: Schema.String,
    needed: Schema.String
  }
) {
  readonly permanent = true
  override get message(): string {
    return safe(`unsupported server ${this.found}: use ${this.needed}`)
  }
}

/** The topic was opened before with another pattern, or by a newer wire format. */
export class TopicConflict extends Schema.TaggedError<TopicConflict>("waybill/TopicConflict")("TopicConflict", {
  topic: Schema.String,
  expected: Schema.String,
  found: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(`topic ${this.topic} is ${this.found} in the store, but this program opens it as ${this.expected}`)
  }
}

/** The pattern does not support the request, such as delaying a message that is not stored. Nothing was sent. */
export class NotOffered extends Schema.TaggedError<NotOffered>("waybill/NotOffered")("NotOffered", {
  /** The option or operation that was requested. */
  feature: Schema.String,
  /** Why not, and what to use instead. */
  detail: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(`this pattern does not support ${this.feature}: ${this.detail}`)
  }
}

/**
 * The message is stored, and will be delivered unless the server is lost: no replica has confirmed it in time, so that a failover may
 * lose it. Publishing it again under the same id stores nothing, and waits again.
 */
export class NotReplicated extends Schema.TaggedError<NotReplicated>("waybill/NotReplicated")("NotReplicated", {
  waitedMillis: Schema.Number
}) {
  readonly permanent = false
  override get message(): string {
    return `stored, but no replica confirmed it within ${this.waitedMillis} ms: a failover may lose it`
  }
}

/**
 * The message is stored, and will be delivered unless the server loses its memory: it is not known to be on disk. Publishing it again
 * under the same id stores nothing, and waits again.
 */
export class NotFsynced extends Schema.TaggedError<NotFsynced>("waybill/NotFsynced")("NotFsynced", {
  waitedMillis: Schema.Number
}) {
  readonly permanent = false
  override get message(): string {
    return `stored, but not known to be on disk within ${this.waitedMillis} ms: a crash of the server may lose it`
  }
}

/** The server does not publish keyspace events, and the pattern was told to rely on them. */
export class NotificationsDisabled extends Schema.TaggedError<NotificationsDisabled>("waybill/NotificationsDisabled")(
  "NotificationsDisabled",
  {
    /** The server's current `notify-keyspace-events`. */
    found: Schema.String,
    /** The flags it must contain. */
    needed: Schema.String
  }
) {
  readonly permanent = true
  override get message(): string {
    return safe(
      `keyspace notifications are off: notify-keyspace-events is "${this.found}" and needs "${this.needed}". ` +
        `Run CONFIG SET notify-keyspace-events ${this.needed}, let the layer do it, or let it poll`
    )
  }
}

/** A message could come back after the marker of its commit has expired, and would be applied twice. */
export class MarkerTooShort extends Schema.TaggedError<MarkerTooShort>("waybill/MarkerTooShort")("MarkerTooShort", {
  markerMillis: Schema.Number,
  /** The longest time after which a message may come back for the last time. */
  neededMillis: Schema.Number
}) {
  readonly permanent = true
  override get message(): string {
    return (
      `the commit marker lasts ${this.markerMillis} ms, but a message may come back for ${this.neededMillis} ms: ` +
      "use a longer marker, or retries that end sooner"
    )
  }
}

/** The buffer of a subscriber that fails rather than drops messages is full. */
export class Overflow extends Schema.TaggedError<Overflow>("waybill/Overflow")("Overflow", {
  capacity: Schema.Int
}) {
  readonly permanent = true
  override get message(): string {
    return (
      `the consumer is too slow: its buffer of ${this.capacity} messages is full. ` +
      "Make it faster, enlarge the buffer, or choose what to drop"
    )
  }
}

/** The server replied with an unknown error: a bug in this library, or a server that behaves differently. */
export class Rejected extends Schema.TaggedError<Rejected>("waybill/Rejected")("Rejected", {
  command: Schema.String,
  detail: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(`${this.command} failed: ${this.detail}`)
  }
}

/** The limit of a page was not an integer >= 1. Nothing was sent. */
export class InvalidLimit extends Schema.TaggedError<InvalidLimit>("waybill/InvalidLimit")("InvalidLimit", {
  limit: Schema.Number
}) {
  readonly permanent = true
  override get message(): string {
    return `limit must be an integer >= 1, got ${this.limit}`
  }
}

/** The time is not a number of milliseconds since the epoch, or beyond those that a date can have. Nothing was sent. */
export class InvalidTime extends Schema.TaggedError<InvalidTime>("waybill/InvalidTime")("InvalidTime", {
  millis: Schema.Number
}) {
  readonly permanent = true
  override get message(): string {
    return `a time must be milliseconds since the epoch, up to 8.64e15, got ${this.millis}`
  }
}

/** Not a valid name of a topic or group. Nothing was sent. */
export class InvalidName extends Schema.TaggedError<InvalidName>("waybill/InvalidName")("InvalidName", {
  kind: Schema.Literals(["topic", "group"]),
  name: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    const use = this.kind === "topic" ? "1 to 200 characters without white space or braces" : "at least one character"
    return safe(
      `invalid ${this.kind} name "${this.name.slice(0, 200).toWellFormed()}": use ${use}, all of it well-formed`
    )
  }
}

/** The topic or group cannot be removed because part of it is in use. Nothing was changed. */
export class TopicInUse extends Schema.TaggedError<TopicInUse>("waybill/TopicInUse")("TopicInUse", {
  topic: Schema.String,
  /** The group that prevents it; undefined when it is the topic itself. */
  group: Schema.optional(Schema.String),
  found: Schema.Literals(["delayed", "schedules", "messages", "pending", "waiting", "deadLetters", "consumers"])
}) {
  readonly permanent = true
  override get message(): string {
    const whose = this.group === undefined ? "it" : `its group ${this.group}`
    const [what, instead] = {
      delayed: ["messages that are not due yet", "Let them be handled"],
      messages: [
        this.group === undefined ? "messages, and no group" : "messages that it was not given yet",
        "Let them be handled"
      ],
      pending: ["deliveries that are not settled", "Let a consumer settle them"],
      waiting: ["messages that wait for their next attempt", "Let them be handled"],
      schedules: ["schedules", "Remove them"],
      deadLetters: ["dead letters", "Redrive or discard them"],
      consumers: ["living consumers", "Stop them"]
    }[this.found]
    return safe(`topic ${this.topic} is in use: ${whose} has ${what}. ${instead} first`)
  }
}

/** No message with the id is stored: it was never published, or it is settled and gone. */
export class MessageNotFound extends Schema.TaggedError<MessageNotFound>("waybill/MessageNotFound")("MessageNotFound", {
  id: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(`no message with the id ${this.id} is stored`)
  }
}

/** The message cannot be removed because a consumer holds it. Nothing was changed. */
export class MessageInUse extends Schema.TaggedError<MessageInUse>("waybill/MessageInUse")("MessageInUse", {
  id: Schema.String,
  group: Schema.String,
  consumer: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(
      `message ${this.id} is in use: consumer ${this.consumer} of the group ${this.group} holds it. ` +
        "Cancel it, or try again once it is settled"
    )
  }
}

/** The message cannot be rescheduled, because it is neither delayed nor waiting for an attempt. Nothing was changed. */
export class MessageNotWaiting extends Schema.TaggedError<MessageNotWaiting>("waybill/MessageNotWaiting")(
  "MessageNotWaiting",
  { id: Schema.String }
) {
  readonly permanent = true
  override get message(): string {
    return safe(
      `message ${this.id} does not wait for a time: it is neither delayed nor between two attempts. ` +
        "Redrive it if it is a dead letter"
    )
  }
}

/** The message cannot be cancelled: every group has settled or dead-lettered it before. Nothing was changed. */
export class MessageSettled extends Schema.TaggedError<MessageSettled>("waybill/MessageSettled")("MessageSettled", {
  id: Schema.String
}) {
  readonly permanent = true
  override get message(): string {
    return safe(`message ${this.id} is settled already`)
  }
}

/** The schedule cannot be steered by this process: a newer build stored it, or its time zone is unknown here. Nothing was changed. */
export class UnreadableSchedule extends Schema.TaggedError<UnreadableSchedule>("waybill/UnreadableSchedule")(
  "UnreadableSchedule",
  { schedule: Schema.String }
) {
  readonly permanent = true
  override get message(): string {
    return safe(`schedule ${this.schedule} cannot be read: a newer build stored it, or its time zone is unknown here`)
  }
}

/**
 * The program has no transport under the name that a topic is on, or its transport keeps less than the name promises.
 * The types refuse this; without types, the first use fails. Nothing was sent.
 */
export class NotProvided extends Schema.TaggedError<NotProvided>("waybill/NotProvided")("NotProvided", {
  name: Schema.String,
  /** The guarantee that the name promises. */
  needed: Schema.String,
  /** The guarantee that its layer keeps, if there is a layer. */
  kept: Schema.optional(Schema.String)
}) {
  readonly permanent = true
  override get message(): string {
    const found = this.kept === undefined ? "no layer provides it" : `its layer keeps ${this.kept}`
    return safe(`${this.name} needs ${this.needed}, and ${found}`)
  }
}

export type Reason =
  | Disconnected
  | Refused
  | WrongKeyType
  | NotPermitted
  | AuthenticationFailed
  | InvalidUrl
  | TlsFailed
  | UnsupportedServer
  | TopicConflict
  | NotOffered
  | NotProvided
  | NotReplicated
  | NotFsynced
  | NotificationsDisabled
  | MarkerTooShort
  | Overflow
  | InvalidLimit
  | InvalidTime
  | InvalidName
  | TopicInUse
  | MessageNotFound
  | MessageInUse
  | MessageNotWaiting
  | MessageSettled
  | UnreadableSchedule
  | Rejected

/**
 * An operation on the store failed. `reason` says how, and `reason.permanent` whether waiting can help. Handle single
 * reasons with `Effect.catchReason("TransportError", "Refused", ...)`.
 */
export class TransportError extends Schema.TaggedError<TransportError>("waybill/TransportError")("TransportError", {
  operation: Schema.Literals(["connect", "publish", "receive", "settle", "inspect", "schedule"]),
  topic: Schema.optional(Schema.String),
  /** For `Producer.publishAll`: how many messages from the start of the call are stored nevertheless. */
  stored: Schema.optional(Schema.Int),
  reason: Schema.Union([
    Disconnected,
    Refused,
    WrongKeyType,
    NotPermitted,
    AuthenticationFailed,
    InvalidUrl,
    TlsFailed,
    UnsupportedServer,
    TopicConflict,
    NotOffered,
    NotProvided,
    NotReplicated,
    NotFsynced,
    NotificationsDisabled,
    MarkerTooShort,
    Overflow,
    InvalidLimit,
    InvalidTime,
    InvalidName,
    TopicInUse,
    MessageNotFound,
    MessageInUse,
    MessageNotWaiting,
    MessageSettled,
    UnreadableSchedule,
    Rejected
  ])
}) {
  override get message(): string {
    const stored = this.stored === undefined || this.stored === 0 ? "" : `, after ${this.stored} messages were stored`
    return safe(
      `${this.operation}${this.topic === undefined ? "" : ` on topic ${this.topic}`}: ${this.reason.message}${stored}`
    )
  }
}
