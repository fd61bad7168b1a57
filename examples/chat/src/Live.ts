/**
 * Everything that happens, as one user sees it. A connection keeps no messages but a place in each room: it is told where
 * there is something new, and reads on from there when its reader asks for more. So nothing is missing and nothing comes
 * twice, whatever happened to the news, and a slow reader costs a set of names and holds nobody up.
 *
 * What a reader asks for is also the sign that it is there. One that has vanished without a word asks for nothing more, and
 * is offline once its last sign has expired, however long its connection seems to be open.
 *
 * @module
 */
import { Cause, Clock, Context, Effect, Exit, Latch, Layer, RcMap, Semaphore, Scope, Stream } from "effect"
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import { ChatRooms } from "./ChatRooms.ts"
import * as Mention from "./Mention.ts"
import { type Listener as NewsListener, News } from "./News.ts"
import { type Change, Presence, signMillis } from "./Presence.ts"
import { type Event, type Message, type Unavailable } from "./Protocol.ts"

export interface Connecting {
  readonly user: string
  readonly tab: string
  /** By room, where this tab has stopped to read. */
  readonly positions: Readonly<Record<string, string>>
}

export class Live extends Context.Service<
  Live,
  {
    /** The user is online for as long as this is read. Ends when the user leaves. */
    readonly connect: (options: Connecting) => Stream.Stream<Event>
  }
>()("chat/Live") {
  static readonly layer: Layer.Layer<Live, never, ChatRooms | News | Presence> = Layer.effect(
    Live,
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const news = yield* News
      const presence = yield* Presence
      const followed = new Map<string, Tail>()
      const tails = yield* RcMap.make({
        lookup: (room: string) =>
          Effect.acquireRelease(
            Effect.sync(() => {
              const tail = new Tail((position) => rooms.after(room, position))
              followed.set(room, tail)
              return tail
            }),
            () => Effect.sync(() => followed.delete(room))
          ),
        idleTimeToLive: "1 minute"
      })
      // Before any connection hears it, and comes to read.
      yield* news.hear((fact) => {
        if (fact._tag === "Missed") for (const tail of followed.values()) tail.grown = true
        const tail = fact._tag === "Posted" ? followed.get(fact.room) : undefined
        if (tail !== undefined) tail.grown = true
      })

      const open = Effect.fnUntraced(function* ({ positions, tab, user }: Connecting) {
        const scope = yield* Effect.scope
        const connection = new Connection({ rooms, presence, user, positions, scope, tails })
        yield* news.hear(connection.heard)
        yield* presence.hear(connection.changed)
        const sign = yield* presence.enter(user, tab)
        // Over a network, the next one is asked for when the client has acknowledged the one before.
        return Stream.fromPull(Effect.succeed(Effect.andThen(sign, connection.next)))
      })

      return Live.of({ connect: (options) => Stream.unwrap(open(options)) })
    })
  )
}

/** How long news may be late that were lost, whatever else there is news of meanwhile. */
const lookAgainMillis = 5000

/** How many messages of a room are kept for those who follow it closely. */
const tailLength = 500

/**
 * How many events one connection is handed at a time, whatever happens in its rooms, and one more when the last message
 * names its user: as much as one that does not read can have on its way.
 */
const most = 100

/** The newest messages of a room, read once for all connections of this process. */
class Tail {
  readonly #read: (position: string | undefined) => Effect.Effect<ReadonlyArray<Message>, Unavailable>
  readonly #alone = Semaphore.makeUnsafe(1)
  /** Without a hole, in order; the first one follows upon `#start`. */
  #messages: Array<Message> = []
  #start: string | undefined
  /** There may be more in the room than this. */
  grown = true

  constructor(read: (position: string | undefined) => Effect.Effect<ReadonlyArray<Message>, Unavailable>) {
    this.#read = read
  }

  /** At most `most` messages behind the position. */
  after(position: string | undefined): Effect.Effect<ReadonlyArray<Message>, Unavailable> {
    return Effect.suspend(() => {
      const known = this.#known(position)
      return known === undefined
        ? this.#alone.withPermit(Effect.suspend(() => this.#fetch(position)))
        : Effect.succeed(known)
    })
  }

  /** What can be said without asking. */
  #known(position: string | undefined): ReadonlyArray<Message> | undefined {
    const found = this.#behind(position)
    return found?.length === 0 && this.grown ? undefined : found
  }

  #behind(position: string | undefined): ReadonlyArray<Message> | undefined {
    const from =
      position === this.#start ? 0 : this.#messages.findLastIndex((message) => message.position === position) + 1
    if (from === 0 && position !== this.#start) return undefined
    return this.#messages.slice(from, from + most)
  }

  #fetch(position: string | undefined): Effect.Effect<ReadonlyArray<Message>, Unavailable> {
    // Somebody may have brought it while we waited.
    const known = this.#known(position)
    if (known !== undefined) return Effect.succeed(known)
    const atEnd = position === (this.#messages.at(-1)?.position ?? this.#start)
    // What is told from here on is not in this reading, or is in it and read again.
    if (atEnd) this.grown = false
    const reading = Effect.onError(this.#read(position), () => Effect.sync(() => (this.grown = true)))
    return Effect.map(reading, (fresh) => {
      if (fresh.length === 0) return fresh
      if (fresh.length === most) this.grown = true
      if (atEnd) {
        this.#messages.push(...fresh)
      } else if (this.#messages.length === 0 || fresh.length < most) {
        // It has come to the end of the room, from another place: the tail begins there. Who is far behind reads for itself.
        this.#start = position
        this.#messages = [...fresh]
      }
      const extra = this.#messages.splice(0, Math.max(0, this.#messages.length - tailLength))
      this.#start = extra.at(-1)?.position ?? this.#start
      return fresh
    })
  }
}

