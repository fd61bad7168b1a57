/**
 * Consuming a backlog of small messages.
 */
import { Effect } from "effect"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format, median } from "../Report.ts"
import { small } from "../Work.ts"

const title = "consume, small messages"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  yield* peer.publishBatches(small.messages(messages))
  return { rate: yield* drain(peer, messages) }
})

export const consume = Measure.make({
  name: "consume",
  title,
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000, fewer: { bullmq: 2000, persistedQueue: 2000, groupmq: 2000 } },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(small),
    loop: async () => (await import("../peers/HandWritten.ts")).make,
    bullmq: async () => (await import("../peers/BullMq.ts")).make,
    persistedQueue: async () => (await import("../peers/PersistedQueue.ts")).make(small),
    groupmq: async () => (await import("../peers/GroupMq.ts")).make
  },
  own: ["waybill"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ bullmq, groupmq, loop, persistedQueue, waybill }) => {
    const ours = { measure: title, unit: "msgs/s", ours: Measure.valuesOf(waybill, "rate") }
    const peers = [
      { against: "BullMQ", theirs: Measure.valuesOf(bullmq, "rate") },
      { against: "PersistedQueue", theirs: Measure.valuesOf(persistedQueue, "rate") },
      { against: "groupmq", theirs: Measure.valuesOf(groupmq, "rate") }
    ].toSorted((a, b) => median(b.theirs) - median(a.theirs))
    return [
      compare({
        ...ours,
        against: "hand-written loop",
        theirs: Measure.valuesOf(loop, "rate"),
        bar: { atLeast: 0.92 }
      }),
      // The bar is for the fastest of them; the others are informative.
      ...peers.map((peer, place) => compare({ ...ours, ...peer, ...(place === 0 ? { bar: { atLeast: 6 } } : {}) }))
    ]
  }
})
