/**
 * A TCP proxy in front of a Redis server, in this process, that breaks connections in the ways networks do, exactly when a
 * test asks for it.
 *
 * The server sees only what the proxy passes on: a byte that is held back has not arrived, and while a black hole
 * lasts, the other side does not notice a peer that hung up. The proxy lives as long as its scope.
 */
import * as Net from "node:net"
import { Context, Deferred, Duration, Effect, Layer, Random, type Scope } from "effect"
import * as Port from "./Port.ts"
import { RedisServer } from "./RedisServer.ts"

/**
 * How a slow or uneven network carries bytes: independently for each connection and direction, always in order.
 *
 * @category models
 */
export interface Line {
  /** The delay of every byte. */
  readonly latency?: Duration.Input
  /** The most additional delay, drawn for each write from the `Random` of the fiber that sets the line. */
  readonly jitter?: Duration.Input
  readonly bytesPerSecond?: number
  /** The most bytes that arrive at once; with 1, a reader sees every byte boundary. */
  readonly fragment?: number
}

/**
 * A proxy that passes everything on until told otherwise.
 *
 * @category services
 */
export class FaultProxy extends Context.Service<
  FaultProxy,
  {
    readonly port: number
    readonly url: string
    /**
     * Ends a black hole, a refusal and a line. Bytes held back in a black hole arrive now, as they do when a network
     * recovers.
     */
    readonly pass: Effect.Effect<void>
    /** From now on bytes travel like this, on existing and new connections. */
    readonly carry: (line: Line) => Effect.Effect<void>
    /** From now on no byte goes either way, on existing and new connections, and neither side is told. */
    readonly blackhole: Effect.Effect<void>
    /** New connections are refused; existing ones live on. */
    readonly refuse: Effect.Effect<void>
    /** Resets every connection on both sides. */
    readonly reset: Effect.Effect<void>
    /** The server has moved: resets every connection, and leads new ones to this port of 127.0.0.1. */
    readonly redirect: (upstream: number) => Effect.Effect<void>
    /**
     * Sets a trap: the connection that next sends `command` (such as "SET") is reset before the server sees that
     * command. The inner effect waits until the trap has snapped.
     */
    readonly resetBefore: (command: string) => Effect.Effect<Effect.Effect<void>>
    /**
     * Sets a trap: the server executes the next `command`, but its reply never arrives; the connection is reset instead.
     * The inner effect waits until the trap has snapped.
     */
    readonly dropReply: (command: string) => Effect.Effect<Effect.Effect<void>>
    /**
     * Sets a trap: once all connections together have carried so many more bytes of requests (or replies), the
     * connection that carries the last of them is reset. The inner effect waits until the trap has snapped.
     */
    readonly cutAfter: (bytes: number, direction: "requests" | "replies") => Effect.Effect<Effect.Effect<void>>
    /** How many clients are connected. */
    readonly connections: Effect.Effect<number>
    /** How often each command has been passed on to the server, by its name in capitals. */
    readonly commands: Effect.Effect<ReadonlyMap<string, number>>
  }
>()("@waybill/testing/FaultProxy") {}

/**
 * Listens on a port of its own and forwards to `upstream`, a port of 127.0.0.1.
 *
 * @category constructors
 */
export const make = Effect.fn("FaultProxy.make")(function* (
  upstream: number
): Effect.fn.Return<FaultProxy["Service"], never, Scope.Scope> {
  const proxy = new Proxy(upstream)
  const port = yield* Port.reserve
  yield* listen(proxy.server, port)
  yield* Effect.addFinalizer(() => proxy.close)

  const trap = (set: (snapped: () => void) => void) =>
    Effect.sync(() => {
      const snapped = Deferred.makeUnsafe<void>()
      set(() => Deferred.doneUnsafe(snapped, Effect.void))
      return Deferred.await(snapped)
    })

  return FaultProxy.of({
    port,
    url: `redis://127.0.0.1:${port}`,
    pass: Effect.andThen(
      Effect.sync(() => {
        proxy.line = undefined
        proxy.flow(true)
      }),
      Effect.suspend(() => (proxy.server.listening ? Effect.void : listen(proxy.server, port)))
    ),
    carry: Effect.fnUntraced(function* ({ bytesPerSecond, fragment, jitter = 0, latency = 0 }) {
      const random = yield* Random.Random
      const [least, more] = [Duration.toMillis(latency), Duration.toMillis(jitter)]
      proxy.line = { delay: () => least + more * random.nextDoubleUnsafe(), bytesPerSecond, fragment }
    }),
    blackhole: Effect.sync(() => proxy.flow(false)),
    refuse: Effect.sync(() => void proxy.server.close()),
    reset: Effect.sync(() => proxy.reset()),
    redirect: (upstream) =>
      Effect.sync(() => {
        proxy.upstream = upstream
        proxy.reset()
      }),
    resetBefore: (command) =>
      trap((snapped) => (proxy.trap = { _tag: "ResetBefore", command: command.toUpperCase(), snapped })),
    dropReply: (command) =>
      trap((snapped) => (proxy.trap = { _tag: "DropReply", command: command.toUpperCase(), snapped })),
    cutAfter: (bytes, direction) => trap((snapped) => (proxy.cut = { bytes, direction, snapped })),
    connections: Effect.sync(() => [...proxy.pairs].filter((pair) => !pair.client.closed).length),
    commands: Effect.sync(() => new Map(proxy.commands))
  })
})

