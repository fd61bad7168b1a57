/**
 * A source at one topic and group.
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
  /** What the options of the pattern say to its Lua. */
  readonly setting: string | number
  /** What is gone before it is read has expired, as it was told to; otherwise somebody has cut it away. */
  readonly expires: boolean
  /** How urgent a delivery is, 1 most of all, where that decides on the order. */
  readonly urgencyOf?: ((delivery: Delivery) => number) | undefined
  /**
   * Calls `heard` with the milliseconds until something may be there to take, and how urgent the most urgent of it is, if that was said, and `refused` when nothing will be heard of,
   * until the scope closes. The scripts announce what comes back on the topic's channel `wake`.
   */
  readonly listen: (
    heard: (millis: number, urgency?: number) => void,
    refused: (reason: Reason) => void
  ) => Effect.Effect<void, never, Scope.Scope>
}
