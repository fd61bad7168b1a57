/**
 * What claims are in Redis: members join, live, take, settle and leave; what the dead held goes to others. Each step
 * is one script, made once for each pattern, with the Lua of the pattern's source in front.
 *
 * Who holds a message is who has it in its set `processing:<consumer>`, under its id and fence (`id` for the first delivery,
 * `id#fence` for later ones): a settlement whose member is not there comes too late, and changes nothing.
 *
 * @module
 */
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
