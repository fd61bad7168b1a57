/**
 * What a client can do that speaks the protocol by hand: vanish without a word, ask and not read, come from another page.
 * The server is in this process, so that its clock can be the test's.
 */
import { NodeWS } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Layer, Logger } from "effect"
import { HttpServer } from "effect/http"
import { TestClock } from "effect/testing"
import { ChatRooms } from "../../../examples/chat/src/ChatRooms.ts"
import * as Layers from "../../../examples/chat/src/Layers.ts"
import { Notifications } from "../../../examples/chat/src/Notifications.ts"
import { Presence } from "../../../examples/chat/src/Presence.ts"
import { type Event, path } from "../../../examples/chat/src/Protocol.ts"
import * as Server from "../../../examples/chat/src/Server.ts"

const silent = Layer.succeed(Notifications, Notifications.of({ notify: () => Effect.void }))

const server = Effect.gen(function* () {
  const built = yield* Layer.build(
    Server.layer({ host: "127.0.0.1", port: 0 }).pipe(Layer.provideMerge(Layers.layerMemory), Layer.provide(silent))
  )
  const { address } = Context.get(built, HttpServer.HttpServer)
  assert(address._tag === "InetAddressV4")
  return {
    url: `ws://127.0.0.1:${address.port}${path}`,
    rooms: Context.get(built, ChatRooms),
    presence: Context.get(built, Presence)
  }
})

/** One socket, whose client acknowledges what it is told unless it stands still. */
const dial = Effect.fnUntraced(function* (url: string) {
  const events: Array<Event> = []
  const exits = new Map<string, string>()
  const waiting = new Set<() => void>()
  let pongs = 0
  const socket = yield* Effect.acquireRelease(
    Effect.callback<NodeWS.WebSocket>((resume) => {
      const socket = new NodeWS.WebSocket(url)
      socket.once("open", () => resume(Effect.succeed(socket)))
      socket.once("error", (error) => resume(Effect.die(error)))
    }),
    (socket) =>
      Effect.callback<void>((resume) => {
        if (socket.readyState === socket.CLOSED) return resume(Effect.void)
        socket.once("close", () => resume(Effect.void))
        socket.terminate()
      })
  )
  const send = (message: unknown) => Effect.sync(() => socket.send(JSON.stringify(message)))
  socket.on("message", (data) => {
    const message = JSON.parse(String(data))
    if (message._tag === "Chunk") {
      events.push(...message.values)
      socket.send(JSON.stringify({ _tag: "Ack", requestId: message.requestId }))
    } else if (message._tag === "Exit") {
      exits.set(message.requestId, JSON.stringify(message.exit))
    } else if (message._tag === "Pong") {
      pongs++
    }
    for (const look of waiting) look()
  })
  const until = (condition: () => boolean) =>
    Effect.callback<void>((resume) => {
      const look = () => {
        if (!condition()) return
        waiting.delete(look)
        resume(Effect.void)
      }
      waiting.add(look)
      look()
    })
  const pong = Effect.suspend(() => {
    const before = pongs
    return Effect.andThen(
      send({ _tag: "Ping" }),
      until(() => pongs > before)
    )
  })
  return {
    events,
    until,
    ask: (id: string, tag: string, payload: unknown) => send({ _tag: "Request", id, tag, payload, headers: [] }),
    /** The answer to a call, as JSON. */
    answer: (id: string) =>
      Effect.map(
        until(() => exits.has(id)),
        () => exits.get(id) ?? ""
      ),
    /** Stands still from now on, as if nobody were there. */
    vanish: Effect.sync(() => socket.pause()),
    /** All that the server has sent so far is here and acknowledged, and the server has read that. */
    settled: Effect.andThen(pong, pong)
  }
})

const refusal = (url: string, origin: string) =>
  Effect.callback<number | undefined>((resume) => {
    const socket = new NodeWS.WebSocket(url, { origin })
    socket.once("unexpected-response", (_, { statusCode }) => resume(Effect.succeed(statusCode)))
    socket.once("open", () => {
      socket.terminate()
      resume(Effect.succeed(101))
    })
    socket.once("error", () => {})
  })

