/** The types of payloads that change, and of topics with several types of messages. */
import { Context, Effect, Schema } from "effect"
import { expectTypeOf } from "vitest"
import { Consumer, Producer, Topic, type Transport } from "waybill"

const V1 = Schema.Struct({ name: Schema.String })
const V2 = Schema.Struct({ first: Schema.String, last: Schema.String })
class NoDirectory extends Schema.TaggedError<NoDirectory>()("NoDirectory", {}) {}
class Directory extends Context.Service<Directory, { readonly first: Effect.Effect<string, NoDirectory> }>()(
  "Directory"
) {}

const fallible = Topic.from(V1, ({ name }) =>
  Effect.flatMap(Directory, ({ first }) => Effect.map(first, (first) => ({ first, last: name })))
)
const People = Topic.make("people", { version: 2, payload: V2, from: { 1: fallible } })
expectTypeOf(People).toEqualTypeOf<Topic.Topic<typeof V2.Type, Transport.AtLeastOnce, Directory, never, NoDirectory>>()
// It is published like any other.
Producer.publish(People, { first: "a", last: "b" })

// A failed migration needs a route.
const source = Consumer.make(People, { group: "g" })
const handled = source.pipe(Consumer.process(() => Effect.void))
expectTypeOf(handled).toEqualTypeOf<
  Consumer.Consumer<void, NoDirectory, Directory | Transport.AtLeastOnce, typeof V2.Type>
>()
Consumer.layer(Consumer.onFailure(handled, { NoDirectory: Consumer.deadLetter() }))
// @ts-expect-error NoDirectory has no row
Consumer.layer(handled)

// A migration that cannot fail needs none, and a `DecodeFailure` has its place already.
const plain = Topic.from(V1, ({ name }) =>
  name === ""
    ? Effect.fail(new Topic.DecodeFailure({ topic: "", issue: "" }))
    : Effect.succeed({ first: name, last: "" })
)
Consumer.layer(
  Consumer.make(Topic.make("people", { version: 2, payload: V2, from: { 1: plain } }), { group: "g" }).pipe(
    Consumer.process(() => Effect.void)
  )
)

// It makes the current payload.
const wrong = Topic.from(V1, ({ name }) => Effect.succeed({ first: name }))
// @ts-expect-error the migrated payload has no `last`
Topic.make("people", { version: 2, payload: V2, from: { 1: wrong } })

// What is written has a way back.
const back = Topic.from(
  V1,
  ({ name }) => Effect.succeed({ first: name, last: "" }),
  ({ first }: typeof V2.Type) => ({ name: first })
)
Topic.make("people", { version: 2, payload: V2, from: { 1: back }, write: 1 })
Topic.make("people", { version: 2, payload: V2, from: { 1: back }, write: 2 })
// @ts-expect-error version 1 has no way back
Topic.make("people", { version: 2, payload: V2, from: { 1: plain }, write: 1 })
// @ts-expect-error older than what?
Topic.make("people", { payload: V2, from: { 1: plain } })
// @ts-expect-error version 3 is not there
Topic.make("people", { version: 2, payload: V2, from: { 1: back }, write: 3 })

const OrderPlaced = Schema.TaggedStruct("OrderPlaced", { cents: Schema.Int })
const OrderCancelled = Schema.TaggedStruct("OrderCancelled", { why: Schema.String })
const Orders = Topic.make("orders", { payload: Topic.union({ OrderPlaced, OrderCancelled }) })
// @ts-expect-error its tag is OrderPlaced
Topic.union({ Placed: OrderPlaced })
Consumer.make(Orders, { group: "g", only: { types: ["OrderCancelled"], key: ["a"] } })
// @ts-expect-error no type of this topic
Consumer.make(Orders, { group: "g", only: { types: ["OrderCanceled"] } })

const orders = Consumer.make(Orders, { group: "g" })
const dispatched = orders.pipe(
  Consumer.dispatch({
    OrderPlaced: ({ cents }) => (cents > 1 ? Effect.fail(new NoDirectory()) : Effect.succeed(cents)),
    OrderCancelled: function* ({ why }) {
      yield* Directory
      return why
    }
  })
)
expectTypeOf(dispatched).toEqualTypeOf<
  Consumer.Consumer<
    number | string,
    NoDirectory,
    Directory | Transport.AtLeastOnce,
    typeof OrderPlaced.Type | typeof OrderCancelled.Type
  >
>()
Consumer.dispatch(orders, { OrderPlaced: () => Effect.void, OrderCancelled: ({ why }) => Effect.log(why) })
// @ts-expect-error OrderCancelled has no handler
orders.pipe(Consumer.dispatch({ OrderPlaced: () => Effect.void }))
const three = { OrderPlaced: () => Effect.void, OrderCancelled: () => Effect.void, OrderLost: () => Effect.void }
// @ts-expect-error there is no OrderLost
Consumer.dispatch(orders, three)
