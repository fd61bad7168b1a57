/**
 * The cost of inspection: `waybill stats` as a process over 1,000 topics with 3,000 groups, the first page of dead letters
 * beside the last, and redriving dead letters to their group.
 */
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import { Effect, Option } from "effect"
import type { Redis } from "ioredis"
import { DeadLetters, Inspector, Topic } from "waybill"
import { JobNotDone } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import { make, type Operator, prefix } from "../peers/Operator.ts"
import { compare, format, limit, median } from "../Report.ts"

const topics = 1000
const groups = ["one", "two", "three"]
const pageSize = 500
/** When the heartbeats of the consumers expire: in the year 3000. */
const forever = 32_503_680_000_000
/** How often each of the two pages is read. */
const readings = 100

const round = Effect.fnUntraced(function* ({ inspector, port, redis }: Operator, { messages }: Measure.Size) {
  yield* Effect.promise(() => open(redis))
  const before = yield* Effect.promise(() => cpuMillis(redis))
  const millis = yield* stats(port)
  const server = (yield* Effect.promise(() => cpuMillis(redis))) - before

  const last = yield* Effect.promise(() => storeDeadLetters(redis, messages))
  const read = (after: Option.Option<string>) =>
    Effect.gen(function* () {
      const from = performance.now()
      const { length } = yield* inspector.deadLetters("dead", "one", { after, limit: pageSize })
      if (length !== pageSize) return yield* new JobNotDone({ message: `a page has ${length} dead letters` })
      return performance.now() - from
    })
  const firstPages: Array<number> = []
  const lastPages: Array<number> = []
  // In turn, so that a disturbance of the machine affects both.
  for (let i = 0; i < readings; i++) {
    firstPages.push(yield* read(Option.none()))
    lastPages.push(yield* read(Option.some(last)))
  }

  const from = performance.now()
  const { done } = yield* DeadLetters.redrive(Topic.byName("dead"), "one").pipe(
    Effect.provideService(Inspector.Inspector, inspector)
  )
  if (done !== messages) return yield* new JobNotDone({ message: `${done} dead letters were sent back` })
  const rate = messages / ((performance.now() - from) / 1000)
  return { millis, server, first: median(firstPages), last: median(lastPages), rate }
})

export const operator = Measure.make({
  name: "operator",
  title: "looking at topics, and sending dead letters back",
  full: { warmups: 1, rounds: 3, messages: 1_000_000 },
  quick: { warmups: 0, rounds: 2, messages: 50_000 },
  contenders: { waybill: async () => make },
  round,
  describe: ({ first, last, millis, rate, server }) =>
    `stats in ${format(millis)} ms, ${format(server)} ms of the server; pages in ${format(first)} and ${format(last)} ms; ` +
    `redrive ${format(rate)}/s`,
  judge: ({ waybill }) => [
    limit({
      measure: "waybill stats, 1,000 topics and 3,000 groups",
      unit: "ms",
      value: median(Measure.valuesOf(waybill, "millis")),
      against: "the whole process, run from its sources",
      bar: { atMost: 1000 }
    }),
    limit({
      measure: "waybill stats, CPU of the server",
      unit: "ms",
      value: median(Measure.valuesOf(waybill, "server")),
      against: "used_cpu_user and used_cpu_sys",
      bar: { atMost: 50 }
    }),
    compare({
      measure: "dead letters, the last page",
      unit: "ms",
      ours: Measure.valuesOf(waybill, "last"),
      against: "the first page",
      theirs: Measure.valuesOf(waybill, "first"),
      bar: { atMost: 1.3 }
    }),
    limit({
      measure: "redrive",
      unit: "msgs/s",
      value: median(Measure.valuesOf(waybill, "rate")),
      against: "streams, all of the dead letters",
      bar: { atLeast: 20_000 }
    })
  ]
})

/** Topics as the streams layer opens them, each with groups of which one holds a message and one is behind. */
const open = async (redis: Redis) => {
  const pipeline = redis.pipeline()
  for (let i = 0; i < topics; i++) {
    const tag = `{${prefix}:topic-${i}}`
    pipeline.sadd(`${prefix}:topics`, `topic-${i}`)
    pipeline.hset(`${tag}:meta`, { pattern: "streams", wire: "1" })
    pipeline.sadd(`${tag}:groups`, ...groups)
    pipeline.xadd(`${tag}:stream`, "*", "payload", "1")
    pipeline.xadd(`${tag}:stream`, "*", "payload", "2")
    for (const group of groups) {
      pipeline.xgroup("CREATE", `${tag}:stream`, group, group === "three" ? "$" : "0", "ENTRIESREAD", 0)
      pipeline.zadd(`${tag}:group:${group}:consumers`, forever, "worker")
      pipeline.hset(`${tag}:group:${group}:state`, { mark: "0-0", swept: "1795447473548" })
    }
    pipeline.xreadgroup("GROUP", "one", "worker", "COUNT", 1, "STREAMS", `${tag}:stream`, ">")
  }
  for (const [error] of (await pipeline.exec()) ?? []) if (error !== null) throw error
}

/** As the wire format of streams defines them. */
const letters = `
local last
for i = ARGV[1], ARGV[2] do
  local entry = redis.call('XADD', KEYS[1], '*', 'reason', 'GatewayDown', 'cause', 'the gateway is down', 'attempts', 3,
    'fence', 3, 'id', 'message-' .. i, 'at', 1795447473548, 'origin', '01795447473548-' .. i, 'consumer', 'worker',
    'payload', '{"seq":' .. i .. ',"customer":"customer-1000","cents":100,"reference":"order-eu-west"}')
  if tonumber(i) == tonumber(ARGV[3]) then last = entry end
end
return last
`

/** Returns the entry after which the last page begins. */
const storeDeadLetters = async (redis: Redis, count: number): Promise<string> => {
  const tag = `{${prefix}:dead}`
  await redis.hset(`${tag}:meta`, { pattern: "streams", wire: "1" })
  await redis.xgroup("CREATE", `${tag}:stream`, "one", "0", "MKSTREAM")
  const step = 1000
  let last: unknown
  for (let i = 1; i <= count; i += step) {
    last = (await redis.eval(letters, 1, `${tag}:group:one:dead`, i, i + step - 1, count - pageSize)) ?? last
  }
  return String(last)
}

const cpuMillis = async (redis: Redis): Promise<number> => {
  const info = await redis.info("cpu")
  const seconds = (name: string) => Number(new RegExp(`${name}:([\\d.]+)`).exec(info)?.[1])
  return (seconds("used_cpu_user") + seconds("used_cpu_sys")) * 1000
}

const program = fileURLToPath(new URL("../../../cli/src/main.ts", import.meta.url))

/** How long `waybill stats` takes from start to end. */
const stats = (port: number) =>
  Effect.callback<number, JobNotDone>((resume) => {
    const from = performance.now()
    const child = spawn(process.execPath, [program, "stats", "--json", "--prefix", prefix], {
      env: { PATH: process.env["PATH"], REDIS_URL: `redis://127.0.0.1:${port}` },
      stdio: ["ignore", "pipe", "ignore"]
    })
    let out = ""
    child.stdout.on("data", (chunk) => (out += chunk))
    child.once("close", () => {
      const millis = performance.now() - from
      resume(
        out.split('"group":').length - 1 === topics * groups.length
          ? Effect.succeed(millis)
          : Effect.fail(new JobNotDone({ message: "stats has not told of all groups" }))
      )
    })
    return Effect.sync(() => child.kill("SIGKILL"))
  })
