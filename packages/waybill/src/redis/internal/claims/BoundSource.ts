/**
 * A source bound to one topic and group.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Delivery } from "../../../Delivery.ts"
import type { Reason } from "../../../Transport.ts"
import type { ClaimsScripts } from "./Scripts.ts"

export interface BoundSource {
  readonly pattern: string
  readonly scripts: ClaimsScripts
  /** The pattern's options as its Lua needs them. */
  readonly setting: string | number
  /** Whether messages that are gone before they are read have expired, as intended; otherwise someone has trimmed them. */
  readonly expires: boolean
  /** How urgent a delivery is, 1 being the most, where urgency decides the order. */
  readonly urgencyOf?: ((delivery: Delivery) => number) | undefined
  /**
   * Calls `heard` with the milliseconds until something may be available, and with the highest urgency of it if given, and `refused`
   * if nothing will be heard, until the scope closes. The scripts announce messages that come back on the topic's channel `wake`.
   */
  readonly listen: (
    heard: (millis: number, urgency?: number) => void,
    refused: (reason: Reason) => void
  ) => Effect.Effect<void, never, Scope.Scope>
}
