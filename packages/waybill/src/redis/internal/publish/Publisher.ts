/**
 * Publishing to one topic: what concurrent callers give while a batch is on its way travels together in the next. A
 * batch whose answer was lost is sent again and stored once.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Clock from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import type { Due, Outgoing, Receipt } from "../../../Message.ts"
import { Disconnected, type Reason, type TransportError } from "../../../Transport.ts"
import type { Connection } from "../connection/Connection.ts"
import { type Call as ScriptCall, calling, type Opened, wire } from "../connection/ScriptReply.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import { type Call, Outbox, type Sender } from "./Outbox.ts"
import { type Publishing, shape } from "./PublishScript.ts"

export interface PublisherOptions extends Opened {
  readonly commands: Connection
  readonly publishing: Publishing
  readonly keys: TopicKeys
  readonly clock: Clock.Clock
  readonly deduplicationMillis: number
  readonly timeoutMillis: number
  /** Runs after a batch that opened the topic in the store. */
  readonly opened: Effect.Effect<void>
  /** Called when a message was stored that is due in so many milliseconds. */
  readonly delayed: (millis: number) => void
}

/** How long the server remembers the answer to a publisher's last batch, unless publishing may go on for longer. */
const answerMillis = 10 * 60 * 1000
/** Time enough for one attempt, also for a batch that had to wait for a long time. */
const leastAttemptMillis = 500
const pauseMillis = 50

/** Refusals that say: not now. Out of memory, or without replicas, is an answer for the caller. */
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

export class Publisher implements Sender {
  readonly #options: PublisherOptions
  readonly #outbox: Outbox
  readonly #call: ScriptCall<Omit<TopicKeys, "publisher"> & { readonly publisher: string }>
  #batch = 0
  #open = false

  constructor(options: PublisherOptions) {
    this.#options = options
    this.#outbox = new Outbox({ ...options, send: (calls) => this.#store(calls) })
    const { commands, keys } = options
    this.#call = calling(commands, options, { ...keys, publisher: keys.publisher(SecureRandom.uuidV4Unsafe()) })
  }

  get run(): Effect.Effect<never> {
    return this.#outbox.run
  }

  get busy(): boolean {
    return this.#outbox.busy
  }

  get close(): Effect.Effect<void> {
    return this.#outbox.close
  }

  publish(messages: NonEmptyReadonlyArray<Outgoing>): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    return this.#outbox.publish(messages)
  }

  /** Stores one batch, again and again until its time is over. */
  #store(calls: ReadonlyArray<Call>): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    return Effect.gen({ self: this }, function* () {
      const { clock, deduplicationMillis, delayed, opened, publishing, timeoutMillis } = this.#options
      const { args, dueIn, keys, shapes } = encode(calls, this.#options.keys.seen, clock.currentTimeMillisUnsafe())
      const named = {
        pattern: this.#options.pattern,
        wire,
        setting: publishing.setting,
        remembered: deduplicationMillis,
        batch: ++this.#batch,
        kept: Math.max(answerMillis, 2 * timeoutMillis),
        shapes
      }
      const first = calls[0] as Call // the caller checked that there is one
      const deadline = Math.max(this.#outbox.expiry(first), this.#outbox.now() + leastAttemptMillis)
      let ambiguous = false
      while (true) {
        const more = { keys, args, deadline: deadline - this.#outbox.now() }
        const result = yield* Effect.result(this.#call(publishing.script, named, more))
        if (Result.isSuccess(result)) {
          const { answers, isNew } = result.success
          if (!this.#open || isNew) {
            this.#open = true
            yield* opened
          }
          if (dueIn < Infinity) delayed(dueIn)
          return receiptsOf(calls, answers)
        }
        const reason: Reason = result.failure
        if (reason._tag === "Disconnected" && reason.ambiguous) ambiguous = true
        const again =
          reason._tag === "Disconnected" || (reason._tag === "Refused" && (ambiguous || passing.has(reason.code)))
        if (!again || this.#outbox.now() + pauseMillis >= deadline) {
          // Once an answer was lost, no later refusal tells what became of the batch.
          return yield* this.#outbox.failure(
            ambiguous && !(reason._tag === "Disconnected" && reason.ambiguous)
              ? new Disconnected({ ambiguous: true, cause: reason })
              : reason
          )
        }
        yield* Effect.sleep(pauseMillis)
      }
    })
  }
}

interface Batch {
  readonly shapes: string
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
  let dueIn = Infinity
  for (const call of calls) {
    for (const message of call.messages) {
      const { due, id } = message
      shapes += String.fromCharCode(48 + pushMessage(args, message))
      if (id !== undefined) keys.push(seenOf(id))
      if (due !== undefined) dueIn = Math.min(dueIn, dueInOf(due, now))
    }
  }
  return { shapes, keys, args, dueIn }
}

/** Milliseconds from now. */
export const dueInOf = (due: Due, now: number): number =>
  due._tag === "After" ? Math.min(longest, Math.ceil(Duration.toMillis(due.delay))) : due.epochMillis - now

/** Adds the payload, and what else there is in the order of the bits; answers the bits. */
export const pushMessage = (
  args: Array<string | number>,
  { body, due, headers, id, key, version }: Outgoing
): number => {
  let bits = 0
  args.push(body)
  if (id !== undefined) {
    bits |= shape.id
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
  return bits
}

const receiptsOf = (calls: ReadonlyArray<Call>, answer: string): Array<Receipt> => {
  const answers = answer.split(",")
  const receipts: Array<Receipt> = []
  for (const call of calls) {
    for (const message of call.messages) {
      const told = answers[receipts.length] ?? ""
      receipts.push(
        message.id === undefined
          ? { _tag: "Stored", id: told }
          : { _tag: told === "=" ? "Duplicate" : "Stored", id: message.id }
      )
    }
  }
  return receipts
}
