/**
 * From publishing to the handler through keys that expire, with a subscriber present from the beginning.
 */
import { Effect } from "effect"
import { flow } from "../Flow.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "keyspace, publish to handler"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  return { rate: yield* flow(peer, messages) }
})

export const keyspace = Measure.make({
  name: "keyspace",
  title,
  full: { warmups: 1, rounds: 5, messages: 50_000 },
  quick: { warmups: 1, rounds: 3, messages: 10_000 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onKeyspace(small),
    loop: async () => (await import("../peers/HandWrittenKeyspace.ts")).make
  },
  own: ["waybill"],
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ loop, waybill }) => [
    compare({
      measure: title,
      unit: "msgs/s",
      ours: Measure.valuesOf(waybill, "rate"),
      against: "hand-written SET, event, GET",
      theirs: Measure.valuesOf(loop, "rate"),
      bar: { atLeast: 0.82 }
    })
  ]
})
