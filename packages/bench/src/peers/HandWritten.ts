/**
 * The upper limit: Redis Streams with ioredis and no more code than a loop. It reads 500 at a time, asks for the next
 * batch before handling this one, parses, and acknowledges a batch with one XACK without waiting for it.
 *
 * No schema, attempts, leases, retries, dead letters, trimming or reconnecting.
 */
import { Effect } from "effect"
import { Redis } from "ioredis"
import { batchesOf, type Peer, singly } from "../Peer.ts"
import type { Numbered } from "../Work.ts"

const stream = "bench"
const group = "bench"
const count = 500

/** The reply of XREADGROUP on one stream, as ioredis gives it. */
type Read = ReadonlyArray<readonly [stream: string, entries: ReadonlyArray<Entry>]> | null
type Entry = readonly [id: string, fields: ReadonlyArray<string>]

export const connect = (port: number, options?: { readonly enableAutoPipelining: boolean }) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const redis = new Redis(port, "127.0.0.1", { ...options, lazyConnect: true, maxRetriesPerRequest: null })
      await redis.connect()
      return redis
    }),
    (redis) => Effect.sync(() => redis.disconnect())
  )

export const make = Effect.fnUntraced(function* (port: number) {
  const commands = yield* connect(port)
  const pipelined = yield* connect(port, { enableAutoPipelining: true })
  yield* Effect.promise(() => commands.xgroup("CREATE", stream, group, "0", "MKSTREAM"))
  const publish = (redis: Redis, message: Numbered) => redis.xadd(stream, "*", "payload", JSON.stringify(message))

  const peer: Peer = {
    publishBatches: (messages) =>
      Effect.promise(async () => {
        for (const batch of batchesOf(messages)) {
          const pipeline = commands.pipeline()
          for (const message of batch) pipeline.xadd(stream, "*", "payload", JSON.stringify(message))
          await pipeline.exec()
        }
      }),
    publishSingly: (messages) => Effect.promise(() => singly(messages, (message) => publish(pipelined, message))),
    publishOne: (message) => publish(commands, message),
    consume: Effect.fnUntraced(function* (handle) {
      const reader = yield* connect(port)
      yield* Effect.acquireRelease(
        Effect.sync(() => startLoop(reader, commands, handle)),
        (stop) => Effect.promise(stop)
      )
    }),
    left: Effect.promise(async () => {
      const pending = (await commands.xpending(stream, group)) as [number, ...ReadonlyArray<unknown>]
      // The group comes as a flat list of names and values.
      const [info] = (await commands.xinfo("GROUPS", stream)) as [ReadonlyArray<unknown>]
      return pending[0] + Number(info[info.indexOf("lag") + 1])
    })
  }
  return peer
})

/** Returns how to stop it; after that, everything handled is acknowledged. */
const startLoop = (reader: Redis, commands: Redis, handle: (message: Numbered) => void): (() => Promise<void>) => {
  let stopped = false
  let acks = Promise.resolve<unknown>(undefined)
  const read = (): Promise<Read> =>
    reader.xreadgroup("GROUP", group, "loop", "COUNT", count, "BLOCK", 0, "STREAMS", stream, ">") as Promise<Read>

  const loop = async () => {
    let next = read()
    while (true) {
      const reply = await next
      if (stopped) return
      next = read()
      if (reply === null) continue
      for (const [, entries] of reply) {
        const ids: Array<string> = []
        for (const [id, fields] of entries) {
          // We wrote the entry: its first field is the payload.
          handle(JSON.parse(fields[1]!))
          ids.push(id)
        }
        acks = commands.xack(stream, group, ...ids)
      }
    }
  }
  const closed = loop().catch((error: unknown) => {
    // Stopping closes the connection under the waiting read.
    if (!stopped) throw error
  })
  return async () => {
    stopped = true
    reader.disconnect()
    await closed
    // Replies come in order: with the last one, all are here.
    await acks
  }
}
