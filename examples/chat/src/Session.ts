/**
 * The chat as one user sees it in one tab: a state that follows the server over lost connections and killed servers. What
 * was missed comes in order and once, and what nobody confirmed is sent again under its id.
 *
 * The page and the terminal are two views of it.
 *
 * @module
 */
import { Effect, FiberMap, Layer, Queue, Schedule, Schema, Semaphore, Stream, SubscriptionRef } from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { RpcClient, RpcSerialization } from "effect/rpc"
import type { RpcClientError } from "effect/rpc/RpcClientError"
import { Socket } from "effect/socket"
import { Chat, ClientId, type Event, limits, mention, type Message, Room, Text, Unavailable } from "./Protocol.ts"

/** All that it takes to send a message again, and to have it stored once. */
export const Unsent = Schema.Struct({ id: ClientId, room: Room, text: Text })
export type Unsent = typeof Unsent.Type

/** A message of this tab that has not come back from its room yet. */
export interface Outgoing extends Unsent {
  /** The server has said that it is in the room. */
  readonly stored: boolean
  /** Why the server refused it for good. */
  readonly refused: string | undefined
}

/** A room of this user. */
export interface RoomState {
  readonly room: string
  readonly members: ReadonlyArray<string>
  /** Without hole: from the oldest that was asked for to the newest that there is. */
  readonly messages: ReadonlyArray<Message>
  /** Whether there may be messages before the first of these. */
  readonly older: boolean
  /** Up to where this user has read, in any tab; `null` before the first time. */
  readonly read: string | null
  /** What the server counted behind that when it last told; messages come on top of it or are part of it. */
  readonly counted: number
  /** Positions of those of these messages that name this user. */
  readonly naming: ReadonlySet<string>
  readonly typing: ReadonlyArray<string>
}

export interface State {
  readonly user: string
  /** `left`: the user has gone, in this tab or in another, and the session is over. */
  readonly connection: "connecting" | "live" | "lost" | "left"
  readonly online: ReadonlySet<string>
  readonly rooms: ReadonlyMap<string, RoomState>
  readonly outgoing: ReadonlyArray<Outgoing>
}

/** Messages of others behind the marker, at most `limits.unread`; and how many that are here name this user. */
export const unread = (
  { counted, messages, naming, read }: RoomState,
  user: string
): { readonly unread: number; readonly mentions: number } => {
  const marker = messages.findLastIndex(({ position }) => position === read)
  // The marker is not here: it is before these messages, or they are still coming and it is among them.
  const unclear = marker < 0 && read !== null
  const behind = unclear && counted === 0 ? [] : messages.slice(marker + 1)
  const others = behind.filter((message) => message.user !== user).length
  const unread = unclear ? counted : Math.min(Math.max(counted, others), limits.unread)
  const mentions = behind.filter(({ position }) => naming.has(position)).length
  return { unread, mentions: Math.min(mentions, unread) }
}

/** Messages that a tab keeps of a room: the older half goes when there are more, and can be asked for again. */
const kept = 2000

const nobody = (user: string): State => ({
  user,
  connection: "connecting",
  online: new Set(),
  rooms: new Map(),
  outgoing: []
})

const withRoom = (state: State, room: string, change: (room: RoomState) => Partial<RoomState>): State => {
  const before = state.rooms.get(room)
  return before === undefined
    ? state
    : { ...state, rooms: new Map(state.rooms).set(room, { ...before, ...change(before) }) }
}

const including = (names: ReadonlyArray<string>, name: string) =>
  names.includes(name) ? names : [...names, name].toSorted()
const without = (names: ReadonlyArray<string>, name: string) => names.filter((one) => one !== name)

/** What of this tab is not among these messages. */
const unposted = ({ outgoing, user }: State, messages: ReadonlyArray<Message>) =>
  outgoing.filter(({ id }) => !messages.some((message) => message.id === id && message.user === user))

/** Whether somebody else names this user. */
const names = (user: string) => (message: Message) =>
  message.user !== user && parts(message.text).some(({ mention }) => mention === user)

