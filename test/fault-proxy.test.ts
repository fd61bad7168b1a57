import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Effect, Exit, Layer, Random, Scope } from "effect"

const live = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

/** A client that knows nothing but bytes. */
const connect = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket, "refused">((resume) => {
      const socket = Net.connect(port, "127.0.0.1", () => resume(Effect.succeed(socket)))
      socket.on("error", () => resume(Effect.fail("refused")))
    }),
    (socket) => Effect.sync(() => socket.destroy())
  )

/**
 * What arrives on the socket next: bytes, its end, or nothing for so many milliseconds. It pauses the socket in between: one
 * that flows without a listener drops what arrives.
 */
const next = (socket: Net.Socket, silent = 20_000) =>
  Effect.callback<string>((resume) => {
    if (socket.destroyed) return resume(Effect.succeed("reset"))
    const ends = ["end", "error", "close"] as const
    const done = (what: string) => {
      clearTimeout(silence)
      socket.off("data", onData)
      for (const end of ends) socket.off(end, onEnd)
      socket.pause()
      resume(Effect.succeed(what))
    }
    const onData = (bytes: Buffer) => done(bytes.toString())
    const onEnd = () => done("reset")
    const silence = setTimeout(() => done("silence"), silent)
    socket.on("data", onData)
    for (const end of ends) socket.on(end, onEnd)
    socket.resume()
  })

