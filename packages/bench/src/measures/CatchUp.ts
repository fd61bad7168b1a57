/**
 * A late subscriber of the keyspace pattern reads messages written before it joined, in a database with many other keys.
 */
import { Effect } from "effect"
import { Redis } from "ioredis"
import { drain } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { compare } from "../Report.ts"
import { small } from "../Work.ts"

const title = "keyspace, catch-up among 1,000,000 other keys"

interface Crowd {
  readonly peer: Peer
  readonly others: Effect.Effect<unknown>
}

const round = Effect.fnUntraced(function* ({ others, peer }: Crowd, { messages }: Measure.Size) {
  yield* others
  yield* peer.publishBatches(small.messages(messages))
  return { millis: (messages / (yield* drain(peer, messages))) * 1000 }
})

const among = (keys: number) => async () => {
  const { onKeyspace } = await import("../peers/Waybill.ts")
  return (port: number) => Effect.map(onKeyspace(small)(port), (peer): Crowd => ({ peer, others: crowd(port, keys) }))
}

export const catchUp = Measure.make({
  name: "catch-up",
  title,
  full: { warmups: 1, rounds: 5, messages: 10_000 },
  quick: { warmups: 1, rounds: 3, messages: 10_000 },
  contenders: { million: among(1_000_000), thousand: among(1000) },
  round,
  describe: ({ millis }) => `${millis.toFixed(1)} ms`,
  judge: ({ million, thousand }) => [
    compare({
      measure: title,
      unit: "ms",
      ours: Measure.valuesOf(million, "millis"),
      against: "among 1,000",
      theirs: Measure.valuesOf(thousand, "millis"),
      bar: { atMost: 1.3 }
    })
  ]
})

const fill = `for i = ARGV[1], ARGV[2] do redis.call("SET", "other:" .. i, "x", "EX", 3600) end`

/** Creates that many unrelated keys, which expire like ours. */
const crowd = (port: number, keys: number) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Redis(port, "127.0.0.1")),
    (redis) =>
      Effect.promise(async () => {
        const step = 1000
        for (let i = 0; i < keys; i += step) await redis.eval(fill, 0, i, i + step - 1)
      }),
    (redis) => Effect.sync(() => redis.disconnect())
  )
