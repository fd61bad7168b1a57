/**
 * A source at one topic and group.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { CustodyScripts } from "./Scripts.ts"

export interface Supply {
  readonly pattern: string
  readonly scripts: CustodyScripts
  readonly keys: ReadonlyArray<string>
  /**
   * Calls `heard` with the milliseconds until something may be there to take, until the scope closes. Custody itself
   * announces what comes back on the topic's channel `wake`.
   */
  readonly listen: (heard: (millis: number) => void) => Effect.Effect<void, never, Scope.Scope>
}
