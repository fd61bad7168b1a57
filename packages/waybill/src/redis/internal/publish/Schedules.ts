/**
 * The schedules of the topics of one layer. A change whose reply was lost is not made twice: the schedule has another revision then.
 *
 * @module
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Limits } from "../../../internal/Limits.ts"
import type { Drift, ScheduleReply, ScheduleStore } from "../../../internal/ScheduleStore.ts"
import type { Outgoing, Receipt } from "../../../Message.ts"
import { type Reason, TransportError } from "../../../Transport.ts"
import type { Commands } from "../connection/Connection.ts"
import { calling } from "../connection/ScriptReply.ts"
import type { Subscriber } from "../connection/Subscriber.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import { dueInOf, pushMessage, receiptOf } from "./Publisher.ts"
import {
  announced,
  dueSchedules,
  findSchedules,
  knownDrifts,
  noteDrifts,
  pageOfSchedules,
  type scheduleScript
} from "./ScheduleScripts.ts"

export interface SchedulesOptions {
  readonly pattern: string
  readonly commands: Commands
  readonly subscriber: Subscriber
  readonly keysOf: (topic: string) => TopicKeys
  readonly clock: Clock.Clock
  readonly script: ReturnType<typeof scheduleScript>
  readonly settingOf: (topic: string) => string | number
  readonly limitsOf: (topic: string) => Pick<Limits, "deduplicationMillis">
  readonly published: (published: {
    readonly topic: string
    readonly messages: ReadonlyArray<Outgoing>
    readonly receipts: ReadonlyArray<Receipt>
    readonly dueIn: number
    readonly opened: boolean
  }) => Effect.Effect<void>
}

/** How many due schedules one call returns. */
const mostDue = 250

/** How long a change may go unnoticed if its announcement was not allowed or not heard. */
const pollMillis = 10_000

const failing = (topic: string) =>
  Effect.mapError((reason: Reason) => new TransportError({ operation: "schedule", topic, reason }))

const replyOf = (
  now: number,
  rows: ReadonlyArray<{ readonly id: string; readonly due: string; readonly entry: string }>
): ScheduleReply => ({
  now,
  schedules: rows.map(({ due, entry, id }) => {
    const blank = entry.indexOf(" ")
    return {
      id,
      next: due === "inf" ? undefined : Number(due),
      revision: entry.slice(0, Math.max(0, blank)),
      text: entry.slice(blank + 1)
    }
  })
})

const textOf = ({ found, schedule }: Drift): string => `${found} ${schedule}`

const driftOf = (text: string): Drift => {
  const blank = text.indexOf(" ")
  // Written by `textOf`.
  return { found: text.slice(0, blank) as Drift["found"], schedule: text.slice(blank + 1) }
}

export const make = (options: SchedulesOptions): ScheduleStore => {
  const { clock, commands, keysOf, limitsOf, pattern, published, script, settingOf, subscriber } = options
  const callOf = (topic: string) => calling(commands, { topic, pattern }, keysOf(topic))
  return {
    pollMillis,
    due: (topic) =>
      callOf(topic)(dueSchedules, { limit: mostDue }).pipe(
        Effect.map(({ due, next, now }) => ({ ...replyOf(now, due), next: next < 0 ? undefined : next })),
        failing(topic)
      ),
    find: (topic, ids) =>
      callOf(topic)(findSchedules, {}, { args: ids }).pipe(
        Effect.map(({ found, now }) => replyOf(now, found)),
        failing(topic)
      ),
    page: (topic, after, limit) => {
      const { id, next } = Option.getOrElse(after, () => ({ id: "", next: undefined }))
      return callOf(topic)(pageOfSchedules, { after: id, due: next ?? "inf", limit }).pipe(
        Effect.map(({ found, now }) => replyOf(now, found)),
        failing(topic)
      )
    },
    change: (topic, changes, announce) => {
      const { seen } = keysOf(topic)
      const keys: Array<string> = []
      const args: Array<string | number> = []
      for (const { id, messages, next, revision, text } of changes) {
        args.push(id, revision, text, next ?? "inf", messages.length, 0)
        const from = args.length
        for (const message of messages) {
          keys.push(seen(message.id ?? ""))
          const at = args.push(0) - 1
          args[at] = pushMessage(args, message)
        }
        args[from - 1] = args.length - from
      }
      const named = {
        setting: settingOf(topic),
        remembered: limitsOf(topic).deduplicationMillis,
        changes: changes.length,
        announced: announce ? 1 : 0
      }
      return callOf(topic)(script, named, { keys, args }).pipe(
        Effect.flatMap(({ isNew, made, published: told }) => {
          const now = clock.currentTimeMillisUnsafe()
          const messages: Array<Outgoing> = []
          const receipts: Array<Receipt> = []
          let dueIn = Infinity
          const answers = changes.map((change, i) => {
            if (made[i] !== "1") return undefined
            return change.messages.map((message) => {
              const receipt = receiptOf(message, told[receipts.length])
              messages.push(message)
              receipts.push(receipt)
              if (message.due !== undefined) dueIn = Math.min(dueIn, dueInOf(message.due, now))
              return receipt
            })
          })
          return Effect.as(published({ topic, messages, receipts, dueIn, opened: isNew }), answers)
        }),
        failing(topic)
      )
    },
    note: (topic, drifts, over, millis) =>
      callOf(topic)(noteDrifts, { millis, noted: drifts.length }, { args: [...drifts, ...over].map(textOf) }).pipe(
        Effect.asVoid,
        failing(topic)
      ),
    drifts: (topic, limit) =>
      callOf(topic)(knownDrifts, { limit }).pipe(
        Effect.map(({ drifts }) => drifts.map(driftOf)),
        failing(topic)
      ),
    listen: (topic, heard) =>
      subscriber
        .subscribe("channel", keysOf(topic).wake, {
          message: (payload) => {
            if (payload.includes(announced)) heard()
          },
          interrupted: heard,
          refused: () => {}
        })
        // Polling continues regardless.
        .pipe(Effect.ignore)
  }
}
