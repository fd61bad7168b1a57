/**
 * Publishing to one channel: what concurrent callers give while a batch is on its way goes out together in one write. Each
 * message gets the next number of this producer, so that a subscriber that misses one can tell.
 *
 * A batch whose answer was lost is not sent again: it may have been heard.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { refusal } from "../../../internal/Unstored.ts"
import type { Outgoing, Receipt } from "../../../Message.ts"
import type { Reason, TransportError } from "../../../Transport.ts"
import { evaluate, wire } from "../connection/ScriptReply.ts"
import type { SenderOptions } from "../Pattern.ts"
import { type Call, Outbox, type Sender } from "../publish/Outbox.ts"
import { seal } from "../wire/Envelope.ts"
import { pattern, publish } from "./Scripts.ts"

/** A producer's messages on one channel are numbered, and go on being so when its publisher is closed and opened again. */
export interface Row {
  readonly producer: string
  number: number
}

export const row = (): Row => ({ producer: SecureRandom.uuidV4Unsafe().slice(-12), number: 0 })

/** How long a batch goes on trying when it has surely not been sent. */
const pauseMillis = 50

export class ChannelPublisher implements Sender {
  readonly #options: SenderOptions
  readonly #script: (typeof publish)["PUBLISH"]
  readonly #outbox: Outbox
  readonly #row: Row
  #open = false

  constructor(options: SenderOptions, command: "PUBLISH" | "SPUBLISH", row: Row) {
    this.#options = options
    this.#row = row
    this.#script = publish[command]
    this.#outbox = new Outbox({ ...options, send: (calls) => this.#send(calls) })
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
    const refused = refusal(this.#options.topic, messages)
    return refused === undefined ? this.#outbox.publish(messages) : this.#outbox.failure(refused)
  }

  #send(calls: ReadonlyArray<Call>): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    return Effect.gen({ self: this }, function* () {
      const { clock, commands, keys, opened, topic } = this.#options
      const first = calls[0] as Call // a batch is never empty
      const receipts: Array<Receipt> = []
      const args: Array<string> = []
      const at = clock.currentTimeMillisUnsafe()
      const { producer } = this.#row
      let { number } = this.#row
      for (const call of calls) {
        for (const { body, headers, id, key, version } of call.messages) {
          number++
          args.push(seal(body, { producer, number, at, id, key, version, headers }))
          receipts.push({ _tag: "Sent", id: id ?? `${producer}-${number}` })
        }
      }
      while (true) {
        const result = yield* Effect.result(
          evaluate(commands, { topic, pattern }, this.#script, keys, { pattern, wire }, { args })
        )
        if (Result.isSuccess(result)) {
          this.#row.number = number
          if (!this.#open || result.success.isNew) {
            this.#open = true
            yield* opened
          }
          return receipts
        }
        const reason = result.failure
        // These numbers may have been heard. Those of a batch that surely was not are given to the next one.
        if (reason._tag === "Disconnected" && reason.ambiguous) this.#row.number = number
        if (!isPassing(reason) || this.#outbox.now() + pauseMillis >= this.#outbox.expiry(first)) {
          return yield* this.#outbox.failure(reason)
        }
        yield* Effect.sleep(pauseMillis)
      }
    })
  }
}

/** Nothing was sent, and soon it may be. */
const isPassing = (reason: Reason): boolean =>
  reason._tag === "Disconnected" ? !reason.ambiguous : reason._tag === "Refused"
