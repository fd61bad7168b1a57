/**
 * Publishing one message in a call, 200 callers at a time.
 */
import { Effect } from "effect"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { publish } from "../Publishing.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "publish, 200 fibers"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  return { rate: yield* publish(peer, messages, peer.publishSingly) }
})

export const publishOneByOne = Measure.make({
  name: "publish",
  title,
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000, fewer: { bullmq: 4000, persistedQueue: 4000, groupmq: 4000 } },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(small),
    xadd: async () => (await import("../peers/HandWritten.ts")).make,
    bullmq: async () => (await import("../peers/BullMq.ts")).make,
    persistedQueue: async () => (await import("../peers/PersistedQueue.ts")).make(small),
    groupmq: async () => (await import("../peers/GroupMq.ts")).make
  },
  own: ["waybill"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ bullmq, groupmq, persistedQueue, waybill, xadd }) => {
    const ours = { measure: title, unit: "msgs/s", ours: Measure.valuesOf(waybill, "rate") }
    return [
      compare({
        ...ours,
        against: "auto-pipelined XADD",
        theirs: Measure.valuesOf(xadd, "rate"),
        bar: { atLeast: 0.8 }
      }),
      compare({ ...ours, against: "BullMQ add", theirs: Measure.valuesOf(bullmq, "rate") }),
      compare({ ...ours, against: "PersistedQueue offer", theirs: Measure.valuesOf(persistedQueue, "rate") }),
      compare({ ...ours, against: "groupmq add", theirs: Measure.valuesOf(groupmq, "rate") })
    ]
  }
})
