/**
 * The upper limit for queues in lists: ids in a list and messages beside them, a script that moves 500 ids to a
 * processing list and returns their messages, and one that removes them once handled. It asks for the next batch
 * before handling this one.
 *
 * No schema, attempts, leases, retries, dead letters, notifications or reconnecting.
 */
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { batchesOf, type Peer, singly } from "../Peer.ts"
import type { Numbered } from "../Work.ts"
import { connect } from "./HandWritten.ts"

const [ready, bodies, processing] = ["bench:ready", "bench:bodies", "bench:processing"]
const count = 500

const popLua = `#!lua
local ids = redis.call('LPOP', KEYS[1], ARGV[1])
if not ids then return {{}, {}} end
redis.call('RPUSH', KEYS[3], unpack(ids))
return {ids, redis.call('HMGET', KEYS[2], unpack(ids))}`

const doneLua = `#!lua
for i = 1, #ARGV do redis.call('LREM', KEYS[2], 1, ARGV[i]) end
return redis.call('HDEL', KEYS[1], unpack(ARGV))`

export const make = Effect.fnUntraced(function* (port: number) {
  const commands = yield* connect(port)
  const pipelined = yield* connect(port, { enableAutoPipelining: true })
  let last = 0
  const publish = (redis: Redis, message: Numbered) => {
    const id = String(++last)
    redis.hset(bodies, id, JSON.stringify(message))
    return redis.rpush(ready, id)
  }

  const peer: Peer = {
    publishBatches: (messages) =>
      Effect.promise(async () => {
        for (const batch of batchesOf(messages)) {
          const pipeline = commands.pipeline()
          for (const message of batch) {
            const id = String(++last)
            pipeline.hset(bodies, id, JSON.stringify(message)).rpush(ready, id)
          }
          await pipeline.exec()
        }
      }),
    publishSingly: (messages) => Effect.promise(() => singly(messages, (message) => publish(pipelined, message))),
    publishOne: (message) => publish(commands, message),
    consume: Effect.fnUntraced(function* (handle) {
      yield* Effect.acquireRelease(
        Effect.promise(() => startLoop(commands, handle)),
        (stop) => Effect.promise(stop)
      )
    }),
    left: Effect.promise(async () => (await commands.llen(ready)) + (await commands.llen(processing)))
  }
  return peer
})

/** Returns how to stop it; after that, everything handled is removed. */
const startLoop = async (commands: Redis, handle: (message: Numbered) => void): Promise<() => Promise<void>> => {
  const pop = String(await commands.script("LOAD", popLua))
  const done = String(await commands.script("LOAD", doneLua))
  let stopped = false
  let removed = Promise.resolve<unknown>(undefined)
  // The shape of the script's reply.
  const take = () =>
    commands.evalsha(pop, 3, ready, bodies, processing, count) as Promise<
      readonly [ReadonlyArray<string>, ReadonlyArray<string>]
    >

  const loop = async () => {
    let next = take()
    while (true) {
      const [ids, messages] = await next
      if (stopped) return
      next = take()
      if (ids.length === 0) continue
      for (const message of messages) handle(JSON.parse(message))
      removed = commands.evalsha(done, 2, bodies, processing, ...ids)
    }
  }
  const ended = loop()
  return async () => {
    stopped = true
    await ended
    await removed
  }
}
