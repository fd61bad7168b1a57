/**
 * A long backlog beside a short one: the cost of a message must not grow with the number of messages behind it.
 */
import { Effect } from "effect"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

/** Published in pieces, so that millions of payloads do not occupy the consumer's heap. */
const piece = 50_000

const round = Effect.fnUntraced(function* (peer: Peer, { messages }: Measure.Size) {
  for (let from = 0; from < messages; from += piece) {
    yield* peer.publishBatches(small.messages(Math.min(piece, messages - from), from))
  }
  return { micros: 1e6 / (yield* drain(peer, messages)) }
})

const onRedis = async () => (await import("../peers/Waybill.ts")).onRedis(small)

export const depth = Measure.make({
  name: "depth",
  title: "a backlog of 3,000,000 beside one of 200,000",
  full: { warmups: 1, rounds: 5, messages: 3_000_000, fewer: { short: 200_000 } },
  quick: { warmups: 1, rounds: 3, messages: 150_000, fewer: { short: 20_000 } },
  contenders: { long: onRedis, short: onRedis },
  round,
  describe: ({ micros }) => `${format(micros)} us a message`,
  judge: ({ long, short }) => [
    compare({
      measure: "a long backlog",
      unit: "us",
      ours: Measure.valuesOf(long, "micros"),
      theirs: Measure.valuesOf(short, "micros"),
      against: "a short one",
      bar: { atMost: 1.05 }
    })
  ]
})
