/**
 * Messages that have their ids to themselves until they are settled, beside those whose ids count for the window, whose acks are
 * plain: publishing them one by one, consuming them, and the server's time in the commands that do it.
 */
import { Effect } from "effect"
import type { Redis } from "ioredis"
import type { Message } from "waybill"
import { drain } from "../Backlog.ts"
import { client } from "../Client.ts"
import * as Measure from "../Measure.ts"
import type { Peer } from "../Peer.ts"
import { publish } from "../Publishing.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

interface Contender {
  readonly peer: Peer
  readonly redis: Redis
  /** The command that acknowledges. */
  readonly ack: string
}

const contender = (unique: Message.Unique, ack: string) => async () => {
  const { withIds } = await import("../peers/Waybill.ts")
  return (port: number) =>
    Effect.all({ peer: withIds(unique)(small)(port), redis: client(port), ack: Effect.succeed(ack) })
}

const round = Effect.fnUntraced(function* ({ ack, peer, redis }: Contender, { messages }: Measure.Size) {
  /** The server's time in a command a message, in microseconds. A command in a script counts for itself as well. */
  const during = Effect.fnUntraced(function* <A, E, R>(command: string, work: Effect.Effect<A, E, R>) {
    yield* Effect.promise(() => redis.config("RESETSTAT"))
    const result = yield* work
    const stats = yield* Effect.promise(() => redis.info("commandstats"))
    const micros = Number(new RegExp(`cmdstat_${command}:calls=\\d+,usec=(\\d+)`).exec(stats)?.[1] ?? 0)
    return [result, micros / messages] as const
  })
  const [published, publishMicros] = yield* during("evalsha", publish(peer, messages, peer.publishSingly))
  const [consumed, ackMicros] = yield* during(ack, drain(peer, messages))
  return { published, publishMicros, consumed, ackMicros }
})

export const unique = Measure.make({
  name: "unique",
  title: "ids that are unique until settled, beside those of the window",
  full: { warmups: 1, rounds: 5, messages: 50_000 },
  quick: { warmups: 1, rounds: 3, messages: 10_000 },
  contenders: { untilSettled: contender("until-settled", "evalsha"), window: contender("window", "xack") },
  round,
  describe: ({ ackMicros, consumed, publishMicros, published }) =>
    `publish ${format(published)}/s, ${format(publishMicros)} us of the server; ` +
    `consume ${format(consumed)}/s, ${format(ackMicros)} us of the server for the ack`,
  judge: ({ untilSettled, window }) => {
    const of = (field: "published" | "consumed" | "publishMicros" | "ackMicros") => ({
      ours: Measure.valuesOf(untilSettled, field),
      theirs: Measure.valuesOf(window, field),
      against: "with ids of the window"
    })
    return [
      compare({ measure: "publish, unique until settled", unit: "msgs/s", ...of("published"), bar: { atLeast: 0.9 } }),
      compare({ measure: "consume, unique until settled", unit: "msgs/s", ...of("consumed"), bar: { atLeast: 0.85 } }),
      compare({ measure: "publish, unique until settled, time of the server", unit: "us", ...of("publishMicros") }),
      compare({ measure: "ack, unique until settled, time of the server", unit: "us", ...of("ackMicros") })
    ]
  }
})
