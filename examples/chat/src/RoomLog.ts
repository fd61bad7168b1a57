/**
 * The stream of a room: the truth about what was said, in one order for everyone. No group consumes it; whoever wants to know
 * reads it behind the last position it has seen.
 *
 * @module
 */
import { Effect, Result, Schema } from "effect"
import { Log, Topic, type Transport } from "waybill"
import { ClientId, type Message, Text, User } from "./Protocol.ts"
import { Store } from "./Transports.ts"

export const topic = (room: string) =>
  Topic.make(`chat/room/${room}`, { payload: Schema.Struct({ id: ClientId, user: User, text: Text }), on: Store })

type Entry = Log.Entry<{ readonly id: string; readonly user: string; readonly text: string }>

/** What somebody else wrote into the stream, and is no message, is not shown. */
const messagesOf = (entries: ReadonlyArray<Entry>): ReadonlyArray<Message> =>
  entries.flatMap(({ payload, position, publishedAt }) =>
    Result.isSuccess(payload) ? [{ ...payload.success, position, at: publishedAt }] : []
  )

/** At most `limit` messages behind the position, or from the beginning; none at the end of the room. */
export const after = Effect.fnUntraced(function* (
  room: string,
  position: string | undefined,
  limit: number
): Effect.fn.Return<ReadonlyArray<Message>, Transport.TransportError, Store> {
  let from = position
  while (true) {
    const entries = yield* Log.first(topic(room), { after: from, limit })
    const messages = messagesOf(entries)
    if (messages.length > 0 || entries.length < limit) return messages
    from = entries.at(-1)?.position
  }
})

/** The newest `limit` messages, or those in front of the position; oldest first. Fewer at the beginning of the room only. */
export const before = Effect.fnUntraced(function* (
  room: string,
  position: string | undefined,
  limit: number
): Effect.fn.Return<ReadonlyArray<Message>, Transport.TransportError, Store> {
  let messages: ReadonlyArray<Message> = []
  let to = position
  while (true) {
    const entries = yield* Log.last(topic(room), { before: to, limit })
    messages = [...messagesOf(entries), ...messages].slice(-limit)
    if (messages.length === limit || entries.length < limit) return messages
    to = entries[0]?.position
  }
})

/** The later of two positions, which are one number or two, the first counting more. */
export const later = (a: string, b: string): string => {
  const [a1 = 0n, a2 = 0n] = a.split("-").map(BigInt)
  const [b1 = 0n, b2 = 0n] = b.split("-").map(BigInt)
  return a1 > b1 || (a1 === b1 && a2 > b2) ? a : b
}
