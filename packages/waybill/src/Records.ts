/**
 * Reading what commits have written. An answer is true at the moment the store gives it: a commit that was settled before
 * is in it as a whole, one that was not is not in it at all.
 *
 * @module
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Query } from "./Commit.ts"
import type { TransportError } from "./TransportError.ts"

/**
 * Provided by the layers that provide `Transactional`.
 *
 * A handler may read too, but what it reads may have changed when its commit is applied: two handlers that read a
 * balance and write a new one lose one of the changes. Increments add up whatever happens in between.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Records, Topic } from "waybill"
 *
 * const Transfer = Topic.make("ledger/transfers", { payload: Schema.String })
 * const balances = Commit.hash("balances")
 *
 * const program = Effect.gen(function*() {
 *   const records = yield* Records.Records
 *   const all = yield* records.read(Transfer, balances.all)
 *   yield* Effect.log(`ada has ${all.get("ada")}`)
 * })
 * ```
 */
export class Records extends Context.Service<
  Records,
  {
    /**
     * Reads a record beside `topic`. Fails with `WrongKeyType` when it was written as another kind of record; a record
     * that was never written is empty.
     */
    readonly read: <A>(topic: { readonly name: string }, query: Query<A>) => Effect.Effect<A, TransportError>
  }
>()("waybill/Records") {}
