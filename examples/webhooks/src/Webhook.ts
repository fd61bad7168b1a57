/**
 * What this program is about: one event, as GitHub sends it, on one topic that every group reads.
 *
 * The payload stays the JSON it was. Each group decodes what it needs of it and nothing else, so a field that GitHub
 * adds or changes disturbs only those who read it.
 */
import { Schema } from "effect"
import { Topic } from "waybill"

export const Webhook = Schema.Struct({
  /** What happened, such as `issues` or `pull_request`: the header `x-github-event`. */
  event: Schema.NonEmptyString,
  payload: Schema.JsonObject
})
export type Webhook = typeof Webhook.Type

/** Larger bodies are refused. GitHub itself stops at 25 MB; its examples have 1 to 28 kB. */
export const maxBytes = 1_048_576

/** The message id is GitHub's delivery id, so a delivery that GitHub repeats is stored once. */
export const Webhooks = Topic.make("github.webhooks", {
  payload: Webhook,
  key: (webhook) => summary(webhook)?.repository?.full_name,
  maxBytes
})

/** The fields that nearly every payload has. */
const Summary = Schema.Struct({
  action: Schema.optional(Schema.String),
  repository: Schema.optional(Schema.Struct({ full_name: Schema.String })),
  sender: Schema.optional(Schema.Struct({ login: Schema.String }))
})

const decodeSummary = Schema.decodeUnknownOption(Summary)

/** Who did what and where, as far as the payload says it; `undefined` when it uses these words for something else. */
export const summary = (webhook: Webhook): typeof Summary.Type | undefined => {
  const decoded = decodeSummary(webhook.payload)
  return decoded._tag === "Some" ? decoded.value : undefined
}
