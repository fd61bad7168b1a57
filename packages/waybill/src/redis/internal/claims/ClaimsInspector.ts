/**
 * Inspects topics whose groups keep claims; pauses and resumes them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Inspector, Retention } from "../../../Inspector.ts"
import type { Reason } from "../../../Transport.ts"
import { keysOf as listed } from "../connection/Script.ts"
import { groupOf } from "../inspect/Figures.ts"
import { Inspecting, type InspectorOptions } from "../inspect/Inspecting.ts"
import { read } from "../wire/Tally.ts"
import { loneDelivery } from "./ClaimedDelivery.ts"
import * as ClaimsMessages from "./ClaimsMessages.ts"
import type { ClaimsScripts } from "./Scripts.ts"

export const make = (
  options: InspectorOptions,
  pattern: string,
  retention: Retention,
  scripts: ClaimsScripts
): Inspector["Service"] => {
  const inspecting = new Inspecting(options, pattern)
  const { commands, keysOf } = options

  /** All that have joined and not left, including dead ones that were not found yet. */
  const consumersOf = (topic: string, group: string): Effect.Effect<ReadonlyArray<string>, Reason> => {
    const key = keysOf(topic).group(group).consumers
    return commands.run("zrange", key, (client) => client.zrange(key, "0", "-1"))
  }

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    const consumers = yield* consumersOf(topic, group)
    const more = { keys: consumers.map(keysOf(topic).group(group).processing), args: consumers }
    const described = inspecting.call(topic, group, scripts.describe, {}, more)
    return groupOf(group, yield* inspecting.withoutOld(topic, group, described))
  })

  return inspecting.inspector({
    describe: Effect.fnUntraced(function* (topic) {
      const overview = yield* inspecting.call(topic, undefined, scripts.overview, {})
      return {
        ...overview,
        retention,
        groups: yield* Effect.forEach(overview.names, (group) => describeGroup(topic, group))
      }
    }),

    ...(scripts.single && { single: ClaimsMessages.make(inspecting, consumersOf, scripts.single) }),

    stored: {
      messages: (topic, page) =>
        Effect.map(inspecting.call(topic, undefined, scripts.messages, page), ({ rows }) =>
          rows.map(({ id, record }) => ({ position: id, delivery: loneDelivery(topic, "", id, 1, record) }))
        ),

      pending: Effect.fnUntraced(function* (topic, group, { after, limit }) {
        const consumers = yield* consumersOf(topic, group)
        const more = { keys: consumers.map(keysOf(topic).group(group).processing), args: consumers }
        const from = Option.getOrElse(after, () => "")
        const { rows } = yield* inspecting.call(topic, group, scripts.pending, { from, limit }, more)
        return rows.map(({ attempt, consumer, heldMillis, member, record }) => {
          const delivery = loneDelivery(topic, group, member, attempt, record)
          return { position: member, delivery, consumer, heldMillis }
        })
      }),

      waiting: (topic, group, { after, limit }) => {
        const from = Option.getOrElse(after, () => "a")
        return Effect.map(inspecting.call(topic, group, scripts.waiting, { from, limit }), ({ now, rows }) => ({
          now,
          rows: rows.map(({ attempts, cause, dueAt, id, position, record, tally }) => {
            const delivery = loneDelivery(topic, group, id, attempts, record)
            return { position, delivery, dueAt, cause, log: read(tally)?.log ?? "" }
          })
        }))
      }
    },

    redrive: (topic, group, entries) => inspecting.call(topic, group, scripts.redrive, {}, { args: entries }),

    purge: Effect.fnUntraced(function* (topic) {
      let mark = ""
      for (const group of [...(yield* inspecting.groupsOf(topic)), undefined]) {
        for (let more = true; more;) {
          ;({ mark, more } = yield* inspecting.call(topic, group, scripts.purge, { mark }))
        }
      }
    }),

    retire: (topic, group) =>
      Effect.flatMap(consumersOf(topic, group), (consumers) => {
        const more = { keys: consumers.map(keysOf(topic).group(group).processing), args: consumers }
        return inspecting.call(topic, group, scripts.retire, { group }, more)
      }).pipe(Effect.repeat({ while: ({ _tag }) => _tag === "AGAIN" }), Effect.asVoid),

    removal: scripts.remove,
    belongings: Effect.fnUntraced(function* (topic) {
      const names = yield* inspecting.groupsOf(topic)
      return {
        others: [keysOf(topic).unique, ...names.map((group) => keysOf(topic).group(group).marks)],
        indexes: names.flatMap((group) => {
          const { cancelled, deadIds, omitted } = keysOf(topic).group(group)
          return [cancelled, deadIds, omitted]
        }),
        topic: { keys: listed(scripts.overview, inspecting.keysOf(topic)), kinds: scripts.overview.kinds, args: [] },
        groups: yield* Effect.forEach(names.toSorted(), (group) =>
          Effect.map(consumersOf(topic, group), (consumers) => {
            const keys = inspecting.keysOf(topic, group)
            const described = [...listed(scripts.describe, keys), ...consumers.map(keys.processing)]
            const kinds = [...scripts.describe.kinds, ...consumers.map(() => "set" as const)]
            return { group, state: keys.state, keys: described, kinds, args: consumers }
          })
        )
      }
    })
  })
}
