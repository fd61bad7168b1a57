/**
 * What a client of the chat may ask, what it is told, and what may go wrong: one group of procedures, which the server,
 * the page and the terminal share. Everything that enters is checked against these schemas, limits included.
 *
 * There are no passwords: a name is whoever takes it, and each call says for whom it is. Nothing depends on the connection
 * but `connect` itself, so after a lost one a client calls again what it has no answer to, and nothing happens twice.
 *
 * @module
 */
import { Schema } from "effect"
import { Rpc, RpcGroup, RpcMiddleware } from "effect/rpc"

/** How much of everything there may be. */
export const limits = {
  /** Characters of a text, before that of a name and of an id that a client makes. */
  text: 4000,
  name: 32,
  id: 64,
  /** Messages in one page of history, and how many it has when nobody says. */
  page: 200,
  history: 50,
  /** A user's own last messages, across rooms. */
  sent: 100,
  /** Unread messages are counted up to this number, which then means "so many or more". */
  unread: 100,
  /** Rooms of the chat. */
  rooms: 1000,
  /** Rooms that one connection can name a position in. */
  positions: 1000,
  /** For how long a user types, in milliseconds, when nothing more is heard of it. */
  typingMillis: 5000
} as const

const name = (what: string) =>
  Schema.String.check(
    Schema.isPattern(new RegExp(`^[a-z0-9][a-z0-9_-]{0,${limits.name - 1}}$`), {
      message: `the name of a ${what} has 1 to ${limits.name} of a-z, 0-9, _ and -, and begins with a letter or digit`
    })
  )

/** The name of a user: what stands behind `@` in a mention, too. */
export const User = name("user")
/** Every mention in a text, and the name behind its `@`, which stands for the one in lower case. */
export const mention = new RegExp(`(?<![a-z0-9_@-])@([a-z0-9][a-z0-9_-]{0,${limits.name - 1}})(?![a-z0-9_-])`, "gi")
/** The name of a room. */
export const Room = name("room")

/** Something to read: not only white space, and not only what is not drawn at all, such as characters without width. */
export const Text = Schema.String.check(
  Schema.isMaxLength(limits.text),
  Schema.isPattern(/[^\s\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u, {
    message: "there is nothing to see in this text"
  })
)

/** An id that the client makes up: one for each message and each tab, such as a UUID. */
export const ClientId = Schema.String.check(Schema.isPattern(new RegExp(`^[A-Za-z0-9_-]{1,${limits.id}}$`)))

/**
 * A place in a room: one or two numbers of 64 bits. Only the server compares them: a client keeps the one of the last message
 * that it has seen.
 */
export const Position = Schema.String.check(
  Schema.isPattern(/^\d{1,20}(-\d{1,20})?$/).abort(),
  Schema.makeFilter((position) => position.split("-").every((number) => BigInt(number) < 2n ** 64n), {
    message: "a position is made of numbers below 2^64"
  })
)

export const Message = Schema.Struct({
  /** Where it stands in the room, and what paging and reconnecting name. */
  position: Position,
  /** The id under which its sender sent it; unique together with `user`. */
  id: ClientId,
  user: User,
  text: Text,
  /** When it was sent, in milliseconds since the epoch, by the server that took it. */
  at: Schema.Int
})
export type Message = typeof Message.Type

/** One of a user's own messages. */
export const Sent = Schema.Struct({ room: Room, id: ClientId, text: Text, at: Schema.Int })
export type Sent = typeof Sent.Type

/** A room as one of its members sees it. */
export const Membership = Schema.Struct({
  room: Room,
  /** In the order of the alphabet. */
  members: Schema.Array(User),
  /** Messages of others after the read marker; `limits.unread` means so many or more. */
  unread: Schema.Int,
  /** Up to where this user has read; `null` before the first time. */
  read: Schema.NullOr(Position)
})
export type Membership = typeof Membership.Type

/** There is a room of this name. */
export class RoomExists extends Schema.TaggedError<RoomExists>()("RoomExists", { room: Room }) {
  override get message(): string {
    return `there is a room ${this.room} already`
  }
}

/** There is no room of this name. */
export class RoomNotFound extends Schema.TaggedError<RoomNotFound>()("RoomNotFound", { room: Room }) {
  override get message(): string {
    return `there is no room ${this.room}`
  }
}

/** Only members may do this: join first. */
export class NotAMember extends Schema.TaggedError<NotAMember>()("NotAMember", { room: Room, user: User }) {
  override get message(): string {
    return `${this.user} is not in room ${this.room}`
  }
}

/** This user or this connection asks for too much. Nothing was done; after so many milliseconds it may try again. */
export class TooManyRequests extends Schema.TaggedError<TooManyRequests>()("TooManyRequests", {
  retryAfterMillis: Schema.Number
}) {
  override get message(): string {
    return `too much at once: try again in ${Math.ceil(this.retryAfterMillis / 1000)} s`
  }
}

/** The chat has as many rooms as it may have. */
export class TooManyRooms extends Schema.TaggedError<TooManyRooms>()("TooManyRooms", { limit: Schema.Int }) {
  override get message(): string {
    return `there are ${this.limit} rooms, and more there cannot be`
  }
}

/**
 * The store does not answer, or not in time. What was asked may be done nevertheless: ask again, a message under the same
 * id, and it is done once.
 */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {}) {
  override get message(): string {
    return "the chat does not answer at present: try again"
  }
}

