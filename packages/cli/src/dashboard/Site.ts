/**
 * Serves the dashboard until interrupted, and prints its address.
 *
 * @module
 */
import { createServer } from "node:http"
import { isIPv6 } from "node:net"
import { hostname } from "node:os"
import { join } from "node:path"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Effect, FileSystem, Layer, Redacted } from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { HttpRouter, HttpServer } from "effect/http"
import { UsageError } from "../Problem.ts"
import { print } from "../Screen.ts"
import { Server } from "../Server.ts"
import { loopback } from "./Guard.ts"
import * as Routes from "./Routes.ts"

/** Built by Vite; the path is the same from the sources and from the published package. */
const page = join(import.meta.dirname, "../../dist/page")

const unspecified = ["0.0.0.0", "[::]"]

/** Names of topics and groups have up to 200 characters, each of up to nine in a URL; ids have no limit. */
const maxParamLength = 8000

export interface Options {
  readonly host: string
  readonly port: number
  readonly allowWrites: boolean
  readonly publicUrl: URL | undefined
}

export const serve = Effect.fnUntraced(function* ({ allowWrites, host, port, publicUrl }: Options) {
  const { address, json, prefix } = yield* Server
  const fs = yield* FileSystem.FileSystem
  if (!(yield* Effect.orElseSucceed(fs.exists(join(page, "index.html")), () => false))) {
    return yield* new UsageError({ detail: "the page has not been built: run `pnpm build` in the repository first" })
  }
  const token = Redacted.make(SecureRandom.uuidV4Unsafe() + SecureRandom.uuidV4Unsafe())
  const name = nameOf(host)
  const everywhere = unspecified.includes(name)
  const guarded = publicUrl !== undefined || !loopback.includes(name)
  const names = [
    ...new Set([
      ...(everywhere ? [] : [name]),
      ...(loopback.includes(name) ? [] : [hostname().toLowerCase()]),
      ...loopback
    ])
  ]
  // Port 0 picks a free one: it is known once the server listens.
  const rules = { names, port, publicUrl, everywhere, token, writes: allowWrites, guarded }
  const announced = Effect.gen(function* () {
    const bound = (yield* HttpServer.HttpServer).address
    if ("port" in bound) rules.port = bound.port
    const secret = allowWrites || guarded ? `/#token=${Redacted.value(token)}` : ""
    const url = (publicUrl?.href.replace(/\/$/, "") ?? `http://${names[0]}:${rules.port}`) + secret
    yield* print(
      json,
      { url, prefix, address, writes: allowWrites },
      () =>
        `${prefix} on ${address}: ${url}\n` +
        (allowWrites ? "The page can make changes; keep its address private." : "The page is read-only.") +
        " Press Ctrl-C to stop." +
        (publicUrl === undefined ? "" : `\nThe proxy reaches it on port ${rules.port}.`)
    )
  })
  const server = HttpRouter.serve(Routes.layer(rules, page), {
    disableListenLog: true,
    disableLogger: true,
    routerConfig: { maxParamLength }
  }).pipe(
    Layer.provideMerge(
      NodeHttpServer.layer(createServer, {
        host: host.replace(/^\[|\]$/g, ""),
        port,
        // Browsers keep unused connections open.
        gracefulShutdownTimeout: "1 second"
      })
    )
  )
  yield* Effect.andThen(announced, Effect.never).pipe(
    Effect.provide(server),
    Effect.catchTag(
      "ServeError",
      (error) => new UsageError({ detail: `cannot listen on ${host}:${port}: ${String(error.cause)}` })
    )
  )
}, Effect.scoped)

/** As browsers write it in a URL. */
const nameOf = (host: string): string => {
  const address = `http://${isIPv6(host) ? `[${host}]` : host}`
  return URL.canParse(address) ? new URL(address).hostname : host
}
