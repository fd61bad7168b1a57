import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Stream, SubscriptionRef } from "effect"
import { type Event, limits, type Message } from "../../../examples/chat/src/Protocol.ts"
import * as Session from "../../../examples/chat/src/Session.ts"
import { client, start } from "./ServerProcess.ts"

const message = (position: number, user: string): Message => ({
  position: `${position}`,
  id: `m-${position}`,
  user,
  text: `number ${position}`,
  at: position
})
const posted = (position: number, user = "alan"): Event => ({
  _tag: "Posted",
  room: "engines",
  message: message(position, user)
})
const entered = (unread: number, read: string | null): Event => ({
  _tag: "Entered",
  membership: { room: "engines", members: ["ada", "alan"], unread, read }
})
const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

const beginning: Session.State = {
  user: "ada",
  connection: "connecting",
  online: new Set(),
  rooms: new Map(),
  outgoing: []
}
const after = (...events: ReadonlyArray<Event>) => events.reduce(Session.next, beginning)
const unread = (...events: ReadonlyArray<Event>) => Session.unread(after(...events).rooms.get("engines")!, "ada")

describe("what a session makes of events", () => {
  it("counts what is unread once, told by the server or come since", () => {
    // The server counted the five that come now.
    assert.strictEqual(unread(entered(5, "3"), ...numbers(1, 9).map((i) => posted(i))).unread, 5)
    assert.strictEqual(unread(entered(0, "8"), ...numbers(1, 9).map((i) => posted(i))).unread, 0)
    // While they come, and the marker has not: nothing is made up.
    assert.strictEqual(unread(entered(0, "8"), ...numbers(1, 5).map((i) => posted(i))).unread, 0)
    assert.strictEqual(unread(entered(0, "2"), posted(1), posted(2), posted(3), posted(4, "ada")).unread, 1)
    assert.strictEqual(unread(entered(0, null), posted(1), posted(2)).unread, 2)
    // More than are here.
    assert.strictEqual(unread(entered(70, "1"), ...numbers(50, 100).map((i) => posted(i))).unread, 70)
    assert.strictEqual(unread(entered(0, null), ...numbers(0, 300).map((i) => posted(i))).unread, limits.unread)
    // Read in another tab.
    const read: Event = { _tag: "Unread", room: "engines", unread: 0, read: "2" }
    assert.strictEqual(unread(entered(0, null), posted(1), posted(2), read).unread, 0)
  })

  it("counts mentions among what is unread only", () => {
    const naming = (position: number): ReadonlyArray<Event> => [
      posted(position),
      { _tag: "Mentioned", room: "engines", message: message(position, "alan") }
    ]
    assert.strictEqual(unread(entered(2, "1"), ...naming(1), ...naming(2), posted(3)).mentions, 1)
    assert.strictEqual(unread(entered(0, "3"), ...naming(1), ...naming(2), posted(3)).mentions, 0)
  })

  it("forgets an outgoing message when it comes back, and only its own", () => {
    const outgoing = [{ id: "m-1", room: "engines", text: "number 1", stored: false, refused: undefined }]
    const before = { ...after(entered(0, null)), outgoing }
    assert.deepStrictEqual(Session.next(before, posted(1, "alan")).outgoing, outgoing)
    assert.deepStrictEqual(Session.next(before, posted(1, "ada")).outgoing, [])
  })

  it("who has said something types no more", () => {
    const typing: Event = { _tag: "Typing", room: "engines", user: "alan" }
    assert.deepStrictEqual(after(entered(0, null), typing).rooms.get("engines")?.typing, ["alan"])
    assert.deepStrictEqual(after(entered(0, null), typing, posted(1)).rooms.get("engines")?.typing, [])
  })

  it("a room that one is not in any more after a reconnect is gone, one that one is in keeps its messages", () => {
    const events = [entered(0, null), posted(1)]
    const welcome = (...rooms: ReadonlyArray<string>): Event => ({
      _tag: "Welcome",
      user: "ada",
      online: ["ada"],
      rooms
    })
    assert.isFalse(after(...events, welcome("machines")).rooms.has("engines"))
    // Made again, it is another one.
    assert.deepStrictEqual(after(...events, welcome(), entered(0, null)).rooms.get("engines")?.messages, [])
    assert.strictEqual(after(...events, welcome("engines"), entered(0, "1")).rooms.get("engines")?.messages.length, 1)
  })

  it("keeps so many messages of a room, and knows that there are older ones", () => {
    const room = after(entered(0, null), ...numbers(0, 2500).map((i) => posted(i))).rooms.get("engines")!
    assert.isBelow(room.messages.length, 2001)
    assert.isTrue(room.older)
    const kept = room.messages.map(({ position }) => Number(position))
    assert.deepStrictEqual(kept, numbers(kept[0]!, 2500))
  })

  it("finds mentions in a text", () => {
    assert.deepStrictEqual(Session.parts("a @Bob, x@y.z @c"), [
      { text: "a " },
      { text: "@Bob", mention: "bob" },
      { text: ", x@y.z " },
      { text: "@c", mention: "c" },
      { text: "" }
    ])
  })
})

