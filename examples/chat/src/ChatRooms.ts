/**
 * The rooms: what a user may do in them, and what is in them. A call that changes something answers when it is true for
 * everyone, and an answer is never a guess: `Unavailable` says that it is not known, and the same call again finds out, for
 * a day.
 *
 * @module
 */
import { Context, Effect, Latch, Layer, Option, Schema, Stream } from "effect"
import { type Commit, DeadLetters, Producer, Records, Transport } from "waybill"
import { type Command, Commands, group } from "./Command.ts"
import { News } from "./News.ts"
import {
  GivenUp,
  limits,
  type Membership,
  type Message,
  NotAMember,
  RoomExists,
  RoomNotFound,
  type Sent,
  TooManyRooms,
  Unavailable
} from "./Protocol.ts"
import * as Record from "./Records.ts"
import * as RoomLog from "./RoomLog.ts"
import { Store } from "./Transports.ts"

export class ChatRooms extends Context.Service<
  ChatRooms,
  {
    /** `id` makes the call repeatable: whoever made the room under it, succeeds again. The maker is in the room. */
    readonly createRoom: (
      room: string,
      user: string,
      id: string
    ) => Effect.Effect<void, RoomExists | TooManyRooms | GivenUp | Unavailable>
    /** In the order of the alphabet. */
    readonly listRooms: Effect.Effect<ReadonlyArray<string>, Unavailable>
    readonly joinRoom: (room: string, user: string) => Effect.Effect<void, RoomNotFound | Unavailable>
    readonly leaveRoom: (room: string, user: string) => Effect.Effect<void, RoomNotFound | Unavailable>
    readonly getMembers: (room: string) => Effect.Effect<ReadonlyArray<string>, RoomNotFound | Unavailable>
    /** Stores one message for this user and id, whatever text and room comes with the id again. */
    readonly sendMessage: (message: {
      readonly room: string
      readonly user: string
      readonly id: string
      readonly text: string
    }) => Effect.Effect<void, RoomNotFound | NotAMember | GivenUp | Unavailable>
    /** The newest 50, or `limit`, in front of `before`; oldest first. */
    readonly getRoomHistory: (
      room: string,
      page?: { readonly limit?: number | undefined; readonly before?: string | undefined }
    ) => Effect.Effect<ReadonlyArray<Message>, RoomNotFound | Unavailable>
    /** The user's own last 100, oldest first. */
    readonly getSentMessages: (user: string) => Effect.Effect<ReadonlyArray<Sent>, Unavailable>
    readonly markRead: (
      room: string,
      user: string,
      position: string
    ) => Effect.Effect<void, RoomNotFound | NotAMember | Unavailable>
    /** Tells the others, if anybody hears it. */
    readonly typing: (room: string, user: string) => Effect.Effect<void>
    readonly roomsOf: (user: string) => Effect.Effect<ReadonlySet<string>, Unavailable>
    readonly membership: (room: string, user: string) => Effect.Effect<Membership, Unavailable>
    /** The position behind which the newest 50 messages stand; none when there are no more of them. */
    readonly begin: (room: string) => Effect.Effect<string | undefined, Unavailable>
    /** At most 100 messages behind the position. */
    readonly after: (room: string, position: string | undefined) => Effect.Effect<ReadonlyArray<Message>, Unavailable>
  }
