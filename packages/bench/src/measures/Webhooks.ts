/**
 * Consuming a backlog of webhook payloads: ten kilobytes a message, and most of the work is JSON.
 */
import { Effect } from "effect"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { webhooks as work } from "../Work.ts"

const title = "consume, webhook payloads"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  yield* peer.publishBatches(work.messages(messages))
  return { rate: yield* drain(peer, messages) }
})

export const webhooks = Measure.make({
  name: "webhooks",
  title,
  // 60 and 6 times all 329 payloads; once for slow contenders.
  full: { warmups: 1, rounds: 5, messages: 19_740 },
  quick: { warmups: 1, rounds: 3, messages: 1974, fewer: { bullmq: 329, persistedQueue: 329, groupmq: 329 } },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(work),
    loop: async () => (await import("../peers/HandWritten.ts")).make,
    bullmq: async () => (await import("../peers/BullMq.ts")).make,
    persistedQueue: async () => (await import("../peers/PersistedQueue.ts")).make(work),
    groupmq: async () => (await import("../peers/GroupMq.ts")).make
  },
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ bullmq, groupmq, loop, persistedQueue, waybill }) => {
    const ours = { measure: title, unit: "msgs/s", ours: Measure.valuesOf(waybill, "rate") }
    return [
      compare({
        ...ours,
        against: "hand-written loop",
        theirs: Measure.valuesOf(loop, "rate"),
        bar: { atLeast: 0.85 }
      }),
      compare({ ...ours, against: "BullMQ", theirs: Measure.valuesOf(bullmq, "rate") }),
      compare({ ...ours, against: "PersistedQueue", theirs: Measure.valuesOf(persistedQueue, "rate") }),
      compare({ ...ours, against: "groupmq", theirs: Measure.valuesOf(groupmq, "rate") })
    ]
  }
})