/** What the state is after an event. */
export const next = (state: State, event: Event): State => {
  switch (event._tag) {
    case "Welcome":
      return {
        ...state,
        connection: "live",
        online: new Set(event.online),
        // What the user is not in any more, left in another tab or with the memory of a server, is not shown.
        rooms: new Map([...state.rooms].filter(([room]) => event.rooms.includes(room)))
      }
    case "Entered": {
      const { room } = event.membership
      const { members, read, unread } = event.membership
      const before = state.rooms.get(room) ?? { room, messages: [], older: true, naming: new Set(), typing: [] }
      const entered = { ...before, members, read, counted: unread }
      return { ...state, rooms: new Map(state.rooms).set(room, entered) }
    }
    case "Exited": {
      const rooms = new Map(state.rooms)
      rooms.delete(event.room)
      return { ...state, rooms }
    }
    case "Posted": {
      const { message, room } = event
      const mine = message.user === state.user
      return {
        ...withRoom(state, room, ({ messages, older, typing }) => ({
          messages: [...(messages.length < kept ? messages : messages.slice(kept / 2)), message],
          older: older || messages.length >= kept,
          typing: without(typing, message.user)
        })),
        outgoing: mine ? unposted(state, [message]) : state.outgoing
      }
    }
    case "Mentioned":
      return withRoom(state, event.room, ({ naming }) => ({ naming: new Set(naming).add(event.message.position) }))
    case "Joined":
      return withRoom(state, event.room, ({ members }) => ({ members: including(members, event.user) }))
    case "Left":
      return withRoom(state, event.room, ({ members, typing }) => ({
        members: without(members, event.user),
        typing: without(typing, event.user)
      }))
    case "Online":
      return { ...state, online: new Set(state.online).add(event.user) }
    case "Offline":
      return { ...state, online: new Set(without([...state.online], event.user)) }
    case "Typing":
      return withRoom(state, event.room, ({ typing }) => ({ typing: including(typing, event.user) }))
    case "Heartbeat":
      return state
    case "Unread":
      return withRoom(state, event.room, () => ({ read: event.read, counted: event.unread }))
  }
}

interface Refusal {
  readonly _tag: string
  readonly retryAfterMillis?: number
}

/** Waits for as long as the server has said, when it was asked for too much. */
const itsTurn = ({ retryAfterMillis = 0 }: Refusal) => Effect.sleep(retryAfterMillis)

export type Session = Effect.Success<ReturnType<typeof make>>

/**
 * Begins a session that ends with the scope. `seen` is told each event once the state has followed it.
 *
 * What is asked by hand is asked again for ten seconds while nothing answers, and as soon as it may be when it was too much;
 * a message until it is answered.
 */
