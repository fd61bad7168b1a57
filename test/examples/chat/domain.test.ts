/**
 * Each operation of the chat, in memory. The clock is the test's: a heartbeat a minute and five minutes of silence take none.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Clock,
  Context,
  Effect,
  Fiber,
  Latch,
  Layer,
  Logger,
  Option,
  Ref,
  type Result,
  Schema,
  type Scope,
  Stream
} from "effect"
import { RpcTest } from "effect/rpc"
import { TestClock } from "effect/testing"
import { DeadLetters, Producer, Records, Topic, Transport } from "waybill"
import { MemoryKeyspace, MemoryPubSub } from "waybill/memory"
import { atOnce } from "../../../examples/chat/src/Allowance.ts"
import { ChatRooms } from "../../../examples/chat/src/ChatRooms.ts"
import { Commands, group } from "../../../examples/chat/src/Command.ts"
import * as Handlers from "../../../examples/chat/src/Handlers.ts"
import * as Layers from "../../../examples/chat/src/Layers.ts"
import { Live } from "../../../examples/chat/src/Live.ts"
import { Mentions, namesIn } from "../../../examples/chat/src/Mention.ts"
import { News } from "../../../examples/chat/src/News.ts"
import { AddressUnknown, Notifications, PostOfficeBusy } from "../../../examples/chat/src/Notifications.ts"
import { Presence, Signs, ttlMillis } from "../../../examples/chat/src/Presence.ts"
import {
  Chat,
  type Event,
  GivenUp,
  limits,
  type Message,
  Text,
  TooManyRequests
} from "../../../examples/chat/src/Protocol.ts"
import * as Record from "../../../examples/chat/src/Records.ts"
import * as RoomLog from "../../../examples/chat/src/RoomLog.ts"
import { Channels, Expiring, Store } from "../../../examples/chat/src/Transports.ts"
import { quiet, until } from "../../core/Running.ts"

const silent = Layer.succeed(Notifications, Notifications.of({ notify: () => Effect.void }))

const chat = (notifications = silent) => Layers.layerMemory.pipe(Layer.provide(notifications))

type Read = NonNullable<Transport.Transport["records"]>["read"]

/** A chat that does something else when it reads its records. */
const reading = (change: (read: Read) => Read) =>
  Layers.domain({
    ...Layers.memory,
    transports: Layer.effectContext(
      Effect.map(Layer.build(Layers.memory.transports), (context) => {
        const store = Context.get(context, Store)
        return Context.add(context, Store, { ...store, records: { read: change(store.records!.read) } })
      })
    )
  }).pipe(Layer.provide(silent))

const refused = new Transport.TransportError({
  operation: "inspect",
  reason: new Transport.Refused({ code: "LOADING", detail: "the test says so" })
})

const it_ = <A, E>(
  name: string,
  test: Effect.Effect<A, E, ChatRooms | Live | News | Presence | Scope.Scope | Store>,
  notifications = silent
) => it.effect(name, () => Effect.provide(test, chat(notifications)))

