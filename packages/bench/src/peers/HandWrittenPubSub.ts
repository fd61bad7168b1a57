/**
 * Redis pub/sub by hand: PUBLISH in pipelines, a listener that parses. Messages missed while the connection is down
 * are lost silently.
 */
import { Effect } from "effect"
import { batchesOf, type Peer, singly } from "../Peer.ts"
import { connect } from "./HandWritten.ts"

const channel = "bench"

export const make = Effect.fnUntraced(function* (port: number) {
  const commands = yield* connect(port, { enableAutoPipelining: false })
  const pipelined = yield* connect(port, { enableAutoPipelining: true })

  const peer: Peer = {
    publishBatches: (messages) =>
      Effect.promise(async () => {
        for (const batch of batchesOf(messages)) {
          const pipeline = commands.pipeline()
          for (const message of batch) pipeline.publish(channel, JSON.stringify(message))
          await pipeline.exec()
        }
      }),
    publishSingly: (messages) =>
      Effect.promise(() => singly(messages, (message) => pipelined.publish(channel, JSON.stringify(message)))),
    publishOne: (message) => commands.publish(channel, JSON.stringify(message)),
    consume: Effect.fnUntraced(function* (handle) {
      const subscriber = yield* connect(port)
      subscriber.on("message", (_, text: string) => handle(JSON.parse(text)))
      yield* Effect.promise(() => subscriber.subscribe(channel))
    }),
    // Nothing is stored.
    left: Effect.succeed(0)
  }
  return peer
})
