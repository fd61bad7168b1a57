/**
 * The same pipeline on the in-memory layer, beside the hand-written loop on Redis.
 */
import { Effect } from "effect"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "in-memory layer, consume"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  yield* peer.publishBatches(small.messages(messages))
  return { rate: yield* drain(peer, messages) }
})

export const memory = Measure.make({
  name: "memory",
  title,
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onMemory(small),
    loop: async () => (await import("../peers/HandWritten.ts")).make
  },
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ loop, waybill }) => [
    compare({
      measure: title,
      unit: "msgs/s",
      ours: Measure.valuesOf(waybill, "rate"),
      theirs: Measure.valuesOf(loop, "rate"),
      against: "hand-written loop on Redis",
      bar: { atLeast: 1.3 }
    })
  ]
})