/** What one tab is told, for as long as the test or until it closes. */
const watch = Effect.fnUntraced(function* (user: string, tab = "tab", positions: Record<string, string> = {}) {
  const live = yield* Live
  const events: Array<Event> = []
  const fiber = yield* live.connect({ user, tab, positions }).pipe(
    Stream.runForEach((event) => Effect.sync(() => events.push(event))),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* until(`${user} is welcome`, () => events.length > 0)
  yield* quiet()
  return {
    events,
    fiber,
    close: Fiber.interrupt(fiber),
    tags: () => events.map(({ _tag }) => _tag),
    texts: (room: string) =>
      events.flatMap((event) => (event._tag === "Posted" && event.room === room ? [event.message.text] : []))
  }
})

const say = (room: string, user: string, ...texts: ReadonlyArray<string>) =>
  ChatRooms.use((rooms) =>
    Effect.forEach(
      texts,
      (text, i) =>
        rooms.sendMessage({
          room,
          user,
          id: `${room}-${text.length}-${i}-${text.slice(-8).replace(/\W/g, "_")}`,
          text
        }),
      {
        discard: true
      }
    )
  )

const numbered = (count: number) => Array.from({ length: count }, (_, i) => `number ${i}`)

describe("the chat server", () => {
  it_(
    "createRoom: once, RoomExists the second time, and again for who made it under the same id",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      assert.deepStrictEqual(yield* rooms.listRooms, ["tea"])
      assert.deepStrictEqual(yield* rooms.getMembers("tea"), ["ada"])
      const again = yield* Effect.flip(rooms.createRoom("tea", "bob", "1"))
      assert.strictEqual(again._tag, "RoomExists")
      assert.deepStrictEqual(yield* rooms.getMembers("tea"), ["ada"])
      yield* rooms.createRoom("tea", "ada", "1")
      assert.strictEqual((yield* Effect.flip(rooms.createRoom("tea", "ada", "2")))._tag, "RoomExists")
      // An id is one of a room: used again for another, it is another.
      yield* rooms.createRoom("coffee", "ada", "1")
      assert.deepStrictEqual(yield* rooms.getMembers("coffee"), ["ada"])
    })
  )

  it_(
    "createRoom: of many at once one makes it",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const results = yield* Effect.forEach(
        Array.from({ length: 20 }, (_, i) => `user-${i}`),
        (user) => Effect.result(rooms.createRoom("tea", user, "1")),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(results.map((made) => (made._tag === "Success" ? "made" : made.failure._tag)).toSorted(), [
        ...Array.from({ length: 19 }, () => "RoomExists"),
        "made"
      ])
    })
  )

  it_(
    "sendMessage: the room must exist, the sender must be in it, and its history is kept to 100",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const message = { room: "tea", user: "ada", id: "1", text: "hello" }
      assert.strictEqual((yield* Effect.flip(rooms.sendMessage(message)))._tag, "RoomNotFound")
      yield* rooms.createRoom("tea", "bob", "1")
      assert.strictEqual((yield* Effect.flip(rooms.sendMessage({ ...message, id: "2" })))._tag, "NotAMember")
      yield* rooms.joinRoom("tea", "ada")
      yield* rooms.createRoom("coffee", "ada", "2")
      yield* say("tea", "ada", ...numbered(60))
      yield* say("coffee", "ada", ...numbered(60))
      const sent = yield* rooms.getSentMessages("ada")
      assert.deepStrictEqual(
        sent.map(({ room, text }) => `${room} ${text}`),
        [...numbered(60).map((text) => `tea ${text}`), ...numbered(60).map((text) => `coffee ${text}`)].slice(-100)
      )
    })
  )

  it_(
    "sendMessage: twice under one id is one message, also for two who try at the same moment",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      const send = rooms.sendMessage({ room: "tea", user: "ada", id: "same", text: "hello" })
      yield* Effect.all([send, send, send], { concurrency: "unbounded" })
      yield* send
      const texts = (yield* rooms.getRoomHistory("tea")).map(({ text }) => text)
      assert.deepStrictEqual(texts, ["hello"])
      assert.strictEqual((yield* rooms.getSentMessages("ada")).length, 1)
    })
  )

  it.effect("sendMessage: a command that died for want of the store is done when it is asked for again, once", () => {
    let down = false
    return Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      const send = rooms.sendMessage({ room: "tea", user: "ada", id: "same", text: "hello" })
      down = true
      assert.strictEqual((yield* Effect.flip(send))._tag, "Unavailable")
      for (let second = 0; second < 40; second++) yield* TestClock.adjust("1 second")
      const dead = DeadLetters.stream(Commands, group)
      assert.deepStrictEqual(
        (yield* Stream.runCollect(dead)).map(({ reason }) => reason),
        ["TransportError"]
      )
      assert.strictEqual((yield* Effect.flip(send))._tag, "Unavailable")
      down = false
      yield* Effect.all([send, send, send], { concurrency: "unbounded" })
      yield* send
      assert.deepStrictEqual(
        (yield* rooms.getRoomHistory("tea")).map(({ text }) => text),
        ["hello"]
      )
      assert.strictEqual((yield* rooms.getSentMessages("ada")).length, 1)
      assert.strictEqual(yield* Stream.runCount(dead), 0)
    }).pipe(
      Effect.provide(reading((read) => (topic, query) => (down ? Effect.fail(refused) : read(topic, query)))),
      Effect.provide(Logger.layer([]))
    )
  })

  it.effect("sendMessage: a command that died of itself is given up under its id, and done under another", () => {
    let broken = false
    return Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      const send = (id: string) => rooms.sendMessage({ room: "tea", user: "ada", id, text: "hello" })
      broken = true
      const first = yield* Effect.forkScoped(Effect.flip(send("one")))
      for (let second = 0; second < 11; second++) yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(first))._tag, "Unavailable")
      broken = false
      assert.deepStrictEqual(yield* Effect.flip(send("one")), new GivenUp({ id: "one" }))
      assert.deepStrictEqual(yield* Effect.flip(send("one")), new GivenUp({ id: "one" }))
      yield* send("two")
      assert.deepStrictEqual(
        (yield* rooms.getRoomHistory("tea")).map(({ id }) => id),
        ["two"]
      )
      assert.strictEqual((yield* Stream.runCollect(DeadLetters.stream(Commands, group))).length, 1)
    }).pipe(
      Effect.provide(
        reading((read) => (topic, query) => {
          // The members are read by who carries a command out, and not by who asks for it.
          return broken && query.key.startsWith("members/") ? Effect.die("a bug") : read(topic, query)
        })
      ),
      Effect.provide(Logger.layer([]))
    )
  })

  it_(
    "the outcome of what nobody can ask for again is kept for a minute, and not longer",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const news = yield* News
      const commands: Array<string> = []
      yield* news.hear((fact) => {
        if (fact._tag === "Settled") commands.push(fact.command)
      })
      yield* rooms.createRoom("tea", "ada", "1")
      const send = rooms.sendMessage({ room: "tea", user: "ada", id: "1", text: "hello" })
      yield* send
      const [message] = yield* rooms.getRoomHistory("tea")
      yield* rooms.joinRoom("tea", "bob")
      yield* rooms.markRead("tea", "bob", message!.position)
      yield* rooms.leaveRoom("tea", "bob")
      const answers = Effect.map(
        Effect.forEach(commands, (command) => Records.read(Commands, Record.answer(command).value)),
        (all) => all.filter((answer) => answer !== undefined).length
      )
      // The maker joins, too.
      yield* until("all are heard of", () => commands.length === 6)
      assert.strictEqual(yield* answers, 6)
      yield* TestClock.adjust("61 seconds")
      assert.strictEqual(yield* answers, 2)
      yield* send
      assert.strictEqual((yield* rooms.getRoomHistory("tea")).length, 1)
    })
  )

  it_(
    "joinRoom and leaveRoom: who is in is in once, who is out is out",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      assert.strictEqual((yield* Effect.flip(rooms.joinRoom("tea", "ada")))._tag, "RoomNotFound")
      assert.strictEqual((yield* Effect.flip(rooms.leaveRoom("tea", "ada")))._tag, "RoomNotFound")
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.joinRoom("tea", "bob")
      yield* rooms.joinRoom("tea", "bob")
      assert.deepStrictEqual(yield* rooms.getMembers("tea"), ["ada", "bob"])
      assert.deepStrictEqual([...(yield* rooms.roomsOf("bob"))], ["tea"])
      yield* rooms.leaveRoom("tea", "bob")
      yield* rooms.leaveRoom("tea", "bob")
      assert.deepStrictEqual(yield* rooms.getMembers("tea"), ["ada"])
      assert.deepStrictEqual([...(yield* rooms.roomsOf("bob"))], [])
    })
  )

  it_(
    "getRoomHistory: the last 50 by default, oldest first, and back page by page",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      assert.strictEqual((yield* Effect.flip(rooms.getRoomHistory("tea")))._tag, "RoomNotFound")
      yield* rooms.createRoom("tea", "ada", "1")
      yield* say("tea", "ada", ...numbered(120))
      const texts = (messages: ReadonlyArray<Message>) => messages.map(({ text }) => text)
      const page = yield* rooms.getRoomHistory("tea")
      assert.deepStrictEqual(texts(page), numbered(120).slice(-50))
      const older = yield* rooms.getRoomHistory("tea", { before: page[0]?.position })
      assert.deepStrictEqual(texts(older), numbered(120).slice(20, 70))
      const oldest = yield* rooms.getRoomHistory("tea", { before: older[0]?.position })
      assert.deepStrictEqual(texts(oldest), numbered(120).slice(0, 20))
      assert.deepStrictEqual(yield* rooms.getRoomHistory("tea", { before: oldest[0]?.position }), [])
      assert.deepStrictEqual(texts(yield* rooms.getRoomHistory("tea", { limit: 2 })), ["number 118", "number 119"])
    })
  )

  it_(
    "unread: counts what others said behind the marker, which never goes back",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      yield* say("tea", "ada", "before you came")
      yield* rooms.joinRoom("tea", "bob")
      const unread = Effect.map(rooms.membership("tea", "bob"), (membership) => membership.unread)
      assert.strictEqual(yield* unread, 0)
      yield* say("tea", "ada", "one", "two!", "three")
      yield* say("tea", "bob", "mine")
      assert.strictEqual(yield* unread, 3)
      const [, one, two] = yield* rooms.getRoomHistory("tea")
      yield* rooms.markRead("tea", "bob", two!.position)
      assert.strictEqual(yield* unread, 1)
      yield* rooms.markRead("tea", "bob", one!.position)
      assert.strictEqual(yield* unread, 1)
      // A marker far behind the end stands at the end.
      yield* rooms.markRead("tea", "bob", "99999999999999")
      assert.strictEqual(yield* unread, 0)
      yield* say("tea", "ada", "a new one")
      assert.strictEqual(yield* unread, 1)
      yield* say("tea", "ada", ...numbered(150))
      assert.strictEqual(yield* unread, limits.unread)
      assert.strictEqual((yield* Effect.flip(rooms.markRead("tea", "eve", one!.position)))._tag, "NotAMember")
    })
  )
})

