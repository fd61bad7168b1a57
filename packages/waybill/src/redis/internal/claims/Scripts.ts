/**
 * How claims work in Redis: members join, send heartbeats, take, settle and leave, and what dead members held goes to others. Each
 * step is one script, made once for each pattern, beginning with the Lua of the pattern's source.
 *
 * A consumer holds a message while its set `processing:<consumer>` contains the message's id and fence (`id` for the first delivery,
 * `id#fence` for later ones). A settlement whose entry is missing from the set comes too late, and changes nothing.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Delivery } from "../../../Delivery.ts"
import type { Reason } from "../../../Transport.ts"
import { publishScript, type Storage } from "../publish/PublishScript.ts"
import { scheduleScript } from "../publish/ScheduleScripts.ts"
import * as DeliveryScripts from "./DeliveryScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"
import * as MemberScripts from "./MemberScripts.ts"
import * as MessageScripts from "./MessageScripts.ts"
import type { Source } from "./Source.ts"

export const make = (source: Source, storage: Storage) => ({
  publish: publishScript(source.pattern, storage),
  schedule: scheduleScript(source.pattern, storage),
  ...MemberScripts.make(source),
  ...DeliveryScripts.make(source),
  ...InspectScripts.make(source),
  /** Only for a source that finds messages by their ids. */
  single: source.finding === undefined ? undefined : MessageScripts.make(source)
})

export type ClaimsScripts = ReturnType<typeof make>

/** A source at one topic and group. */
export interface BoundSource {
  readonly pattern: string
  readonly scripts: ClaimsScripts
  /** The pattern's options as its Lua needs them. */
  readonly setting: string | number
  /** Whether messages expire. If not, one that disappears unread was trimmed by another program. */
  readonly expires: boolean
  /** How urgent a delivery is, 1 being the most urgent, if urgency decides the order. */
  readonly urgencyOf?: ((delivery: Delivery) => number) | undefined
  /**
   * Until the scope closes, calls `heard` with the milliseconds until something may be available, and its highest urgency if that is
   * known, or `refused` if there will be no notifications. The scripts announce messages that come back on the topic's channel `wake`.
   */
  readonly listen: (
    heard: (millis: number, urgency?: number) => void,
    refused: (reason: Reason) => void
  ) => Effect.Effect<void, never, Scope.Scope>
}
