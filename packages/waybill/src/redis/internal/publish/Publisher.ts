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
import type { Script } from "../connection/Script.ts"
import { type Opened, problemOf, wire } from "../connection/ScriptReply.ts"
import { type Call, Outbox, type Sender } from "./Outbox.ts"

/**
 * What a pattern's script is called with, whatever it does with it.
 *
 * | KEYS | |
 * |---|---|
 * | the keys of the pattern | the publisher's own, which holds the number of its last batch and the answer to it, is where the pattern puts it |
 * | then | for each message with an id: the marker that it was stored |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | pattern and wire version |
 * | 3 | number of the batch, growing |
 * | 4 | how long the answer is kept, ms |
 * | 5 | how long message ids are remembered, ms |
 * | 6 | what else the pattern wants to know |
 * | 7 | the shapes: one character a message |
 * | 8... | for each message: payload, then what its shape says, in the order of the bits |
 *
 * It replies `OK`, answers, new, as the publish script of the streams does.
 */
export interface Publishing {
  readonly script: Script
  readonly keys: (publisher: string) => ReadonlyArray<string>
  /** The marker of a message id. */
  readonly seen: (id: string) => string
  /** ARGV 6. */
  readonly setting: string | number
}

/** What of a message is there besides its payload: the bits of its character in the shapes, counted from "0". */
export const shape = { id: 1, headers: 2, key: 4, version: 8, after: 16, at: 32 } as const

export interface PublisherOptions extends Opened {
  readonly commands: Connection
  readonly publishing: Publishing
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
  readonly #keys: ReadonlyArray<string>
  #batch = 0
  #open = false

  constructor(options: PublisherOptions) {
    this.#options = options
    this.#outbox = new Outbox({ ...options, send: (calls) => this.#store(calls) })
    this.#keys = options.publishing.keys(SecureRandom.uuidV4Unsafe())
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
      const { clock, commands, opened, publishing } = this.#options
      const { script } = publishing
      const batch = encode(calls, publishing.seen, clock.currentTimeMillisUnsafe())
      const keys = batch.seen.length === 0 ? this.#keys : [...this.#keys, ...batch.seen]
      const args = this.#args(++this.#batch, batch)
      const first = calls[0] as Call // the caller checked that there is one
      const deadline = Math.max(this.#outbox.expiry(first), this.#outbox.now() + leastAttemptMillis)
      let ambiguous = false
      while (true) {
        const left = deadline - this.#outbox.now()
        const result = yield* Effect.result(commands.eval(script, keys, args, { deadline: left }))
        let reason: Reason | undefined
        if (Result.isSuccess(result)) {
          // The reply table of the script.
          const reply = result.success as [string, string, number]
          reason = problemOf(script.name, this.#options, reply.map(String))
          if (reason === undefined) {
            if (!this.#open || reply[2] === 1) {
              this.#open = true
              yield* opened
            }
            if (batch.dueIn < Infinity) this.#options.delayed(batch.dueIn)
            return receiptsOf(calls, reply[1])
          }
        } else {
          reason = result.failure
        }
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

  #args(number: number, batch: Batch): Array<string | number> {
    const { deduplicationMillis, pattern, publishing } = this.#options
    const args = batch.args
    args[0] = pattern
    args[1] = wire
    args[2] = number
    args[3] = Math.max(answerMillis, 2 * this.#options.timeoutMillis)
    args[4] = deduplicationMillis
    args[5] = publishing.setting
    args[6] = batch.shapes
    return args
  }
}

interface Batch {
  readonly shapes: string
  readonly seen: ReadonlyArray<string>
  /** Seven places for the head, then the messages. */
  readonly args: Array<string | number>
  /** When the first delayed message is due, from now. */
  readonly dueIn: number
}

/** Redis keeps due times as floating point numbers; this is far enough away. */
const longest = 2 ** 52

const encode = (calls: ReadonlyArray<Call>, seenOf: (id: string) => string, now: number): Batch => {
  const seen: Array<string> = []
  const args: Array<string | number> = ["", "", "", "", "", "", ""]
  let shapes = ""
  let dueIn = Infinity
  for (const call of calls) {
    for (const message of call.messages) {
      const { due, id } = message
      shapes += String.fromCharCode(48 + pushMessage(args, message))
      if (id !== undefined) seen.push(seenOf(id))
      if (due !== undefined) dueIn = Math.min(dueIn, dueInOf(due, now))
    }
  }
  return { shapes, seen, args, dueIn }
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
