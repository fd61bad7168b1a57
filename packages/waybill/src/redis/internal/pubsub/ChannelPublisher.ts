/**
 * Publishing to one channel: messages from concurrent callers that arrive while a batch is under way go out together in one write.
 * Each message gets the next number of this producer, so that a subscriber that misses one can tell.
 *
 * A batch whose reply was lost is not sent again: it may have been heard.
 *
 * @module
 */
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import { refusal } from "../../../internal/Unstored.ts"
import type { Receipt } from "../../../Message.ts"
import { evaluate } from "../connection/ScriptReply.ts"
import type { SenderOptions } from "../Pattern.ts"
import { Outbox } from "../publish/Outbox.ts"
import { seal } from "../wire/Envelope.ts"
import { pattern, publish } from "./Scripts.ts"

/** A producer's messages on one channel are numbered, even when its publisher is closed and opened again. */
export interface Row {
  readonly producer: string
  number: number
}

export const row = (): Row => ({ producer: SecureRandom.uuidV4Unsafe().slice(-12), number: 0 })

export const make = (options: SenderOptions, command: "PUBLISH" | "SPUBLISH", row: Row): Outbox => {
  const { clock, commands, keys, topic } = options
  const { producer } = row
  return new Outbox({
    ...options,
    refusal: (messages) => refusal(topic, messages),
    sending: (calls) => {
      const at = clock.currentTimeMillisUnsafe()
      const receipts: Array<Receipt> = []
      const args: Array<string> = []
      let { number } = row
      for (const call of calls) {
        for (const { body, headers, id, key, version } of call.messages) {
          number++
          args.push(seal(body, { producer, number, at, id, key, version, headers }))
          receipts.push({ _tag: "Sent", id: id ?? `${producer}-${number}` })
        }
      }
      const send = evaluate(commands, { topic, pattern }, publish[command], keys, {}, { args })
      return () =>
        Effect.matchEffect(send, {
          onSuccess: ({ isNew }) => {
            row.number = number
            return Effect.succeed({ isNew, receipts })
          },
          onFailure: (reason) => {
            // These numbers may have been heard. Those of a batch that certainly was not are reused by the next one.
            if (reason._tag === "Disconnected" && reason.ambiguous) row.number = number
            return Effect.fail(reason)
          }
        })
    },
    // Nothing was sent, but soon it may be.
    repeats: (reason) => (reason._tag === "Disconnected" ? !reason.ambiguous : reason._tag === "Refused")
  })
}
