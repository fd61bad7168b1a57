/**
 * Inspects topics of the streams pattern and pauses their groups, including topics written by other programs.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { GroupInfo, Inspector, Retention } from "../../../Inspector.ts"
import { keysOf as listed, namesOf } from "../connection/Script.ts"
import { groupOf } from "../inspect/Figures.ts"
import { type Account, Inspecting, type InspectorOptions } from "../inspect/Inspecting.ts"
import { type GroupKeys, keys } from "../wire/Keys.ts"
import { pattern } from "./GroupScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"
import { administering } from "./StreamAdministration.ts"
import { deliveryOf } from "./StreamDelivery.ts"
import * as StreamMessages from "./StreamMessages.ts"

/** How many groups one script inspects: no other client is served meanwhile. */
const groupsAtOnce = 100

/** The largest possible id. */
const lastId = "18446744073709551615-18446744073709551615"

/** The keys of a group that the script `describe` uses. */
const described = keys("retry", "waiting", "dead", "consumers", "state")
const describedOf = (group: GroupKeys) => namesOf(described).map((name) => group[name])
const describedKinds = Object.values(described)

export const make = (options: InspectorOptions): Inspector["Service"] => {
  const inspecting = new Inspecting(options, pattern)
  const { keysOf } = options

  /** Registered ones, and those that other programs created. */
  const groupsOf = Effect.fnUntraced(function* (topic: string) {
    const registered = yield* inspecting.groupsOf(topic)
    const { others } = yield* inspecting.call(topic, undefined, InspectScripts.describe, {})
    return [...new Set([...registered, ...others])].sort()
  })

  /** Inspects some groups at a time: groups that others created are not registered, and the first reply reports them. */
  const describe = Effect.fnUntraced(function* (topic: string) {
    const keys = keysOf(topic)
    const seen = new Map<string, GroupInfo>()
    /** Groups with dead letters that are too old to count, but were counted. */
    const old = new Set<string>()
    const inspect = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
      const described = names.map(keys.group).flatMap(describedOf)
      const more = { keys: described, kinds: names.flatMap(() => describedKinds), args: names }
      const told = yield* inspecting.call(topic, undefined, InspectScripts.describe, {}, more)
      for (const [i, name] of names.entries()) {
        const found = told.figures[i]
        if (found !== undefined) seen.set(name, groupOf(name, found))
        if (found?.old) old.add(name)
      }
      return told
    })
    const registered = yield* inspecting.groupsOf(topic)
    const told = yield* inspect(registered.slice(0, groupsAtOnce))
    const rest = [...new Set([...registered, ...told.others])].slice(Math.min(registered.length, groupsAtOnce))
    for (let i = 0; i < rest.length; i += groupsAtOnce) yield* inspect(rest.slice(i, i + groupsAtOnce))
    const expired = [...old]
    yield* Effect.forEach(expired, (name) => inspecting.expire(topic, name), { discard: true })
    for (let i = 0; i < expired.length; i += groupsAtOnce) yield* inspect(expired.slice(i, i + groupsAtOnce))
    const retention: Retention = told.limited ? "length" : told.keepsHistory ? "history" : "settled"
    return {
      ...told,
      retention,
      delayed: told.later,
      groups: [...seen.keys()].sort().flatMap((name) => seen.get(name) ?? [])
    }
  })

  return inspecting.inspector({
    describe,
    single: StreamMessages.make(inspecting),

    stored: storedIn(inspecting),

    redrive: (topic, group, entries) => inspecting.call(topic, group, InspectScripts.redrive, {}, { args: entries }),

    ...administering(inspecting, groupsOf),

    removal: InspectScripts.remove,
    belongings: Effect.fnUntraced(function* (topic) {
      const keys = keysOf(topic)
      const names = yield* groupsOf(topic)
      const mine = names.map((name) => ({ ...keys.group(name), name }))
      return {
        others: [keys.delayedBodies, keys.unique, ...mine.flatMap((one) => [one.released, one.waitingBodies])],
        indexes: [
          keys.promoted,
          keys.ownIds,
          ...mine.flatMap(({ cancelled, deadIds, retryIds }) => [cancelled, deadIds, retryIds])
        ],
        topic: {
          keys: [...listed(InspectScripts.describe, keys), ...mine.flatMap(describedOf), keys.types],
          kinds: [...InspectScripts.describe.kinds, ...mine.flatMap(() => describedKinds), "stream"],
          args: names
        },
        groups: mine.map(({ name, retry, state }) => ({
          group: name,
          state,
          keys: [keys.stream, retry, state],
          kinds: ["stream", "stream", "hash"] as const,
          args: [name]
        }))
      }
    })
  })
}

const storedIn = (inspecting: Inspecting): NonNullable<Account["stored"]> => ({
  messages: (topic, { from, limit, newest }) => {
    // The server knows no interval that ends before the first possible id, or begins after the last one.
    if (newest === 1 ? /^0+(-0+)?$/.test(from) : from === lastId) return Effect.succeed([])
    return Effect.map(
      inspecting.call(topic, undefined, InspectScripts.messages, { from, limit, newest }),
      ({ entries }) =>
        (newest === 1 ? entries.toReversed() : entries).map(({ entry, fields }) => ({
          position: entry,
          delivery: deliveryOf(topic, "", 0, entry, 1, 0, fields),
          storedAt: Number.parseInt(entry, 10)
        }))
    )
  },

  pending: (topic, group, { after, limit }) => {
    const position = Option.getOrElse(after, () => "0")
    const from = { first: position.startsWith("1") ? 1 : 0, from: position.slice(1) }
    return Effect.map(inspecting.call(topic, group, InspectScripts.pending, { group, ...from, limit }), ({ rows }) =>
      rows.map(({ consumer, count, entry, fields, heldMillis, released, source }) => ({
        position: `${source}${entry}`,
        delivery: deliveryOf(topic, group, source, entry, count, released, fields),
        consumer,
        heldMillis
      }))
    )
  },

  waiting: (topic, group, { after, limit }) => {
    const from = Option.getOrElse(after, () => "a")
    return Effect.map(
      inspecting.call(topic, group, InspectScripts.waiting, { group, from, limit }),
      ({ now, rows }) => ({
        now,
        rows: rows.map(({ cause, count, dueAt, entry, fields, position, released, source }) => {
          const delivery = deliveryOf(topic, group, source, entry, count, released, fields)
          return { position, delivery, dueAt, cause, log: delivery.handle.tally.log }
        })
      })
    )
  }
})
