/**
 * What changes the chat: a command is carried out once for its id, all of it or nothing, however often it is sent and
 * whichever process dies over it. Its outcome is written in the same step, so that who asked can read it.
 *
 * Handlers of several processes run at once, and what one reads may change before its commit is applied. So they write only
 * what commutes (Records.ts says how), and what they decide on stays true (a room is never deleted), or was true when the
 * command was decided: who sends and leaves at the same moment may be heard once more.
 *
 * @module
 */
import { Clock, Effect, Layer, Result, Schedule, Schema, Stream } from "effect"
import { Commit, Consumer, Producer, Records, Topic } from "waybill"
import * as Mention from "./Mention.ts"
import { type Fact, News } from "./News.ts"
import { ClientId, limits, Position, Room, Text, User } from "./Protocol.ts"
import * as Record from "./Records.ts"
import * as RoomLog from "./RoomLog.ts"
import { Store } from "./Transports.ts"

export const Command = Schema.Union([
  Schema.TaggedStruct("CreateRoom", { room: Room, user: User }),
  Schema.TaggedStruct("JoinRoom", { room: Room, user: User }),
  Schema.TaggedStruct("LeaveRoom", { room: Room, user: User }),
  Schema.TaggedStruct("SendMessage", { room: Room, user: User, id: ClientId, text: Text }),
  Schema.TaggedStruct("MarkRead", { room: Room, user: User, position: Position })
])
export type Command = typeof Command.Type

export const Commands = Topic.make("chat/commands", { payload: Command, on: Store })

export const group = "chat"

/**
 * For how long a command is known by the id that a client gave it: a client that has heard nothing of it, such as a laptop
 * that was closed over night, may ask again for a day. Its outcome is kept for as long, and so is what died.
 */
export const remembered = "1 day"

/** Nobody asks again under an id that no client knows, and who has asked waits for ten seconds. */
const waitedFor = "1 minute"

/** A store that does not answer is asked again for half a minute; then the command is a dead letter, and can be sent back. */
const patience = Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 60 }))

const consumer = Consumer.make(Commands, { group, concurrency: 32, lease: "5 seconds" }).pipe(
  Consumer.transactional((command, delivery) =>
    Effect.gen(function* () {
      const { room, user } = command
      const ttl = command._tag === "CreateRoom" || command._tag === "SendMessage" ? remembered : waitedFor
      const outcome = (answer: Record.Answer, change: Partial<Commit.Commit> = {}) =>
        Commit.make({
          messages: change.messages ?? [],
          writes: [...(change.writes ?? []), Record.answer(delivery.id).set(answer, { ttl })]
        })

      if (command._tag === "CreateRoom") {
        const claims = yield* Records.read(Commands, Record.claims(room).all)
        if (claims.length > 0) return outcome("Done")
        const rooms = yield* Records.read(Commands, Record.rooms.all)
        if (rooms.size >= limits.rooms) return outcome("TooManyRooms")
        return outcome("Done", { writes: [Record.claims(room).append(delivery.id), Record.rooms.add(room)] })
      }

      if (!(yield* Records.read(Commands, Record.rooms.has(room)))) return outcome("RoomNotFound")
      const isMember = yield* Records.read(Commands, Record.members(room).has(user))
      switch (command._tag) {
        case "JoinRoom": {
          if (isMember) return outcome("Done")
          // What was said before is history and not unread.
          const [newest] = yield* RoomLog.before(room, undefined, 1)
          return outcome("Done", {
            writes: [
              Record.members(room).add(user),
              Record.roomsOf(user).add(room),
              ...(newest === undefined ? [] : markRead(user, room, newest.position))
            ]
          })
        }
        case "LeaveRoom":
          return outcome("Done", { writes: [Record.members(room).remove(user), Record.roomsOf(user).remove(room)] })
        case "MarkRead":
          return isMember ? outcome("Done", { writes: markRead(user, room, command.position) }) : outcome("NotAMember")
        case "SendMessage": {
          if (!isMember) return outcome("NotAMember")
          const { id, text } = command
          const at = yield* Clock.currentTimeMillis
          const named = Mention.namesIn(text)
          const members = named.length === 0 ? none : yield* Records.read(Commands, Record.members(room).all)
          const mentions = named.filter((to) => to !== user && members.has(to))
          return outcome("Done", {
            writes: [
              Record.sent(user).append(JSON.stringify({ room, id, text, at })),
              Record.sent(user).keepLast(limits.sent)
            ],
            messages: [
              yield* Producer.message(RoomLog.topic(room), { id, user, text }, { id: `${user}/${id}` }),
              ...(yield* Effect.forEach(mentions, (to) =>
                Producer.message(Mention.Mentions, { to, by: user, room, text }, { id: `${user}/${id}/${to}` })
              ))
            ]
          })
        }
      }
    })
  ),
  Consumer.onFailure({ TransportError: () => Consumer.retry(patience) }),
  Consumer.orElse(Consumer.deadLetter())
)

const none: ReadonlySet<string> = new Set()

const markRead = (user: string, room: string, position: string): ReadonlyArray<Commit.Write> => [
  Record.reads(user, room).append(position),
  Record.reads(user, room).keepLast(Record.readsKept)
]

const factsOf = (id: string, command: Command): ReadonlyArray<Fact> => {
  const settled: Fact = { _tag: "Settled", command: id }
  const { room, user } = command
  switch (command._tag) {
    case "CreateRoom":
      return [settled]
    case "JoinRoom":
    case "LeaveRoom":
      return [{ _tag: "Members", room, user }, settled]
    case "MarkRead":
      return [{ _tag: "Read", room, user }, settled]
    case "SendMessage":
      return [{ _tag: "Posted", room }, settled]
  }
}

/** Carries commands out, and tells the news of those that are settled: never before they are true. */
export const layer: Layer.Layer<never, never, News | Store> = Layer.effectDiscard(
  Effect.gen(function* () {
    const news = yield* News
    yield* Consumer.stream(consumer).pipe(
      Stream.mapEffect(({ delivery }) =>
        Effect.map(Effect.result(Commands.decode(delivery.body)), (command) =>
          Result.isSuccess(command) ? factsOf(delivery.id, command.success) : []
        )
      ),
      Stream.runForEachArray((facts) => news.tell(facts.flat())),
      Effect.tapError((error) => Effect.logError("commands are not carried out", error)),
      // Such as a permission that is missing: whoever grants it need not start us again.
      Effect.retry(Schedule.spaced("5 seconds")),
      Effect.forkScoped
    )
  })
)
