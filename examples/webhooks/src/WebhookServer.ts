/**
 * The door: what it answers with 202 is stored, once for each delivery id, and what it answers otherwise is not known
 * to be. GitHub may repeat a delivery after any answer without harm.
 */
import { verify } from "@octokit/webhooks-methods"
import { ByteSize, Config, Context, Effect, Layer, Redacted, Schema } from "effect"
import { HttpIncomingMessage, HttpRouter, type HttpServerRequest, HttpServerResponse } from "effect/http"
import { Producer } from "waybill"
import { maxBytes, Webhooks } from "./Webhook.ts"

/** The secret that GitHub signs with. */
export class WebhookSecret extends Context.Service<WebhookSecret, Redacted.Redacted>()("webhooks/WebhookSecret") {
  /** From `GITHUB_WEBHOOK_SECRET`. */
  static readonly layerConfig = Layer.effect(WebhookSecret, Config.Redacted("GITHUB_WEBHOOK_SECRET"))
}

/** The body was not signed with our secret: 401. */
export class BadSignature extends Schema.TaggedError<BadSignature>()("BadSignature", { why: Schema.String }) {}

/** Signed by GitHub, and no webhook all the same: 400. */
export class Malformed extends Schema.TaggedError<Malformed>()("Malformed", { why: Schema.String }) {}

/** More than `maxBytes`: 413. */
export class TooLarge extends Schema.TaggedError<TooLarge>()("TooLarge", {}) {}

/** The store is away or slow, and the delivery may be stored or not: 503. Sending it again is safe. */
export class StoreUnavailable extends Schema.TaggedError<StoreUnavailable>()("StoreUnavailable", {
  why: Schema.String
}) {}

/** GitHub waits 10 seconds for an answer. The transport gives up before that, and this is for one that does not. */
const patience = "8 seconds"

const retryAfterSeconds = 5

const parse = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.JsonObject))

const authenticate = Effect.fnUntraced(function* (body: string, signature: string | undefined) {
  if (signature === undefined) return yield* new BadSignature({ why: "no x-hub-signature-256" })
  const secret = yield* WebhookSecret
  const genuine = yield* Effect.promise(() => verify(Redacted.value(secret), body, signature))
  if (!genuine) return yield* new BadSignature({ why: "x-hub-signature-256 does not match the body" })
})

/** Verifies, decodes and publishes one request. The signature comes first: nothing else of a stranger is looked at. */
export const accept = Effect.fn("WebhookServer.accept")(function* (request: HttpServerRequest.HttpServerRequest) {
  const body = yield* request.text.pipe(
    Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(maxBytes)),
    Effect.mapError(({ reason }) =>
      reason._tag === "RequestParseError" && reason.reason === "BodyTooLarge"
        ? new TooLarge()
        : new Malformed({ why: "the body broke off" })
    )
  )
  if (body === "") return yield* new Malformed({ why: "the body is empty" })
  yield* authenticate(body, request.headers["x-hub-signature-256"])

  const id = request.headers["x-github-delivery"]
  const event = request.headers["x-github-event"]
  if (!id) return yield* new Malformed({ why: "no x-github-delivery" })
  if (!event) return yield* new Malformed({ why: "no x-github-event" })
  const payload = yield* Effect.mapError(parse(body), () => new Malformed({ why: "the body is not a JSON object" }))

  return yield* Producer.publish(Webhooks, { event, payload }, { id }).pipe(
    Effect.timeout(patience),
    Effect.catchTags({
      InvalidPayload: (error) => new Malformed({ why: error.issue }),
      PayloadTooLarge: () => new TooLarge(),
      TimeoutError: () => new StoreUnavailable({ why: "the store did not answer in time" }),
      TransportError: (error) => new StoreUnavailable({ why: error.message })
    })
  )
})

const refuse = (status: number, error: string, why: string, headers: Record<string, string> = {}) =>
  HttpServerResponse.jsonUnsafe({ error, why }, { status, headers })

const webhooks = (request: HttpServerRequest.HttpServerRequest) =>
  accept(request).pipe(
    Effect.map((receipt) => HttpServerResponse.jsonUnsafe({ id: receipt.id, receipt: receipt._tag }, { status: 202 })),
    Effect.catchTags({
      BadSignature: ({ why }) => Effect.succeed(refuse(401, "bad signature", why)),
      Malformed: ({ why }) => Effect.succeed(refuse(400, "malformed", why)),
      TooLarge: () => Effect.succeed(refuse(413, "too large", `the limit is ${maxBytes} bytes`)),
      StoreUnavailable: ({ why }) =>
        // A stranger learns that we are down, not what runs behind us.
        Effect.as(
          Effect.logWarning("a webhook could not be stored", why),
          refuse(503, "unavailable", "try again later", { "retry-after": `${retryAfterSeconds}` })
        )
    })
  )

const ok = HttpServerResponse.text("ok\n")

/** The routes. They need a transport to publish to, and the secret. */
export const routes = Layer.mergeAll(
  HttpRouter.add("POST", "/webhooks/github", webhooks),
  HttpRouter.add("GET", "/health", ok),
  HttpRouter.add("GET", "/", ok)
)
