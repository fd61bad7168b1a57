/**
 * A server of the chat as a process of its own, and a client of it.
 */
import { spawn } from "node:child_process"
import { join } from "node:path"
import { NodeWS } from "@effect/platform-node"
import { Deferred, Effect, Layer, Schedule, type Scope } from "effect"
import { RpcClient, RpcSerialization } from "effect/rpc"
import { Socket } from "effect/socket"
import { Chat, path } from "../../../examples/chat/src/Protocol.ts"
import { bundled } from "../../Program.ts"

const root = join(import.meta.dirname, "../../..")
export const main = join(root, "examples/chat/src/main.ts")

export interface ServerProcess {
  readonly port: number
  readonly pid: number
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** The code, or -1 after a signal that kills. */
  readonly ended: Effect.Effect<number>
  /** What it has printed and logged so far. */
  readonly said: () => string
}

/** Starts it, and waits until it listens. It ends with the scope. */
export const start = Effect.fn("ServerProcess.start")(function* (options: {
  readonly port?: number
  readonly redis?: string | undefined
  /** By `pnpm example chat`, as a user does. */
  readonly asExample?: boolean
}): Effect.fn.Return<ServerProcess, Error, Scope.Scope> {
  const listening = yield* Deferred.make<number, Error>()
  const ended = yield* Deferred.make<number>()
  let said = ""
  const program = options.asExample ? ["scripts/example.ts", "chat"] : [yield* Effect.promise(() => bundled(main))]
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [...program, "--port", `${options.port ?? 0}`], {
        cwd: root,
        env: { ...process.env, REDIS_URL: options.redis },
        stdio: ["ignore", "pipe", "pipe"]
      })
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )
  child.stdout.on("data", (chunk) => {
    said += String(chunk)
    const port = /the chat is on http:\/\/[^:]+:(\d+)/.exec(said)?.[1]
    if (port !== undefined) Deferred.doneUnsafe(listening, Effect.succeed(Number(port)))
  })
  child.stderr.on("data", (chunk) => {
    said += String(chunk)
  })
  child.once("exit", (code) => {
    Deferred.doneUnsafe(ended, Effect.succeed(code ?? -1))
    Deferred.doneUnsafe(listening, Effect.fail(new Error(`the server has ended before it listened: ${said}`)))
  })
  const port = yield* Deferred.await(listening)
  return {
    port,
    pid: child.pid!,
    kill: (signal) => Effect.sync(() => void child.kill(signal)),
    ended: Deferred.await(ended),
    said: () => said
  }
})

const socket = (port: () => number, dialled: (socket: NodeWS.WebSocket) => void) =>
  Socket.layerWebSocket(Effect.sync(() => `ws://127.0.0.1:${port()}${path}`)).pipe(
    Layer.provide(
      Layer.succeed(Socket.WebSocketConstructor)((url) => {
        const socket = new NodeWS.WebSocket(url)
        dialled(socket)
        return socket
      })
    )
  )

/**
 * A client whose socket dials again and again, each time the port that it is told. It lives as long as the scope. `dialled`
 * is given each socket, which can be torn down under the client.
 */
export const client = (port: () => number, dialled: (socket: NodeWS.WebSocket) => void = () => {}) =>
  Effect.flatMap(
    Layer.build(
      RpcClient.layerProtocolSocket({ retryTransientErrors: true, retryPolicy: Schedule.spaced("100 millis") }).pipe(
        Layer.provide(socket(port, dialled)),
        Layer.provide(RpcSerialization.layerJson)
      )
    ),
    (protocol) => Effect.provideContext(RpcClient.make(Chat), protocol)
  )