/** What a connection is told, in this order for each room: `Entered`, then its messages without hole or repeat. */
export const Event = Schema.Union([
  /**
   * The first event of every connection. `online`: who is, of all users. `rooms`: those of the user, of each of which an
   * `Entered` follows, or an `Exited`.
   */
  Schema.TaggedStruct("Welcome", { user: User, online: Schema.Array(User), rooms: Schema.Array(Room) }),
  /**
   * The user is in this room: at the beginning, or because it has joined in any of its tabs. Messages follow from the
   * position that the connection named; without one, from the newest `limits.history` on, and what is older is history.
   */
  Schema.TaggedStruct("Entered", { membership: Membership }),
  /** The user has left this room, in any of its tabs. */
  Schema.TaggedStruct("Exited", { room: Room }),
  /** The next message of the room, one of the user's own too. */
  Schema.TaggedStruct("Posted", { room: Room, message: Message }),
  /** The message that was posted just now names this user. */
  Schema.TaggedStruct("Mentioned", { room: Room, message: Message }),
  /** Somebody else has joined or left a room of this user. */
  Schema.TaggedStruct("Joined", { room: Room, user: User }),
  Schema.TaggedStruct("Left", { room: Room, user: User }),
  /** Somebody, in however many tabs, came online; or went: by saying so, or because nothing was heard for 300 s. */
  Schema.TaggedStruct("Online", { user: User }),
  Schema.TaggedStruct("Offline", { user: User, reason: Schema.Literals(["left", "timed-out"]) }),
  /** Nothing has happened for a minute. That a client acknowledges this, as everything, says that it is still there. */
  Schema.TaggedStruct("Heartbeat", {}),
  /** Somebody else types in a room of this user, for the next `limits.typingMillis`. May be lost. */
  Schema.TaggedStruct("Typing", { room: Room, user: User }),
  /** The user's marker has moved in any of its tabs. New messages do not send it: who gets `Posted` counts. */
  Schema.TaggedStruct("Unread", { room: Room, unread: Schema.Int, read: Position })
])
export type Event = typeof Event.Type

/**
 * What was asked under this id was given up, and under this id it will not be asked for again. What is still wanted is asked
 * for under a new id.
 */
export class GivenUp extends Schema.TaggedError<GivenUp>()("GivenUp", { id: ClientId }) {
  override get message(): string {
    return "the chat has failed at this, and has given it up"
  }
}

