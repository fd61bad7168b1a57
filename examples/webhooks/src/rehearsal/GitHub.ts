/**
 * Plays GitHub: sends the deliveries of a plan, some at a time, and keeps what the server said to each.
 */
import { Effect, Schedule, Schema } from "effect"
import { HttpClient, HttpClientError, HttpClientRequest } from "effect/http"
import type { Plan, Send } from "./Plan.ts"

export interface Answered {
  readonly send: Send
  readonly status: number
  /** `Stored` or `Duplicate`; `undefined` when the server refused. */
  readonly receipt: string | undefined
  /** Why the server refused, in its words; `undefined` when it did not. */
  readonly refusal: string | undefined
  /** How often it was sent until there was an answer other than 503. */
  readonly tries: number
}

const concurrency = 8

const Answer = Schema.fromJsonString(
  Schema.Struct({ receipt: Schema.optional(Schema.String), error: Schema.optional(Schema.String) })
)
const decodeAnswer = Schema.decodeUnknownEffect(Answer)

/** GitHub leaves it to people to press "redeliver"; ours press it every 200 ms, for 30 s at most. */
const redeliver = Schedule.spaced("200 millis").pipe(Schedule.upTo({ duration: "30 seconds" }))

const deliver = Effect.fnUntraced(function* (url: string, send: Send) {
  const client = yield* HttpClient.HttpClient
  let tries = 0
  const { status, text } = yield* Effect.gen(function* () {
    tries++
    const response = yield* HttpClientRequest.post(url).pipe(
      HttpClientRequest.setHeaders(send.headers),
      HttpClientRequest.bodyText(send.body, "application/json"),
      client.execute
    )
    return { status: response.status, text: yield* response.text }
  }).pipe(
    Effect.repeat({ schedule: redeliver, until: ({ status }) => status !== 503 }),
    Effect.retry({ schedule: redeliver, while: HttpClientError.isHttpClientError })
  )
  const { error, receipt } = yield* Effect.orElseSucceed(decodeAnswer(text), () => ({
    error: text,
    receipt: undefined
  }))
  const answered: Answered = { send, status, receipt, refusal: status === 202 ? undefined : (error ?? text), tries }
  return answered
})

/** Sends all of them; `answered` hears of each answer as it comes. */
export const deliverAll = Effect.fn("GitHub.deliverAll")(function* (
  url: string,
  plan: Plan,
  answered: (answer: Answered) => void
) {
  return yield* Effect.forEach(
    plan.sends,
    (send) => Effect.tap(deliver(url, send), (answer) => Effect.sync(() => answered(answer))),
    { concurrency }
  )
})
