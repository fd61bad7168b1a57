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
