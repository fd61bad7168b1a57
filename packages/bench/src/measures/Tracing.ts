/**
 * The cost of tracing without an installed tracer: publishing and consuming in memory, where nothing else takes time,
 * beside the same library without the places that ask for a span.
 */
import { Effect } from "effect"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "no tracer installed, in memory"

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  const backlog = small.messages(messages)
  const from = performance.now()
  yield* peer.publishBatches(backlog)
  const published = (performance.now() - from) / 1000
  const rate = yield* drain(peer, messages)
  return { rate: messages / (published + messages / rate) }
})

export const tracing = Measure.make({
  name: "tracing",
  title,
  full: { warmups: 2, rounds: 9, messages: 200_000 },
  quick: { warmups: 1, rounds: 5, messages: 50_000 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onMemory(small),
    untraced: async () => (await import("../peers/Untraced.ts")).onMemory(small)
  },
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ untraced, waybill }) => [
    compare({
      measure: title,
      unit: "msgs/s",
      ours: Measure.valuesOf(waybill, "rate"),
      theirs: Measure.valuesOf(untraced, "rate"),
      against: "without traces",
      bar: { atLeast: 0.97 }
    })
  ]
})
