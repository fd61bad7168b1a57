/**
 * Consuming a backlog of small messages from a queue in lists.
 */
import { Effect } from "effect"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "consume from lists, small messages"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  yield* peer.publishBatches(small.messages(messages))
  return { rate: yield* drain(peer, messages) }
})

export const lists = Measure.make({
  name: "lists",
  title,
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000, fewer: { bullmq: 2000 } },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onLists(small),
    loop: async () => (await import("../peers/HandWrittenLists.ts")).make,
    bullmq: async () => (await import("../peers/BullMq.ts")).make
  },
  own: ["waybill"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ bullmq, loop, waybill }) => {
    const ours = { measure: title, unit: "msgs/s", ours: Measure.valuesOf(waybill, "rate") }
    return [
      compare({
        ...ours,
        against: "hand-written loop",
        theirs: Measure.valuesOf(loop, "rate"),
        bar: { atLeast: 0.65 }
      }),
      compare({ ...ours, against: "BullMQ", theirs: Measure.valuesOf(bullmq, "rate"), bar: { atLeast: 3 } })
    ]
  }
})
