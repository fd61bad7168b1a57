/**
 * Finding one message by its id among many, in a stream with three groups: what it costs the server.
 */
import { Effect, Option } from "effect"
import type { Redis } from "ioredis"
import { JobNotDone } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import { make, type Operator, prefix } from "../peers/Operator.ts"
import { format, limit, median } from "../Report.ts"

const tag = `{${prefix}:many}`
/** How many messages are looked up. */
const lookups = 1000
/** How many of the messages the groups have been given, and how many of those they have not settled. */
const groups = { one: [1, 1000], two: [0.5, 1000], three: [0, 0] } as const

const round = Effect.fnUntraced(function* ({ inspector, redis }: Operator, { messages }: Measure.Size) {
  const ids = yield* Effect.promise(() => store(redis, messages))
  const before = yield* Effect.promise(() => scripts(redis))
  const from = performance.now()
  for (const id of ids) {
    const found = yield* inspector.message("many", id)
    if (Option.isNone(found) || found.value.groups.length !== 3) {
      return yield* new JobNotDone({ message: `${id} was not found in three groups` })
    }
  }
  const millis = (performance.now() - from) / ids.length
  const after = yield* Effect.promise(() => scripts(redis))
  return { millis, server: (after.usec - before.usec) / (after.calls - before.calls) / 1000 }
})

export const lookup = Measure.make({
  name: "lookup",
  title: "finding a message by its id",
  full: { warmups: 1, rounds: 3, messages: 1_000_000 },
  quick: { warmups: 0, rounds: 2, messages: 50_000 },
  contenders: { waybill: async () => make },
  round,
  describe: ({ millis, server }) => `${format(millis)} ms, ${format(server)} ms of the server`,
  judge: ({ waybill }) => [
    limit({
      measure: "message by id, three groups",
      unit: "ms",
      value: median(Measure.valuesOf(waybill, "server")),
      against: "time of the server in its script, as commandstats has it",
      bar: { atMost: 0.15 }
    })
  ]
})

const add = `
local last
for i = 1, ARGV[1] do
  last = redis.call('XADD', KEYS[1], '*', 'payload', '{"seq":' .. i .. ',"customer":"customer-1000","cents":100}')
end
return last
`

/** Returns the ids of some messages, evenly spread. */
const store = async (redis: Redis, count: number): Promise<ReadonlyArray<string>> => {
  await redis.flushall()
  await redis.hset(`${tag}:meta`, { pattern: "streams", wire: "1" })
  await redis.sadd(`${tag}:groups`, ...Object.keys(groups))
  for (const group of Object.keys(groups)) await redis.xgroup("CREATE", `${tag}:stream`, group, "0", "MKSTREAM")
  const ids: Array<string> = []
  const step = Math.max(1, Math.floor(count / lookups))
  for (let i = 0; i < count; i += step) ids.push(String(await redis.eval(add, 1, `${tag}:stream`, step)))
  for (const [group, [share, pending]] of Object.entries(groups)) {
    const at = ids[Math.floor(share * (ids.length - 1))]
    if (pending === 0 || at === undefined) continue
    await redis.xreadgroup("GROUP", group, "worker", "COUNT", pending, "STREAMS", `${tag}:stream`, ">")
    await redis.xgroup("SETID", `${tag}:stream`, group, at)
  }
  return ids
}

/** How many scripts ran, and their time in microseconds. */
const scripts = async (redis: Redis) => {
  const info = await redis.info("commandstats")
  const [, calls, usec] = /cmdstat_evalsha:calls=(\d+),usec=(\d+)/.exec(info) ?? []
  return { calls: Number(calls ?? 0), usec: Number(usec ?? 0) }
}
