/**
 * Inspects topics whose groups keep claims; pauses and resumes them.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import {
  checked,
  type Inspector,
  type PendingMessage,
  type Retention,
  type StoredMessage,
  type TopicInfo,
  type WaitingMessage
} from "../../../Inspector.ts"
import type { Reason } from "../../../Transport.ts"
import {
  failing,
  type Figures,
  groupOf,
  Inspecting,
  type InspectorOptions,
  messageOf,
  type Moved
} from "../inspect/Inspecting.ts"
import type { BoundSource } from "./BoundSource.ts"
import { ClaimedDelivery } from "./ClaimedDelivery.ts"

/** `supplyOf` with a group: the keys of the source may differ from group to group. */
export const make = (
  options: InspectorOptions,
  pattern: string,
  retention: Retention,
  supplyOf: (topic: string, group: string) => Pick<BoundSource, "keys" | "scripts">
): Context.Service.Shape<typeof Inspector> => {
  const inspecting = new Inspecting(options, pattern)
  const { commands, keysOf } = options

  /** All that have joined and not left, dead ones that were not found yet included. */
  const consumersOf = (topic: string, group: string): Effect.Effect<ReadonlyArray<string>, Reason> => {
    const key = keysOf(topic).group(group).consumers
    return commands.run("zrange", (client) => client.zrange(key, "0", "-1"), { key })
  }

  /** What the script `describe` looks at. */
  const describedOf = (topic: string, group: string, consumers: ReadonlyArray<string>): ReadonlyArray<string> => {
    const mine = keysOf(topic).group(group)
    return [
      ...supplyOf(topic, group).keys,
      mine.waiting,
      mine.returned,
      mine.suspects,
      mine.dead,
      mine.consumers,
      mine.state,
      ...consumers.map(mine.processing)
    ]
  }

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    const { scripts } = supplyOf(topic, group)
    const consumers = yield* consumersOf(topic, group)
    const look = inspecting.evaluate<Figures>(topic, scripts.describe, describedOf(topic, group, consumers), consumers)
    return groupOf(group, yield* inspecting.withoutOld(topic, group, look))
  })

  return checked({
    ...inspecting.plain,

    describe: (topic) =>
      Effect.gen(function* () {
        const { groups, meta } = keysOf(topic)
        const { keys, scripts } = supplyOf(topic, "")
        const [, opened, depth, delayed, next, names, published] = yield* inspecting.evaluate<
          [string, string, number, number, number, ReadonlyArray<string>, number]
        >(topic, scripts.overview, [...keys, meta, groups], [])
        const info: TopicInfo = {
          topic,
          pattern: opened === "" ? pattern : opened,
          retention,
          depth,
          published: published < 0 ? undefined : published,
          delayed,
          nextDelayedAt: next < 0 ? undefined : next,
          groups: yield* Effect.forEach(names, (group) => describeGroup(topic, group))
        }
        return info
      }).pipe(failing(topic)),

    messages: (topic, { after, before, limit, newest }) => {
      const { keys, scripts } = supplyOf(topic, "")
      const backwards = Option.isNone(after) && (newest === true || before !== undefined)
      const from = Option.getOrElse(after, () => before ?? "")
      return inspecting
        .evaluateExactly<[Uint8Array, ReadonlyArray<readonly [Buffer, Buffer]>]>(topic, scripts.messages, keys, [
          from,
          limit,
          backwards ? 1 : 0
        ])
        .pipe(
          Effect.map(([, rows]) =>
            rows.map(([id, record]): StoredMessage => {
              const position = String(id)
              return { ...messageOf(deliveryOf(topic, "", position, 1, record)), position }
            })
          ),
          failing(topic)
        )
    },

    pending: (topic, group, { after, limit }) =>
      Effect.gen(function* () {
        const mine = keysOf(topic).group(group)
        const { keys, scripts } = supplyOf(topic, group)
        const consumers = yield* consumersOf(topic, group)
        const [, rows] = yield* inspecting.evaluateExactly<
          [
            Uint8Array,
            ReadonlyArray<
              readonly [member: Buffer, consumer: Buffer, heldMillis: number, attempt: number, record: Buffer]
            >
          ]
        >(
          topic,
          scripts.pending,
          [...keys, mine.state, mine.marks, ...consumers.map(mine.processing)],
          [Option.getOrElse(after, () => ""), limit, ...consumers]
        )
        return rows.map(([member, consumer, heldMillis, attempt, record]): PendingMessage => {
          const position = String(member)
          const delivery = deliveryOf(topic, group, position, attempt, record)
          return { ...messageOf(delivery), position, consumer: String(consumer), attempt, heldMillis }
        })
      }).pipe(failing(topic)),

    waiting: (topic, group, { after, limit }) => {
      const mine = keysOf(topic).group(group)
      const { keys, scripts } = supplyOf(topic, group)
      return inspecting
        .evaluateExactly<
          [
            Uint8Array,
            number,
            ReadonlyArray<
              readonly [position: Buffer, id: Buffer, dueAt: number, attempts: number, cause: Buffer, record: Buffer]
            >
          ]
        >(
          topic,
          scripts.waiting,
          [...keys, mine.waiting, mine.returned, mine.suspects, mine.marks],
          [Option.getOrElse(after, () => "a"), limit]
        )
        .pipe(
          Effect.map(([, now, rows]) =>
            rows.map(([position, id, dueAt, attempts, cause, record]): WaitingMessage => {
              const delivery = deliveryOf(topic, group, String(id), attempts, record)
              return {
                ...messageOf(delivery),
                position: String(position),
                attempts,
                dueAt,
                dueInMillis: Math.max(0, dueAt - now),
                cause: String(cause)
              }
            })
          ),
          failing(topic)
        )
    },

    redrive: (topic, group, deadLetters) => {
      const mine = keysOf(topic).group(group)
      const { keys, scripts } = supplyOf(topic, group)
      return inspecting.inBatches(topic, deadLetters, (some) =>
        inspecting.evaluate<Moved>(
          topic,
          scripts.redrive,
          [...keys, mine.dead, mine.returned, mine.marks, mine.state, keysOf(topic).wake],
          some
        )
      )
    },

    remove: (topic) =>
      Effect.gen(function* () {
        const { groups, meta } = keysOf(topic)
        const names = yield* commands.run("smembers", (client) => client.smembers(groups), { key: groups })
        const whole = supplyOf(topic, "")
        yield* inspecting.remove(topic, whole.scripts.remove, {
          others: names.map((group) => [keysOf(topic).group(group).marks, "hash"]),
          topic: { keys: [...whole.keys, meta, groups], args: [] },
          groups: yield* Effect.forEach(names.sort(), (group) =>
            Effect.map(consumersOf(topic, group), (consumers) => ({
              group,
              state: keysOf(topic).group(group).state,
              keys: describedOf(topic, group, consumers),
              args: consumers
            }))
          )
        })
      }).pipe(failing(topic))
  })
}

const deliveryOf = (topic: string, group: string, member: string, attempt: number, record: Buffer): ClaimedDelivery =>
  new ClaimedDelivery(topic, group, member, attempt, record, undefined, 0, record.length, 0)
