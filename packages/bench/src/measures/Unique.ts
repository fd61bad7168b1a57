/**
 * Messages that have their ids to themselves until they are settled, beside those whose ids count for the window: publishing them
 * with 200 callers at a time, and acks in batches. Both by the clock and by the server's time in its commands.
 */
import { Context, Duration, Effect, Layer } from "effect"
import type { Redis } from "ioredis"
import { type Message, Producer, Settlement, Topic, Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { collectGarbage } from "../Backlog.ts"
import { client } from "../Client.ts"
import * as Measure from "../Measure.ts"
import { batchSize, publishers } from "../Peer.ts"
import { compare, format } from "../Report.ts"
import { small } from "../Work.ts"

const contender = (unique: Message.Unique) => async () => (port: number) => Effect.succeed({ port, unique })

const round = Effect.fnUntraced(function* (
  { port, unique }: { readonly port: number; readonly unique: Message.Unique },
  { messages }: Measure.Size
) {
  const redis = yield* client(port)
  const context = yield* Layer.build(
    RedisStreams.layer({ prefix: "bench" }).pipe(Layer.provide(IoRedis.layer({ port })))
  )
  const topic = Topic.make("bench", { payload: small.schema, unique, guarantee: "at-most-once" })
  const { receive } = Context.get(context, Transport.AtMostOnce)
  const receiver = yield* receive({
    topic: topic.name,
    group: "bench",
    start: "earliest",
    lease: Duration.minutes(1),
    maxDeliveries: 5,
    shutdown: Duration.seconds(1)
  })
  const payloads = small.messages(messages)

  yield* Effect.promise(() => redis.config("RESETSTAT"))
  collectGarbage()
  let from = performance.now()
  let next = 0
  const publisher = Effect.gen(function* () {
    while (next < messages) {
      const payload = payloads[next++]! // within bounds: just checked
      yield* Producer.publish(topic, payload, { id: payload.reference })
    }
  })
  yield* Effect.all(
    Array.from({ length: publishers }, () => publisher),
    { concurrency: "unbounded", discard: true }
  ).pipe(Effect.provideContext(context))
  const publish = (messages * 1000) / (performance.now() - from)
  const publishMicros = (yield* Effect.promise(() => micros(redis, "evalsha"))) / messages

  yield* Effect.promise(() => redis.config("RESETSTAT"))
  let millis = 0
  for (let settled = 0; settled < messages;) {
    const deliveries = yield* receiver.take(batchSize)
    const [first, ...rest] = deliveries.map((delivery) => [delivery, Settlement.ack] as const)
    from = performance.now()
    if (first !== undefined) yield* receiver.settle([first, ...rest])
    millis += performance.now() - from
    settled += deliveries.length
  }
  // A command in a script counts for itself as well.
  const settleMicros = (yield* Effect.promise(() => micros(redis, unique === "window" ? "xack" : "evalsha"))) / messages
  return { publish, publishMicros, settle: (messages * 1000) / millis, settleMicros }
}, Effect.scoped)

/** The server's time in a command, in microseconds. */
const micros = async (redis: Redis, command: string): Promise<number> =>
  Number(new RegExp(`cmdstat_${command}:calls=\\d+,usec=(\\d+)`).exec(await redis.info("commandstats"))?.[1] ?? 0)

export const unique = Measure.make({
  name: "unique",
  title: "ids that are unique until settled, beside those of the window",
  full: { warmups: 1, rounds: 5, messages: 50_000 },
  quick: { warmups: 1, rounds: 3, messages: 10_000 },
  contenders: { untilSettled: contender("until-settled"), window: contender("window") },
  round,
  describe: ({ publish, publishMicros, settle, settleMicros }) =>
    `publish ${format(publish)}/s, ${format(publishMicros)} us of the server; ` +
    `ack ${format(settle)}/s, ${format(settleMicros)} us of the server`,
  judge: ({ untilSettled, window }) => {
    const of = (field: "publish" | "settle" | "publishMicros" | "settleMicros") => ({
      ours: Measure.valuesOf(untilSettled, field),
      theirs: Measure.valuesOf(window, field)
    })
    return [
      compare({
        measure: "publish, unique until settled",
        unit: "msgs/s",
        ...of("publish"),
        against: "an id of the window",
        bar: { atLeast: 0.9 }
      }),
      compare({
        measure: "ack, unique until settled",
        unit: "msgs/s",
        ...of("settle"),
        against: "plain",
        bar: { atLeast: 0.85 }
      }),
      compare({
        measure: "publish, unique until settled, time of the server",
        unit: "us",
        ...of("publishMicros"),
        against: "an id of the window"
      }),
      compare({
        measure: "ack, unique until settled, time of the server",
        unit: "us",
        ...of("settleMicros"),
        against: "plain"
      })
    ]
  }
})
