/**
 * How `freeze` of `@waybill/testing` makes a receiver stand still. Not public: the symbol is registered, so that the two
 * packages share it without exporting it.
 *
 * @module
 */
import type * as Effect from "effect/Effect"

export const Freezable: unique symbol = Symbol.for("waybill/Freezable")

/** While it is frozen a receiver takes and renews nothing, as if its process stood still. What it is told to settle, it settles. */
export interface Freezable {
  readonly [Freezable]: (frozen: boolean) => Effect.Effect<void>
}
