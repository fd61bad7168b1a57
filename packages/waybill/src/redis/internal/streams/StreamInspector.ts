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
import {
  failing,
  type Figures,
  groupOf,
  Inspecting,
  type InspectorOptions,
  messageOf,
  type Moved
} from "../inspect/Inspecting.ts"
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
        const { delayed, group, groups, meta, stream } = keysOf(topic)
        const look = Effect.fnUntraced(function* (names: ReadonlyArray<string>) {
          const [, opened, depth, later, next, published, figures, others] = yield* inspecting.evaluate<DescribeReply>(
            topic,
            InspectScripts.describe,
            [stream, meta, delayed, ...names.map(group).flatMap(describedOf)],
            [nobody, ...names]
          )
          for (const [i, name] of names.entries()) {
            const found = figures[i]
            if (found !== undefined) seen.set(name, groupOf(name, found))
            if (found?.[11] === 1) old.add(name)
          }
          return { opened, depth, later, next, published, others }
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
      const key = keysOf(topic).stream
      const backwards = Option.isNone(after) && (newest === true || before !== undefined)
      // The server knows no interval that ends in front of the first id there is, or begins behind the last one.
      if (backwards && before !== undefined && /^0+(-0+)?$/.test(before)) return Effect.succeed([])
      if (Option.exists(after, (position) => position === lastId)) return Effect.succeed([])
      const from = backwards ? before : Option.getOrUndefined(after)
      return inspecting
        .evaluateExactly<[Uint8Array, ReadonlyArray<readonly [entry: Uint8Array, fields: Bytes]>]>(
          topic,
          InspectScripts.messages,
          [key],
          [from ?? "", limit, backwards ? 1 : 0]
        )
        .pipe(
          Effect.map(([, entries]) =>
            (backwards ? entries.toReversed() : entries).map(([entry, fields]): StoredMessage => {
              const position = String(entry)
              const storedAt = Number.parseInt(position, 10)
              return { ...storedOf(topic, "", 0, position, fields), position, storedAt }
            })
          ),
          failing(topic)
        )
    },

    pending: (topic, group, { after, limit }) => {
      const keys = keysOf(topic)
      const mine = keys.group(group)
      const [source, entry] = Option.match(after, {
        onNone: () => ["0", ""],
        onSome: (position) => [position.slice(0, 1), position.slice(1)]
      })
      return inspecting
        .evaluateExactly<[Uint8Array, ReadonlyArray<PendingRow>]>(
          topic,
          InspectScripts.pending,
          [keys.stream, mine.retry, mine.released, mine.state],
          [group, nobody, source, entry, limit]
        )
        .pipe(
          Effect.map(([, rows]) =>
            rows.map(([from, bytes, consumer, heldMillis, count, released, fields]): PendingMessage => {
              const delivery = deliveryOf(topic, group, from, String(bytes), count, released, fields)
              return {
                ...messageOf(delivery),
                position: `${from}${String(bytes)}`,
                consumer: String(consumer),
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
      const mine = keys.group(group)
      return inspecting
        .evaluateExactly<[Uint8Array, number, ReadonlyArray<WaitingRow>]>(
          topic,
          InspectScripts.waiting,
          [keys.stream, mine.retry, mine.released, mine.waiting, mine.waitingBodies],
          [group, nobody, Option.getOrElse(after, () => "a"), limit]
        )
        .pipe(
          Effect.map(([, now, rows]) =>
            rows.map(([position, source, entry, dueAt, count, released, fields, cause]): WaitingMessage => {
              const delivery = deliveryOf(topic, group, source, String(entry), count, released, fields)
              return {
                ...messageOf(delivery),
                position: String(position),
                attempts: delivery.attempt,
                dueAt,
                dueInMillis: Math.max(0, dueAt - now),
                cause: cause === undefined ? "" : String(cause)
              }
            })
          ),
          failing(topic)
        )
    },

    redrive: (topic, group, deadLetters) => {
      const { dead, retry, state } = keysOf(topic).group(group)
      return inspecting.inBatches(topic, deadLetters, (some) =>
        inspecting.evaluate<Moved>(topic, InspectScripts.redrive, [dead, retry, state], some)
      )
    },

    remove: (topic) =>
      Effect.gen(function* () {
        const { delayed, delayedBodies, group: groupKeys, groups, meta, stream } = keysOf(topic)
        const shared = [stream, meta, delayed]
        const registered = yield* commands.run("smembers", (client) => client.smembers(groups), { key: groups })
        const [, , , , , , , others] = yield* inspecting.evaluate<DescribeReply>(
          topic,
          InspectScripts.describe,
          shared,
          [nobody]
        )
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

/** Of the script `describe`. */
type DescribeReply = readonly [
  tag: string,
  opened: string,
  depth: number,
  delayed: number,
  next: number,
  published: number,
  figures: ReadonlyArray<Figures>,
  others: ReadonlyArray<string>
]

type Bytes = ReadonlyArray<Uint8Array>

type PendingRow = readonly [
  source: Source,
  entry: Uint8Array,
  consumer: Uint8Array,
  heldMillis: number,
  count: number,
  released: number,
  fields: Bytes
]

type WaitingRow = readonly [
  position: Uint8Array,
  source: Source,
  entry: Uint8Array,
  dueAt: number,
  count: number,
  released: number,
  fields: Bytes,
  cause?: Uint8Array
]

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
