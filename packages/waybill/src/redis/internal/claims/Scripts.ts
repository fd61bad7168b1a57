/**
 * What claims are in Redis: members join, live, take, settle and leave; what the dead held goes to others. Each step
 * is one script, made once for each pattern, with the Lua of the pattern's source in front.
 *
 * Who holds a message is who has it in its set `processing:<consumer>`, under its id and fence (`id` for the first delivery,
 * `id#fence` for later ones): a settlement whose member is not there comes too late, and changes nothing.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Delivery } from "../../../Delivery.ts"
import type { Reason } from "../../../Transport.ts"
import { publishScript, type Storage } from "../publish/PublishScript.ts"
import * as DeliveryScripts from "./DeliveryScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"
import * as MemberScripts from "./MemberScripts.ts"
import type { Source } from "./Source.ts"

export const make = (source: Source, storage: Storage) => ({
  publish: publishScript(source.pattern, storage),
  ...MemberScripts.make(source),
  ...DeliveryScripts.make(source),
  ...InspectScripts.make(source)
})

export type ClaimsScripts = ReturnType<typeof make>

/** A source at one topic and group. */
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
