/**
 * Memory while a long backlog passes: with uncollected garbage, which says more about the engine than about us, so the
 * hand-written loop is measured too; and live memory, after a collection every now and then. Neither may grow with the
 * messages ahead or behind, whatever their sizes.
 */
import { Effect } from "effect"
import { collectGarbage, drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { format, limit } from "../Report.ts"
import { mixed, small, type Work } from "../Work.ts"

const megabyte = 1024 * 1024

/** Bytes from the socket are outside the heap. */
const memoryUsed = () => {
  const { external, heapUsed } = process.memoryUsage()
  return (heapUsed + external) / megabyte
}

/** How often memory is sampled. */
const lookMillis = 5

/** Published in pieces: the payloads must not be on the heap that is measured. */
const fill = (peer: Peer, { messagesOf, piece }: Sizes, messages: number) =>
  Effect.gen(function* () {
    for (let from = 0; from < messages; from += piece) {
      yield* peer.publishBatches(messagesOf(Math.min(piece, messages - from), from))
    }
  })

/** The peak above `idle` while a backlog passed. */
const peakOf = (peer: Peer, sizes: Sizes, messages: number, idle: number, millis: number, before: () => void) =>
  Effect.gen(function* () {
    yield* fill(peer, sizes, messages)
    collectGarbage()
    let peak = 0
    yield* Effect.acquireUseRelease(
      Effect.sync(() =>
        setInterval(() => {
          before()
          peak = Math.max(peak, memoryUsed() - idle)
        }, millis)
      ),
      () => drain(peer, messages),
      (sampler) => Effect.sync(() => clearInterval(sampler))
    )
    return peak
  })

interface Sizes {
  readonly messagesOf: Work["messages"]
  readonly piece: number
  /** How often the heap is collected and then sampled: rarely, since nothing moves meanwhile. */
  readonly cleanMillis: number
}

const roundOf = (sizes: Sizes) =>
  Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
    collectGarbage()
    const idle = memoryUsed()
    const peak = yield* peakOf(peer, sizes, messages, idle, lookMillis, () => {})
    const alive = yield* peakOf(peer, sizes, Math.ceil(messages / 4), idle, sizes.cleanMillis, collectGarbage)
    return { idle, peak, alive }
  })

const describe = ({ alive, idle, peak }: { readonly idle: number; readonly peak: number; readonly alive: number }) =>
  `${format(idle)} MB idle, at most ${format(peak)} MB above it, ${format(alive)} MB of them alive`

const most = (samples: ReadonlyArray<{ readonly peak: number; readonly alive: number }>, name: "peak" | "alive") =>
  Math.max(...samples.map((sample) => sample[name]))

const title = "heap while consuming a backlog"

export const heap = Measure.make({
  name: "heap",
  title,
  full: { warmups: 0, rounds: 1, messages: 1_000_000 },
  quick: { warmups: 0, rounds: 1, messages: 100_000 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(small),
    loop: async () => (await import("../peers/HandWritten.ts")).make
  },
  round: roundOf({ messagesOf: small.messages, piece: 50_000, cleanMillis: 200 }),
  describe,
  judge: ({ loop, waybill }) => [
    limit({
      measure: title,
      unit: "MB",
      value: most(waybill, "peak"),
      against: `hand-written loop: ${format(most(loop, "peak"))} MB`,
      bar: { atMost: 64 }
    }),
    limit({
      measure: `${title}, alive`,
      unit: "MB",
      value: most(waybill, "alive"),
      against: `hand-written loop: ${format(most(loop, "alive"))} MB`,
      bar: { atMost: 64 }
    })
  ]
})

const onMixed = async () => (await import("../peers/Waybill.ts")).onRedis(mixed)

/** Three times the backlog in the same memory. */
export const heapMixed = Measure.make({
  name: "heap-mixed",
  title: "heap, messages of 100 bytes to 1 MB",
  full: { warmups: 1, rounds: 3, messages: 30_000, fewer: { short: 10_000 } },
  quick: { warmups: 1, rounds: 1, messages: 6000, fewer: { short: 2000 } },
  contenders: { long: onMixed, short: onMixed },
  round: roundOf({ messagesOf: mixed.messages, piece: 1000, cleanMillis: 20 }),
  describe,
  judge: ({ long, short }) => [
    limit({
      measure: "heap, messages of 100 bytes to 1 MB, alive",
      unit: "MB",
      value: most(long, "alive"),
      against: `a third of the backlog: ${format(most(short, "alive"))} MB`,
      bar: { atMost: 128 }
    })
  ]
})
