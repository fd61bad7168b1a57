/**
 * Messages as keys by hand: SET with an expiry in pipelines, an event for each, and one MGET for all keys whose
 * events arrived together. A subscriber that joins late, or whose connection was down, gets nothing that was written
 * meanwhile.
 */
import { Effect } from "effect"
import { batchesOf, type Peer, singly } from "../Peer.ts"
import type { Numbered } from "../Work.ts"
import { connect } from "./HandWritten.ts"

const prefix = "bench:message:"
const event = `__keyspace@0__:${prefix}`
const ttlSeconds = 3600

export const make = Effect.fnUntraced(function* (port: number) {
  const commands = yield* connect(port)
  const pipelined = yield* connect(port, { enableAutoPipelining: true })
  yield* Effect.promise(() => commands.config("SET", "notify-keyspace-events", "K$"))
  const argsOf = (message: Numbered) => [`${prefix}${message.seq}`, JSON.stringify(message), "EX", ttlSeconds] as const

  const peer: Peer = {
    publishBatches: (messages) =>
      Effect.promise(async () => {
        for (const batch of batchesOf(messages)) {
          const pipeline = commands.pipeline()
          for (const message of batch) pipeline.set(...argsOf(message))
          await pipeline.exec()
        }
      }),
    publishSingly: (messages) => Effect.promise(() => singly(messages, (message) => pipelined.set(...argsOf(message)))),
    publishOne: (message) => commands.set(...argsOf(message)),
    consume: Effect.fnUntraced(function* (handle) {
      const subscriber = yield* connect(port)
      const reader = yield* connect(port)
      let written: Array<string> = []
      const read = async () => {
        const keys = written
        written = []
        for (const text of await reader.mget(keys)) if (text !== null) handle(JSON.parse(text))
      }
      subscriber.on("pmessage", (_, channel: string) => {
        if (written.length === 0) setImmediate(read)
        written.push(channel.slice(event.length - prefix.length))
      })
      yield* Effect.promise(() => subscriber.psubscribe(`${event}*`))
    }),
    // Messages stay until they expire, even when read.
    left: Effect.succeed(0)
  }
  return peer
})
