/**
 * Inspects single messages of a topic whose groups keep claims, and steers them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { MessageInGroup } from "../../../Inspector.ts"
import * as Attempts from "../../../internal/Attempts.ts"
import { plain } from "../../../internal/PlainMessage.ts"
import { noPriorities } from "../../../internal/Unplaced.ts"
import type { Reason } from "../../../Transport.ts"
import type { More } from "../connection/ScriptReply.ts"
import { deadLetterOf } from "../inspect/DeadLetterEntry.ts"
import type { Inspecting, Single } from "../inspect/Inspecting.ts"
import { read as readTally } from "../wire/Tally.ts"
import { loneDelivery } from "./ClaimedDelivery.ts"
import { groupKeys, type MessageScripts, ofGroup } from "./MessageScripts.ts"

export const make = (
  inspecting: Inspecting,
  consumersOf: (topic: string, group: string) => Effect.Effect<ReadonlyArray<string>, Reason>,
  scripts: MessageScripts
): Single => {
  const more = Effect.fnUntraced(function* (topic: string, id: string): Effect.fn.Return<More, Reason> {
    const keys = inspecting.keysOf(topic)
    const of: {
      keys: Array<string>
      kinds: Array<"string" | "set" | (typeof ofGroup)[keyof typeof ofGroup]>
      args: Array<string>
    } = { keys: [keys.seen(id)], kinds: ["string"], args: [] }
    for (const group of yield* inspecting.groupsOf(topic)) {
      const consumers = yield* consumersOf(topic, group)
      const mine = keys.group(group)
      of.keys.push(...groupKeys.map((name) => mine[name]), ...consumers.map(mine.processing))
      of.kinds.push(...Object.values(ofGroup), ...consumers.map(() => "set" as const))
      of.args.push(group, String(consumers.length), ...consumers)
    }
    return of
  })

  /** Asks again while others join. */
  const about = <Reply extends { readonly _tag: string }>(
    topic: string,
    id: string,
    ask: (more: More) => Effect.Effect<Reply | { readonly _tag: "AGAIN" }, Reason>
  ): Effect.Effect<Exclude<Reply, { readonly _tag: "AGAIN" }>, Reason> =>
    Effect.flatMap(more(topic, id), ask).pipe(
      Effect.repeat({
        until: (reply): reply is Exclude<Reply, { readonly _tag: "AGAIN" }> => reply._tag !== "AGAIN"
      })
    )

  return {
    locate: Effect.fnUntraced(function* (topic, id) {
      const found = yield* about(topic, id, (more) => inspecting.call(topic, undefined, scripts.locate, { id }, more))
      const { due, entry, now } = found
      const places = found.groups.map((place) => {
        const { attempts, cause, consumer, dueAt, fields, group, heldMillis, letter, record, state, tally } = place
        const dead = state === "D" ? deadLetterOf(topic, group, letter, fields) : undefined
        const message = dead ?? (record.length === 0 ? undefined : loneDelivery(topic, group, entry, 1, record))
        const attemptLog = Attempts.read(readTally(tally)?.log ?? "")
        const of = (): MessageInGroup => {
          if (dead !== undefined) return { _tag: "Dead", group, deadLetter: dead }
          if (state === "P") return { _tag: "Pending", group, consumer, attempt: attempts + 1, heldMillis, attemptLog }
          if (state !== "W") return { _tag: state === "R" ? "Ready" : "Settled", group }
          return { _tag: "Waiting", group, attempts, dueAt, dueInMillis: Math.max(0, dueAt - now), cause, attemptLog }
        }
        return { inGroup: of(), message }
      })
      const main = found.record.length === 0 ? undefined : loneDelivery(topic, "", entry, 1, found.record)
      // It is somewhere: otherwise it was not found.
      const message = plain((main ?? places.find(({ message }) => message !== undefined)?.message)!)
      const groups = due < 0 ? places.map(({ inGroup }) => inGroup) : []
      return { ...message, dueAt: due < 0 ? undefined : due, groups }
    }),

    delayed: (topic, { after, limit }) => {
      const from = Option.getOrElse(after, () => "a")
      return Effect.map(inspecting.call(topic, undefined, scripts.delayed, { from, limit }), ({ now, rows }) =>
        rows.map(({ dueAt, entry, position, record }) => ({
          ...plain(loneDelivery(topic, "", entry, 1, record)),
          position,
          dueAt,
          dueInMillis: Math.max(0, dueAt - now)
        }))
      )
    },

    remove: (topic, id) =>
      about(topic, id, (more) => inspecting.call(topic, undefined, scripts.removeMessage, { id }, more)),

    cancel: (topic, id) =>
      Effect.map(
        about(topic, id, (more) => inspecting.call(topic, undefined, scripts.cancel, { id }, more)),
        ({ groups }) => groups
      ),

    changePriority: Effect.fnUntraced(function* (topic, id, priority) {
      const { changePriority } = scripts
      if (changePriority === undefined) return yield* noPriorities
      const reply = yield* about(topic, id, (more) =>
        inspecting.call(topic, undefined, changePriority, { id, priority }, more)
      )
      if (reply._tag === "UNRANKED") return yield* noPriorities
    }),

    reschedule: (topic, id, at) => {
      const time = Math.ceil(at)
      return about(topic, id, (more) => inspecting.call(topic, undefined, scripts.reschedule, { id, time }, more))
    }
  }
}
