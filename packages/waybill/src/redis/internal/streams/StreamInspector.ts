/**
 * Looks at topics of the streams pattern and steers their groups, also those that were written by other programs.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import {
  checked,
  type GroupInfo,
  type Inspector,
  type PendingMessage,
  type StoredMessage,
  type TopicInfo,
  type WaitingMessage
} from "../../../Inspector.ts"
import type { Message } from "../../../Message.ts"
import { keysOf as listed } from "../connection/Script.ts"
import { groupOf } from "../inspect/Figures.ts"
import { failing, Inspecting, type InspectorOptions, messageOf } from "../inspect/Inspecting.ts"
import type { GroupKeys } from "../wire/Keys.ts"
import { nobody, pattern } from "./GroupScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"
import { type Source, StreamDelivery } from "./StreamDelivery.ts"

/** How many groups one script looks at: no other client is served meanwhile. */
const groupsAtOnce = 100

/** The last id there is. */
const lastId = "18446744073709551615-18446744073709551615"

/** What the script `describe` looks at of a group. */
const describedOf = ({ consumers, dead, retry, state, waiting }: GroupKeys): ReadonlyArray<string> => [
  retry,
  waiting,
  dead,
  consumers,
  state
]

export const make = (options: InspectorOptions): Context.Service.Shape<typeof Inspector> => {
  const inspecting = new Inspecting(options, pattern)
  const { commands, keysOf } = options

  return checked({
    ...inspecting.plain,

    describe: (topic) =>
      Effect.gen(function* () {
        const keys = keysOf(topic)
        const { groups } = keys
        const look = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
          const told = yield* inspecting.evaluate(
            topic,
            InspectScripts.describe,
            keys,
            { nobody },
            { keys: names.map(keys.group).flatMap(describedOf), args: names }
          )
          for (const [i, name] of names.entries()) {
            const found = told.figures[i]
            if (found !== undefined) seen.set(name, groupOf(name, found))
            if (found?.old) old.add(name)
          }
          return told
        })
        const seen = new Map<string, GroupInfo>()
        /** Groups with dead letters that are too old to count, and were counted. */
        const old = new Set<string>()
        const registered = yield* commands.run("smembers", (client) => client.smembers(groups), { key: groups })
        const { depth, later, next, opened, others, published } = yield* look(registered.slice(0, groupsAtOnce))
        // Groups that others made are not members of the set.
        const rest = [...new Set([...registered, ...others])].slice(Math.min(registered.length, groupsAtOnce))
        for (let i = 0; i < rest.length; i += groupsAtOnce) yield* look(rest.slice(i, i + groupsAtOnce))
        const expired = [...old]
        yield* Effect.forEach(expired, (name) => inspecting.expire(topic, name), { discard: true })
        for (let i = 0; i < expired.length; i += groupsAtOnce) yield* look(expired.slice(i, i + groupsAtOnce))
        const info: TopicInfo = {
          topic,
          pattern: opened === "" ? pattern : opened,
          retention: "settled",
          depth,
          published: published < 0 ? undefined : published,
          delayed: later,
          nextDelayedAt: next < 0 ? undefined : next,
          groups: [...seen.keys()].sort().flatMap((name) => seen.get(name) ?? [])
        }
        return info
      }).pipe(failing(topic)),

    messages: (topic, { after, before, limit, newest }) => {
      const backwards = Option.isNone(after) && (newest === true || before !== undefined)
      // The server knows no interval that ends in front of the first id there is, or begins behind the last one.
      if (backwards && before !== undefined && /^0+(-0+)?$/.test(before)) return Effect.succeed([])
      if (Option.exists(after, (position) => position === lastId)) return Effect.succeed([])
      const from = backwards ? before : Option.getOrUndefined(after)
      return inspecting
        .evaluate(topic, InspectScripts.messages, keysOf(topic), {
          position: from ?? "",
          limit,
          newest: backwards ? 1 : 0
        })
        .pipe(
          Effect.map(({ entries }) =>
            (backwards ? entries.toReversed() : entries).map(({ entry, fields }): StoredMessage => ({
              ...storedOf(topic, "", 0, entry, fields),
              position: entry,
              storedAt: Number.parseInt(entry, 10)
            }))
          ),
          failing(topic)
        )
    },

    pending: (topic, group, { after, limit }) => {
      const keys = keysOf(topic)
      const position = Option.getOrElse(after, () => "0")
      return inspecting
        .evaluate(
          topic,
          InspectScripts.pending,
          { ...keys, ...keys.group(group) },
          { group, nobody, first: Number(position.slice(0, 1)), entry: position.slice(1), limit }
        )
        .pipe(
          Effect.map(({ rows }) =>
            rows.map(({ consumer, count, entry, fields, heldMillis, released, source }): PendingMessage => {
              const delivery = deliveryOf(topic, group, source, entry, count, released, fields)
              return {
                ...messageOf(delivery),
                position: `${source}${entry}`,
                consumer,
                attempt: delivery.attempt,
                heldMillis
              }
            })
          ),
          failing(topic)
        )
    },

    waiting: (topic, group, { after, limit }) => {
      const keys = keysOf(topic)
      const position = Option.getOrElse(after, () => "a")
      return inspecting
        .evaluate(topic, InspectScripts.waiting, { ...keys, ...keys.group(group) }, { group, nobody, position, limit })
        .pipe(
          Effect.map(({ now, rows }) =>
            rows.map(({ cause, count, dueAt, entry, fields, position, released, source }): WaitingMessage => {
              const delivery = deliveryOf(topic, group, source, entry, count, released, fields)
              return {
                ...messageOf(delivery),
                position,
                attempts: delivery.attempt,
                dueAt,
                dueInMillis: Math.max(0, dueAt - now),
                cause
              }
            })
          ),
          failing(topic)
        )
    },

    redrive: (topic, group, deadLetters) =>
      inspecting.inBatches(topic, deadLetters, (some) =>
        inspecting.evaluate(topic, InspectScripts.redrive, keysOf(topic).group(group), {}, { args: some })
      ),

    remove: (topic) =>
      Effect.gen(function* () {
        const keys = keysOf(topic)
        const { delayedBodies, group: groupKeys, groups, stream } = keys
        const shared = listed(InspectScripts.describe, keys)
        const registered = yield* commands.run("smembers", (client) => client.smembers(groups), { key: groups })
        const { others } = yield* inspecting.evaluate(topic, InspectScripts.describe, keys, { nobody })
        // Groups that others made are not members of the set.
        const names = [...new Set([...registered, ...others])].sort()
        const mine = names.map((name) => ({ ...groupKeys(name), name }))
        yield* inspecting.remove(topic, InspectScripts.remove, {
          others: [
            [delayedBodies, "hash"],
            ...mine.map(({ released }) => [released, "hash"] as const),
            ...mine.map(({ waitingBodies }) => [waitingBodies, "hash"] as const)
          ],
          topic: { keys: [...shared, ...mine.flatMap(describedOf)], args: [nobody, ...names] },
          groups: mine.map(({ name, retry, state }) => ({
            group: name,
            state,
            keys: [stream, retry, state],
            args: [name]
          }))
        })
      }).pipe(failing(topic))
  })
}

type Bytes = ReadonlyArray<Uint8Array>

const deliveryOf = (
  topic: string,
  group: string,
  source: Source,
  entry: string,
  count: number,
  released: number,
  fields: Bytes
): StreamDelivery => {
  const delivery = new StreamDelivery(topic, group, source, entry, count, released, fields.map(String), 0)
  delivery.useBytes(fields)
  return delivery
}

const storedOf = (topic: string, group: string, source: Source, entry: string, fields: Bytes): Message =>
  messageOf(deliveryOf(topic, group, source, entry, 1, 0, fields))