/** A user at a server, and a way to wait for what it sees. */
const enter = Effect.fnUntraced(function* (port: number, user: string, unsent: ReadonlyArray<Session.Unsent> = []) {
  const protocol = yield* Layer.build(Session.protocol(`ws://127.0.0.1:${port}/rpc`))
  const session = yield* Effect.provideContext(Session.make({ user, unsent }), protocol)
  const until = (found: (state: Session.State) => boolean) =>
    SubscriptionRef.changes(session.state).pipe(Stream.filter(found), Stream.runHead, Effect.map(Option.getOrThrow))
  return { ...session, until }
})

describe("a session on a server", () => {
  it.live("says why a message was refused, and goes on with the next; ends when the user goes in another tab", () =>
    Effect.gen(function* () {
      const server = yield* start({})
      const chat = yield* client(() => server.port)
      const ada = yield* enter(server.port, "ada")
      yield* ada.create("engines")
      yield* ada.send("nonesuch", "nobody hears me")
      yield* ada.send("engines", "hello")
      const { outgoing } = yield* ada.until(({ rooms }) => rooms.get("engines")?.messages.length === 1)
      assert.deepStrictEqual(
        outgoing.map(({ refused }) => refused),
        ["there is no room nonesuch"]
      )
      yield* chat.disconnect({ user: "ada" })
      const { online, rooms } = yield* ada.until(({ connection }) => connection === "left")
      assert.deepStrictEqual([rooms.size, online.size], [0, 0])
    })
  )

  it.live("says in its own words that nobody is there", () =>
    Effect.gen(function* () {
      const server = yield* start({})
      yield* server.kill("SIGKILL")
      yield* server.ended
      const ada = yield* enter(server.port, "ada")
      const nobody = yield* Effect.flip(ada.join("engines"))
      assert.strictEqual(nobody.message, "the chat does not answer at present: try again")
    })
  )

  it.live("leaves a room and joins again: what was said is there again", () =>
    Effect.gen(function* () {
      const server = yield* start({})
      const ada = yield* enter(server.port, "ada")
      yield* ada.create("engines")
      yield* ada.send("engines", "hello")
      yield* ada.until(({ rooms }) => rooms.get("engines")?.messages.length === 1)
      yield* ada.leave("engines")
      yield* ada.until(({ rooms }) => rooms.size === 0)
      yield* ada.join("engines")
      const { rooms } = yield* ada.until(({ rooms }) => rooms.get("engines")?.messages.length === 1)
      assert.strictEqual(rooms.get("engines")?.messages[0]?.text, "hello")
    })
  )

  it.live("sends what an earlier session has left, under the same id, in order", () =>
    Effect.gen(function* () {
      const server = yield* start({})
      const chat = yield* client(() => server.port)
      yield* chat.createRoom({ room: "engines", user: "ada", id: "make" })
      // The first was stored, and the answer lost.
      yield* chat.sendMessage({ room: "engines", user: "ada", id: "1", text: "one" })
      const unsent = ["one", "two", "three"].map((text, i) => ({ id: `${i + 1}`, room: "engines", text }))
      const ada = yield* enter(server.port, "ada", unsent)
      const { rooms } = yield* ada.until(
        ({ outgoing, rooms }) => outgoing.length === 0 && rooms.get("engines")?.messages.length === 3
      )
      assert.deepStrictEqual(
        rooms.get("engines")?.messages.map(({ text }) => text),
        ["one", "two", "three"]
      )
    })
  )

  it.live("marks the mentions in what it pages back to; and is seen to type again as soon as it has sent", () =>
    Effect.gen(function* () {
      const server = yield* start({})
      const chat = yield* client(() => server.port)
      yield* chat.createRoom({ room: "engines", user: "alan", id: "make" })
      for (const user of ["ada", "bob", "cleo"]) yield* chat.joinRoom({ room: "engines", user })
      yield* chat.sendMessage({ room: "engines", user: "alan", id: "first", text: "@Ada, @bob: hello" })
      for (let i = 0; i < 50; i++) {
        // Nobody may write as much as this.
        yield* chat.sendMessage({ room: "engines", user: i < 25 ? "bob" : "cleo", id: `${i}`, text: `number ${i}` })
      }
      const ada = yield* enter(server.port, "ada")
      const alan = yield* enter(server.port, "alan")
      for (const one of [ada, alan]) yield* one.until(({ rooms }) => rooms.get("engines")?.messages.length === 50)
      yield* ada.older("engines")
      const { rooms } = yield* SubscriptionRef.get(ada.state)
      const first = rooms.get("engines")?.messages[0]
      assert.deepStrictEqual([...(rooms.get("engines")?.naming ?? [])], [first?.position])

      const typing = (who: ReadonlyArray<string>) =>
        alan.until(({ rooms }) => rooms.get("engines")?.typing.join() === who.join())
      yield* ada.typing("engines")
      yield* typing(["ada"])
      yield* ada.send("engines", "hello")
      yield* typing([])
      yield* ada.typing("engines")
      yield* typing(["ada"])
    })
  )
})
