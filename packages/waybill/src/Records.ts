/**
 * Reading what commits have written. A result is a consistent view at the moment the store returns it: it contains a commit
 * that was settled before as a whole, and nothing of one that was not.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Query } from "./Commit.ts"
import { find, type GuaranteeOf, type Name, notProvided, type TransportError } from "./Transport.ts"

/**
 * Reads a record beside a transactional topic. Fails with `WrongKeyType` if it was written as another kind of record.
 * A record that was never written is empty. With a schema, fails with `InvalidRecord` if the content does not fit.
 *
 * A handler may read too, but what it reads may have changed when its commit is applied: two handlers that read a
 * balance and write a new one lose one of the changes. Increments add up whatever happens in between.
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

/** Only a transactional topic has commits. */
type Commits<On> = GuaranteeOf<On> extends "transactional" ? unknown : "only a transactional topic has records"
