/**
 * The server's time for 28 groups of which each wants one type of message of 28, with filters, beside plain groups that are given every
 * message.
 */
import { Effect, Layer, Schedule, Schema } from "effect"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { client } from "../Client.ts"
import * as Measure from "../Measure.ts"
import { compare, format } from "../Report.ts"

const types = Array.from({ length: 28 }, (_, i) => `Type${i}`)
const Events = Topic.make("bench", { payload: Schema.Struct({ n: Schema.Int, text: Schema.String }) })
const text = "x".repeat(60)

const groups = (filtered: boolean) => async () => (port: number) => Effect.succeed({ filtered, port })

const round = Effect.fnUntraced(function* (
  { filtered, port }: { readonly filtered: boolean; readonly port: number },
  { messages }: Measure.Size
) {
  const redis = yield* client(port)
  const busyMillis = Effect.map(
    Effect.promise(() => redis.info("cpu")),
    (info) =>
      [...info.matchAll(/^used_cpu_(?:user|sys):([\d.]+)/gm)].reduce((sum, [, seconds]) => sum + Number(seconds), 0) *
      1000
  )
  const layer = RedisStreams.layer({ prefix: "bench" }).pipe(Layer.provide(IoRedis.layer({ port })))
  return yield* Effect.gen(function* () {
    const inspector = yield* Inspector.Inspector
    const payloads = Array.from({ length: messages }, (_, n) => ({ n, text }))
    yield* Producer.publishAll(Events, payloads, ({ n }) => ({ headers: { type: types[n % types.length]! } }))
    const before = yield* busyMillis
    yield* Effect.forEach(types, (type) =>
      Consumer.make(Events, {
        group: type,
        concurrency: 64,
        ...(filtered && { only: { headers: { type: [type] } } })
      }).pipe(
        Consumer.process(() => Effect.void),
        Consumer.layer,
        Layer.build
      )
    )
    yield* inspector.describe(Events.name).pipe(
      Effect.repeat({
        until: ({ groups }) =>
          groups.length === types.length && groups.every(({ lag, pending }) => lag + pending === 0),
        schedule: Schedule.spaced("100 millis")
      })
    )
    return { micros: (((yield* busyMillis) - before) * 1000) / messages }
  }).pipe(Effect.scoped, Effect.provide(layer))
}, Effect.scoped)

const title = "server time a message, 28 groups that want one type of 28"

export const filters = Measure.make({
  name: "filters",
  title,
  full: { warmups: 1, rounds: 3, messages: 50_000 },
  quick: { warmups: 0, rounds: 1, messages: 5000 },
  contenders: { filtered: groups(true), plain: groups(false) },
  round,
  describe: ({ micros }) => `${format(micros)} us a message`,
  judge: ({ filtered, plain }) => [
    compare({
      measure: title,
      unit: "us",
      ours: Measure.valuesOf(filtered, "micros"),
      theirs: Measure.valuesOf(plain, "micros"),
      against: "without filters",
      bar: { atMost: 0.5 }
    })
  ]
})
