/**
 * Many schedules that a program declares: what each takes of the server's memory, how many commands the program sends while none is
 * due, and how long it takes to publish a thousand ticks that are due in the same second.
 */
import { Clock, Context, DateTime, Effect, Layer, Option, Schema } from "effect"
import type { Redis } from "ioredis"
import { Schedules, Topic, Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { JobNotDone } from "../Backlog.ts"
import { client } from "../Client.ts"
import * as Measure from "../Measure.ts"
import { format, limit, median } from "../Report.ts"

const Digest = Topic.make("digests", { payload: Schema.Struct({ user: Schema.String }) })

const watchSeconds = 20
/** How many are due in the same second. */
const together = 1000

/** Connections of a program, and a plain client beside them. */
const make = Effect.fnUntraced(function* (port: number) {
  const redis = yield* client(port)
  const context = yield* Layer.build(RedisStreams.layer().pipe(Layer.provide(IoRedis.layer({ port }))))
  return { redis, context }
})

const round = Effect.fnUntraced(function* (
  { context, redis }: Effect.Success<ReturnType<typeof make>>,
  { messages }: Measure.Size
) {
  const transport = Context.get(context, Transport.AtLeastOnce)
  const store = transport.schedules
  if (store === undefined) return yield* new JobNotDone({ message: "streams keep no schedules" })
  const weekly = (user: string) =>
    Schedules.cron(user, "0 8 * * MON", { zone: "Europe/Berlin", topic: Digest, payload: { user } })
  const users = Array.from({ length: messages }, (_, i) => `user:${100_000 + i}`)
  const declare = (some: ReadonlyArray<string>) =>
    Effect.provideContext(Layer.build(Schedules.layer(some.map(weekly))), context)
  yield* Effect.scoped(declare(["user:0"]))
  const before = yield* dataset(redis)
  yield* declare(users)
  // Each has had a tick, as after its first week.
  let after = Option.none<Transport.StoredSchedule>()
  while (true) {
    const { now, schedules } = yield* store.page(Digest.name, after, 250)
    const last = schedules.at(-1)
    if (last === undefined) break
    const ticked = schedules.map((one) => {
      const text = JSON.stringify({ ...JSON.parse(one.text), last: now, count: 1 })
      return { ...one, text, messages: [] }
    })
    yield* store.change(Digest.name, ticked, false)
    after = Option.some(last)
  }
  const bytes = ((yield* dataset(redis)) - before) / users.length
  yield* Effect.sleep("5 seconds")
  const sent = yield* commands(redis)
  yield* Effect.sleep(watchSeconds * 1000)
  const idle = ((yield* commands(redis)) - sent) / watchSeconds

  const start = DateTime.makeUnsafe((yield* Clock.currentTimeMillis) + 10_000)
  const options = { topic: Digest, start, times: 1 }
  yield* Effect.provideContext(
    Effect.forEach(
      users.slice(0, together),
      (user) => Schedules.upsert(Schedules.every(`once:${user}`, "1 second", { ...options, payload: { user } })),
      { concurrency: 100, discard: true }
    ),
    context
  )
  const { inspector } = transport
  while ((yield* inspector.describe(Digest.name)).depth < together) yield* Effect.sleep("50 millis")
  const [newest] = yield* inspector.messages(Digest.name, { before: Option.none(), limit: 1 })
  const tick = Date.parse(newest?.headers["tick"] ?? "")
  return { bytes, idle, millis: (newest?.publishedAt ?? Infinity) - tick }
})

export const schedules = Measure.make({
  name: "schedules",
  title: "schedules",
  full: { warmups: 0, rounds: 3, messages: 10_000 },
  quick: { warmups: 0, rounds: 1, messages: 2000 },
  contenders: { waybill: async () => make },
  round,
  describe: ({ bytes, idle, millis }) =>
    `${format(bytes)} bytes each, ${format(idle)} commands/s idle, ${format(millis)} ms for ${together}`,
  judge: ({ waybill }) => [
    limit({
      measure: "memory of a schedule",
      unit: "bytes",
      value: median(Measure.valuesOf(waybill, "bytes")),
      against: "used_memory_dataset",
      bar: { atMost: 400 }
    }),
    limit({
      measure: "commands of an idle program with schedules",
      unit: "commands/s",
      value: median(Measure.valuesOf(waybill, "idle")),
      against: "commandstats",
      bar: { atMost: 1 }
    }),
    limit({
      measure: `publishing ${together} ticks of the same second`,
      unit: "ms",
      value: median(Measure.valuesOf(waybill, "millis")),
      against: "the last one after its tick, by the server's clock",
      bar: { atMost: 1000 }
    })
  ]
})

const dataset = (redis: Redis) =>
  Effect.map(
    Effect.promise(() => redis.info("memory")),
    (info) => Number(/used_memory_dataset:(\d+)/.exec(info)?.[1])
  )

/** How many commands clients have sent, without those of this client. */
const commands = (redis: Redis) =>
  Effect.map(
    Effect.promise(() => redis.info("commandstats")),
    (info) =>
      [...info.matchAll(/cmdstat_(?:evalsha|eval|ping|xreadgroup):calls=(\d+)/g)].reduce(
        (sum, [, calls]) => sum + Number(calls),
        0
      )
  )
