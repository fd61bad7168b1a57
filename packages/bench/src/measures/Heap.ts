/**
 * The heap while a long backlog goes by: with the garbage that nobody has collected yet, which says more of the engine than
 * of us, so the hand-written loop stands beside it; and what is alive, asked with a collection every now and then.
 * Neither may grow with what lies ahead or behind.
 */
import { Effect } from "effect"
import { collectGarbage, drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { format, limit } from "../Report.ts"
import { small } from "../Work.ts"

/** Published in pieces: the payloads must not lie on the heap that is measured. */
const piece = 50_000

const megabyte = 1024 * 1024

const heapUsed = () => process.memoryUsage().heapUsed / megabyte

/** How often the heap is looked at, and how often it is cleaned first: seldom, since nothing moves meanwhile. */
const lookMillis = 5
const cleanMillis = 200

const fill = (peer: Peer, messages: number) =>
  Effect.gen(function* () {
    for (let from = 0; from < messages; from += piece) {
      yield* peer.publishBatches(small.messages(Math.min(piece, messages - from), from))
    }
  })

/** The most that was seen above `idle` while a backlog went by. */
const peakOf = (peer: Peer, messages: number, idle: number, millis: number, before: () => void) =>
  Effect.gen(function* () {
    yield* fill(peer, messages)
    collectGarbage()
    let peak = 0
    yield* Effect.acquireUseRelease(
      Effect.sync(() =>
        setInterval(() => {
          before()
          peak = Math.max(peak, heapUsed() - idle)
        }, millis)
      ),
      () => drain(peer, messages),
      (sampler) => Effect.sync(() => clearInterval(sampler))
    )
    return peak
  })

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  collectGarbage()
  const idle = heapUsed()
  const peak = yield* peakOf(peer, messages, idle, lookMillis, () => {})
  const alive = yield* peakOf(peer, Math.ceil(messages / 4), idle, cleanMillis, collectGarbage)
  return { idle, peak, alive }
})

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
  round,
  describe: ({ alive, idle, peak }) =>
    `${format(idle)} MB idle, at most ${format(peak)} MB above it, ${format(alive)} MB of them alive`,
  judge: ({ loop, waybill }) => {
    const most = (samples: typeof loop, name: "peak" | "alive") => Math.max(...Measure.valuesOf(samples, name))
    return [
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
  }
})
