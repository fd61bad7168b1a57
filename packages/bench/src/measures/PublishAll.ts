/**
 * Publishing in batches of 500, one batch after the other.
 */
import { Effect } from "effect"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { publish } from "../Publishing.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "publishAll, batches of 500"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  return { rate: yield* publish(peer, messages, peer.publishBatches) }
})

export const publishAll = Measure.make({
  name: "publish-all",
  title,
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000, fewer: { bullmq: 4000 } },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(small),
    xadd: async () => (await import("../peers/HandWritten.ts")).make,
    bullmq: async () => (await import("../peers/BullMq.ts")).make
  },
  own: ["waybill"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ bullmq, waybill, xadd }) => {
    const ours = { measure: title, unit: "msgs/s", ours: Measure.valuesOf(waybill, "rate") }
    return [
      compare({ ...ours, against: "pipelined XADD", theirs: Measure.valuesOf(xadd, "rate"), bar: { atLeast: 0.8 } }),
      compare({ ...ours, against: "BullMQ addBulk", theirs: Measure.valuesOf(bullmq, "rate"), bar: { atLeast: 5 } })
    ]
  }
})
