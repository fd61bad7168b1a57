/**
 * groupmq with its default options. It runs one job of a group at a time, so the messages are spread over 64
 * groups: enough for 64 at a time, and faster than any larger number.
 */
import { Effect } from "effect"
import { Queue, Worker } from "groupmq"
import { Redis } from "ioredis"
import { concurrency, type Peer, singly } from "../Peer.ts"
import type { Numbered } from "../Work.ts"

const groups = 64

export const make = Effect.fnUntraced(function* (port: number) {
  const redis = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis(port, "127.0.0.1", { maxRetriesPerRequest: null })),
    (redis) => Effect.sync(() => redis.disconnect())
  )
  const queue = yield* Effect.acquireRelease(
    Effect.sync(() => new Queue<Numbered>({ redis, namespace: "bench" })),
    (queue) => Effect.promise(() => queue.close())
  )
  const add = (message: Numbered) => queue.add({ groupId: `${message.seq % groups}`, data: message })

  const peer: Peer = {
    // It has no call for many messages; its buffer is off by default, because it may lose them.
    publishBatches: (messages) => Effect.promise(() => singly(messages, add)),
    publishSingly: (messages) => Effect.promise(() => singly(messages, add)),
    publishOne: add,
    consume: (handle) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          const worker = new Worker<Numbered>({
            queue,
            concurrency,
            handler: async (job) => {
              handle(job.data)
            }
          })
          void worker.run()
          return worker
        }),
        (worker) => Effect.promise(() => worker.close())
      ),
    left: Effect.promise(async () => {
      const counts = await Promise.all([queue.getWaitingCount(), queue.getActiveCount(), queue.getDelayedCount()])
      return counts.reduce((sum, count) => sum + count, 0)
    })
  }
  return peer
})
