/**
 * Freezing a receiver.
 *
 * @module
 */
import { Effect, Predicate, type Scope } from "effect"
import type { Transport } from "waybill"

/** As registered by `waybill`. */
const Freezable = Symbol.for("waybill/Freezable")

/**
 * Until the scope closes, the receiver behaves as if its process stood still: it takes and renews nothing, so that
 * other members of its group take over its deliveries once the lease has passed. Works with every Waybill transport
 * that has leases; dies with any other receiver.
 *
 * @category testing
 */
export const freeze = (receiver: Transport.Receiver): Effect.Effect<void, never, Scope.Scope> => {
  if (!Predicate.hasProperty(receiver, Freezable)) return Effect.die(new Error("this receiver cannot be frozen"))
  // The symbol is only ever put on a method of this type.
  const set = receiver[Freezable] as (frozen: boolean) => Effect.Effect<void>
  return Effect.acquireRelease(set(true), () => set(false))
}
