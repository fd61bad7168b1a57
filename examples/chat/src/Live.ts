/**
 * Everything that happens, as one user sees it. A connection keeps no messages but a place in each room: it is told where
 * there is something new, and reads on from there when its reader asks for more. So nothing is missing and nothing comes
 * twice, whatever happened to the news, and a slow reader costs a set of names and holds nobody up.
 *
 * @module
 */
import { Cause, Context, Effect, Latch, Layer, RcMap, Semaphore, Scope, Stream } from "effect"
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import { ChatRooms } from "./ChatRooms.ts"
import * as Mention from "./Mention.ts"
import { type Listener as NewsListener, News } from "./News.ts"
import { type Change, Presence } from "./Presence.ts"
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
    /** Meanwhile the user is online. Ends when the user leaves. */
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
        yield* presence.enter(user, tab)
        return Stream.fromPull(Effect.succeed(connection.next))
      })

      return Live.of({ connect: (options) => Stream.unwrap(open(options)) })
    })
  )
}

/** Nobody tells it: how long news may be late that were lost. */
const lookAgain = "5 seconds"

/** How many messages of a room are kept for those who follow it closely. */
const tailLength = 500

/** How many messages, and how many signs of typing, one connection is handed at a time. */
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
  /** Of the last message that was handed out. */
  position: string | undefined
  members: ReadonlySet<string>
}

class Connection {
  readonly #rooms: Context.Service.Shape<typeof ChatRooms>
  readonly #presence: Context.Service.Shape<typeof Presence>
  readonly #tails: RcMap.RcMap<string, Tail>
  readonly #scope: Scope.Scope
  readonly #user: string
  /** Where the user goes on in a room that it enters. */
  readonly #positions: Map<string, string | undefined>

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
    if (fact._tag === "Settled") return
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
      while (!this.#left) {
        this.#woken.closeUnsafe()
        const events: Array<Event> = []
        // What has been found is handed out, whatever happens to the rest: places have moved on.
        const complete = yield* Effect.isSuccess(this.#collect(events))
        if (isReadonlyArrayNonEmpty(events)) return events
        if (!complete) yield* Effect.sleep("1 second")
        else if ((yield* Effect.timeoutOption(this.#woken.await, lookAgain))._tag === "None") this.#lookAtAll()
      }
      return yield* Cause.done()
    })
  }

  #collect(events: Array<Event>): Effect.Effect<void, Unavailable> {
    return Effect.gen({ self: this }, function* () {
      if (this.#online === undefined) {
        this.#online = new Set(yield* this.#presence.online).add(this.#user)
        events.push({ _tag: "Welcome", user: this.#user, online: [...this.#online].sort() })
      }
      this.#comeAndGone(events, this.#online)
      events.push(...this.#typing.values())
      this.#typing.clear()
      if (this.#moved) {
        this.#moved = false
        yield* Effect.tapError(this.#move(events), () => Effect.sync(() => (this.#moved = true)))
      }
      yield* this.#each(this.#members, (room, place) => this.#meet(events, room, place))
      yield* this.#each(this.#read, (room) => this.#count(events, room))
      yield* this.#each(this.#posted, (room, place) => this.#post(events, room, place))
    })
  }

  /** Does it for each of these rooms, which are forgotten as soon as it begins, and remembered when it fails. */
  #each(
    names: Set<string>,
    f: (room: string, place: Place) => Effect.Effect<void, Unavailable>
  ): Effect.Effect<void, Unavailable> {
    return Effect.forEach(
      [...names],
      (room) => {
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
      const is = this.#presence.isOnline(user)
      if (user === this.#user || is === online.has(user)) continue
      if (is) online.add(user)
      else online.delete(user)
      events.push(is ? { _tag: "Online", user } : { _tag: "Offline", user, reason })
    }
    this.#presences.clear()
  }

  #move(events: Array<Event>): Effect.Effect<void, Unavailable> {
    return Effect.gen({ self: this }, function* () {
      const now = yield* this.#rooms.roomsOf(this.#user)
      for (const [room, { position }] of this.#places) {
        if (now.has(room)) continue
        this.#positions.set(room, position)
        this.#places.delete(room)
        events.push({ _tag: "Exited", room })
      }
      for (const room of [...now].sort()) {
        if (this.#places.has(room)) continue
        const membership = yield* this.#rooms.membership(room, this.#user)
        const position = this.#positions.get(room) ?? (yield* this.#rooms.begin(room))
        const tail = yield* Scope.provide(RcMap.get(this.#tails, room), this.#scope)
        this.#places.set(room, { tail, position, members: new Set(membership.members) })
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
        for (const user of members) {
          if (user !== this.#user && !place.members.has(user)) events.push({ _tag: "Joined", room, user })
        }
        for (const user of place.members) {
          if (user !== this.#user && !now.has(user)) events.push({ _tag: "Left", room, user })
        }
        place.members = now
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
