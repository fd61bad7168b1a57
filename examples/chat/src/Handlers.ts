/**
 * The procedures of the protocol, each for one call of a domain that takes what it is given.
 *
 * @module
 */
import { Effect, Layer } from "effect"
import * as Allowance from "./Allowance.ts"
import { ChatRooms } from "./ChatRooms.ts"
import { Live } from "./Live.ts"
import { Presence } from "./Presence.ts"
import { Chat, Unavailable } from "./Protocol.ts"

const procedures = Chat.toLayer(
  Effect.gen(function* () {
    const rooms = yield* ChatRooms
    const presence = yield* Presence
    const live = yield* Live
    return {
      createRoom: ({ id, room, user }) => rooms.createRoom(room, user, id),
      listRooms: () => rooms.listRooms,
      joinRoom: ({ room, user }) => rooms.joinRoom(room, user),
      leaveRoom: ({ room, user }) => rooms.leaveRoom(room, user),
      getMembers: ({ room }) => rooms.getMembers(room),
      sendMessage: (message) => rooms.sendMessage(message),
      getRoomHistory: ({ before, limit, room }) => rooms.getRoomHistory(room, { before, limit }),
      getSentMessages: ({ user }) => rooms.getSentMessages(user),
      markRead: ({ position, room, user }) => rooms.markRead(room, user, position),
      typing: ({ room, user }) => rooms.typing(room, user),
      connect: (options) => live.connect(options),
      disconnect: ({ user }) =>
        Effect.gen(function* () {
          yield* Effect.forEach(yield* rooms.roomsOf(user), (room) =>
            Effect.catchTag(rooms.leaveRoom(room, user), "RoomNotFound", Effect.die)
          )
          yield* Effect.mapError(presence.leave(user), () => new Unavailable({}))
        })
    }
  })
)

export const layer = Layer.merge(procedures, Allowance.layer)
