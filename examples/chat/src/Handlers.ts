/**
 * The procedures of the protocol, each for one call of a domain that takes what it is given. Here is where a user is told
 * that it asks for too much.
 *
 * @module
 */
import { Duration, Effect } from "effect"
import { RateLimiter } from "effect/persistence"
import { ChatRooms } from "./ChatRooms.ts"
import { Live } from "./Live.ts"
import { Presence } from "./Presence.ts"
import { Chat, TooManyMessages, Unavailable } from "./Protocol.ts"

/** What a user may do at once, and how soon it may do as much again. Typing counts apart. */
const allowance = { limit: 30, window: "10 seconds", algorithm: "token-bucket" } as const

export const layer = Chat.toLayer(
  Effect.gen(function* () {
    const rooms = yield* ChatRooms
    const presence = yield* Presence
    const live = yield* Live
    const limiter = yield* RateLimiter.RateLimiter

    const within = Effect.fnUntraced(function* (key: string) {
      yield* limiter
        .consume({ ...allowance, key })
        .pipe(
          Effect.catch(({ reason }): Effect.Effect<never, TooManyMessages | Unavailable> =>
            reason._tag === "RateLimitExceeded"
              ? Effect.fail(new TooManyMessages({ retryAfterMillis: Duration.toMillis(reason.retryAfter) }))
              : Effect.andThen(Effect.logWarning("nobody counts", reason), Effect.fail(new Unavailable({})))
          )
        )
    })
    const limited = <A, E>(user: string, effect: Effect.Effect<A, E>) =>
      Effect.andThen(within(`commands/${user}`), effect)

    return {
      createRoom: ({ id, room, user }) => limited(user, rooms.createRoom(room, user, id)),
      listRooms: () => rooms.listRooms,
      joinRoom: ({ room, user }) => limited(user, rooms.joinRoom(room, user)),
      leaveRoom: ({ room, user }) => limited(user, rooms.leaveRoom(room, user)),
      getMembers: ({ room }) => rooms.getMembers(room),
      sendMessage: (message) => limited(message.user, rooms.sendMessage(message)),
      getRoomHistory: ({ before, limit, room }) => rooms.getRoomHistory(room, { before, limit }),
      getSentMessages: ({ user }) => rooms.getSentMessages(user),
      markRead: ({ position, room, user }) => limited(user, rooms.markRead(room, user, position)),
      typing: ({ room, user }) => Effect.ignore(Effect.andThen(within(`typing/${user}`), rooms.typing(room, user))),
      connect: (options) => live.connect(options),
      disconnect: ({ user }) =>
        limited(
          user,
          Effect.gen(function* () {
            yield* Effect.forEach(yield* rooms.roomsOf(user), (room) =>
              Effect.catchTag(rooms.leaveRoom(room, user), "RoomNotFound", Effect.die)
            )
            yield* Effect.mapError(presence.leave(user), () => new Unavailable({}))
          })
        )
    }
  })
)
