/**
 * Group `index`: the newest state of every issue and pull request. At least once, in any order: applying a delivery
 * twice, or an old one after a new one, changes nothing.
 */
import { Context, DateTime, Effect, Layer, Schema } from "effect"
import { Consumer } from "waybill"
import { type Webhook, Webhooks } from "./Webhook.ts"

export interface Item {
  readonly kind: "issue" | "pull request"
  readonly repository: string
  readonly number: number
  readonly title: string
  readonly author: string
  /** Some actions, such as `pinned`, do not say it. */
  readonly state: string | undefined
  readonly updatedAt: DateTime.Utc
  /** The delivery that said so. */
  readonly delivery: string
}

/** Several deliveries may tell of the same second: their ids decide, so that the order of arrival never does. */
const isNewer = (item: Item, known: Item): boolean =>
  DateTime.Equivalence(known.updatedAt, item.updatedAt)
    ? item.delivery > known.delivery
    : DateTime.isLessThan(known.updatedAt, item.updatedAt)

const Subject = Schema.Struct({
  number: Schema.Int,
  title: Schema.String,
  state: Schema.optional(Schema.String),
  user: Schema.Struct({ login: Schema.String }),
  updated_at: Schema.DateTimeUtcFromString
})
const repository = Schema.Struct({ full_name: Schema.String })
const Issues = Schema.Struct({ repository, issue: Subject })
const PullRequest = Schema.Struct({ repository, pull_request: Subject })

const decodeIssues = Schema.decodeUnknownEffect(Issues)
const decodePullRequest = Schema.decodeUnknownEffect(PullRequest)

/** GitHub says that it is an issue or a pull request, and it does not look like one. */
export class Misshapen extends Schema.TaggedError<Misshapen>()("Misshapen", {
  event: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return `this is no ${this.event} event: ${this.issue}`
  }
}

export class Index extends Context.Service<
  Index,
  {
    /** Keeps the item unless a newer state of it is there. */
    readonly put: (item: Item) => Effect.Effect<void>
    readonly items: Effect.Effect<ReadonlyArray<Item>>
    /** How often each delivery was applied. */
    readonly applied: Effect.Effect<ReadonlyMap<string, number>>
  }
>()("webhooks/Index") {
  static readonly layer = Layer.sync(Index, () => {
    const items = new Map<string, Item>()
    const applied = new Map<string, number>()
    return {
      put: (item) =>
        Effect.sync(() => {
          applied.set(item.delivery, (applied.get(item.delivery) ?? 0) + 1)
          const key = `${item.repository} ${item.kind} ${item.number}`
          const known = items.get(key)
          if (known === undefined || isNewer(item, known)) items.set(key, item)
        }),
      items: Effect.sync(() => [...items.values()]),
      applied: Effect.sync(() => applied)
    }
  })
}

const decode = Effect.fnUntraced(
  function* ({ event, payload }: Webhook, delivery: string) {
    const [kind, { full_name }, { number, state, title, updated_at, user }] =
      event === "issues"
        ? yield* Effect.map(decodeIssues(payload), (it) => ["issue", it.repository, it.issue] as const)
        : yield* Effect.map(
            decodePullRequest(payload),
            (it) => ["pull request", it.repository, it.pull_request] as const
          )
    const item: Item = {
      kind,
      repository: full_name,
      number,
      title,
      author: user.login,
      state,
      updatedAt: updated_at,
      delivery
    }
    return item
  },
  (decoded, { event }) => Effect.mapError(decoded, (error) => new Misshapen({ event, issue: error.message }))
)

export const wants = (webhook: { readonly event: string }): boolean =>
  webhook.event === "issues" || webhook.event === "pull_request"

export const group = "index"

export const consumer = Consumer.make(Webhooks, { group, concurrency: 8 }).pipe(
  Consumer.process((webhook, delivery) =>
    wants(webhook)
      ? Effect.flatMap(decode(webhook, delivery.id), (item) => Index.use((index) => index.put(item)))
      : Effect.void
  ),
  Consumer.onFailure({
    Misshapen: Consumer.deadLetter()
  })
)

export const layer = Consumer.layer(consumer)
