/**
 * What the rehearsal will send and what has to become of it, all of it drawn from one seed. The plan knows the end of
 * every delivery in every group beforehand, so the report can be held against it.
 */
import { createRequire } from "node:module"
import { sign } from "@octokit/webhooks-methods"
import { Effect, Random, type Redacted, Redacted as Redaction, Schema } from "effect"
import * as Audit from "../Audit.ts"
import * as Downstream from "../Downstream.ts"
import * as Index from "../Index.ts"
import { maxBytes } from "../Webhook.ts"

/** One request to the server. */
export interface Send {
  readonly kind: Kind
  readonly id: string
  readonly event: string
  readonly body: string
  readonly headers: Readonly<Record<string, string>>
}

export type Kind =
  | "webhook"
  /** The same delivery again, as GitHub does when somebody asks for it or when our answer got lost. */
  | "redelivery"
  /** Signed JSON that is not what its event says. Only those who decode it can notice. */
  | "misshapen"
  | "malformed"
  | "bad signature"
  | "too large"

/** How the downstream service answers a delivery: the answers in turn, and the last one for ever. */
export type Mood = readonly [Answer, ...Array<Answer>]
export type Answer = "ok" | "fail" | "hang" | "busy" | "refuse"

export interface Plan {
  readonly seed: string
  readonly sends: ReadonlyArray<Send>
  /** By delivery id. Everybody else is answered at once. */
  readonly moods: ReadonlyMap<string, Mood>
  readonly groups: ReadonlyArray<{
    readonly group: string
    /** Whether the group keeps a record of it, or acks it unread. */
    readonly wants: (send: Send) => boolean
    /** The reason it is dead-lettered for; `undefined` when it is acked. */
    readonly deadLetter: (send: Send) => string | undefined
  }>
}

/** The payloads that GitHub's own developers use for their tests. */
const Examples = Schema.Array(Schema.Struct({ name: Schema.String, examples: Schema.Array(Schema.JsonObject) }))

const loadExamples = Effect.suspend(() => {
  // A JSON file as package entry; its types are 3000 lines that we would have to trust instead of decoding.
  const raw: unknown = createRequire(import.meta.url)("@octokit/webhooks-examples")
  return Effect.orDie(Schema.decodeUnknownEffect(Examples)(raw))
})

const uuid = Effect.map(Effect.replicateEffect(Random.nextIntBetween(0, 0xffff), 8), (words) => {
  const hex = words.map((word) => word.toString(16).padStart(4, "0")).join("")
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`
})

const redeliveries = 33
const misshapen = 3

/** Out of about 150 deliveries that go downstream. */
const moodSwings: ReadonlyArray<readonly [count: number, mood: Mood]> = [
  [12, ["fail", "ok"]],
  [6, ["fail", "fail", "fail", "ok"]],
  [6, ["hang", "ok"]],
  [8, ["busy", "ok"]],
  [4, ["fail", "busy", "hang", "ok"]],
  [5, ["refuse"]],
  [3, ["fail"]]
]

export const make = Effect.fn("Plan.make")(
  function* (secret: Redacted.Redacted, seed: string) {
    const signed = Effect.fnUntraced(function* (kind: Kind, event: string, body: string, drop: string = "") {
      const id = yield* uuid
      const headers: Record<string, string> = {
        "content-type": "application/json",
        "x-github-event": event,
        "x-github-delivery": id,
        "x-hub-signature-256": yield* Effect.promise(() => sign(Redaction.value(secret), body))
      }
      delete headers[drop]
      return { kind, id, event, body, headers }
    })
    const stranger = Redaction.make("somebody else's secret")
    const unsigned = Effect.fnUntraced(function* (event: string, body: string) {
      const send = yield* signed("bad signature", event, body)
      const signature = yield* Effect.promise(() => sign(Redaction.value(stranger), body))
      return { ...send, headers: { ...send.headers, "x-hub-signature-256": signature } }
    })

    const examples = (yield* loadExamples).flatMap(({ examples, name }) =>
      examples.map((payload) => [name, JSON.stringify(payload)] as const)
    )
    const some = Effect.fnUntraced(function* (count: number) {
      return (yield* Random.shuffle(examples)).slice(0, count)
    })

    const webhooks: ReadonlyArray<Send> = yield* Effect.forEach(examples, ([event, body]) =>
      signed("webhook", event, body)
    )
    const repeated = (yield* Random.shuffle(webhooks)).slice(0, redeliveries)
    const odd: ReadonlyArray<Send> = [
      ...(yield* Effect.replicateEffect(signed("misshapen", "issues", '{"action":"opened"}'), misshapen)),
      ...(yield* Effect.forEach(yield* some(4), ([event, body]) => signed("malformed", event, body.slice(0, -1)))),
      ...(yield* Effect.forEach(yield* some(2), ([event]) => signed("malformed", event, '["no object"]'))),
      ...(yield* Effect.forEach(yield* some(2), ([event, body]) =>
        signed("malformed", event, body, "x-github-delivery")
      )),
      ...(yield* Effect.forEach(yield* some(2), ([event, body]) => signed("malformed", event, body, "x-github-event"))),
      ...(yield* Effect.forEach(yield* some(9), ([event, body]) => unsigned(event, body))),
      ...(yield* Effect.forEach(yield* some(3), ([event, body]) =>
        signed("bad signature", event, body, "x-hub-signature-256")
      )),
      yield* signed("too large", "push", JSON.stringify({ padding: "x".repeat(maxBytes) }))
    ]
    const once = yield* Random.shuffle([...webhooks, ...odd])
    const sends = yield* withRedeliveries(once, repeated)

    const moods = new Map<string, Mood>()
    const downstream = (yield* Random.shuffle(webhooks.filter(Downstream.wants)))[Symbol.iterator]()
    for (const [count, mood] of moodSwings) {
      for (let i = 0; i < count; i++) {
        const { value } = downstream.next()
        if (value !== undefined) moods.set(value.id, mood)
      }
    }

    const plan: Plan = {
      seed,
      sends,
      moods,
      groups: [
        {
          group: Index.group,
          wants: Index.wants,
          deadLetter: ({ kind }) => (kind === "misshapen" ? "Misshapen" : undefined)
        },
        {
          group: Downstream.group,
          wants: Downstream.wants,
          deadLetter: ({ id }) => {
            const last = moods.get(id)?.at(-1)
            return last === "refuse" ? "Refused 422" : last === "fail" ? "Unavailable" : undefined
          }
        },
        { group: Audit.group, wants: () => true, deadLetter: () => undefined }
      ]
    }
    return plan
  },
  (effect, _secret, seed) => Random.withSeed(effect, seed)
)

/** Each somewhere after its original; every third right behind it, so that both are under way at the same time. */
const withRedeliveries = Effect.fnUntraced(function* (once: ReadonlyArray<Send>, repeated: ReadonlyArray<Send>) {
  const sends = [...once]
  for (const [i, send] of repeated.entries()) {
    const original = sends.findIndex(({ id }) => id === send.id)
    const place = i % 3 === 0 ? original + 1 : yield* Random.nextIntBetween(original + 1, sends.length)
    sends.splice(place, 0, { ...send, kind: "redelivery" })
  }
  return sends
})
