/**
 * From publishing to the handler while nothing else happens: the consumer waits in a blocking read each time.
 */
import { setTimeout } from "node:timers/promises"
import { Effect } from "effect"
import { collectGarbage } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, percentile } from "../Report.ts"
import { small } from "../Work.ts"

/** Long enough for the acknowledgement and the next blocking read to reach the server. */
const pause = 3

/** The first messages on a new connection run code that is cold. */
const unmeasured = 50

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  let handled: (() => void) | undefined
  yield* peer.consume(() => handled?.())
  collectGarbage()
  const times = yield* Effect.promise(async () => {
    const times: Array<number> = []
    for (const message of small.messages(unmeasured + messages)) {
      await setTimeout(pause)
      times.push(
        await new Promise<number>((resolve, reject) => {
          const startedAt = performance.now()
          handled = () => resolve(performance.now() - startedAt)
          peer.publishOne(message).catch(reject)
        })
      )
    }
    return times.slice(unmeasured)
  })
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
})

export const latency = Measure.make({
  name: "latency",
  title: "idle latency, publish to handler",
  full: { warmups: 1, rounds: 5, messages: 1000 },
  quick: { warmups: 1, rounds: 3, messages: 200 },
  contenders: {
    waybill: async () => (await import("../peers/Waybill.ts")).onRedis(small),
    loop: async () => (await import("../peers/HandWritten.ts")).make
  },
  round,
  describe: ({ p50, p99 }) => `p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`,
  judge: ({ loop, waybill }) => [
    compare({
      measure: "idle latency, p50",
      unit: "ms",
      ours: Measure.valuesOf(waybill, "p50"),
      theirs: Measure.valuesOf(loop, "p50"),
      against: "hand-written blocking loop",
      bar: { atMost: 1.4 }
    }),
    compare({
      measure: "idle latency, p99",
      unit: "ms",
      ours: Measure.valuesOf(waybill, "p99"),
      theirs: Measure.valuesOf(loop, "p99"),
      against: "hand-written blocking loop",
      bar: { atMost: 1.4 }
    })
  ]
})
