/**
 * Inspects single messages of a stream, and steers them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { MessageInGroup } from "../../../Inspector.ts"
import * as Attempts from "../../../internal/Attempts.ts"
import { plain } from "../../../internal/PlainMessage.ts"
import { deadLetterOf } from "../inspect/DeadLetterEntry.ts"
import type { Inspecting, Single } from "../inspect/Inspecting.ts"
import { read as readTally } from "../wire/Tally.ts"
import * as Scripts from "./MessageScripts.ts"
import { deliveryOf } from "./StreamDelivery.ts"

export const make = (inspecting: Inspecting): Single => {
  const more = (topic: string, id: string) =>
    Effect.map(inspecting.groupsOf(topic), (groups) => {
      const keys = inspecting.keysOf(topic)
      const ofGroups = groups.flatMap((group) => Scripts.groupKeys.map((name) => keys.group(group)[name]))
      const kinds = groups.flatMap(() => Object.values(Scripts.ofGroup))
      return { keys: [keys.seen(id), ...ofGroups], kinds: ["string" as const, ...kinds], args: groups }
    })

  return {
    locate: Effect.fnUntraced(function* (topic, id) {
      const found = yield* inspecting.call(topic, undefined, Scripts.locate, { id }, yield* more(topic, id))
      const { due, entry, now } = found
      const places = found.groups.map((place) => {
        const fields = place.fields.length === 0 ? found.fields : place.fields
        const { cause, consumer, count, dueAt, group, heldMillis, released, source, state } = place
        const dead = state === "D" ? deadLetterOf(topic, group, place.entry, fields) : undefined
        const delivery = deliveryOf(topic, group, source, place.entry, count, released, fields)
        const log = Attempts.joined(delivery.handle.tally.log, readTally(place.died)?.log ?? "")
        const attemptLog = Attempts.read(log)
        const of = (): MessageInGroup => {
          if (dead !== undefined) return { _tag: "Dead", group, deadLetter: dead }
          if (state === "P")
            return { _tag: "Pending", group, consumer, attempt: delivery.attempt, heldMillis, attemptLog }
          if (state !== "W") return { _tag: state === "R" ? "Ready" : "Settled", group }
          const dueInMillis = Math.max(0, dueAt - now)
          return { _tag: "Waiting", group, attempts: delivery.attempt, dueAt, dueInMillis, cause, attemptLog }
        }
        return { inGroup: of(), isSettled: state === "S", message: dead ?? delivery }
      })
      const main = found.fields.length === 0 ? undefined : deliveryOf(topic, "", 0, entry, 1, 0, found.fields)
      const message = plain(main ?? places.find(({ isSettled }) => !isSettled)!.message)
      const groups = due < 0 ? places.map(({ inGroup }) => inGroup) : []
      const storedAt = entry === "" || due >= 0 ? undefined : Number.parseInt(entry, 10)
      return { ...message, dueAt: due < 0 ? undefined : due, storedAt, groups }
    }),

    delayed: (topic, { after, limit }) => {
      const from = Option.getOrElse(after, () => "a")
      return Effect.map(inspecting.call(topic, undefined, Scripts.delayed, { from, limit }), ({ now, rows }) =>
        rows.map(({ dueAt, fields, position }) => ({
          ...plain(deliveryOf(topic, "", 0, "", 1, 0, fields)),
          position,
          dueAt,
          dueInMillis: Math.max(0, dueAt - now)
        }))
      )
    },

    remove: (topic, id) =>
      Effect.flatMap(more(topic, id), (keys) => inspecting.call(topic, undefined, Scripts.removeMessage, { id }, keys)),

    cancel: (topic, id) =>
      Effect.flatMap(more(topic, id), (keys) =>
        Effect.map(inspecting.call(topic, undefined, Scripts.cancel, { id }, keys), ({ groups }) => groups)
      ),

    reschedule: (topic, id, at) =>
      Effect.flatMap(more(topic, id), (keys) =>
        inspecting.call(topic, undefined, Scripts.reschedule, { id, time: Math.ceil(at) }, keys)
      )
  }
}
