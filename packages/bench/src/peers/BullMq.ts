/**
 * BullMQ with its default options, except that finished jobs are removed: keeping them would only be slower.
 */
import { Queue, Worker } from "bullmq"
import { Effect } from "effect"
import { batchesOf, concurrency, type Peer, singly } from "../Peer.ts"
import type { Numbered } from "../Work.ts"

const name = "bench"

export const make = Effect.fnUntraced(function* (port: number) {
  const connection = { host: "127.0.0.1", port }
  const queue = yield* Effect.acquireRelease(
    Effect.promise(async () => {
      const queue = new Queue<Numbered>(name, { connection })
      await queue.waitUntilReady()
      return queue
    }),
    (queue) => Effect.promise(() => queue.close())
  )
  const add = (message: Numbered) => queue.add("order", message)

  const peer: Peer = {
    publishBatches: (messages) =>
      Effect.promise(async () => {
        for (const batch of batchesOf(messages)) {
          await queue.addBulk(batch.map((data) => ({ name: "order", data })))
        }
      }),
    publishSingly: (messages) => Effect.promise(() => singly(messages, add)),
    publishOne: add,
    consume: (handle) =>
      Effect.acquireRelease(
        Effect.promise(async () => {
          const worker = new Worker<Numbered>(
            name,
            async (job) => {
              handle(job.data)
            },
            { connection, concurrency, removeOnComplete: { count: 0 } }
          )
          await worker.waitUntilReady()
          return worker
        }),
        (worker) => Effect.promise(() => worker.close())
      ),
    left: Effect.promise(async () => {
      const counts = await queue.getJobCounts("wait", "active", "delayed", "failed", "prioritized", "waiting-children")
      return Object.values(counts).reduce((sum, count) => sum + count, 0)
    })
  }
  return peer
})
