/**
 * The edge: the protocol over WebSocket, and the page beside it. Requests of other pages are not answered: a browser sends
 * them on behalf of any.
 *
 * @module
 */
import { createServer } from "node:http"
import { join } from "node:path"
import { NodeHttpServer, NodeWS } from "@effect/platform-node"
import { Effect, FileSystem, Layer } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse, HttpStaticServer } from "effect/http"
import { RpcSerialization, RpcServer } from "effect/rpc"
import * as Handlers from "./Handlers.ts"
import { Chat, path } from "./Protocol.ts"

/** Where the page is, once it is built. */
const page = join(import.meta.dirname, "../dist/page")

const unbuilt =
  "The page is not built. Run `pnpm --dir examples/chat page` in the repository, and load this again.\n" +
  "The chat itself is up: other clients can use it."

/** Nothing of others runs on our page, nothing of ours in theirs. */
const headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-cache"
}

const sameOrigin = ({ headers: { host, origin } }: HttpServerRequest.HttpServerRequest): boolean =>
  origin === undefined || (URL.canParse(origin) && new URL(origin).host === host?.toLowerCase())

const guard = HttpRouter.middleware(
  (handle) =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) =>
      sameOrigin(request)
        ? Effect.map(handle, HttpServerResponse.setHeaders(headers))
        : Effect.succeed(HttpServerResponse.text("requests of other pages are not answered", { status: 403 }))
    ),
  { global: true }
)

const files = HttpRouter.use((router) =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const serve = yield* HttpStaticServer.make({ root: page })
    const isBuilt = Effect.orElseSucceed(fs.exists(join(page, "index.html")), () => false)
    yield* router.add(
      "GET",
      "/*",
      Effect.flatMap(isBuilt, (built) =>
        built
          ? Effect.catch(serve, () => Effect.succeed(HttpServerResponse.text("there is no such page", { status: 404 })))
          : Effect.succeed(HttpServerResponse.text(unbuilt, { status: 503 }))
      )
    )
  })
)

const procedures = RpcServer.layer(Chat, { disableFatalDefects: true }).pipe(
  Layer.provide(RpcServer.layerProtocolWebsocket({ path })),
  Layer.provide(RpcSerialization.layerJson),
  Layer.provide(Handlers.layer)
)

/** Bytes that may wait for a client to read them. */
const unread = 4 * 1024 * 1024

/**
 * Whoever asks and does not read the answers is cut off. What the server tells by itself waits for acknowledgements and never
 * comes near to this.
 */
class ServerSocket extends NodeWS.WebSocket {
  override send(data: string | Uint8Array): void {
    if (this.#mayWrite()) super.send(data)
  }

  override pong(...args: Parameters<NodeWS.WebSocket["pong"]>): void {
    if (this.#mayWrite()) super.pong(...args)
  }

  #mayWrite(): boolean {
    if (this.bufferedAmount <= unread) return true
    this.terminate()
    return false
  }
}

/** Listens as soon as the domain is up; `port` 0 takes a free one. */
export const layer = (options: { readonly host: string; readonly port: number }) =>
  HttpRouter.serve(Layer.mergeAll(procedures, files, guard), { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(
      // Streams have been ended by then; a WebSocket that is still open would be waited for in vain.
      NodeHttpServer.layer(createServer, {
        ...options,
        gracefulShutdownTimeout: "250 millis",
        // No call of the protocol is nearly as large; what is larger closes the socket.
        websocket: { maxPayload: 256 * 1024, WebSocket: ServerSocket }
      })
    )
  )
