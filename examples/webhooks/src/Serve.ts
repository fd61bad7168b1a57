/**
 * Stays up for a real GitHub hook until it is told to stop. What was taken by then is finished or handed back.
 */
import { Config, Console, Effect, Layer } from "effect"
import { HttpServer } from "effect/http"
import * as App from "./App.ts"
import { FlakyService } from "./rehearsal/FlakyService.ts"
import * as Streams from "./Streams.ts"
import { WebhookSecret } from "./WebhookServer.ts"

export interface Options {
  readonly host: string
  readonly port: number
  readonly auditLog: string
}

/** The service at `DOWNSTREAM_URL`; without it one of our own that takes everything. */
const downstreamUrl = Effect.gen(function* () {
  const url = yield* Config.String("DOWNSTREAM_URL").pipe(Config.withDefault(""))
  if (url !== "") return url
  return (yield* FlakyService.pipe(Effect.provide(yield* Layer.build(FlakyService.layer(new Map()))))).url
})

const announce = (options: Options) =>
  HttpServer.addressFormattedWith((address) =>
    Console.log(
      `listening on ${address}/webhooks/github\n` +
        `audit log in ${options.auditLog}\n` +
        `${process.env["REDIS_URL"] === undefined ? "in memory: what is not done when I stop is gone" : "on Redis"}`
    )
  )

export const serve = Effect.fn("serve")(function* (options: Options) {
  const downstream = yield* downstreamUrl
  const app = App.layer({ ...options, downstream }).pipe(
    Layer.provide(WebhookSecret.layerConfig),
    Layer.provide(Streams.layer("webhooks"))
  )
  return yield* Effect.andThen(announce(options), Effect.never).pipe(Effect.provide(app))
}, Effect.scoped)
