/**
 * Consuming a backlog of small messages, each of which adds one to a counter: in the same step as its ack and at most once
 * per id. The peer only handles messages; it writes nothing and may repeat them.
 */
import { Effect } from "effect"
import { drain, JobNotDone } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import type { CommittingPeer } from "../peers/Waybill.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "exactly-once, consume with one counter write a message"

const round = Effect.fnUntraced(function* (peer: Peer | CommittingPeer, { messages }: Measure.Size) {
  yield* peer.publishBatches(small.messages(messages))
  const rate = yield* drain(peer, messages)
  const counted = "counted" in peer ? yield* peer.counted : messages
  if (counted !== messages) return yield* new JobNotDone({ message: `the counter says ${counted}, not ${messages}` })
  return { rate }
})

export const exactlyOnce = Measure.make({
  name: "exactly-once",
  title,
  full: { warmups: 1, rounds: 5, messages: 50_000 },
  quick: { warmups: 1, rounds: 3, messages: 10_000, fewer: { bullmq: 2000 } },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).committing(small),
    streams: async () => (await import("../peers/Waybill.ts")).committingOnStreams(small),
    bullmq: async () => (await import("../peers/BullMq.ts")).make
  },
  own: ["waybill", "streams"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ bullmq, streams, waybill }) => {
    const theirs = {
      unit: "msgs/s",
      against: "BullMQ without deduplication",
      theirs: Measure.valuesOf(bullmq, "rate")
    }
    return [
      compare({ measure: title, ours: Measure.valuesOf(waybill, "rate"), ...theirs, bar: { atLeast: 4 } }),
      compare({ measure: "commits on streams, the same", ours: Measure.valuesOf(streams, "rate"), ...theirs })
    ]
  }
})