/**
 * A proxy in front of the `RedisServer` of the test.
 *
 * @category layers
 */
export const layer: Layer.Layer<FaultProxy, never, RedisServer> = Layer.effect(
  FaultProxy,
  Effect.flatMap(RedisServer, (server) => make(server.port))
)

type Direction = "requests" | "replies"

interface Trap {
  readonly _tag: "ResetBefore" | "DropReply"
  readonly command: string
  readonly snapped: () => void
}

interface Cut {
  bytes: number
  readonly direction: Direction
  readonly snapped: () => void
}

/** A line as the pairs use it. */
interface Carrier {
  readonly delay: () => number
  readonly bytesPerSecond: number | undefined
  readonly fragment: number | undefined
}

class Proxy {
  readonly server: Net.Server
  readonly pairs = new Set<Pair>()
  readonly commands = new Map<string, number>()
  upstream: number
  trap: Trap | undefined
  cut: Cut | undefined
  line: Carrier | undefined
  flowing = true

  constructor(upstream: number) {
    this.upstream = upstream
    this.server = Net.createServer({ pauseOnConnect: true, noDelay: true }, (client) => {
      this.pairs.add(new Pair(this, client))
    })
  }

  flow(flowing: boolean): void {
    this.flowing = flowing
    for (const pair of this.pairs) pair.flow()
  }

  reset(): void {
    for (const pair of this.pairs) pair.reset()
  }

  readonly close: Effect.Effect<void> = Effect.callback((resume) => {
    this.reset()
    if (!this.server.listening) return resume(Effect.void)
    this.server.close(() => resume(Effect.void))
  })
}

/** A client and its connection to the server. */
class Pair {
  readonly proxy: Proxy
  readonly client: Net.Socket
  server: Net.Socket | undefined
  readonly requests = new Requests()
  readonly toServer = new Sending(this)
  readonly toClient = new Sending(this)
  /** Replies from here on are swallowed; the connection is reset when the server has replied with this. */
  drop: { readonly nonce: string; readonly snapped: () => void } | undefined
  swallowed = ""

  constructor(proxy: Proxy, client: Net.Socket) {
    this.proxy = proxy
    this.client = client
    client.on("data", (chunk: Buffer) => this.onRequests(chunk))
    client.on("error", () => {})
    client.on("close", () => this.onClose())
    this.flow()
  }

  /** A paused socket reads nothing, so the bytes, and the end after them, wait in the operating system. */
  flow(): void {
    if (!this.proxy.flowing) {
      this.client.pause()
      this.server?.pause()
      return
    }
    if (this.server === undefined) {
      const server = (this.server = Net.connect({ port: this.proxy.upstream, host: "127.0.0.1", noDelay: true }))
      server.on("data", (chunk: Buffer) => this.onReplies(chunk))
      server.on("error", () => {})
      server.on("close", () => this.onClose())
    }
    this.server.resume()
    this.client.resume()
    this.toServer.flow(this.server)
    this.toClient.flow(this.client)
  }

  onRequests(chunk: Buffer): void {
    for (const request of this.requests.read(chunk)) {
      const trap = this.proxy.trap
      const snaps = trap !== undefined && trap.command === request.command
      if (snaps) this.proxy.trap = undefined
      if (snaps && trap._tag === "ResetBefore") {
        this.reset()
        return trap.snapped()
      }
      if (request.command !== undefined) {
        this.proxy.commands.set(request.command, (this.proxy.commands.get(request.command) ?? 0) + 1)
      }
      if (snaps) {
        const nonce = `answered-${process.hrtime.bigint()}`
        this.drop = { nonce, snapped: trap.snapped }
        this.send("requests", request.bytes)
        // The server replies in order: when this comes back, the command before it has been executed.
        this.toServer.write(Buffer.from(`*2\r\n$4\r\nPING\r\n$${nonce.length}\r\n${nonce}\r\n`))
      } else {
        this.send("requests", request.bytes)
      }
    }
  }

  onReplies(chunk: Buffer): void {
    if (this.drop === undefined) return this.send("replies", chunk)
    this.swallowed = (this.swallowed + chunk.toString("latin1")).slice(-chunk.length - this.drop.nonce.length)
    if (!this.swallowed.includes(this.drop.nonce)) return
    this.reset()
    this.drop.snapped()
  }

  send(direction: Direction, bytes: Buffer): void {
    const to = direction === "requests" ? this.toServer : this.toClient
    const cut = this.proxy.cut
    if (cut === undefined || cut.direction !== direction) return to.write(bytes)
    if (bytes.length < cut.bytes) {
      cut.bytes -= bytes.length
      return to.write(bytes)
    }
    this.proxy.cut = undefined
    to.write(bytes.subarray(0, cut.bytes), () => {
      this.reset()
      cut.snapped()
    })
  }

