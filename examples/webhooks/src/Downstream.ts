/**
 * Group `downstream`: tells another service what people did. At least once: the service gets the delivery id as
 * idempotency key, and a repetition after a crash carries the same one.
 */
import { Context, Duration, Effect, Layer, Schedule, Schema } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { Consumer } from "waybill"
import { summary, type Webhook, Webhooks } from "./Webhook.ts"

/** It answered 5xx, or not at all. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", { why: Schema.String }) {
  override get message(): string {
    return this.why
  }
}

/** It answered 429 and said when to come back. */
export class Busy extends Schema.TaggedError<Busy>()("Busy", { retryAfter: Schema.Duration }) {
  override get message(): string {
    return `asked to come back after ${Duration.format(this.retryAfter)}`
  }
}

/** It answered 4xx: it will never take this one. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", { status: Schema.Int }) {
  override get message(): string {
    return `answered ${this.status}`
  }
}

export class Downstream extends Context.Service<
  Downstream,
  {
    /** Returns when the service has taken it. */
    readonly notify: (delivery: string, webhook: Webhook) => Effect.Effect<void, Unavailable | Busy | Refused>
  }
>()("webhooks/Downstream") {
  /** The service that listens at `url`. */
  static readonly layer = (url: string) =>
    Layer.effect(
      Downstream,
      Effect.gen(function* () {
        const client = yield* HttpClient.HttpClient
        const notify = Effect.fn("Downstream.notify")(function* (delivery: string, webhook: Webhook) {
          const { action, repository, sender } = summary(webhook) ?? {}
          const response = yield* HttpClientRequest.post(url).pipe(
            HttpClientRequest.setHeader("idempotency-key", delivery),
            HttpClientRequest.bodyJsonUnsafe({
              event: webhook.event,
              action,
              repository: repository?.full_name,
              sender: sender?.login
            }),
            client.execute,
            Effect.mapError((error) => new Unavailable({ why: error.message }))
          )
          if (response.status === 429) {
            // Retry-After may also be a date; the standard backoff serves those who send one.
            const seconds = Number(response.headers["retry-after"] ?? 0)
            return yield* new Busy({ retryAfter: Duration.seconds(Number.isFinite(seconds) ? seconds : 0) })
          }
          if (response.status >= 500) return yield* new Unavailable({ why: `answered ${response.status}` })
          if (response.status >= 400) return yield* new Refused({ status: response.status })
        })
        return { notify }
      })
    )
}

/** What the service wants to hear of. The rest of GitHub's events is acked and goes no further. */
const wanted = new Set([
  "commit_comment",
  "discussion",
  "discussion_comment",
  "issue_comment",
  "issues",
  "pull_request",
  "pull_request_review",
  "pull_request_review_comment",
  "push",
  "release",
  "repository",
  "workflow_run"
])

export const wants = (webhook: { readonly event: string }): boolean => wanted.has(webhook.event)

/** 100 ms doubling, five retries, then dead letter: about 3 s. */
const backoff = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 5 }))

export const group = "downstream"

export const consumer = Consumer.make(Webhooks, { group, concurrency: 32 }).pipe(
  Consumer.process((webhook, delivery) =>
    wants(webhook) ? Downstream.use((downstream) => downstream.notify(delivery.id, webhook)) : Effect.void
  ),
  // A service that hangs is given up; one that is only held up, as is all of this on a busy machine, is not.
  Consumer.timeout("3 seconds"),
  Consumer.onFailure({
    Unavailable: Consumer.retry(backoff),
    HandlerTimeout: Consumer.retry(backoff),
    Busy: (error) => Consumer.retry(backoff, { after: error.retryAfter }),
    Refused: (error) => Consumer.deadLetter(`Refused ${error.status}`)
  })
)

export const layer = Consumer.layer(consumer)
