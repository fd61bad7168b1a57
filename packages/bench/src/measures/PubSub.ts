/**
 * From publishing to the handler through channels, with a subscriber present from the beginning.
 */
import { Effect } from "effect"
import { flow } from "../Flow.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "pub/sub, publish to handler"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  return { rate: yield* flow(peer, messages) }
})

export const pubSub = Measure.make({
  name: "pub-sub",
  title,
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onPubSub(small),
    loop: async () => (await import("../peers/HandWrittenPubSub.ts")).make
  },
  own: ["waybill"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ loop, waybill }) => [
    compare({
      measure: title,
      unit: "msgs/s",
      ours: Measure.valuesOf(waybill, "rate"),
      against: "hand-written SUBSCRIBE loop",
      theirs: Measure.valuesOf(loop, "rate"),
      bar: { atLeast: 0.85 }
    })
  ]
})
