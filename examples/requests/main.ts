/**
 * Asks what things cost. Requests wait in a stream until a consumer handles them; answers come over pub/sub, from the process
 * that handled the request.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Schedule, Schema } from "effect"
import { Consumer, Producer, Replies, Topic } from "waybill"
import { MemoryPubSub, MemoryStreams } from "waybill/memory"

class NoSuchItem extends Schema.TaggedError<NoSuchItem>()("NoSuchItem", { item: Schema.String }) {}
class DatabaseDown extends Schema.TaggedError<DatabaseDown>()("DatabaseDown", {}) {}

const Quote = Topic.request(Topic.make("quotes", { payload: Schema.Struct({ item: Schema.String }) }), {
  success: Schema.Struct({ cents: Schema.Int }),
  error: NoSuchItem
})

/** In a real program this part runs in other processes. */
const Quotes = Consumer.make(Quote, { group: "quotes", concurrency: 8 }).pipe(
  Consumer.respond(Quote, ({ item }, { attempt }) => {
    switch (item) {
      case "tea":
        return Effect.succeed({ cents: 250 })
      case "coffee":
        return attempt === 1 ? Effect.fail(new DatabaseDown()) : Effect.succeed({ cents: 300 })
      case "a house":
        return Effect.never
      default:
        return Effect.fail(new NoSuchItem({ item }))
    }
  }),
  Consumer.onFailure({ DatabaseDown: Consumer.retry(Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: 5 }))) }),
  Consumer.layer
)

const ask = (item: string) =>
  Producer.request(Quote, { item }, { timeout: "2 seconds" }).pipe(
    Effect.map(({ cents }) => `${item}: ${cents} cents`),
    Effect.catchTags({
      NoSuchItem: (refusal) => Effect.succeed(`${refusal.item}: none today`),
      Unanswered: ({ why }) => Effect.succeed(`${item}: no answer, ${why}`)
    }),
    Effect.flatMap(Console.log)
  )

const story = Effect.forEach(["tea", "coffee", "gold", "a house"], ask, { discard: true }).pipe(
  Effect.provide(Layer.merge(Quotes, Replies.layer))
)

// Pub/sub comes last: it is the transport for whatever needs no more than `at-most-once`, such as answers.
const Transports = Layer.merge(MemoryStreams.layer(), MemoryPubSub.layer())

NodeRuntime.runMain(Effect.provide(story, Transports))
