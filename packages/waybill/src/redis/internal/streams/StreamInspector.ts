/**
 * Looks at topics of the streams pattern and steers their groups, also those that were written by other programs.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Inspector, PendingMessage, StoredMessage, TopicInfo, WaitingMessage } from "../../../Inspector.ts"
import type { Message } from "../../../Message.ts"
import { failing, type Figures, groupOf, Inspecting, type InspectorOptions, messageOf } from "../Inspecting.ts"
import { nobody, pattern } from "./GroupScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"
import { type Source, StreamDelivery } from "./StreamDelivery.ts"

export const make = (options: InspectorOptions): Context.Service.Shape<typeof Inspector> => {
  const inspecting = new Inspecting(options, pattern)
  const { commands, keysOf } = options

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    const keys = keysOf(topic)
    const mine = keys.group(group)
    const figures = yield* inspecting.evaluate<Figures>(
      topic,
      InspectScripts.describe,
      [keys.stream, mine.retry, mine.waiting, mine.dead, mine.consumers, mine.state],
      [group, nobody]
    )
    return groupOf(group, figures)
  })

  return {
    ...inspecting.plain,

    describe: (topic) =>
      Effect.gen(function* () {
        const keys = keysOf(topic)
        const [, opened, depth, delayed, next, groups, published] = yield* inspecting.evaluate<
          [string, string, number, number, number, ReadonlyArray<string>, number]
        >(topic, InspectScripts.overview, [keys.stream, keys.meta, keys.groups, keys.delayed], [])
        const info: TopicInfo = {
          topic,
          pattern: opened === "" ? pattern : opened,
          depth,
          published: published < 0 ? undefined : published,
          delayed,
          nextDelayedAt: next < 0 ? undefined : next,
          groups: yield* Effect.forEach(groups, (group) => describeGroup(topic, group))
        }
        return info
      }).pipe(failing(topic)),

    messages: (topic, { after, limit, newest }) => {
      const key = keysOf(topic).stream
      const backwards = newest === true && Option.isNone(after)
      return commands
        .run(
          "xrange",
          (client) =>
            backwards
              ? client.xrevrangeBuffer(key, "+", "-", "COUNT", limit)
              : client.xrangeBuffer(
                  key,
                  Option.match(after, { onNone: () => "-", onSome: (position) => `(${position}` }),
                  "+",
                  "COUNT",
                  limit
                ),
          { key }
        )
        .pipe(
          Effect.map((entries) =>
            (backwards ? entries.toReversed() : entries).map(([entry, fields]): StoredMessage => {
              const position = String(entry)
              return { ...storedOf(topic, "", 0, position, fields), position }
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
          [keys.stream, mine.retry, mine.released],
          [group, nobody, source, entry, limit]
        )
        .pipe(
          Effect.map(([, rows]) =>
            rows.map(([from, bytes, consumer, idle, count, released, fields]): PendingMessage => {
              const delivery = deliveryOf(topic, group, from, String(bytes), count, released, fields)
              return {
                ...messageOf(delivery),
                position: `${from}${String(bytes)}`,
                consumer: String(consumer),
                attempt: delivery.attempt,
                heldMillis: idle
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
          Effect.map(([, , rows]) =>
            rows.map(([position, source, entry, dueAt, count, released, fields, cause]): WaitingMessage => {
              const delivery = deliveryOf(topic, group, source, String(entry), count, released, fields)
              return {
                ...messageOf(delivery),
                position: String(position),
                attempts: delivery.attempt,
                dueAt,
                cause: cause === undefined ? "" : String(cause)
              }
            })
          ),
          failing(topic)
        )
    },

    redrive: (topic, group, deadLetters) => {
      const { dead, retry } = keysOf(topic).group(group)
      return inspecting.inBatches(topic, deadLetters, (some) =>
        Effect.map(
          inspecting.evaluate<[string, number]>(topic, InspectScripts.redrive, [dead, retry], some),
          ([, count]) => count
        )
      )
    }
  }
}

type Bytes = ReadonlyArray<Uint8Array>

type PendingRow = readonly [
  source: Source,
  entry: Uint8Array,
  consumer: Uint8Array,
  idle: number,
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
