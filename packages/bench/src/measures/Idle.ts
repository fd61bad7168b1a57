/**
 * The server's time for a member that waits on an empty topic: the sum of what its commands took, per second. The server counts a
 * script as one command, with everything in it.
 */
import { Effect } from "effect"
import { client } from "../Client.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { format, median } from "../Report.ts"
import { small } from "../Work.ts"

/** From joining until nothing but the heartbeat is left, and for how long that is watched. */
const settleSeconds = 3
const watchSeconds = 10

const on = (name: "onRedis" | "onLists" | "onKeyspace" | "onPubSub") => async () => {
  const make = (await import("../peers/Waybill.ts"))[name](small)
  return (port: number) => Effect.map(make(port), (peer) => ({ peer, port }))
}

const round = Effect.fnUntraced(function* ({ peer, port }: { readonly peer: Peer; readonly port: number }) {
  const redis = yield* client(port)
  yield* peer.consume(() => {})
  yield* Effect.sleep(settleSeconds * 1000)
  yield* Effect.promise(() => redis.config("RESETSTAT"))
  yield* Effect.sleep(watchSeconds * 1000)
  const stats = yield* Effect.promise(() => redis.info("commandstats"))
  return { micros: microsIn(stats) / watchSeconds }
})

/** Commands that clients send: what a script calls is in the time of the script. */
const sent = /cmdstat_(?:evalsha|eval|xreadgroup|ping|scan|config\|get):calls=\d+,usec=(\d+)/g

const microsIn = (stats: string): number =>
  [...stats.matchAll(sent)].reduce((sum, [, micros]) => sum + Number(micros), 0)

const title = "server time of an idle member"

export const idle = Measure.make({
  name: "idle",
  title,
  full: { warmups: 0, rounds: 3, messages: 0 },
  quick: { warmups: 0, rounds: 1, messages: 0 },
  contenders: { streams: on("onRedis"), lists: on("onLists"), keyspace: on("onKeyspace"), pubSub: on("onPubSub") },
  round,
  describe: ({ micros }) => `${format(micros)} us/s`,
  // Without a bar: after a pause every cache is cold, and what that costs depends on the machine.
  judge: (samples) =>
    (["streams", "lists", "keyspace", "pubSub"] as const).map((name) => ({
      measure: `${title}, ${name}`,
      unit: "us/s",
      value: median(Measure.valuesOf(samples[name], "micros")),
      against: "a second of one core",
      ratio: null,
      bar: null,
      met: null
    }))
})
