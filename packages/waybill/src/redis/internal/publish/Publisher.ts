/**
 * Publishing to one topic: messages from concurrent callers that arrive while a batch is under way travel together in the next. A
 * batch whose reply was lost is sent again and stored once.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Redis } from "ioredis"
import type { Due, Outgoing, Receipt } from "../../../Message.ts"
import type { Reason } from "../../../Transport.ts"
import type { Commands } from "../connection/Connection.ts"
import { calling, type More, type Opened } from "../connection/ScriptReply.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import type { Ask, Confirmation } from "./Confirmation.ts"
import { type Call, Outbox, type OutboxOptions, type Sent } from "./Outbox.ts"
import { type Publishing, shape } from "./PublishScript.ts"

export interface PublisherOptions extends Opened, Pick<OutboxOptions, "clock" | "timeoutMillis" | "opened"> {
  readonly commands: Commands
  readonly publishing: Publishing
  readonly keys: TopicKeys
  readonly deduplicationMillis: number
  /** What publishing waits for besides the script. */
  readonly confirmation?: Confirmation | undefined
  /** Called when a message was stored that is due in that many milliseconds. */
  readonly delayed: (millis: number) => void
}

/** How long the server remembers the reply to a publisher's last batch, unless publishing may take longer. */
const answerMillis = 10 * 60 * 1000

/** Temporary refusals. Out of memory, or too few replicas, is a result for the caller. */
const passing: ReadonlySet<string> = new Set([
  "ASK",
  "BUSY",
  "CLUSTERDOWN",
  "LOADING",
  "MASTERDOWN",
  "MOVED",
  "READONLY",
  "TRYAGAIN"
])

export const make = (options: PublisherOptions): Outbox => {
  const { clock, confirmation, deduplicationMillis, delayed, keys, publishing, timeoutMillis } = options
  const own = { ...keys, publisher: keys.publisher(SecureRandom.uuidV4Unsafe()) }
  const callOn = (commands: Commands) => calling(commands, options, own)
  const plain = callOn(options.commands)
  let number = 0
  return new Outbox({
    ...options,
    sending: (calls) => {
      const { dueIn, shapes, uniques, ...more } = encode(calls, keys.seen, clock.currentTimeMillisUnsafe())
      const named = {
        setting: publishing.settingOf(options.topic),
        remembered: deduplicationMillis,
        batch: ++number,
        kept: Math.max(answerMillis, 2 * timeoutMillis),
        shapes,
        uniques
      }
      const store = (call: typeof plain, deadline: number, behind?: More["behind"]) =>
        Effect.map(call(publishing.script, named, { ...more, deadline, behind }), ({ answers, isNew }): Sent => {
          if (dueIn < Infinity) delayed(dueIn)
          return { isNew, receipts: receiptsOf(calls, answers) }
        })
      if (confirmation === undefined) return (millis) => store(plain, millis)
      const confirmed = (commands: Commands, ask: Ask, deadline: number) => {
        let unconfirmed: Reason | undefined
        const behind = async (client: Redis) => void (unconfirmed = await ask(client))
        return Effect.map(store(callOn(commands), deadline, behind), (sent): Sent => ({ ...sent, unconfirmed }))
      }
      return (millis) => confirmation.of(millis, confirmed)
    },
    repeats: (reason, ambiguous) =>
      reason._tag === "Disconnected" || (reason._tag === "Refused" && (ambiguous || passing.has(reason.code)))
  })
}

interface Batch {
  readonly shapes: string
  readonly uniques: string
  /** The markers of message ids. */
  readonly keys: ReadonlyArray<string>
  readonly args: ReadonlyArray<string | Uint8Array | number>
  /** When the first delayed message is due, from now. */
  readonly dueIn: number
}

/** Redis keeps due times as floating point numbers; this is far enough away. */
const longest = 2 ** 52

const encode = (calls: ReadonlyArray<Call>, seenOf: (id: string) => string, now: number): Batch => {
  const keys: Array<string> = []
  const args: Array<string | number> = []
  let shapes = ""
  let uniques = ""
  let isUnique = false
  let dueIn = Infinity
  for (const call of calls) {
    for (const message of call.messages) {
      const { due, id } = message
      const bits = pushMessage(args, message)
      shapes += String.fromCharCode(48 + (bits & 63))
      if (id !== undefined) {
        keys.push(seenOf(id))
        uniques += String.fromCharCode(48 + (bits >> 6))
        isUnique ||= bits >= 64
      }
      if (due !== undefined) dueIn = Math.min(dueIn, dueInOf(due, now))
    }
  }
  return { shapes, uniques: isUnique ? uniques : "", keys, args, dueIn }
}

/** Milliseconds from now. */
export const dueInOf = (due: Due, now: number): number =>
  due._tag === "After" ? Math.min(longest, Math.ceil(Duration.toMillis(due.delay))) : due.epochMillis - now

/** Adds the payload and the other parts in the order of the bits; returns the bits. */
export const pushMessage = (
  args: Array<string | number>,
  { body, due, headers, id, key, unique, version }: Outgoing
): number => {
  let bits = 0
  args.push(body)
  if (id !== undefined) {
    bits |= shape.id
    if (unique === "until-settled") bits |= shape.untilSettled
    else if (unique === "until-taken") bits |= shape.untilTaken
    else if (typeof unique === "object") bits |= shape.coalescing
    args.push(id)
  }
  for (const _ in headers) {
    bits |= shape.headers
    args.push(JSON.stringify(headers))
    break
  }
  if (key !== undefined) {
    bits |= shape.key
    args.push(key)
  }
  if (version !== 1) {
    bits |= shape.version
    args.push(version)
  }
  if (due !== undefined) {
    if (due._tag === "After") {
      bits |= shape.after
      args.push(dueInOf(due, 0))
    } else {
      bits |= shape.at
      args.push(Math.min(longest, Math.ceil(due.epochMillis)))
    }
  }
  if (typeof unique === "object") {
    args.push(unique.keep === "first" ? "" : Math.min(longest, Math.ceil(Duration.toMillis(unique.limit))))
  }
  return bits
}

const receiptsOf = (calls: ReadonlyArray<Call>, answer: string): Array<Receipt> => {
  const answers = answer.split(",")
  const receipts: Array<Receipt> = []
  for (const call of calls) {
    for (const message of call.messages) {
      receipts.push(receiptOf(message, answers[receipts.length]))
    }
  }
  return receipts
}

const tags: Readonly<Record<string, Receipt["_tag"]>> = { "=": "Duplicate", "~": "Replaced" }
const states: Readonly<Record<string, Receipt["state"]>> = { d: "delayed", o: "open" }

/** What the script says of a message that it was given. */
export const receiptOf = ({ id }: Outgoing, told = ""): Receipt => {
  if (id === undefined) return { _tag: "Stored", id: told }
  const _tag = tags[told.slice(0, 1)]
  if (_tag === undefined) return { _tag: "Stored", id }
  const state = states[told.slice(1)]
  return { _tag, id, ...(state && { state }) }
}