interface Place {
  readonly tail: Tail
  /** For as long as the user is in the room. */
  readonly scope: Scope.Closeable
  /** Of the last message that was handed out. */
  position: string | undefined
  /** Those that the connection has been told of. */
  readonly members: Set<string>
}

class Connection {
  readonly #rooms: Context.Service.Shape<typeof ChatRooms>
  readonly #presence: Context.Service.Shape<typeof Presence>
  readonly #tails: RcMap.RcMap<string, Tail>
  readonly #scope: Scope.Scope
  readonly #user: string
  /** Where the client stopped to read before this connection. One that leaves a room throws away what it had of it. */
  readonly #positions: Map<string, string>

  /** Those that the client takes for its own. */
  readonly #told = new Set<string>()
  readonly #places = new Map<string, Place>()
  #online: Set<string> | undefined
  // What there may be news about. All of it is bounded by the number of rooms and users.
  #moved = true
  readonly #posted = new Set<string>()
  readonly #members = new Set<string>()
  readonly #read = new Set<string>()
  readonly #presences = new Map<string, "left" | "timed-out">()
  readonly #typing = new Map<string, Event>()
  #left = false
  /** When it has last looked at everything. */
  #looked = 0
  readonly #woken = Latch.makeUnsafe()

  constructor(options: {
    readonly rooms: Context.Service.Shape<typeof ChatRooms>
    readonly presence: Context.Service.Shape<typeof Presence>
    readonly tails: RcMap.RcMap<string, Tail>
    readonly scope: Scope.Scope
    readonly user: string
    readonly positions: Readonly<Record<string, string>>
  }) {
    this.#rooms = options.rooms
    this.#presence = options.presence
    this.#tails = options.tails
    this.#scope = options.scope
    this.#user = options.user
    this.#positions = new Map(Object.entries(options.positions))
  }

