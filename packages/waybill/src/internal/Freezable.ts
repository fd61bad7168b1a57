/**
 * How `freeze` of `@waybill/testing` freezes a receiver. Not public: the symbol is registered, so that the two packages can
 * share it without exporting it.
 *
 * @module
 */
import type * as Effect from "effect/Effect"

export const Freezable: unique symbol = Symbol.for("waybill/Freezable")

/** A frozen receiver takes and renews nothing, as if its process stood still. It still settles what it is told to. */
export interface Freezable {
  readonly [Freezable]: (frozen: boolean) => Effect.Effect<void>
}
