/** A line to a server that carries so many bytes a second, towards the client. */
import { type AddressInfo, connect, createServer, type Socket } from "node:net"
import { Effect } from "effect"

const tickMillis = 5

export const make = (port: number, bytesPerSecond: number) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly url: string; readonly connections: () => number; readonly close: () => void }>(
      (resume) => {
        const sockets = new Set<Socket>()
        let connections = 0
        // All connections share the line.
        let carried = 0
        const timer = setInterval(() => (carried = 0), tickMillis)
        const perTick = (bytesPerSecond * tickMillis) / 1000
        const server = createServer((client) => {
          connections++
          const upstream = connect(port, "127.0.0.1")
          for (const socket of [client, upstream]) {
            sockets.add(socket)
            socket.on("error", () => {})
            socket.on("close", () => {
              sockets.delete(socket)
              client.destroy()
              upstream.destroy()
            })
          }
          client.pipe(upstream)
          const carry = () => {
            if (carried < perTick) {
              const chunk = upstream.read() as Buffer | null
              if (chunk !== null) {
                carried += chunk.length
                client.write(chunk)
              }
            }
          }
          const reading = setInterval(carry, 1)
          upstream.on("readable", carry)
          upstream.on("close", () => clearInterval(reading))
        })
        server.listen(0, "127.0.0.1", () =>
          resume(
            Effect.succeed({
              url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
              connections: () => connections,
              close: () => {
                clearInterval(timer)
                for (const socket of sockets) socket.destroy()
                server.close()
              }
            })
          )
        )
      }
    ),
    ({ close }) => Effect.sync(close)
  )