describe("the chat client", () => {
  it_(
    "connect: online with a heartbeat every minute, for as long as it takes",
    Effect.gen(function* () {
      const presence = yield* Presence
      yield* watch("ada")
      const bob = yield* watch("bob")
      assert.deepInclude(bob.events[0]!, { _tag: "Welcome", online: ["ada", "bob"] })
      for (let minute = 0; minute < 30; minute++) yield* TestClock.adjust("1 minute")
      yield* quiet()
      assert.deepStrictEqual([...(yield* presence.online)].sort(), ["ada", "bob"])
      assert.notInclude(bob.tags(), "Offline")
    })
  )

  it_(
    "a live callback per joined room: every message of the room, in order, once",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const live = yield* Live
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.createRoom("coffee", "ada", "2")
      yield* rooms.joinRoom("tea", "bob")
      yield* rooms.joinRoom("coffee", "bob")
      const heard = yield* Ref.make<ReadonlyArray<string>>([])
      const callbacks: Record<string, (message: Message) => Effect.Effect<void>> = {
        tea: ({ text }) => Ref.update(heard, (all) => [...all, `tea: ${text}`]),
        coffee: ({ text }) => Ref.update(heard, (all) => [...all, `coffee: ${text}`])
      }
      yield* live.connect({ user: "bob", tab: "tab", positions: {} }).pipe(
        Stream.runForEach((event) => (event._tag === "Posted" ? callbacks[event.room]!(event.message) : Effect.void)),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* say("tea", "ada", "first")
      yield* say("coffee", "ada", "second")
      yield* say("tea", "bob", "third")
      yield* quiet()
      assert.deepStrictEqual(yield* Ref.get(heard), ["tea: first", "coffee: second", "tea: third"])
    })
  )

  it_(
    "joinRoom and leaveRoom while connected: the room comes with its last 50 messages, each time, and goes; others see it",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      yield* say("tea", "ada", ...numbered(60))
      const ada = yield* watch("ada")
      const bob = yield* watch("bob")
      yield* rooms.joinRoom("tea", "bob")
      yield* until("bob has the room", () => bob.texts("tea").length === 50)
      assert.deepInclude(
        bob.events.find(({ _tag }) => _tag === "Entered")!,
        {
          membership: { room: "tea", members: ["ada", "bob"], unread: 0, read: "59" }
        }
      )
      assert.deepInclude(ada.events[0]!, { _tag: "Welcome", rooms: ["tea"] })
      assert.deepInclude(bob.events[0]!, { _tag: "Welcome", rooms: [] })
      assert.deepStrictEqual(bob.texts("tea"), numbered(60).slice(-50))
      yield* until("ada sees bob", () => ada.tags().includes("Joined"))
      yield* rooms.leaveRoom("tea", "bob")
      yield* until("bob is out", () => bob.tags().includes("Exited"))
      yield* until("ada sees it", () => ada.tags().includes("Left"))
      yield* say("tea", "ada", "alone again")
      yield* until("ada hears it", () => ada.texts("tea").includes("alone again"))
      assert.notInclude(bob.texts("tea"), "alone again")
      yield* rooms.joinRoom("tea", "bob")
      yield* until("bob hears what it missed", () => bob.texts("tea").includes("alone again"))
      // Whoever leaves has thrown away what it had.
      const again = [...numbered(60), "alone again"].slice(-50)
      assert.deepStrictEqual(bob.texts("tea"), [...numbered(60).slice(-50), ...again])
    })
  )

  it_(
    "what is no message among them neither shortens a page nor shows a newcomer the whole room",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const foreign = Topic.make("chat/room/tea", { payload: Schema.Struct({ foo: Schema.String }), on: Store })
      yield* rooms.createRoom("tea", "ada", "1")
      yield* say("tea", "ada", ...numbered(120))
      yield* Producer.publish(foreign, { foo: "bar" })
      yield* rooms.joinRoom("tea", "bob")
      const bob = yield* watch("bob")
      yield* until("bob has the newest", () => bob.texts("tea").includes("number 119"))
      assert.deepStrictEqual(bob.texts("tea"), numbered(120).slice(-50))
      const newest = yield* rooms.getRoomHistory("tea")
      assert.deepStrictEqual(
        newest.map(({ text }) => text),
        numbered(120).slice(-50)
      )
      // Nothing of this chat in front of it: that is the beginning.
      const [first] = yield* rooms.getRoomHistory("tea", { limit: 120 })
      assert(first?.text === "number 0")
      assert.deepStrictEqual(yield* rooms.getRoomHistory("tea", { before: first.position }), [])
    })
  )

  it_(
    "news that nobody told are found within five seconds, also by who hears other news all the time",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      for (const room of ["tea", "coffee"]) {
        yield* rooms.createRoom(room, "ada", room)
        yield* rooms.joinRoom(room, "bob")
      }
      const bob = yield* watch("bob")
      // Stored by a process that was killed before it could tell.
      yield* Producer.publish(RoomLog.topic("tea"), { id: "1", user: "ada", text: "is anybody here?" })
      for (let second = 0; second < 6; second++) {
        yield* say("coffee", "ada", `busy ${second}`)
        yield* TestClock.adjust("1 second")
        yield* quiet()
      }
      assert.strictEqual(bob.texts("coffee").length, 6)
      assert.deepStrictEqual(bob.texts("tea"), ["is anybody here?"])
    })
  )

  it_(
    "connect again with the last position seen: what was missed, in order, without hole or repeat",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.joinRoom("tea", "bob")
      const bob = yield* watch("bob")
      yield* say("tea", "ada", "one", "two!")
      yield* until("two are there", () => bob.texts("tea").length === 2)
      yield* bob.close
      const last = bob.events.findLast((event) => event._tag === "Posted")
      assert(last?._tag === "Posted")
      yield* say("tea", "ada", ...numbered(250))
      const again = yield* watch("bob", "tab", { tea: last.message.position })
      yield* until("all are there", () => again.texts("tea").length === 250)
      assert.deepStrictEqual(again.texts("tea"), numbered(250))
    })
  )

  it_(
    "disconnect: offline, and out of all rooms",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const ask = yield* RpcTest.makeClient(Chat).pipe(Effect.provide(Handlers.layer))
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.joinRoom("tea", "bob")
      const ada = yield* watch("ada")
      const bob = yield* watch("bob")
      yield* ask.disconnect({ user: "bob" })
      yield* Fiber.join(bob.fiber)
      yield* until("ada sees it", () => ada.tags().includes("Offline") && ada.tags().includes("Left"))
      assert.deepStrictEqual(yield* rooms.getMembers("tea"), ["ada"])
      assert.isFalse((yield* Presence).isOnline("bob"))
    }).pipe(Effect.provide(Layers.layerMemory.pipe(Layer.provide(silent))))
  )

  it_(
    "presence: several tabs are one user, who is gone when the last one closes",
    Effect.gen(function* () {
      const ada = yield* watch("ada")
      const first = yield* watch("bob", "first")
      const second = yield* watch("bob", "second")
      yield* until("bob is there", () => ada.tags().includes("Online"))
      yield* first.close
      yield* quiet()
      assert.notInclude(ada.tags(), "Offline")
      yield* second.close
      yield* until("bob is gone", () => ada.tags().includes("Offline"))
      assert.deepStrictEqual(
        ada.events.filter(({ _tag }) => _tag === "Online" || _tag === "Offline"),
        [
          { _tag: "Online", user: "bob" },
          { _tag: "Offline", user: "bob", reason: "left" }
        ]
      )
    })
  )

  it.effect(
    "presence: who is not heard of for 300 s has timed out, and a server that starts late knows who is there",
    () =>
      Effect.gen(function* () {
        const server = Effect.map(Layer.build(Layer.fresh(Presence.layer)), (context) => Context.get(context, Presence))
        const first = yield* server
        const changes: Array<unknown> = []
        yield* first.hear((change) => changes.push(change))
        const sign = yield* first.enter("ada", "tab")
        // Of a server that was killed, nothing more is heard.
        yield* Producer.publish(Signs, { _tag: "Here", user: "bob", tab: "tab", connection: "of a dead server" })
        yield* News.use(({ tell }) => tell([{ _tag: "Presence" }]))
        yield* until("bob is there", () => first.isOnline("bob"))
        yield* until("ada is there", () => first.isOnline("ada"))
        for (let minute = 0; minute < 4; minute++) yield* Effect.andThen(TestClock.adjust("1 minute"), sign)
        const late = yield* server
        assert.deepStrictEqual([late.isOnline("bob"), late.isOnline("ada")], [true, true])
        yield* TestClock.adjust(ttlMillis - 240_000 - 1000)
        assert.isTrue(first.isOnline("bob"))
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual([first.isOnline("bob"), late.isOnline("bob")], [false, false])
        assert.deepStrictEqual([first.isOnline("ada"), late.isOnline("ada")], [true, true])
        assert.deepInclude(changes, { _tag: "Offline", user: "bob", reason: "timed-out" })
      }).pipe(
        Effect.provide([
          MemoryKeyspace.layer({ ttl: ttlMillis, as: Expiring }),
          Layer.provide(News.layer, MemoryPubSub.layer({ as: Channels }))
        ])
      )
  )

  it_(
    "presence: who acknowledges nothing for 300 s has timed out though its connection is open, and is back when it reads on",
    Effect.gen(function* () {
      const live = yield* Live
      const ada = yield* watch("ada")
      const gate = Latch.makeUnsafe()
      const seen: Array<Event> = []
      yield* live.connect({ user: "bob", tab: "tab", positions: {} }).pipe(
        Stream.runForEach((event) => Effect.andThen(gate.await, () => Effect.sync(() => seen.push(event)))),
        Effect.forkScoped({ startImmediately: true })
      )
      yield* until("bob is there", () => ada.tags().includes("Online"))
      for (let minute = 0; minute < 4; minute++) yield* TestClock.adjust("1 minute")
      assert.notInclude(ada.tags(), "Offline")
      for (let second = 0; second < 61; second++) yield* TestClock.adjust("1 second")
      yield* until("bob is gone", () => ada.tags().includes("Offline"))
      assert.deepInclude(ada.events, { _tag: "Offline", user: "bob", reason: "timed-out" })
      yield* gate.open
      yield* until("bob reads", () => seen.length > 0)
      for (let second = 0; second < 10; second++) yield* TestClock.adjust("1 second")
      yield* until("bob is back", () => ada.tags().filter((tag) => tag === "Online").length === 2)
      assert.isTrue((yield* Presence).isOnline("ada"))
    })
  )

  it_(
    "typing: others in the room are told, nobody else, and not who types",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.joinRoom("tea", "bob")
      const [ada, bob, eve] = [yield* watch("ada"), yield* watch("bob"), yield* watch("eve")]
      yield* rooms.typing("tea", "eve")
      yield* rooms.typing("tea", "bob")
      yield* until("ada sees it", () => ada.tags().includes("Typing"))
      yield* quiet()
      assert.deepStrictEqual(
        ada.events.filter(({ _tag }) => _tag === "Typing"),
        [{ _tag: "Typing", room: "tea", user: "bob" }]
      )
      assert.notInclude([...bob.tags(), ...eve.tags()], "Typing")
    })
  )
})

