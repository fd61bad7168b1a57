/**
 * Tells people who were named, whether they look or not: an e-mail for each mention. At least once; a post office that is
 * down is asked again for a minute, and what cannot be delivered ends in the dead letters. The chat never waits for any of it.
 *
 * @module
 */
import { Context, Effect, Layer, Random, Schedule, Schema } from "effect"
import { Consumer } from "waybill"
import { type Mention, Mentions } from "./Mention.ts"

/** The post office is busy, or not there. */
export class PostOfficeBusy extends Schema.TaggedError<PostOfficeBusy>()("PostOfficeBusy", {}) {}

/** Nobody lives there. */
export class AddressUnknown extends Schema.TaggedError<AddressUnknown>()("AddressUnknown", { user: Schema.String }) {}

export class Notifications extends Context.Service<
  Notifications,
  { readonly notify: (mention: Mention) => Effect.Effect<void, PostOfficeBusy | AddressUnknown> }
>()("chat/Notifications") {
  /**
   * A post office of this process that is as bad as real ones: one time in three it is busy, and it has no address of
   * users whose name begins with `nobody`.
   */
  static readonly layerFlaky = (seed: string): Layer.Layer<Notifications> =>
    Layer.effect(
      Notifications,
      Effect.gen(function* () {
        const random = yield* Random.Random.pipe(Random.withSeed(seed))
        return Notifications.of({
          notify: Effect.fn("Notifications.notify")(function* ({ by, room, to }) {
            if (random.nextDoubleUnsafe() < 1 / 3) return yield* new PostOfficeBusy({})
            if (to.startsWith("nobody")) return yield* new AddressUnknown({ user: to })
            yield* Effect.logInfo(`e-mail to ${to}: ${by} has named you in ${room}`)
          })
        })
      })
    )
}

/** Seven attempts in about a minute. */
const backoff = Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 6 }))

export const layer = Consumer.make(Mentions, { group: "email", concurrency: 8 }).pipe(
  Consumer.process((mention) => Notifications.use(({ notify }) => notify(mention))),
  Consumer.onFailure({
    PostOfficeBusy: () => Consumer.retry(backoff),
    AddressUnknown: () => Consumer.deadLetter()
  }),
  Consumer.layer
)
