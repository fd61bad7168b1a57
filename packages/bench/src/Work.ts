/**
 * The messages that are sent: small orders of about 90 bytes of JSON with four fields, or the webhook payloads that
 * GitHub's own package ships. Each message carries its number, so that handling can be verified.
 */
import { createRequire } from "node:module"
import { Schema } from "effect"

/** A number and anything else. */
export interface Numbered {
  readonly seq: number
}

/** A kind of message: its form, and how the n-th one is made. */
export interface Work<A extends Numbered = Numbered> {
  readonly name: string
  readonly schema: Schema.Codec<A>
  /** That many messages, numbered from `from` or from 0. */
  readonly messages: (count: number, from?: number) => ReadonlyArray<A>
}

export const Order = Schema.Struct({
  seq: Schema.Int,
  customer: Schema.String,
  cents: Schema.Int,
  reference: Schema.String
})

/** 87 to 93 bytes of JSON, depending on the number. */
export const small: Work<typeof Order.Type> = {
  name: "small",
  schema: Order,
  messages: (count, from = 0) => numbers(count, from).map(order)
}

const order = (seq: number): typeof Order.Type => ({
  seq,
  customer: `customer-${1000 + (seq % 9000)}`,
  cents: 100 + (seq % 9000),
  reference: `order-${(seq * 2_654_435_761).toString(36).padStart(11, "0")}-eu-west`
})

const numbers = (count: number, from: number): ReadonlyArray<number> =>
  Array.from({ length: count }, (_, i) => from + i)

/** A number and a text of any length. */
const Document = Schema.Struct({ seq: Schema.Int, text: Schema.String })

/** Of a thousand messages, 959 have about 100 bytes, 40 about 20 kB, and one 1 MB: 1.9 kB on average. */
export const mixed: Work<typeof Document.Type> = {
  name: "mixed",
  schema: Document,
  messages: (count, from = 0) => numbers(count, from).map((seq) => ({ seq, text: textOf(seq) }))
}

const textOf = (seq: number): string => {
  const length = seq % 1000 === 999 ? 1_000_000 : seq % 25 === 0 ? 20_000 : 75
  return `${seq} `.repeat(Math.ceil(length / `${seq} `.length)).slice(0, length)
}

/** The envelope of examples/webhooks and a number. The payload is any JSON object, unchanged. */
export const Webhook = Schema.Struct({
  seq: Schema.Int,
  event: Schema.NonEmptyString,
  payload: Schema.JsonObject
})

/** The 329 payloads of `@octokit/webhooks-examples` in turn: 1 to 27 kB of JSON, 9.9 kB on average. */
export const webhooks: Work<typeof Webhook.Type> = {
  name: "webhooks",
  schema: Webhook,
  messages: (count, from = 0) => {
    const examples = loadExamples()
    return numbers(count, from).map((seq) => {
      // The remainder is an index of the array.
      const { event, payload } = examples[seq % examples.length]!
      return { seq, event, payload }
    })
  }
}

interface Example {
  readonly event: string
  readonly payload: Schema.JsonObject
}

/** 4 MB of JSON, read only by contenders that need it. */
const loadExamples = (): ReadonlyArray<Example> => {
  // The package has types of its own for its events; any JSON object will do here.
  const definitions: ReadonlyArray<{ readonly name: string; readonly examples: ReadonlyArray<Schema.JsonObject> }> =
    createRequire(import.meta.url)("@octokit/webhooks-examples")
  return definitions.flatMap(({ examples, name }) => examples.map((payload) => ({ event: name, payload })))
}
