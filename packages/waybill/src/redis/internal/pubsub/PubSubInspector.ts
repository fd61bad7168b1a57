/**
 * Inspects topics that store no messages, and pauses their groups. Subscribers report what they hold about once
 * a second; none of it can be read.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Inspector } from "../../../Inspector.ts"
import { keysOf as listed } from "../connection/Script.ts"
import { groupOf } from "../inspect/Figures.ts"
import { Inspecting, type InspectorOptions } from "../inspect/Inspecting.ts"
import * as Scripts from "./Scripts.ts"

export const make = (options: InspectorOptions): Inspector["Service"] => {
  const inspecting = new Inspecting(options, Scripts.pattern)
  const { commands, keysOf, refresh } = options

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    // Those of this process report at once.
    yield* refresh(topic, group)
    const described = inspecting.call(topic, group, Scripts.describe, {})
    return groupOf(group, yield* inspecting.withoutOld(topic, group, described))
  })

  return inspecting.inspector({
    describe: Effect.fnUntraced(function* (topic) {
      const { meta } = keysOf(topic)
      const opened = yield* commands.run("hget", meta, (client) => client.hget(meta, "pattern"))
      const names = (yield* inspecting.groupsOf(topic)).toSorted()
      const groups = yield* Effect.forEach(names, (group) => describeGroup(topic, group))
      return { opened: opened ?? "", retention: "none", depth: 0, published: -1, delayed: 0, next: -1, groups }
    }),

    redrive: (topic, group, entries) => inspecting.call(topic, group, Scripts.redrive, {}, { args: entries }),

    purge: () => Effect.void,

    retire: (topic, group) => Effect.asVoid(inspecting.call(topic, group, Scripts.retire, { group })),

    removal: Scripts.remove,
    belongings: (topic) =>
      Effect.map(inspecting.groupsOf(topic), (names) => ({
        others: [keysOf(topic).meta],
        indexes: names.map((group) => keysOf(topic).group(group).deadIds),
        topic: { keys: [], kinds: [], args: [] },
        groups: names.toSorted().map((group) => {
          const keys = keysOf(topic).group(group)
          const { kinds } = Scripts.describe
          return { group, state: keys.state, keys: listed(Scripts.describe, keys), kinds, args: [] }
        })
      }))
  })
}