/** Stands before every procedure: a user may do so much at once, and a connection ask for so much at a time. */
export class Allowance extends RpcMiddleware.Service<Allowance>()("chat/Allowance", {
  error: Schema.Union([TooManyRequests, Unavailable])
}) {}

/** The procedures of the chat. Each of them may answer `TooManyRequests` or `Unavailable`, beside what it names itself. */
export class Chat extends RpcGroup.make(
  /** Makes a room and lets its maker in. Done again under the same id it succeeds again. */
  Rpc.make("createRoom", {
    payload: { room: Room, user: User, id: ClientId },
    error: Schema.Union([RoomExists, TooManyRooms, GivenUp, Unavailable])
  }),
  /** All rooms, in the order of the alphabet. */
  Rpc.make("listRooms", { payload: { user: User }, success: Schema.Array(Room), error: Unavailable }),
  /** Lets the user in; who is in, stays in. */
  Rpc.make("joinRoom", {
    payload: { room: Room, user: User },
    error: Schema.Union([RoomNotFound, Unavailable])
  }),
  /** Takes the user out; who is not in, stays out. */
  Rpc.make("leaveRoom", {
    payload: { room: Room, user: User },
    error: Schema.Union([RoomNotFound, Unavailable])
  }),
  /** Who is in the room, online or not, in the order of the alphabet. */
  Rpc.make("getMembers", {
    payload: { room: Room, user: User },
    success: Schema.Array(User),
    error: Schema.Union([RoomNotFound, Unavailable])
  }),
  /**
   * Stores one message for this id, however often it is sent, and answers once it is stored. It comes back as `Posted` with
   * the same `user` and `id`, before or after this answer.
   */
  Rpc.make("sendMessage", {
    payload: { room: Room, user: User, id: ClientId, text: Text },
    error: Schema.Union([RoomNotFound, NotAMember, GivenUp, Unavailable])
  }),
  /**
   * The newest messages, or the newest ones before a position; oldest first. 50 unless `limit` says otherwise. Fewer than
   * asked for: there are no older ones.
   */
  Rpc.make("getRoomHistory", {
    payload: {
      room: Room,
      user: User,
      limit: Schema.optional(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: limits.page }))),
      before: Schema.optional(Position)
    },
    success: Schema.Array(Message),
    error: Schema.Union([RoomNotFound, Unavailable])
  }),
  /** The user's own last 100 messages, across rooms, oldest first. */
  Rpc.make("getSentMessages", { payload: { user: User }, success: Schema.Array(Sent), error: Unavailable }),
  /** Moves the user's read marker of the room up to this position; never back. */
  Rpc.make("markRead", {
    payload: { room: Room, user: User, position: Position },
    error: Schema.Union([RoomNotFound, NotAMember, Unavailable])
  }),
  /** Tells the room's members that the user types. May be lost. */
  Rpc.make("typing", { payload: { room: Room, user: User } }),
  /**
   * Everything that happens, for as long as the stream is read; meanwhile the user is online, and whoever acknowledges
   * nothing for 300 s is not, whether its connection is open or not. `positions` names for each room the last message that this client has: what came after it comes first. `tab` is the same one after a reconnect.
   */
  Rpc.make("connect", {
    payload: {
      user: User,
      tab: ClientId,
      positions: Schema.Record(Room, Position).check(Schema.isMaxProperties(limits.positions))
    },
    success: Event,
    error: Unavailable,
    stream: true
  }),
  /** The user goes: offline in all tabs, and out of all rooms. Closing a tab does not do this: who comes back, is still in. */
  Rpc.make("disconnect", { payload: { user: User }, error: Unavailable })
).middleware(Allowance) {}

/** Where the WebSocket is, beside the page. Messages on it are JSON: `RpcSerialization.layerJson`. */
export const path = "/rpc"
