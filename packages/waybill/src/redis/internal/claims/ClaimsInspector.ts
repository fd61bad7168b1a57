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
import { keysOf as listed } from "../connection/Script.ts"
import { groupOf } from "../inspect/Figures.ts"
import { failing, Inspecting, type InspectorOptions, messageOf } from "../inspect/Inspecting.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import { ClaimedDelivery } from "./ClaimedDelivery.ts"
import type { ClaimsScripts } from "./Scripts.ts"

export const make = (
  options: InspectorOptions,
  pattern: string,
  retention: Retention,
  scripts: ClaimsScripts
): Context.Service.Shape<typeof Inspector> => {
  const inspecting = new Inspecting(options, pattern)
  const { commands, keysOf } = options

  /** A source may have keys of a group. */
  const allOf = (topic: string, group = ""): TopicKeys & GroupKeys => {
    const keys = keysOf(topic)
    return { ...keys, ...keys.group(group) }
  }

  /** All that have joined and not left, dead ones that were not found yet included. */
  const consumersOf = (topic: string, group: string): Effect.Effect<ReadonlyArray<string>, Reason> => {
    const key = keysOf(topic).group(group).consumers
    return commands.run("zrange", (client) => client.zrange(key, "0", "-1"), { key })
  }

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    const consumers = yield* consumersOf(topic, group)
    const keys = allOf(topic, group)
    const more = { keys: consumers.map(keys.processing), args: consumers }
    const look = inspecting.evaluate(topic, scripts.describe, keys, {}, more)
    return groupOf(group, yield* inspecting.withoutOld(topic, group, look))
  })

  return checked({
    ...inspecting.plain,

    describe: (topic) =>
      Effect.gen(function* () {
        const { delayed, depth, names, next, opened, published } = yield* inspecting.evaluate(
          topic,
          scripts.overview,
          allOf(topic),
          {}
        )
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
      const backwards = Option.isNone(after) && (newest === true || before !== undefined)
      const from = Option.getOrElse(after, () => before ?? "")
      return inspecting
        .evaluate(topic, scripts.messages, allOf(topic), { from, limit, newest: backwards ? 1 : 0 })
        .pipe(
          Effect.map(({ rows }) =>
            rows.map(({ id, record }): StoredMessage => ({
              ...messageOf(deliveryOf(topic, "", id, 1, record)),
              position: id
            }))
          ),
          failing(topic)
        )
    },

    pending: (topic, group, { after, limit }) =>
      Effect.gen(function* () {
        const consumers = yield* consumersOf(topic, group)
        const keys = allOf(topic, group)
        const { rows } = yield* inspecting.evaluate(
          topic,
          scripts.pending,
          keys,
          { from: Option.getOrElse(after, () => ""), limit },
          { keys: consumers.map(keys.processing), args: consumers }
        )
        return rows.map(({ attempt, consumer, heldMillis, member, record }): PendingMessage => {
          const delivery = deliveryOf(topic, group, member, attempt, record)
          return { ...messageOf(delivery), position: member, consumer, attempt, heldMillis }
        })
      }).pipe(failing(topic)),

    waiting: (topic, group, { after, limit }) =>
      inspecting
        .evaluate(topic, scripts.waiting, allOf(topic, group), { after: Option.getOrElse(after, () => "a"), limit })
        .pipe(
          Effect.map(({ now, rows }) =>
            rows.map(({ attempts, cause, dueAt, id, position, record }): WaitingMessage => {
              const delivery = deliveryOf(topic, group, id, attempts, record)
              return {
                ...messageOf(delivery),
                position,
                attempts,
                dueAt,
                dueInMillis: Math.max(0, dueAt - now),
                cause
              }
            })
          ),
          failing(topic)
        ),

    redrive: (topic, group, deadLetters) =>
      inspecting.inBatches(topic, deadLetters, (some) =>
        inspecting.evaluate(topic, scripts.redrive, allOf(topic, group), {}, { args: some })
      ),

    remove: (topic) =>
      Effect.gen(function* () {
        const { groups } = keysOf(topic)
        const names = yield* commands.run("smembers", (client) => client.smembers(groups), { key: groups })
        yield* inspecting.remove(topic, scripts.remove, {
          others: names.map((group) => [keysOf(topic).group(group).marks, "hash"]),
          topic: { keys: listed(scripts.overview, allOf(topic)), args: [] },
          groups: yield* Effect.forEach(names.sort(), (group) =>
            Effect.map(consumersOf(topic, group), (consumers) => {
              const keys = allOf(topic, group)
              return {
                group,
                state: keys.state,
                keys: [...listed(scripts.describe, keys), ...consumers.map(keys.processing)],
                args: consumers
              }
            })
          )
        })
      }).pipe(failing(topic))
  })
}

const deliveryOf = (topic: string, group: string, member: string, attempt: number, record: Buffer): ClaimedDelivery =>
  new ClaimedDelivery(topic, group, member, attempt, record, undefined, 0, record.length, 0)
