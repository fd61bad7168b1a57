/**
 * The heap while a long backlog goes by: garbage included, and with what survives collection told apart. Neither may
 * grow with what lies ahead or behind.
 */
import { Effect } from "effect"
import { collectGarbage, drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { format, limit, median } from "../Report.ts"
import { small } from "../Work.ts"

/** Published in pieces: the payloads must not lie on the heap that is measured. */
const piece = 50_000

const megabyte = 1024 * 1024

const heapUsed = () => process.memoryUsage().heapUsed / megabyte

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  for (let from = 0; from < messages; from += piece) {
    yield* peer.publishBatches(small.messages(Math.min(piece, messages - from), from))
  }
  collectGarbage()
  const idle = heapUsed()
  let peak = 0
  const sampler = setInterval(() => {
    peak = Math.max(peak, heapUsed() - idle)
  }, 5)
  yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(sampler)))
  yield* drain(peer, messages)
  clearInterval(sampler)
  collectGarbage()
  return { idle, peak, kept: heapUsed() - idle }
})

export const heap = Measure.make({
  name: "heap",
  title: "heap while consuming a backlog",
  full: { warmups: 0, rounds: 1, messages: 1_000_000 },
  quick: { warmups: 0, rounds: 1, messages: 100_000 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(small)
  },
  round,
  describe: ({ idle, kept, peak }) =>
    `${format(idle)} MB idle, at most ${format(peak)} MB above it, ${format(kept)} MB kept at the end`,
  judge: ({ waybill }) => [
    limit({
      measure: "heap while consuming a backlog",
      unit: "MB",
      value: Math.max(...Measure.valuesOf(waybill, "peak")),
      against: `idle: ${format(median(Measure.valuesOf(waybill, "idle")))} MB`,
      bar: { atMost: 64 }
    })
  ]
})