export const make = Effect.fn("Session.make")(function* (options: {
  readonly user: string
  readonly seen?: (event: Event) => Effect.Effect<unknown>
  /** What an earlier session of this user has left unconfirmed. */
  readonly unsent?: ReadonlyArray<Unsent>
}) {
  const { seen, unsent = [], user } = options
  const chat = yield* RpcClient.make(Chat)
  const state = yield* SubscriptionRef.make(nobody(user))
  const update = (change: (state: State) => State) => SubscriptionRef.update(state, change)
  const tab = SecureRandom.uuidV4Unsafe()
  const waiting = yield* Queue.unbounded<Outgoing>()
  const timers = yield* FiberMap.make<string>()
  const paging = yield* Semaphore.make(1)

  const follow = Effect.fnUntraced(function* (event: Event) {
    yield* update((state) => next(state, event))
    if (event._tag === "Typing") {
      const quiet = update((state) =>
        withRoom(state, event.room, ({ typing }) => ({ typing: without(typing, event.user) }))
      )
      // Heard of again, it begins anew.
      yield* FiberMap.run(timers, `types ${event.room} ${event.user}`, Effect.delay(quiet, limits.typingMillis))
    }
    if (seen !== undefined) yield* seen(event)
  })

  const connected = Stream.unwrap(
    Effect.map(SubscriptionRef.get(state), ({ rooms }) => {
      const positions = [...rooms].flatMap(([room, { messages }]) => {
        const last = messages.at(-1)
        return last === undefined ? [] : [[room, last.position] as const]
      })
      return chat.connect({ user, tab, positions: Object.fromEntries(positions) })
    })
  )
  const become = (connection: State["connection"]) => update((state) => ({ ...state, connection }))
  const leave = update((state) => ({ ...nobody(user), connection: "left", outgoing: state.outgoing }))
  // When the stream breaks, it is taken up again from the last message of each room. It ends when the user goes.
  yield* Stream.runForEach(connected, follow).pipe(
    Effect.tapCause(() => become("lost")),
    Effect.tapError(itsTurn),
    Effect.retry(Schedule.spaced("500 millis")),
    Effect.andThen(leave),
    Effect.forkScoped
  )

  const deliver = (one: Outgoing): Effect.Effect<void> => {
    const { id, room, text } = one
    const become = (change: Partial<Outgoing>) =>
      update((state) => ({
        ...state,
        outgoing: state.outgoing.map((other) => (other.id === id ? { ...one, ...change } : other))
      }))
    const sent = Effect.andThen(chat.sendMessage({ id, room, text, user }), become({ stored: true }))
    return Effect.catch(sent, (error) => {
      switch (error._tag) {
        case "RoomNotFound":
        case "NotAMember":
        case "GivenUp":
          return become({ refused: error.message })
        case "TooManyRequests":
          return Effect.delay(deliver(one), error.retryAfterMillis)
        default:
          // Perhaps it is stored and the answer was lost: under the same id it is stored once.
          return Effect.delay(deliver(one), "500 millis")
      }
    })
  }
  const send = Effect.fnUntraced(function* (message: Unsent) {
    const one: Outgoing = { ...message, stored: false, refused: undefined }
    yield* update((state) => ({ ...state, outgoing: [...state.outgoing, one] }))
    yield* Queue.offer(waiting, one)
  })
  yield* Effect.forEach(unsent, send, { discard: true })
  // One after the other, so that they stand in the room as they were written.
  yield* Queue.take(waiting).pipe(Effect.flatMap(deliver), Effect.forever, Effect.forkScoped)

  const patiently = <A, E extends Refusal>(asked: Effect.Effect<A, E | RpcClientError>) =>
    // That a socket could not be opened says the same to people.
    Effect.catchTag(asked, "RpcClientError", () => new Unavailable({})).pipe(
      Effect.tapError(itsTurn),
      Effect.retry({
        while: ({ _tag }) => _tag === "Unavailable" || _tag === "TooManyRequests",
        schedule: Schedule.max([Schedule.spaced("500 millis"), Schedule.recurs(20)])
      })
    )

  return {
    state,
    /** Returns at once; the text is in `outgoing` until it comes back from the room. It has to be one, by `Text`. */
    send: (room: string, text: string) =>
      Effect.andThen(
        send({ id: SecureRandom.uuidV4Unsafe(), room, text }),
        // What is typed next is news again.
        FiberMap.remove(timers, `typing ${room}`)
      ),
    /** Forgets a message that was refused. */
    discard: (id: string) => update((state) => ({ ...state, outgoing: state.outgoing.filter((one) => one.id !== id) })),
    /** Puts the page before the first message in front of it; whether there was one. */
    older: Effect.fnUntraced(
      function* (room: string) {
        const before = (yield* SubscriptionRef.get(state)).rooms.get(room)?.messages[0]?.position
        if (before === undefined) return false
        const page = yield* patiently(chat.getRoomHistory({ room, user, before }))
        yield* update((state) => ({
          ...withRoom(state, room, ({ messages, naming }) =>
            messages[0]?.position === before
              ? {
                  messages: [...page, ...messages],
                  older: page.length === limits.history,
                  naming: new Set([...naming, ...page.filter(names(user)).map(({ position }) => position)])
                }
              : {}
          ),
          outgoing: unposted(state, page)
        }))
        return page.length > 0
      },
      Semaphore.withPermits(paging, 1)
    ),
    /** The user has seen the room to its end. */
    read: Effect.fnUntraced(function* (room: string) {
      const now = (yield* SubscriptionRef.get(state)).rooms.get(room)
      const last = now?.messages.at(-1)
      if (now === undefined || last === undefined || unread(now, user).unread === 0) return
      yield* update((state) => withRoom(state, room, () => ({ read: last.position, counted: 0 })))
      const mark = Effect.gen(function* () {
        const position = (yield* SubscriptionRef.get(state)).rooms.get(room)?.read
        if (typeof position === "string") yield* patiently(chat.markRead({ room, user, position }))
      })
      // One for all that comes in a moment.
      yield* FiberMap.run(timers, `reads ${room}`, Effect.ignore(Effect.delay(mark, "300 millis")), {
        onlyIfMissing: true
      })
    }),
    /** Once in a while is enough, however often it is called. */
    typing: (room: string) =>
      FiberMap.run(
        timers,
        `typing ${room}`,
        Effect.andThen(Effect.ignore(chat.typing({ room, user })), Effect.sleep(limits.typingMillis / 2)),
        { onlyIfMissing: true }
      ),
    rooms: patiently(chat.listRooms({ user })),
    sent: patiently(chat.getSentMessages({ user })),
    create: (room: string) => {
      const id = SecureRandom.uuidV4Unsafe()
      return patiently(chat.createRoom({ room, user, id }))
    },
    join: (room: string) => patiently(chat.joinRoom({ room, user })),
    leave: (room: string) => patiently(chat.leaveRoom({ room, user })),
    /** Goes offline in all tabs, and out of all rooms. */
    quit: patiently(chat.disconnect({ user }))
  }
})

/** The WebSocket at this address, dialled again for as long as it takes. */
export const protocol = (url: string): Layer.Layer<RpcClient.Protocol> =>
  RpcClient.layerProtocolSocket({
    retryPolicy: Schedule.jittered(Schedule.spaced("1 second"))
  }).pipe(
    Layer.provide(Socket.layerWebSocket(url)),
    Layer.provide(Socket.layerWebSocketConstructorGlobal),
    Layer.provide(RpcSerialization.layerJson)
  )

/** The parts of a text: mentions, and what is between. */
export const parts = (text: string): ReadonlyArray<{ readonly text: string; readonly mention?: string }> =>
  text
    .split(mention)
    .map((part, i) => (i % 2 === 0 ? { text: part } : { text: `@${part}`, mention: part.toLowerCase() }))
