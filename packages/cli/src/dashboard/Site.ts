/**
 * Serves the page of the dashboard until it is interrupted, and says where it is.
 *
 * @module
 */
import { createServer } from "node:http"
import { join } from "node:path"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Console, Effect, FileSystem, Layer, Redacted } from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { HttpRouter, HttpServer } from "effect/http"
import { Misuse } from "../Problem.ts"
import { Server } from "../Server.ts"
import type { Rules } from "./Guard.ts"
import * as Routes from "./Routes.ts"

/** Built by Vite; the same place seen from the sources and from what is published. */
const page = join(import.meta.dirname, "../../dist/page")

const loopback = new Set(["127.0.0.1", "localhost", "::1", "[::1]"])

export interface Options {
  readonly host: string
  readonly port: number
  readonly allowWrites: boolean
}

export const serve = Effect.fnUntraced(function* ({ allowWrites, host, port }: Options) {
  const { address, prefix } = yield* Server
  const fs = yield* FileSystem.FileSystem
  if (!(yield* Effect.orElseSucceed(fs.exists(join(page, "index.html")), () => false))) {
    return yield* new Misuse({ detail: "the page is not built: run `pnpm build` in the repository first" })
  }
  const token = Redacted.make(SecureRandom.uuidV4Unsafe() + SecureRandom.uuidV4Unsafe())
  const guarded = !loopback.has(host)
  // Known once the server listens: the port may be any.
  const hosts: Array<string> = []
  const rules: Rules = { hosts, token, writes: allowWrites, guarded }
  const announced = Effect.gen(function* () {
    const bound = (yield* HttpServer.HttpServer).address
    const listening = "port" in bound ? bound.port : port
    const names = guarded ? [host] : ["127.0.0.1", "localhost", "[::1]"]
    hosts.push(...names.map((name) => `${name.toLowerCase()}:${listening}`))
    const secret = allowWrites || guarded ? `/#token=${Redacted.value(token)}` : ""
    yield* Console.log(
      `${prefix} on ${address}: http://${names[0]}:${listening}${secret}\n` +
        (allowWrites ? "The page may change things; keep its address to yourself." : "The page only looks.") +
        " Ctrl-c ends."
    )
  })
  const server = HttpRouter.serve(Routes.layer(rules, page), { disableListenLog: true, disableLogger: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(createServer, { host, port }))
  )
  yield* Effect.andThen(announced, Effect.never).pipe(
    Effect.provide(server),
    Effect.catchTag(
      "ServeError",
      (error) => new Misuse({ detail: `cannot listen on ${host}:${port}: ${String(error.cause)}` })
    )
  )
}, Effect.scoped)