const request = (...words: ReadonlyArray<string>) =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`

const ask = (socket: Net.Socket, ...words: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    socket.write(request(...words))
    return next(socket)
  })

/** Nothing comes back for long enough to notice. */
const isSilent = (socket: Net.Socket, ...words: ReadonlyArray<string>) =>
  Effect.suspend(() => {
    socket.write(request(...words))
    return Effect.map(next(socket, 300), (what) => what === "silence")
  })

/** Reads as much as this, in however many pieces it comes. */
const reads = Effect.fnUntraced(function* (socket: Net.Socket, expected: string) {
  let text = ""
  while (text.length < expected.length) text += yield* next(socket)
  assert.strictEqual(text, expected)
})

/** Asks the server itself, past the proxy. */
const atServer = (...words: ReadonlyArray<string>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const { port } = yield* RedisServer.RedisServer
      return yield* ask(yield* connect(port), ...words)
    })
  )

describe("FaultProxy", () => {
  it.effect("passes on, and counts what the server was asked", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const socket = yield* connect(proxy.port)
      assert.strictEqual(yield* ask(socket, "set", "k", "v\r\n$1"), "+OK\r\n")
      // Two requests in one write, and one request in two.
      const reply = "$5\r\nv\r\n$1\r\n"
      socket.write(request("get", "k").repeat(2))
      yield* reads(socket, reply.repeat(2))
      const [head, tail] = [request("GET", "k").slice(0, 17), request("GET", "k").slice(17)]
      socket.write(head)
      yield* Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void)))
      socket.write(tail)
      yield* reads(socket, reply)
      assert.deepStrictEqual(
        [...(yield* proxy.commands)],
        [
          ["SET", 1],
          ["GET", 3]
        ]
      )
      assert.strictEqual(yield* proxy.connections, 1)
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("passes on an inline command and another protocol, and the server replies", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const inline = yield* connect(proxy.port)
      assert.strictEqual(yield* ask(inline, "PING"), "+PONG\r\n")
      inline.write("PING\r\n")
      assert.strictEqual(yield* next(inline), "+PONG\r\n")
      const browser = yield* connect(proxy.port)
      browser.write("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
      assert.notStrictEqual(yield* next(browser), "silence")
      assert.deepStrictEqual([...(yield* proxy.commands)], [["PING", 1]])
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("a black hole keeps everything back, for old connections and new ones, until it passes again", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const old = yield* connect(proxy.port)
      assert.strictEqual(yield* ask(old, "PING"), "+PONG\r\n")
      yield* proxy.blackhole
      assert.isTrue(yield* isSilent(old, "SET", "k", "late"))
      const fresh = yield* connect(proxy.port)
      assert.isTrue(yield* isSilent(fresh, "PING"))
      assert.strictEqual(yield* atServer("GET", "k"), "$-1\r\n")
      yield* proxy.pass
      assert.strictEqual(yield* next(old), "+OK\r\n")
      assert.strictEqual(yield* next(fresh), "+PONG\r\n")
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("refuses new connections and keeps the old", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const old = yield* connect(proxy.port)
      yield* proxy.refuse
      assert.strictEqual(yield* Effect.flip(connect(proxy.port)), "refused")
      assert.strictEqual(yield* ask(old, "PING"), "+PONG\r\n")
      yield* proxy.pass
      assert.strictEqual(yield* ask(yield* connect(proxy.port), "PING"), "+PONG\r\n")
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("resets before the server sees a command, or after it has executed it", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const before = yield* connect(proxy.port)
      const snappedBefore = yield* proxy.resetBefore("incr")
      assert.strictEqual(yield* ask(before, "GET", "n"), "$-1\r\n")
      assert.strictEqual(yield* ask(before, "INCR", "n"), "reset")
      yield* snappedBefore
      assert.strictEqual(yield* atServer("GET", "n"), "$-1\r\n")

      const after = yield* connect(proxy.port)
      const snappedAfter = yield* proxy.dropReply("INCR")
      assert.strictEqual(yield* ask(after, "INCR", "n"), "reset")
      yield* snappedAfter
      assert.strictEqual(yield* atServer("GET", "n"), "$1\r\n1\r\n")
      assert.strictEqual((yield* proxy.commands).get("INCR"), 1)
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("cuts a reply and a request in the middle", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const reader = yield* connect(proxy.port)
      const replies = yield* proxy.cutAfter(3, "replies")
      assert.strictEqual(yield* ask(reader, "PING"), "+PO")
      assert.strictEqual(yield* next(reader), "reset")
      yield* replies

      const writer = yield* connect(proxy.port)
      const requests = yield* proxy.cutAfter(20, "requests")
      assert.strictEqual(yield* ask(writer, "SET", "k", "v"), "reset")
      yield* requests
      assert.strictEqual(yield* atServer("GET", "k"), "$-1\r\n")
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.live("carries bytes late, slowly and in pieces, in order, and drops none", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const socket = yield* connect(proxy.port)
      const since = Effect.sync(() => performance.now())
      yield* proxy.carry({ latency: "50 millis" })
      let began = yield* since
      assert.strictEqual(yield* ask(socket, "PING"), "+PONG\r\n")
      assert.isAtLeast((yield* since) - began, 99)

      yield* Random.withSeed(proxy.carry({ jitter: "20 millis" }), "jitter")
      socket.write(request("INCR", "n"))
      for (let n = 2; n <= 20; n++) socket.write(request("INCR", "n"))
      yield* reads(socket, Array.from({ length: 20 }, (_, n) => `:${n + 1}\r\n`).join(""))

      yield* proxy.carry({ bytesPerSecond: 100_000 })
      const value = "v".repeat(20_000)
      began = yield* since
      assert.strictEqual(yield* ask(socket, "SET", "k", value), "+OK\r\n")
      assert.isAtLeast((yield* since) - began, 199)
      socket.write(request("GET", "k"))
      yield* reads(socket, `$20000\r\n${value}\r\n`)
      assert.isAtLeast((yield* since) - began, 398)

      yield* proxy.carry({ fragment: 1 })
      const [first, ...others] = [yield* ask(socket, "PING"), ...(yield* Effect.replicateEffect(next(socket), 6))]
      assert.deepStrictEqual([first, ...others], ["+", "P", "O", "N", "G", "\r", "\n"])

      yield* proxy.carry({ latency: "1 hour" })
      assert.isTrue(yield* isSilent(socket, "PING"))
      yield* proxy.pass
      assert.strictEqual(yield* next(socket), "+PONG\r\n")
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.effect("resets everything at once, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const { port } = yield* RedisServer.RedisServer
      const proxy = yield* Scope.provide(FaultProxy.make(port), scope)
      const first = yield* connect(proxy.port)
      assert.strictEqual(yield* ask(first, "PING"), "+PONG\r\n")
      yield* proxy.reset
      assert.strictEqual(yield* next(first), "reset")
      const second = yield* connect(proxy.port)
      assert.strictEqual(yield* ask(second, "PING"), "+PONG\r\n")
      yield* proxy.blackhole
      yield* Scope.close(scope, Exit.void)
      assert.strictEqual(yield* next(second), "reset")
      assert.strictEqual(yield* Effect.flip(connect(proxy.port)), "refused")
    }).pipe(Effect.scoped, Effect.provide(live))
  )
})