  readonly heard: NewsListener = (fact) => {
    if (fact._tag === "Missed") return this.#lookAtAll()
    if (fact._tag === "Settled" || fact._tag === "Presence") return
    const { room } = fact
    if (fact._tag === "Members" && fact.user === this.#user) this.#moved = true
    else if (!this.#places.has(room)) return
    else if (fact._tag === "Posted") this.#posted.add(room)
    else if (fact._tag === "Members") this.#members.add(room)
    else if (fact._tag === "Read") {
      if (fact.user !== this.#user) return
      this.#read.add(room)
    } else {
      // At most once: whoever does not read in time does not hear of it.
      if (fact.user === this.#user || this.#typing.size >= most) return
      this.#typing.set(`${room}/${fact.user}`, fact)
    }
    this.#woken.openUnsafe()
  }

  readonly changed = (change: Change): void => {
    if (change._tag === "Left") {
      if (change.user !== this.#user) return
      this.#left = true
    } else {
      this.#presences.set(change.user, change._tag === "Offline" ? change.reason : "left")
    }
    this.#woken.openUnsafe()
  }

  #lookAtAll(): void {
    this.#moved = true
    for (const [room, { tail }] of this.#places) {
      tail.grown = true
      this.#posted.add(room)
      this.#members.add(room)
    }
    this.#woken.openUnsafe()
  }

  /** Waits for the next events. A store that does not answer is waited for, too. */
  get next(): Effect.Effect<NonEmptyReadonlyArray<Event>, Cause.Done<void>> {
    return Effect.gen({ self: this }, function* () {
      const since = yield* Clock.currentTimeMillis
      while (!this.#left) {
        const now = yield* Clock.currentTimeMillis
        if (now - since >= signMillis) return [{ _tag: "Heartbeat" }]
        if (now - this.#looked >= lookAgainMillis) {
          this.#looked = now
          this.#lookAtAll()
        }
        this.#woken.closeUnsafe()
        const events: Array<Event> = []
        // What has been found is handed out, whatever happens to the rest: places have moved on.
        const complete = yield* Effect.isSuccess(this.#collect(events))
        if (isReadonlyArrayNonEmpty(events)) return events
        if (complete) yield* Effect.timeoutOption(this.#woken.await, this.#looked + lookAgainMillis - now)
        else yield* Effect.sleep("1 second")
      }
      return yield* Cause.done()
    })
  }

  #collect(events: Array<Event>): Effect.Effect<void, Unavailable> {
    return Effect.gen({ self: this }, function* () {
      if (this.#online === undefined) {
        const rooms = [...(yield* this.#rooms.roomsOf(this.#user))].sort()
        for (const room of rooms) this.#told.add(room)
        for (const room of this.#positions.keys()) if (!this.#told.has(room)) this.#positions.delete(room)
        this.#online = new Set(yield* this.#presence.online).add(this.#user)
        events.push({ _tag: "Welcome", user: this.#user, online: [...this.#online].sort(), rooms })
      }
      this.#comeAndGone(events, this.#online)
      for (const [key, fact] of this.#typing) {
        if (events.length >= most) break
        events.push(fact)
        this.#typing.delete(key)
      }
      if (this.#moved) {
        this.#moved = false
        yield* Effect.tapError(this.#move(events), () => Effect.sync(() => (this.#moved = true)))
      }
      yield* this.#each(events, this.#members, (room, place) => this.#meet(events, room, place))
      yield* this.#each(events, this.#read, (room) => this.#count(events, room))
      yield* this.#each(events, this.#posted, (room, place) => this.#post(events, room, place))
    })
  }

  /**
   * Does it for each of these rooms for as long as there is place for more events. A room is forgotten as soon as it
   * begins, and remembered, behind the others, when it fails or is not through.
   */
  #each(
    events: ReadonlyArray<Event>,
    names: Set<string>,
    f: (room: string, place: Place) => Effect.Effect<void, Unavailable>
  ): Effect.Effect<void, Unavailable> {
    return Effect.forEach(
      [...names],
      (room) => {
        if (events.length >= most) return Effect.void
        names.delete(room)
        const place = this.#places.get(room)
        if (place === undefined) return Effect.void
        return Effect.tapError(f(room, place), () => Effect.sync(() => names.add(room)))
      },
      { discard: true }
    )
  }

  #comeAndGone(events: Array<Event>, online: Set<string>): void {
    for (const [user, reason] of this.#presences) {
      if (events.length >= most) break
      this.#presences.delete(user)
      const is = this.#presence.isOnline(user)
      if (user === this.#user || is === online.has(user)) continue
      if (is) online.add(user)
      else online.delete(user)
      events.push(is ? { _tag: "Online", user } : { _tag: "Offline", user, reason })
    }
  }

  #move(events: Array<Event>): Effect.Effect<void, Unavailable> {
    return Effect.gen({ self: this }, function* () {
      const now = yield* this.#rooms.roomsOf(this.#user)
      for (const room of this.#told) {
        if (now.has(room)) continue
        const place = this.#places.get(room)
        if (place !== undefined) yield* Scope.close(place.scope, Exit.void)
        this.#told.delete(room)
        this.#positions.delete(room)
        this.#places.delete(room)
        events.push({ _tag: "Exited", room })
      }
      for (const room of [...now].sort()) {
        if (this.#places.has(room)) continue
        if (events.length >= most) {
          this.#moved = true
          break
        }
        const membership = yield* this.#rooms.membership(room, this.#user)
        const position = this.#positions.get(room) ?? (yield* this.#rooms.begin(room))
        const scope = yield* Scope.fork(this.#scope)
        const tail = yield* Scope.provide(RcMap.get(this.#tails, room), scope)
        this.#places.set(room, { tail, scope, position, members: new Set(membership.members) })
        this.#told.add(room)
        this.#posted.add(room)
        events.push({ _tag: "Entered", membership })
      }
    })
  }

  #meet(events: Array<Event>, room: string, place: Place): Effect.Effect<void, Unavailable> {
    return Effect.map(
      Effect.orElseSucceed(this.#rooms.getMembers(room), () => [...place.members]),
      (members) => {
        const now = new Set(members)
        const changes: ReadonlyArray<Event & { readonly _tag: "Joined" | "Left" }> = [
          ...members
            .filter((user) => !place.members.has(user))
            .map((user) => ({ _tag: "Joined", room, user }) as const),
          ...[...place.members].filter((user) => !now.has(user)).map((user) => ({ _tag: "Left", room, user }) as const)
        ]
        for (const change of changes) {
          if (events.length >= most) {
            this.#members.add(room)
            break
          }
          if (change._tag === "Joined") place.members.add(change.user)
          else place.members.delete(change.user)
          if (change.user !== this.#user) events.push(change)
        }
      }
    )
  }

  #count(events: Array<Event>, room: string): Effect.Effect<void, Unavailable> {
    return Effect.map(this.#rooms.membership(room, this.#user), ({ read, unread }) => {
      if (read !== null) events.push({ _tag: "Unread", room, unread, read })
    })
  }

  #post(events: Array<Event>, room: string, place: Place): Effect.Effect<void, Unavailable> {
    return Effect.map(place.tail.after(place.position), (messages) => {
      for (const message of messages) {
        if (events.length >= most) break
        place.position = message.position
        events.push({ _tag: "Posted", room, message })
        if (message.user !== this.#user && Mention.namesIn(message.text).includes(this.#user)) {
          events.push({ _tag: "Mentioned", room, message })
        }
      }
      // There may be more: what was known already was not all.
      if (messages.length > 0) this.#posted.add(room)
    })
  }
}