>()("chat/ChatRooms") {
  static readonly layer: Layer.Layer<ChatRooms, never, News | Store> = Layer.effect(
    ChatRooms,
    Effect.gen(function* () {
      const news = yield* News
      const store = yield* Effect.context<Store>()
      const read = <A>(query: Commit.Query<A>) => Effect.provideContext(Records.read(Commands, query), store)

      /** Those who wait for the outcome of a command, by its id. */
      const waiting = new Map<string, Set<Latch.Latch>>()
      const wake = (latches: Iterable<Latch.Latch> = []) => {
        for (const latch of latches) latch.openUnsafe()
      }
      yield* news.hear((fact) => {
        if (fact._tag === "Settled") wake(waiting.get(fact.command))
        else if (fact._tag === "Missed") for (const latches of waiting.values()) wake(latches)
      })

      const settledNews = (id: string) =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const latch = Latch.makeUnsafe()
            waiting.set(id, (waiting.get(id) ?? new Set()).add(latch))
            return latch
          }),
          (latch) =>
            Effect.sync(() => {
              const latches = waiting.get(id)
              latches?.delete(latch)
              if (latches?.size === 0) waiting.delete(id)
            })
        )

      /**
       * A command that has died for want of the store is sent back: it leaves the dead letters in the same step, so that who
       * asks twice does not double it. One that died of itself would die again: it stays there, for those who can mend it.
       */
      const revive = Effect.fnUntraced(function* (command: string) {
        const letter = yield* DeadLetters.stream(Commands, group).pipe(
          Stream.filter(({ id }) => id === command),
          Stream.runHead
        )
        if (Option.isNone(letter)) return
        if (letter.value.reason !== "TransportError") return yield* new Died({})
        yield* (yield* Store).inspector.redrive(Commands.name, group, [letter.value.entry])
      })

      /**
       * Asked again under the same id, a command that is carried out is answered as before, one that is under way is waited for,
       * and one that has died is sent back. The news only say that there may be an answer; when they do not come, it is looked
       * for once a second.
       */
      const ask = Effect.fnUntraced(function* (command: Command, id?: string) {
        const receipt = yield* Producer.publish(Commands, command, { id })
        const settled = yield* settledNews(receipt.id)
        for (let second = 0; ; second++) {
          settled.closeUnsafe()
          const found = yield* read(Record.answer(receipt.id).value)
          if (found !== undefined) return yield* Effect.orDie(decodeAnswer(found))
          if (second === patienceSeconds) return yield* new Unavailable({})
          if (second === 0 && receipt._tag === "Duplicate") yield* revive(receipt.id)
          yield* Effect.timeoutOption(settled.await, "1 second")
        }
      }, Effect.scoped)

      const asked = (command: Command, id?: string) =>
        ask(command, id).pipe(
          Effect.provideContext(store),
          unavailable,
          // The edge has checked it.
          Effect.catchTag(["InvalidPayload", "PayloadTooLarge"], Effect.die)
        )

      /** Under an id that nobody else knows, so that nobody can ask for it again. */
      const anew = (command: Command) => Effect.catchTag(asked(command), "Died", Effect.die)

      const has = (room: string) => unavailable(read(Record.rooms.has(room)))

      const mustExist = Effect.fnUntraced(function* (room: string) {
        if (!(yield* has(room))) return yield* new RoomNotFound({ room })
      })

      const furthestRead = (room: string, user: string) =>
        Effect.map(read(Record.reads(user, room).all), (positions) =>
          positions.reduce<string | null>((far, one) => (far === null ? one : RoomLog.later(far, one)), null)
        )

      const after = (room: string, position: string | undefined, limit: number) =>
        RoomLog.after(room, position, limit).pipe(Effect.provideContext(store), unavailable)

      const before = (room: string, position: string | undefined, limit: number) =>
        RoomLog.before(room, position, limit).pipe(Effect.provideContext(store), unavailable)

      const joinRoom = Effect.fn("ChatRooms.joinRoom")(function* (room: string, user: string) {
        if ((yield* anew({ _tag: "JoinRoom", room, user })) === "RoomNotFound") return yield* new RoomNotFound({ room })
      })

      return ChatRooms.of({
        createRoom: Effect.fn("ChatRooms.createRoom")(function* (room, user, id) {
          const command = `create/${room}/${user}/${id}`
          const answer = yield* asked({ _tag: "CreateRoom", room, user }, command).pipe(
            Effect.catchTag("Died", () => new GivenUp({ id }))
          )
          if (answer === "TooManyRooms") return yield* new TooManyRooms({ limit: limits.rooms })
          const [first] = yield* unavailable(read(Record.claims(room).all))
          if (first !== command) return yield* new RoomExists({ room })
          // Made and not entered, because we died in between, is mended by the same call again.
          yield* Effect.catchTag(joinRoom(room, user), "RoomNotFound", Effect.die)
        }),

        listRooms: Effect.map(unavailable(read(Record.rooms.all)), sorted),

        joinRoom,

        leaveRoom: Effect.fn("ChatRooms.leaveRoom")(function* (room, user) {
          const answer = yield* anew({ _tag: "LeaveRoom", room, user })
          if (answer === "RoomNotFound") return yield* new RoomNotFound({ room })
        }),

        getMembers: Effect.fn("ChatRooms.getMembers")(function* (room) {
          yield* mustExist(room)
          return sorted(yield* unavailable(read(Record.members(room).all)))
        }),

        sendMessage: Effect.fn("ChatRooms.sendMessage")(function* ({ id, room, text, user }) {
          const answer = yield* asked({ _tag: "SendMessage", room, user, id, text }, `send/${user}/${id}`).pipe(
            Effect.catchTag("Died", () => new GivenUp({ id }))
          )
          if (answer === "RoomNotFound") return yield* new RoomNotFound({ room })
          if (answer === "NotAMember") return yield* new NotAMember({ room, user })
        }),

        getRoomHistory: Effect.fn("ChatRooms.getRoomHistory")(function* (room, page = {}) {
          yield* mustExist(room)
          return yield* before(room, page.before, page.limit ?? limits.history)
        }),

        getSentMessages: Effect.fn("ChatRooms.getSentMessages")(function* (user) {
          const texts = yield* unavailable(read(Record.sent(user).all))
          // What was a text once, and is none any more, is not shown in its room either.
          return texts.flatMap((text) => Option.toArray(decodeSent(text)))
        }),

        markRead: Effect.fn("ChatRooms.markRead")(function* (room, user, position) {
          yield* mustExist(room)
          const [newest] = yield* before(room, undefined, 1)
          if (newest === undefined) return
          // A marker behind the end would hide what is still to come.
          const answer = yield* anew({
            _tag: "MarkRead",
            room,
            user,
            position: RoomLog.later(position, newest.position) === position ? newest.position : position
          })
          if (answer === "NotAMember") return yield* new NotAMember({ room, user })
        }),

        typing: Effect.fn("ChatRooms.typing")(function* (room, user) {
          const isMember = yield* Effect.orElseSucceed(read(Record.members(room).has(user)), () => false)
          if (isMember) yield* news.tell([{ _tag: "Typing", room, user }])
        }),

        roomsOf: (user) => unavailable(read(Record.roomsOf(user).all)),

        membership: Effect.fn("ChatRooms.membership")(function* (room, user) {
          const marker = yield* unavailable(furthestRead(room, user))
          // Own messages are read, so that some of others lie further on.
          const behind = yield* after(room, marker ?? undefined, 2 * limits.unread)
          const unread = behind.filter((message) => message.user !== user).length
          return {
            room,
            members: sorted(yield* unavailable(read(Record.members(room).all))),
            unread: Math.min(unread, limits.unread),
            read: marker
          }
        }),

        begin: (room) =>
          Effect.map(before(room, undefined, limits.history + 1), (newest) =>
            newest.length > limits.history ? newest[0]?.position : undefined
          ),

        after: (room, position) => after(room, position, 100)
      })
    })
  )
}

/** A command is among the dead letters, and would be again. */
class Died extends Schema.TaggedError<Died>()("Died", {}) {}

/** For how long an answer is waited for. */
const patienceSeconds = 10

const decodeAnswer = Schema.decodeUnknownEffect(Record.Answer)
const decodeSent = Schema.decodeUnknownOption(Record.SentJson)

const sorted = (names: ReadonlySet<string>): ReadonlyArray<string> => [...names].sort()

const isTransportError = (error: unknown): error is Transport.TransportError =>
  error instanceof Transport.TransportError

const unavailable = <A, E, R>(
  self: Effect.Effect<A, E | Transport.TransportError, R>
): Effect.Effect<A, Exclude<E, Transport.TransportError> | Unavailable, R> =>
  Effect.catch(self, (error): Effect.Effect<never, Exclude<E, Transport.TransportError> | Unavailable> =>
    isTransportError(error)
      ? Effect.andThen(Effect.logWarning("the store does not answer", error), Effect.fail(new Unavailable({})))
      : // The guard cannot take a member out of a type that is not known yet.
        Effect.fail(error as Exclude<E, Transport.TransportError>)
  )