describe("a socket of the chat", { timeout: 60_000 }, () => {
  it.effect("whoever vanishes without a word is offline after 300 s, and whoever is there stays online", () =>
    Effect.gen(function* () {
      const { presence, url } = yield* server
      const ada = yield* dial(url)
      yield* ada.ask("1", "connect", { user: "ada", tab: "tab", positions: {} })
      yield* ada.until(() => ada.events.length > 0)
      const bob = yield* dial(url)
      yield* bob.ask("1", "connect", { user: "bob", tab: "tab", positions: {} })
      yield* bob.until(() => bob.events.length > 0)
      yield* bob.settled
      yield* bob.vanish
      for (let minute = 0; minute < 4; minute++) yield* Effect.andThen(TestClock.adjust("1 minute"), ada.settled)
      assert.deepStrictEqual([...(yield* presence.online)].sort(), ["ada", "bob"])
      for (let minute = 0; minute < 6; minute++) yield* Effect.andThen(TestClock.adjust("1 minute"), ada.settled)
      assert.deepStrictEqual([...(yield* presence.online)], ["ada"])
      assert.deepInclude(ada.events, { _tag: "Offline", user: "bob", reason: "timed-out" })
      assert.isAtLeast(ada.events.filter(({ _tag }) => _tag === "Heartbeat").length, 5)
    })
  )

  it.live("whoever asks for much and does not read it is cut off", () =>
    Effect.gen(function* () {
      const { rooms, url } = yield* server
      yield* rooms.createRoom("tea", "ada", "1")
      for (let i = 0; i < 200; i++) {
        yield* rooms.sendMessage({ room: "tea", user: "ada", id: `${i}`, text: "a long story ".repeat(300) })
      }
      const ada = yield* dial(url)
      yield* ada.ask("1", "connect", { user: "ada", tab: "tab", positions: {} })
      const bob = yield* dial(url)
      yield* bob.ask("1", "connect", { user: "bob", tab: "tab", positions: {} })
      yield* bob.settled
      yield* ada.settled
      yield* bob.vanish
      const gone = yield* Deferred.make<void>()
      yield* Effect.forkScoped(
        Effect.andThen(
          ada.until(() => ada.events.some(({ _tag }) => _tag === "Offline")),
          Deferred.succeed(gone, undefined)
        )
      )
      // Of as many users as it takes not to be told that one asks too much.
      yield* Effect.forEach(
        Array.from({ length: 500 }, (_, i) => `user-${i}`),
        (user) =>
          Effect.andThen(
            bob.ask(user, "getRoomHistory", { room: "tea", user, limit: 200 }),
            Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
          ),
        { discard: true }
      ).pipe(Effect.raceFirst(Deferred.await(gone)))
      yield* Deferred.await(gone)
      // The others are not concerned.
      yield* ada.ask("2", "listRooms", { user: "ada" })
      assert.include(yield* ada.answer("2"), `"tea"`)
    }).pipe(Effect.provide(Logger.layer([])))
  )

  it.live("a position that is none is refused, and the chat goes on", () =>
    Effect.gen(function* () {
      const { rooms, url } = yield* server
      yield* rooms.createRoom("tea", "ada", "1")
      yield* rooms.sendMessage({ room: "tea", user: "ada", id: "1", text: "hello" })
      const ada = yield* dial(url)
      const last = "18446744073709551615"
      for (const position of ["", "x", "-1", "1-", "1-2-3", "18446744073709551616", `0-${last}0`, "1e3"]) {
        const call = { room: "tea", user: "ada" }
        yield* ada.ask(`before ${position}`, "getRoomHistory", { ...call, before: position })
        yield* ada.ask(`read ${position}`, "markRead", { ...call, position })
        yield* ada.ask(`connect ${position}`, "connect", { user: "ada", tab: "tab", positions: { tea: position } })
        for (const asked of ["before", "read", "connect"]) {
          assert.include(yield* ada.answer(`${asked} ${position}`), `"_tag":"Failure"`)
        }
      }
      for (const position of ["0", "0-0", last, `${last}-${last}`]) {
        yield* ada.ask(`mark ${position}`, "markRead", { room: "tea", user: "ada", position })
        assert.include(yield* ada.answer(`mark ${position}`), `"_tag":"Success"`)
      }
      assert.deepInclude(yield* rooms.membership("tea", "ada"), { unread: 0, read: "0" })
    }).pipe(Effect.provide(Logger.layer([])))
  )

  it.live("an upgrade from another page is refused", () =>
    Effect.gen(function* () {
      const { url } = yield* server
      assert.strictEqual(yield* refusal(url, "http://elsewhere.example"), 403)
      assert.strictEqual(yield* refusal(url, "null"), 403)
      const { host } = new URL(url)
      assert.strictEqual(yield* refusal(url, `http://${host}`), 101)
    }).pipe(Effect.provide(Logger.layer([])))
  )
})
