/**
 * The streams pattern: native groups of a stream, and for each of them a stream of retries.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { KeptLimits } from "../../../internal/Limits.ts"
import { Committer } from "../commit/Committer.ts"
import { calling } from "../connection/ScriptReply.ts"
import { hear } from "../group/Wake.ts"
import type { Pattern } from "../Pattern.ts"
import { publishScript } from "../publish/PublishScript.ts"
import { scheduleScript } from "../publish/ScheduleScripts.ts"
import { commit } from "./CommitParts.ts"
import { pattern } from "./GroupScripts.ts"
import type { StreamHandle } from "./StreamDelivery.ts"
import * as StreamInspector from "./StreamInspector.ts"
import * as StreamMembership from "./StreamMembership.ts"
import { limitsText, storage } from "./StreamStorage.ts"

export interface StreamsOptions {
  /** How much the stream of a topic keeps; otherwise what some group has not settled. */
  readonly retentionOf: (topic: string) => KeptLimits | undefined
  readonly markerMillis: number
}

const unique = ["until-settled", "coalescing"] as const

export const publish = publishScript(pattern, storage)

export const schedule = scheduleScript(pattern, storage)

export const make = ({ markerMillis, retentionOf }: StreamsOptions): Pattern<"transactional"> => ({
  name: pattern,
  guarantee: "transactional",
  markerMillis,
  filters: true,
  unique,
  inspector: StreamInspector.make,
  open: (store) => {
    // What some group needs is dropped as messages arrive, the rest as they are settled.
    const settingOf = (topic: string) => {
      const retention = retentionOf(topic)
      return retention?.keep === "newest" ? limitsText(retention) : ""
    }
    return Effect.succeed({
      publishing: { script: publish, schedule, settingOf },
      join: (subscription, opened) => {
        const { group, topic } = subscription
        const keys = store.keysOf(topic)
        const mine = keys.group(group)
        const call = calling(store.commands, { topic, pattern }, { ...keys, ...mine })
        return StreamMembership.make({
          ...store,
          ...store.limitsOf(topic),
          dedicated: store.redis.dedicated,
          hear: (heard) => hear(store.subscriber, topic, group, keys, heard),
          topic,
          keys,
          subscription,
          committer: (consumer) =>
            new Committer<StreamHandle>({
              ...store,
              topic,
              markerMillis,
              storage,
              keys: commit.keyNames.length,
              settingOf,
              unique,
              run: (args, more) => call(commit, { ...args, group, consumer }, more),
              own: ({ count, detached, entry, first, id, source }) => {
                const counted = detached ? 0 : count
                return [source, entry, first === undefined ? counted : `${counted} ${first} ${id}`]
              },
              done: mine.done
            }),
          retention: retentionOf(topic),
          opened
        })
      }
    })
  }
})
