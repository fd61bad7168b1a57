/**
 * Ports for test servers, unique at any time across processes.
 *
 * @module
 */
import * as Net from "node:net"
import { Effect, Random, type Scope } from "effect"

/**
 * A free port of 127.0.0.1, until the scope closes. No other test takes it, even while its server is down.
 *
 * It is below the range that the system uses for outgoing connections: inside that range, a client that keeps dialling a
 * stopped server ends up connected to itself, and the server cannot bind again.
 */
export const reserve: Effect.Effect<number, never, Scope.Scope> = Effect.suspend(() =>
  Effect.flatMap(Random.nextIntBetween(10_000, 30_000), (port) =>
    Effect.gen(function* () {
      if (!(yield* claim(port)) || !(yield* isFree(port))) return yield* reserve
      return port
    })
  )
)

/**
 * Whether the port is ours. Claimed through a socket with an abstract name, which exists at most once and disappears
 * with its process however that ends. Only Linux has those; elsewhere chance must do.
 */
const claim = (port: number): Effect.Effect<boolean, never, Scope.Scope> =>
  process.platform !== "linux"
    ? Effect.succeed(true)
    : Effect.map(
        Effect.acquireRelease(listening({ path: `\0waybill-port-${port}` }), (server) =>
          Effect.sync(() => server?.close())
        ),
        (server) => server !== undefined
      )

const isFree = (port: number): Effect.Effect<boolean> =>
  Effect.flatMap(listening({ port, host: "127.0.0.1" }), (server) =>
    server === undefined
      ? Effect.succeed(false)
      : Effect.callback<boolean>((resume) => void server.close(() => resume(Effect.succeed(true))))
  )

const listening = (options: Net.ListenOptions): Effect.Effect<Net.Server | undefined> =>
  Effect.callback((resume) => {
    const server = Net.createServer((socket) => void socket.destroy())
    server.once("error", () => resume(Effect.undefined))
    server.listen(options, () => {
      server.unref()
      resume(Effect.succeed(server))
    })
  })
