/**
 * The service behind group `downstream`, as bad as real ones: it fails, does not answer, and asks to come back later,
 * each delivery in the way that the plan has for it. It listens on a free port of 127.0.0.1.
 */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Effect, Layer } from "effect"
import { HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import type { Answer, Mood } from "./Plan.ts"

export class FlakyService extends Context.Service<
  FlakyService,
  {
    readonly url: string
    /** How often each delivery was taken. */
    readonly taken: Effect.Effect<ReadonlyMap<string, number>>
    /** How often it gave each answer. */
    readonly answers: Effect.Effect<ReadonlyMap<Answer, number>>
  }
>()("webhooks/rehearsal/FlakyService") {
  static readonly layer = (moods: ReadonlyMap<string, Mood>) =>
    Layer.effect(
      FlakyService,
      Effect.gen(function* () {
        const server = yield* HttpServer.HttpServer
        const asked = new Map<string, number>()
        const taken = new Map<string, number>()
        const answers = new Map<Answer, number>()
        const count = <K>(counts: Map<K, number>, key: K) => {
          const before = counts.get(key) ?? 0
          counts.set(key, before + 1)
          return before
        }
        yield* server.serve(
          Effect.gen(function* () {
            const request = yield* HttpServerRequest.HttpServerRequest
            const id = request.headers["idempotency-key"] ?? ""
            const mood = moods.get(id) ?? (["ok"] as const)
            const answer = mood[Math.min(count(asked, id), mood.length - 1)] ?? "ok"
            count(answers, answer)
            if (answer === "ok") count(taken, id)
            return yield* answering[answer]
            // The server runs handlers uninterruptible; one that hangs has to end when its client gives up.
          }).pipe(Effect.interruptible)
        )
        return {
          url: HttpServer.formatAddress(server.address),
          taken: Effect.sync(() => taken),
          answers: Effect.sync(() => answers)
        }
      })
    ).pipe(
      // Nobody waits for those who were left hanging.
      Layer.provide(
        NodeHttpServer.layer(createServer, { port: 0, host: "127.0.0.1", gracefulShutdownTimeout: "100 millis" })
      )
    )
}

const answering: Record<Answer, Effect.Effect<HttpServerResponse.HttpServerResponse>> = {
  ok: Effect.succeed(HttpServerResponse.empty({ status: 204 })),
  fail: Effect.succeed(HttpServerResponse.empty({ status: 503 })),
  hang: Effect.never,
  busy: Effect.succeed(HttpServerResponse.empty({ status: 429, headers: { "retry-after": "1" } })),
  refuse: Effect.succeed(HttpServerResponse.empty({ status: 422 }))
}