describe("too much, too bad", () => {
  it("a text has something to see in it", () => {
    const isText = Schema.is(Text)
    const nothing = ["", " \n", "\u200b", "\u200d\ufeff \u2060", "\u00ad", "\u3164", "\ufe0f", "\u2800", "\u0000"]
    assert.deepStrictEqual(nothing.filter(isText), [])
    const something = ["a", "\u200ba", ".", "👩‍🚀", "☎️", "مرحبا", "한글", "e\u0301"]
    assert.deepStrictEqual(something.filter(isText), something)
  })

  it_(
    "a user who sends too much is told when to go on; others are not concerned",
    Effect.gen(function* () {
      const ask = yield* RpcTest.makeClient(Chat).pipe(Effect.provide(Handlers.layer))
      yield* ask.createRoom({ room: "tea", user: "ada", id: "1" })
      const send = (i: number) => ask.sendMessage({ room: "tea", user: "ada", id: `${i}`, text: "hello" })
      const results = yield* Effect.forEach(numbered(40), (_, i) => Effect.result(send(i)))
      const refused = results.flatMap((result) => (result._tag === "Failure" ? [result.failure] : []))
      assert.strictEqual(refused.length, 11)
      const [first] = refused
      assert(first?._tag === "TooManyRequests")
      assert.isAbove(first.retryAfterMillis, 0)
      yield* ask.joinRoom({ room: "tea", user: "bob" })
      yield* TestClock.adjust(first.retryAfterMillis)
      yield* send(100)
    }).pipe(Effect.provide(Layers.layerMemory.pipe(Layer.provide(silent))))
  )

  it_(
    "reads, markers and connections are counted each by itself, and a user is told when to go on",
    Effect.gen(function* () {
      const ask = yield* RpcTest.makeClient(Chat).pipe(Effect.provide(Handlers.layer))
      yield* ask.createRoom({ room: "tea", user: "ada", id: "1" })
      yield* ask.sendMessage({ room: "tea", user: "ada", id: "2", text: "hello" })
      const [message] = yield* ask.getRoomHistory({ room: "tea", user: "ada" })
      const position = message!.position
      /** How often it may be done before it is too much, and in how many milliseconds it may be done again. */
      const allowed = Effect.fnUntraced(function* <E extends { readonly _tag: string }>(
        call: Effect.Effect<unknown, E | TooManyRequests>
      ) {
        for (let times = 0; times < 200; times++) {
          const result = yield* Effect.result(call)
          if (result._tag === "Success") continue
          const error: unknown = result.failure
          assert.instanceOf(error, TooManyRequests)
          return [times, error.retryAfterMillis]
        }
        return assert.fail("nobody counts")
      })
      // One read has been done above.
      assert.deepStrictEqual(yield* allowed(ask.getRoomHistory({ room: "tea", user: "ada" })), [99, 100])
      for (const call of [
        ask.listRooms({ user: "ada" }),
        ask.getMembers({ room: "tea", user: "ada" }),
        ask.getSentMessages({ user: "ada" })
      ]) {
        assert.deepStrictEqual(yield* allowed(call), [0, 100])
      }
      const connect = Stream.runHead(ask.connect({ user: "ada", tab: "tab", positions: {} }))
      assert.deepStrictEqual(yield* allowed(connect), [30, 1000])
      assert.deepStrictEqual(yield* allowed(ask.markRead({ room: "tea", user: "ada", position })), [100, 100])
      // Two of the thirty have been used above.
      const send = ask.sendMessage({ room: "tea", user: "ada", id: "2", text: "hello" })
      assert.strictEqual((yield* allowed(send))[0], 28)
      yield* ask.listRooms({ user: "bob" })
      yield* TestClock.adjust(100)
      yield* ask.listRooms({ user: "ada" })
    }).pipe(Effect.provide(Layers.layerMemory.pipe(Layer.provide(silent))))
  )

  it_(
    "one connection has so much under way, and what is more is refused at once",
    Effect.gen(function* () {
      const ask = yield* RpcTest.makeClient(Chat).pipe(Effect.provide(Handlers.layer))
      const refused = (result: Result.Result<unknown, { readonly _tag: string }>) =>
        result._tag === "Failure" && result.failure._tag === "TooManyRequests"
      // None of them is answered before all are there: who carries commands out has its turn after who asks.
      const joins = yield* Effect.forEach(
        Array.from({ length: atOnce + 5 }, (_, i) => `user-${i}`),
        (user) => Effect.result(ask.joinRoom({ room: "tea", user })),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(joins.filter(refused).length, 5)
      const connect = (tab: string) => Stream.runHead(ask.connect({ user: tab, tab, positions: {} }))
      const open = yield* Effect.forEach(["one", "two", "three", "four"], (tab) =>
        ask.connect({ user: tab, tab, positions: {} }).pipe(Stream.runDrain, Effect.forkScoped)
      )
      yield* quiet()
      assert.isTrue(refused(yield* Effect.result(connect("five"))))
      assert.isTrue(refused(yield* Effect.result(ask.listRooms({ user: "five" }))))
      yield* Fiber.interrupt(open[0]!)
      yield* quiet()
      yield* ask.listRooms({ user: "five" })
      assert.isTrue(Option.isSome(yield* connect("five")))
    }).pipe(Effect.provide(Layers.layerMemory.pipe(Layer.provide(silent))))
  )

  it_(
    "what one connection is handed at a time is bounded over all its rooms, and nothing is left out for it",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const live = yield* Live
      const names = Array.from({ length: 120 }, (_, i) => `room-${i}`)
      for (const room of names) {
        yield* rooms.createRoom(room, "ada", room)
        yield* rooms.joinRoom(room, "bob")
      }
      const few = names.slice(0, 6)
      for (const room of few) yield* say(room, "ada", ...numbered(50).map((text) => `@bob ${text}`))
      const chunks: Array<ReadonlyArray<Event>> = []
      const bob = yield* live.connect({ user: "bob", tab: "tab", positions: {} }).pipe(
        Stream.runForEachArray((events) => Effect.sync(() => chunks.push(events))),
        Effect.forkScoped({ startImmediately: true })
      )
      const posted = () => chunks.flat().flatMap((event) => (event._tag === "Posted" ? [event] : []))
      yield* until("bob has all", () => posted().length === 300)
      yield* Fiber.interrupt(bob)
      assert.isAtMost(Math.max(...chunks.map(({ length }) => length)), 101)
      assert.strictEqual(chunks.flat().filter(({ _tag }) => _tag === "Entered").length, names.length)
      assert.strictEqual(chunks.flat().filter(({ _tag }) => _tag === "Mentioned").length, 300)
      for (const name of few) {
        assert.deepStrictEqual(
          posted().flatMap(({ message, room }) => (room === name ? [message.text] : [])),
          numbered(50).map((text) => `@bob ${text}`)
        )
      }
    })
  )

  it_(
    "who does not read holds nobody up, and goes on later where it has stopped",
    Effect.gen(function* () {
      const rooms = yield* ChatRooms
      const live = yield* Live
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.joinRoom("tea", "bob")
      const texts: Array<string> = []
      const gate = Latch.makeUnsafe()
      yield* live.connect({ user: "bob", tab: "slow", positions: {} }).pipe(
        Stream.runForEach((event) =>
          Effect.andThen(
            Effect.sync(() => event._tag === "Posted" && texts.push(event.message.text)),
            event._tag === "Posted" ? gate.await : Effect.void
          )
        ),
        Effect.forkScoped({ startImmediately: true })
      )
      const ada = yield* watch("ada")
      yield* say("tea", "ada", ...numbered(700))
      yield* until("ada has them all", () => ada.texts("tea").length === 700)
      assert.deepStrictEqual(texts, ["number 0"])
      yield* gate.open
      yield* until("bob has them all", () => texts.length === 700)
      assert.deepStrictEqual(texts, numbered(700))
    })
  )

  it("mentions are names behind an @, not addresses", () => {
    assert.deepStrictEqual(namesIn("@bob, hi @Eve! (@eve) me@work.org @@x @-y @zoe."), ["bob", "eve", "zoe"])
  })

  it.effect("a mention is told to its member until it is, or ends in the dead letters, and the chat goes on", () => {
    const told: Array<string> = []
    let busy = 3
    const flaky = Layer.succeed(
      Notifications,
      Notifications.of({
        notify: ({ to }) =>
          to === "nobody"
            ? Effect.fail(new AddressUnknown({ user: to }))
            : busy-- > 0
              ? Effect.fail(new PostOfficeBusy({}))
              : Effect.sync(() => told.push(to))
      })
    )
    return Effect.gen(function* () {
      const rooms = yield* ChatRooms
      yield* rooms.createRoom("tea", "ada", "1")
      for (const user of ["bob", "nobody"]) yield* rooms.joinRoom("tea", user)
      const bob = yield* watch("bob")
      yield* say("tea", "ada", "@bob @nobody @stranger @ada look")
      yield* until("bob sees it", () => bob.tags().includes("Mentioned"))
      yield* say("tea", "ada", "and on we go")
      for (let second = 0; second < 20; second++) {
        yield* TestClock.adjust("1 second")
        yield* quiet()
      }
      assert.deepStrictEqual(told, ["bob"])
      const dead = yield* Stream.runCollect(DeadLetters.stream(Mentions, "email"))
      assert.deepStrictEqual(
        dead.map(({ body, reason }) => [JSON.parse(String(body)).to, reason]),
        [["nobody", "AddressUnknown"]]
      )
      assert.deepStrictEqual(bob.texts("tea"), ["@bob @nobody @stranger @ada look", "and on we go"])
    }).pipe(Effect.provide(chat(flaky)))
  })

  it.effect(
    "a post office that stays busy is asked seven times, and then the mention is a dead letter; nobody waits",
    () => {
      const asked: Array<number> = []
      const busy = Layer.succeed(
        Notifications,
        Notifications.of({
          notify: () =>
            Effect.flatMap(Clock.currentTimeMillis, (now) => {
              asked.push(now)
              return Effect.fail(new PostOfficeBusy({}))
            })
        })
      )
      return Effect.gen(function* () {
        const rooms = yield* ChatRooms
        yield* rooms.createRoom("tea", "ada", "1")
        yield* rooms.joinRoom("tea", "bob")
        const bob = yield* watch("bob")
        yield* say("tea", "ada", "@bob look")
        const texts = ["@bob look"]
        for (let second = 0; second < 70; second++) {
          const text = `and on we go ${second}`
          yield* say("tea", "ada", text)
          texts.push(text)
          // Nothing has to pass until it is there.
          yield* until("bob hears it", () => bob.texts("tea").includes(text))
          yield* TestClock.adjust("1 second")
        }
        const [first = 0] = asked
        assert.deepStrictEqual(
          asked.map((at) => at - first),
          [0, 1000, 3000, 7000, 15_000, 31_000, 63_000]
        )
        const dead = yield* Stream.runCollect(DeadLetters.stream(Mentions, "email"))
        assert.deepStrictEqual(
          dead.map(({ attempts, body, reason }) => [JSON.parse(String(body)).to, reason, attempts]),
          [["bob", "PostOfficeBusy", 7]]
        )
        assert.deepStrictEqual(bob.texts("tea"), texts)
      }).pipe(Effect.provide(chat(busy)), Effect.provide(Logger.layer([])))
    }
  )

  it.effect(
    "the flaky post office of the example delivers to everyone who has an address, and dead-letters the rest",
    () => {
      const mails: Array<string> = []
      const noted = Logger.layer([
        Logger.make(({ message }) => {
          const mail = /e-mail to ([\w-]+):/.exec(String(message))
          if (mail !== null) mails.push(mail[1]!)
        })
      ])
      return Effect.gen(function* () {
        const rooms = yield* ChatRooms
        yield* rooms.createRoom("tea", "ada", "1")
        const names = [...Array.from({ length: 15 }, (_, i) => `user-${i}`), "nobody-1", "nobody-2"].toSorted()
        for (const name of names) yield* rooms.joinRoom("tea", name)
        yield* say("tea", "ada", names.map((name) => `@${name}`).join(" "))
        for (let second = 0; second < 70; second++) yield* Effect.andThen(TestClock.adjust("1 second"), quiet())
        assert.deepStrictEqual(
          mails.toSorted(),
          names.filter((name) => !name.startsWith("nobody"))
        )
        const dead = yield* Stream.runCollect(DeadLetters.stream(Mentions, "email"))
        assert.deepStrictEqual(dead.map(({ body, reason }) => [JSON.parse(String(body)).to, reason]).toSorted(), [
          ["nobody-1", "AddressUnknown"],
          ["nobody-2", "AddressUnknown"]
        ])
      }).pipe(Effect.provide(chat(Notifications.layerFlaky("chat"))), Effect.provide(noted))
    }
  )
})
