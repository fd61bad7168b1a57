import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Exit, Fiber, Layer, Schedule, Stream } from "effect"
import { Inspector } from "waybill"
import { IoRedis, RedisKeyspace } from "waybill/redis"
import { Signs } from "../../../examples/chat/src/Presence.ts"
import { client, start } from "./ServerProcess.ts"

const get = (port: number, path: string, headers: Record<string, string> = {}) =>
  Effect.promise(async () => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers })
    return {
      status: response.status,
      text: await response.text(),
      policy: response.headers.get("content-security-policy")
    }
  })

/** What the server says to request 2, or `closed`. */
const answer = (port: number, ...messages: ReadonlyArray<string>) =>
  Effect.callback<string>((resume) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/rpc`)
    socket.onopen = () => {
      for (const message of messages) socket.send(message)
    }
    socket.onmessage = ({ data }) => {
      if (!String(data).includes('"requestId":"2"')) return
      resume(Effect.succeed(String(data)))
      socket.close()
    }
    socket.onclose = () => resume(Effect.succeed("closed"))
  })

// Starting processes takes its time where many other things run.
describe("pnpm example chat", { timeout: 120_000 }, () => {
  it.live("is up in memory, says how to build its page or serves it, and stops when it is told to", () =>
    Effect.gen(function* () {
      const server = yield* start({ asExample: true })
      const chat = yield* client(() => server.port)
      yield* chat.createRoom({ room: "tea", user: "ada", id: "1" })
      yield* chat.sendMessage({ room: "tea", user: "ada", id: "2", text: "hello" })
      const history = yield* chat.getRoomHistory({ room: "tea", user: "ada" })
      assert.deepStrictEqual(
        history.map(({ text }) => text),
        ["hello"]
      )
      const again = yield* Effect.flip(chat.createRoom({ room: "tea", user: "bob", id: "1" }))
      assert.strictEqual(again._tag, "RoomExists")
      const page = yield* get(server.port, "/")
      assert.include([200, 503], page.status)
      if (page.status === 503) assert.include(page.text, "The page is not built")
      assert.include(page.policy ?? "", "default-src 'none'")
      // Closed while a stream is open.
      const open = yield* chat.connect({ user: "ada", tab: "tab", positions: {} }).pipe(
        Stream.runForEach(() => Effect.void),
        Effect.forkScoped
      )
      yield* server.kill("SIGTERM")
      // What the shell says of a program that was stopped and has cleaned up; one that was killed has no code.
      assert.strictEqual(yield* server.ended, 130)
      assert.include(server.said(), "ConsumerStopped { topic: 'chat/news'")
      assert.isTrue(Exit.isFailure(yield* Fiber.await(open)))
    })
  )

  it.live("refuses what is not of the protocol, and other pages; and goes on", () =>
    Effect.gen(function* () {
      const server = yield* start({})
      assert.strictEqual((yield* get(server.port, "/", { origin: "http://elsewhere.example" })).status, 403)
      const malformed =
        '{"_tag":"Request","id":"2","tag":"createRoom","payload":{"room":"<script>","user":"ada","id":"1"},"headers":[]}'
      assert.include(yield* answer(server.port, malformed), "the name of a room has 1 to 32")
      for (const garbage of [
        "{",
        "[]",
        "null",
        "7",
        '{"_tag":"Request"}',
        '{"_tag":"Request","id":"1","tag":"nonesuch","payload":{},"headers":[]}'
      ]) {
        // What is no message at all closes the socket that it came on, and no other.
        const said = yield* answer(server.port, garbage, malformed)
        if (said !== "closed") assert.include(said, "the name of a room has 1 to 32")
      }
      const chat = yield* client(() => server.port)
      assert.deepStrictEqual(yield* chat.listRooms({ user: "ada" }), [])
      const bad = yield* Effect.exit(chat.createRoom({ room: "Not A Room", user: "ada", id: "1" }))
      assert.isTrue(Exit.isFailure(bad))
      yield* chat.createRoom({ room: "tea", user: "ada", id: "1" })
    })
  )

  it.live("two processes on two ports share rooms, messages and presence on one Redis", () =>
    Effect.gen(function* () {
      const redis = yield* RedisServer.make()
      const [first, second] = yield* Effect.all([start({ redis: redis.url }), start({ redis: redis.url })], {
        concurrency: 2
      })
      const ada = yield* client(() => first.port)
      const bob = yield* client(() => second.port)
      yield* ada.createRoom({ room: "tea", user: "ada", id: "1" })
      yield* bob.joinRoom({ room: "tea", user: "bob" })
      const seen = new Set<string>()
      const expected = ["Welcome", "Entered", "Online", "Typing", "Posted", "Mentioned"]
      const last = yield* bob.connect({ user: "bob", tab: "tab", positions: {} }).pipe(
        Stream.tap((event) =>
          event._tag === "Entered"
            ? Effect.gen(function* () {
                yield* Effect.forkScoped(Stream.runDrain(ada.connect({ user: "ada", tab: "tab", positions: {} })))
                yield* ada.typing({ room: "tea", user: "ada" })
                yield* ada.sendMessage({ room: "tea", user: "ada", id: "2", text: "@bob hello" })
              })
            : Effect.void
        ),
        Stream.map(({ _tag }) => seen.add(_tag)),
        Stream.takeUntil(() => expected.every((tag) => seen.has(tag))),
        Stream.runLast
      )
      assert.strictEqual(last._tag, "Some")
      // The same message through both at once, again and again, as a client does that is not sure: stored once.
      const ids = Array.from({ length: 10 }, (_, i) => `same-${i}`)
      yield* Effect.forEach(
        ids.flatMap((id) => [ada, bob, ada, bob].map((chat) => ({ chat, id }))),
        ({ chat, id }) =>
          Effect.retry(chat.sendMessage({ room: "tea", user: "ada", id, text: id }), {
            times: 20,
            schedule: Schedule.spaced("1 second")
          }),
        { concurrency: 20, discard: true }
      )
      const history = yield* ada.getRoomHistory({ room: "tea", user: "ada" })
      assert.deepStrictEqual(history.map(({ id }) => id).toSorted(), ["2", ...ids])
      const sent = yield* bob.getSentMessages({ user: "ada" })
      assert.deepStrictEqual(sent.map(({ id }) => id).toSorted(), ["2", ...ids])
      // A room that both want to make at once is made by one of them.
      const makers = yield* Effect.forEach(
        [
          // Two who have asked for nothing yet: ada has used up what she may ask for.
          [ada, "cleo"],
          [bob, "dan"]
        ] as const,
        ([chat, user]) => Effect.result(chat.createRoom({ room: "coffee", user, id: "1" })),
        { concurrency: 2 }
      )
      assert.deepStrictEqual(makers.map((made) => (made._tag === "Success" ? "made" : made.failure._tag)).toSorted(), [
        "RoomExists",
        "made"
      ])
      // Behind every message there is nothing, and in front of it there is all.
      const end = "18446744073709551615-18446744073709551615"
      assert.deepStrictEqual(yield* ada.getRoomHistory({ room: "tea", user: "ada", before: end }), history)
      yield* ada.markRead({ room: "tea", user: "ada", position: end })
      yield* Effect.forEach([first, second], (server) => server.kill("SIGTERM"))
      assert.deepStrictEqual(yield* Effect.all([first.ended, second.ended]), [130, 130])
      // However many processes there were, nothing of any of them stays behind.
      const { groups, published } = yield* Inspector.Inspector.use(({ describe }) => describe(Signs.name)).pipe(
        Effect.provide(RedisKeyspace.layer({ prefix: "chat" }).pipe(Layer.provide(IoRedis.layer({ url: redis.url }))))
      )
      assert.isAtLeast(published ?? 0, 2)
      assert.deepStrictEqual(groups, [])
    })
  )
})
