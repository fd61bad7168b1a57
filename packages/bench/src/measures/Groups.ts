/**
 * A topic with a thousand groups beside one with a single group: publishing and consuming cost the same, however many
 * groups exist beside the consuming one.
 */
import { Effect } from "effect"
import { flow } from "../Flow.ts"
import * as Measure from "../Measure.ts"
import type { WaybillPeer } from "../peers/Waybill.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const title = "publish to handler, 1,000 groups on the topic"

const among = (others: number) => async () => {
  const { onRedis } = await import("../peers/Waybill.ts")
  return (port: number) => Effect.map(onRedis(small)(port), (peer) => ({ peer, others }))
}

const round = Effect.fnUntraced(function* (
  { others, peer }: { readonly peer: WaybillPeer; readonly others: number },
  { messages }: Measure.Size
) {
  yield* peer.idleGroups(others)
  return { rate: yield* flow(peer, messages) }
})

export const groups = Measure.make({
  name: "groups",
  title,
  full: { warmups: 1, rounds: 5, messages: 200_000 },
  quick: { warmups: 1, rounds: 3, messages: 20_000 },
  contenders: { many: among(999), one: among(0) },
  round,
  describe: ({ rate }) => `${format(rate)}/s`,
  judge: ({ many, one }) => [
    compare({
      measure: title,
      unit: "msgs/s",
      ours: Measure.valuesOf(many, "rate"),
      theirs: Measure.valuesOf(one, "rate"),
      against: "a single group",
      bar: { atLeast: 0.95 }
    })
  ]
})
