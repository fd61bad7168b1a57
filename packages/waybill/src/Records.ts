/**
 * Reading what commits have written. A result is a consistent view at the moment the store returns it: it contains a commit
 * that was settled before as a whole, and nothing of one that was not.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Condition, Lookup, Query } from "./Commit.ts"
import { find, type GuaranteeOf, type Name, notProvided, type TransportError } from "./Transport.ts"

/**
 * Reads a record beside a transactional topic. Fails with `WrongKeyType` if it was written as another kind of record.
 * A record that was never written is empty. With a schema, fails with `InvalidRecord` if the content does not fit.
 *
 * A handler may read too, but what it reads may have changed when its commit is applied: two handlers that read a
 * balance and write a new one lose one of the changes. Increments add up whatever happens in between; where that
 * is not enough, use `observe`.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Records, Topic } from "waybill"
 *
 * const Transfer = Topic.make("ledger/transfers", { payload: Schema.String, guarantee: "transactional" })
 * const balances = Commit.hash("balances")
 *
 * const program = Effect.gen(function*() {
 *   const all = yield* Records.read(Transfer, balances.all)
 *   yield* Effect.log(`ada has ${all.get("ada")}`)
 * })
 * ```
 */
export const read = <A, On, E = never>(
  topic: { readonly name: string; readonly on: Name<On> & Commits<On> },
  query: Query<A, E>
): Effect.Effect<A, TransportError | E, On> =>
  Effect.contextWith((context) => {
    const records = find(context, topic.on)?.records
    return records === undefined
      ? Effect.fail(notProvided(context, topic.on, "inspect", topic.name))
      : records.read(topic, query)
  })

/** What a record held when it was read. */
export interface Observed<out A> {
  readonly value: A
  /** Holds if the record is unchanged, byte for byte, when the commit is applied. */
  readonly unchanged: Condition
}

/**
 * Reads one value as `read` does, together with the condition that it is unchanged. A commit with that condition loses no
 * update: if the record was changed in the meantime, nothing of the commit is applied, and the handler fails with
 * `Commit.ConditionFailed`, so that its route can run it again. The condition never holds for a value that is not valid UTF-8,
 * which only another program can have written.
 *
 * @example
 * ```ts
 * import { Effect, Schedule, Schema } from "effect"
 * import { Commit, Consumer, Records, Topic } from "waybill"
 *
 * const Order = Topic.make("shop/orders", {
 *   payload: Schema.Struct({ item: Schema.String, count: Schema.Int }),
 *   guarantee: "transactional"
 * })
 * const stock = Commit.values("stock", Schema.Struct({ left: Schema.Int, sold: Schema.Int }))
 *
 * const Sell = Consumer.make(Order, { group: "sell", concurrency: 16 }).pipe(
 *   Consumer.transactional(function*({ count, item }) {
 *     const seen = yield* Records.observe(Order, stock.get(item))
 *     const { left, sold } = seen.value ?? { left: 0, sold: 0 }
 *     if (left < count) return yield* Effect.fail("sold out")
 *     return Commit.make({
 *       conditions: [seen.unchanged],
 *       writes: [stock.set(item, { left: left - count, sold: sold + count })]
 *     })
 *   }),
 *   Consumer.onFailure({
 *     ConditionFailed: Consumer.retry(Schedule.exponential("20 millis").pipe(Schedule.upTo({ times: 8 })))
 *   }),
 *   Consumer.orElse(Consumer.deadLetter()),
 *   Consumer.layer
 * )
 * ```
 */
export const observe = <A, On, E = never>(
  topic: { readonly name: string; readonly on: Name<On> & Commits<On> },
  { args, command, decode, key, type }: Lookup<A, E>
): Effect.Effect<Observed<A>, TransportError | E, On> =>
  read(topic, {
    key,
    type,
    command,
    args,
    decode: (reply) =>
      Exit.map(decode(reply), (value) => ({
        value,
        unchanged: { key, type, command, args, expected: reply === null ? null : String(reply) }
      }))
  })

/** Only a transactional topic has commits. */
type Commits<On> = GuaranteeOf<On> extends "transactional" ? unknown : "only a transactional topic has records"
