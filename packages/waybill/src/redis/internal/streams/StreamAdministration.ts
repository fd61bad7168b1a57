/**
 * Purging a topic, and moving and retiring its groups. A group is only changed while no consumer of it is alive, and what consumers
 * hold of a purged topic stays theirs.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { MessageNotFound, type Reason } from "../../../Transport.ts"
import type { Account, Inspecting } from "../inspect/Inspecting.ts"
import { startOf, trim, trimLimit } from "./GroupScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"

export const administering = (
  inspecting: Inspecting,
  groupsOf: (topic: string) => Effect.Effect<ReadonlyArray<string>, Reason>
): Pick<Account, "purge" | "move" | "retire"> => ({
  purge: Effect.fnUntraced(function* (topic) {
    let upTo = ""
    for (const group of yield* groupsOf(topic)) {
      for (let more = true; more;) {
        const purging = inspecting.call(topic, group, InspectScripts.purgeGroup, { group, upTo })
        ;({ more, upTo } = yield* purging)
        yield* Effect.ignore(inspecting.call(topic, group, trim, { most: trimLimit, what: "none", limits: "" }))
      }
    }
    for (let more = true; more;) {
      ;({ more, upTo } = yield* inspecting.call(topic, undefined, InspectScripts.purge, { upTo, most: trimLimit }))
    }
  }),

  move: Effect.fnUntraced(function* (topic, group, to) {
    const place = typeof to === "object" && "after" in to ? to.after : startOf(to)
    if (place !== "$" && !/^\d{1,20}-\d{1,20}$/.test(place)) {
      return yield* new MessageNotFound({ id: place })
    }
    const moving = inspecting.call(topic, group, InspectScripts.move, { group, to: place })
    return (yield* Effect.repeat(moving, { while: ({ _tag }) => _tag === "AGAIN" }))._tag === "OK"
  }),

  retire: Effect.fnUntraced(function* (topic, group) {
    const { limited } = yield* inspecting.call(topic, group, InspectScripts.retire, { group })
    // The consumers of other groups trim with their next settlements, so it does not matter if this is not permitted.
    const trimming = inspecting.call(topic, group, trim, {
      most: trimLimit,
      what: limited ? "none" : "settled",
      limits: ""
    })
    yield* Effect.ignore(Effect.repeat(trimming, { while: ({ more }) => more }))
  })
})
