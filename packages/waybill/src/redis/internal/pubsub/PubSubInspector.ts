/**
 * Looks at topics that store no messages, and steers their groups. What subscribers hold they tell themselves, about once
 * a second; nothing of it can be read.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { checked, type Inspector, type TopicInfo } from "../../../Inspector.ts"
import { keysOf as listed } from "../connection/Script.ts"
import { groupOf } from "../inspect/Figures.ts"
import { failing, Inspecting, type InspectorOptions } from "../inspect/Inspecting.ts"
import { marker } from "../wire/Envelope.ts"
import * as Scripts from "./Scripts.ts"

export const make = (options: InspectorOptions): Context.Service.Shape<typeof Inspector> => {
  const inspecting = new Inspecting(options, Scripts.pattern)
  const { commands, keysOf, steered } = options

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    // Those of this process tell at once what they hold.
    yield* steered(topic, group)
    const look = inspecting.evaluate(topic, Scripts.describe, keysOf(topic).group(group), {})
    return groupOf(group, yield* inspecting.withoutOld(topic, group, look))
  })

  const groupsOf = (topic: string) => {
    const key = keysOf(topic).groups
    return commands.run("smembers", (client) => client.smembers(key), { key })
  }

  return checked({
    ...inspecting.plain,

    describe: (topic) =>
      Effect.gen(function* () {
        const { meta } = keysOf(topic)
        const opened = yield* commands.run("hget", (client) => client.hget(meta, "pattern"), { key: meta })
        const names = yield* groupsOf(topic)
        const info: TopicInfo = {
          topic,
          pattern: opened ?? Scripts.pattern,
          retention: "none",
          depth: 0,
          delayed: 0,
          nextDelayedAt: undefined,
          groups: yield* Effect.forEach(names.sort(), (group) => describeGroup(topic, group))
        }
        return info
      }).pipe(failing(topic)),

    messages: () => Effect.succeed([]),
    pending: () => Effect.succeed([]),
    waiting: () => Effect.succeed([]),

    redrive: (topic, group, deadLetters) =>
      inspecting.inBatches(topic, deadLetters, (some) =>
        inspecting.evaluate(topic, Scripts.redrive, keysOf(topic).group(group), { marker }, { args: some })
      ),

    remove: (topic) =>
      Effect.flatMap(groupsOf(topic), (names) =>
        inspecting.remove(topic, Scripts.remove, {
          others: [[keysOf(topic).meta, "hash"]],
          topic: { keys: [], args: [] },
          groups: names.sort().map((group) => {
            const keys = keysOf(topic).group(group)
            return { group, state: keys.state, keys: listed(Scripts.describe, keys), args: [] }
          })
        })
      ).pipe(failing(topic))
  })
}