  reset(): void {
    reset(this.client)
    if (this.server !== undefined) reset(this.server)
  }

  /** One side is gone: the other gets the bytes still on their way to it, and then the end. */
  onClose(): void {
    this.toClient.end()
    this.toServer.end()
    if (this.client.closed && this.server?.closed !== false) this.proxy.pairs.delete(this)
  }
}

/** One direction of a pair: the bytes on their way, in order. */
class Sending {
  readonly #pair: Pair
  readonly #queue: Array<Piece> = []
  #socket: Net.Socket | undefined
  /** When the line will have carried everything queued, in milliseconds. */
  #freeAt = 0
  #timer: NodeJS.Timeout | undefined
  #turn: NodeJS.Immediate | undefined
  #ended = false

  constructor(pair: Pair) {
    this.#pair = pair
  }

  flow(socket: Net.Socket): void {
    this.#socket = socket
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#pump()
  }

  write(bytes: Buffer, written: () => void = () => {}): void {
    const { line } = this.#pair.proxy
    if (line === undefined && this.#queue.length === 0) return void this.#socket?.write(bytes, written)
    const { bytesPerSecond = Infinity, delay = () => 0, fragment = Infinity } = line ?? {}
    // A slow line delivers a hundred pieces a second rather than everything at the end.
    const most = Math.min(fragment, Math.max(1, Math.ceil(bytesPerSecond / 100)))
    const arrives = performance.now() + delay()
    for (let from = 0; from < bytes.length; from += most) {
      const piece = bytes.subarray(from, from + most)
      this.#freeAt = Math.max(this.#freeAt, arrives) + (1000 * piece.length) / bytesPerSecond
      this.#queue.push({
        at: this.#freeAt,
        bytes: piece,
        written: from + most < bytes.length ? () => {} : written
      })
    }
    this.#pump()
  }

  end(): void {
    this.#ended = true
    this.#pump()
  }

  /** One piece at a time, so that a reader in this process sees each separately. */
  #pump(): void {
    if (this.#timer !== undefined || this.#turn !== undefined || !this.#pair.proxy.flowing) return
    const piece = this.#queue[0]
    if (piece === undefined) {
      if (this.#ended) this.#socket?.end()
      return
    }
    const left = this.#pair.proxy.line === undefined ? 0 : piece.at - performance.now()
    if (left > 0) {
      this.#timer = setTimeout(() => {
        this.#timer = undefined
        this.#pump()
      }, left)
      return
    }
    this.#queue.shift()
    this.#socket?.write(piece.bytes, piece.written)
    // Bytes written just now are read in the poll phase of the event loop, which lies between these two.
    this.#turn = setImmediate(() => {
      this.#turn = setImmediate(() => {
        this.#turn = undefined
        this.#pump()
      })
    })
  }
}

interface Piece {
  readonly at: number
  readonly bytes: Buffer
  readonly written: () => void
}

/** Node resets a socket only after all its writes, and never one that has sent its end, so the second call insists. */
const reset = (socket: Net.Socket): void => {
  if (!socket.writableEnded) socket.resetAndDestroy()
  socket.destroy()
}

interface Request {
  /** Undefined for bytes that are not an array of strings. */
  readonly command: string | undefined
  readonly bytes: Buffer
}

/**
 * Cuts a client's bytes into whole requests: arrays of strings, as every client library sends them. From the first byte of
 * anything else, such as an inline command or another protocol, bytes pass unchanged: the server replies.
 */
class Requests {
  #rest: Buffer = Buffer.alloc(0)
  #foreign = false

  read(chunk: Buffer): Array<Request> {
    if (this.#foreign) return [{ command: undefined, bytes: chunk }]
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const requests: Array<Request> = []
    for (let request = this.#next(); request !== undefined; request = this.#next()) requests.push(request)
    if (this.#foreign) requests.push({ command: undefined, bytes: this.#rest })
    return requests
  }

  #next(): Request | undefined {
    const count = this.#number(0, "*")
    if (count === undefined) return undefined
    let at = count.end
    let command = ""
    for (let i = 0; i < count.value; i++) {
      const length = this.#number(at, "$")
      if (length === undefined || length.end + length.value + 2 > this.#rest.length) return undefined
      if (i === 0) command = this.#rest.toString("latin1", length.end, length.end + length.value).toUpperCase()
      at = length.end + length.value + 2
    }
    const bytes = this.#rest.subarray(0, at)
    this.#rest = this.#rest.subarray(at)
    return { command, bytes }
  }

  #number(at: number, mark: string): { readonly value: number; readonly end: number } | undefined {
    if (at === this.#rest.length) return undefined
    if (this.#rest.toString("latin1", at, at + 1) !== mark) {
      this.#foreign = true
      return undefined
    }
    const end = this.#rest.indexOf("\r\n", at)
    if (end < 0) return undefined
    return { value: Number(this.#rest.toString("latin1", at + 1, end)), end: end + 2 }
  }
}

const listen = (server: Net.Server, port: number): Effect.Effect<void> =>
  Effect.callback((resume) => {
    server.listen(port, "127.0.0.1", () => resume(Effect.void))
  })
