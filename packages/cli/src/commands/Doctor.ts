/**
 * `waybill doctor`: looks for what endangers messages, on the server and in the topics, and says what to do about it.
 *
 * @module
 */
import { Clock, Effect, Result } from "effect"
import { Command, Flag } from "effect/cli"
import { Health, Inspector } from "waybill"
import { IoRedis, RedisHealth, RedisPatterns } from "waybill/redis"
import { Unwell } from "../Problem.ts"
import { age, count, number, print, safe } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"

/** `problem`: messages are lost, stuck or in danger. `note`: somebody may want to know. */
export interface Finding {
  readonly level: "problem" | "note"
  readonly about: string
  readonly detail: string
}

/** Settled messages that lie about in a stream are cut off within seconds; so many have another reason. */
const tooManySettled = 10_000
/** Times in Redis are the server's; only reading them is confusing when a clock differs by more. */
const clockMillis = 2000
const oldMillis = 60 * 60 * 1000
/** A backlog goes up and down; one that is bigger by so many after so short a time is not kept up with. */
const muchGrowth = 100
const oldest = [7, 0] as const

export const doctor = Command.make(
  "doctor",
  {
    watch: Flag.Finite("watch").pipe(
      Flag.withDescription(
        "Seconds between two looks at the backlogs, to see those that grow; 2 by default, 0 for one look"
      ),
      Flag.withDefault(2),
      Flag.filter(
        (seconds) => seconds >= 0,
        () => "not less than 0"
      )
    )
  },
  Effect.fnUntraced(function* ({ watch }) {
    const { address, json } = yield* Server
    const { found, runs } = yield* server
    const findings = [
      ...found,
      ...(yield* version),
      ...(yield* commandsThere),
      ...(yield* clock),
      ...(yield* topics(watch))
    ]
    const problems = findings.filter(({ level }) => level === "problem").length
    const named = runs === undefined ? [] : [note("server", runs)]
    yield* print(json, [...named, ...findings], () =>
      findings.length === 0
        ? `${address} is in good health${runs === undefined ? "" : `: ${safe(runs)}`}.`
        : [...named, ...findings]
            .map(({ about, detail, level }) => `${level === "problem" ? "!!" : "  "} ${safe(about)}: ${safe(detail)}`)
            .join("\n")
    )
    if (problems > 0) return yield* new Unwell({ count: problems })
  })
).pipe(
  Command.withDescription("Look for what endangers messages: the server's settings, and topics without consumers"),
  Command.withExamples([
    { command: "waybill doctor", description: "Exit code 4 when something needs attention" },
    { command: "waybill doctor --json | jq '.[] | select(.level == \"problem\")'", description: "For a script" }
  ])
)

/** The server's health, and its name and version. */
const server = Health.check().pipe(
  Effect.map(({ problems, server }) => ({
    found: problems.map(({ code, detail }): Finding =>
      (code === "NotInspectable" ? note : problem)(`server, ${code}`, detail)
    ),
    runs: server
  })),
  Effect.provide(RedisHealth.layer())
)

const note = (about: string, detail: string): Finding => ({ level: "note", about, detail })
const problem = (about: string, detail: string): Finding => ({ level: "problem", about, detail })

/** What `INFO server` says of the version. Those that are no Redis name the version that they are compatible with. */
export const versionFindings = (text: string): ReadonlyArray<Finding> => {
  const [, version, major, minor] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(text) ?? []
  if (version === undefined) return [note("server", "it does not say its version")]
  const behind = Number(major) - oldest[0] || Number(minor) - oldest[1]
  return behind >= 0 ? [] : [problem("server", `it is version ${version}: use Redis ${oldest.join(".")} or newer`)]
}

const version: Effect.Effect<ReadonlyArray<Finding>, never, IoRedis.IoRedis> = Effect.gen(function* () {
  const { commands } = yield* IoRedis.IoRedis
  return versionFindings(yield* commands.run("info", (client) => client.info("server")))
  // Where INFO is not permitted, the server's health says so.
}).pipe(Effect.catch(() => Effect.succeed([])))

/** Where it is permitted, the server's health says which commands it lacks. */
const commandsThere: Effect.Effect<ReadonlyArray<Finding>, never, IoRedis.IoRedis> = Effect.gen(function* () {
  const { commands } = yield* IoRedis.IoRedis
  yield* commands.run("command|info", (client) => client.call("COMMAND", "INFO", "EVALSHA"))
  return []
}).pipe(
  Effect.catch(() =>
    Effect.succeed([note("server", "it does not say which commands it has: COMMAND INFO is not permitted")])
  )
)

const clock: Effect.Effect<ReadonlyArray<Finding>, never, IoRedis.IoRedis> = Effect.gen(function* () {
  const { commands } = yield* IoRedis.IoRedis
  const [seconds, micros] = yield* commands.run("time", (client) => client.time())
  const off = Number(seconds) * 1000 + Number(micros) / 1000 - (yield* Clock.currentTimeMillis)
  return Math.abs(off) < clockMillis
    ? []
    : [
        note(
          "clock",
          `the server's is ${age(Math.abs(off))} ${off > 0 ? "ahead of" : "behind"} this machine's. Retries and delays go by the server's`
        )
      ]
}).pipe(Effect.catch(() => Effect.succeed([])))

const topics = Effect.fnUntraced(function* (watch: number) {
  const inspector = yield* Inspector.Inspector
  const names = yield* Effect.mapError(inspector.topics, toProblem)
  // One topic that cannot be looked at hides no other.
  const described = yield* Effect.forEach(names, (topic) => Effect.result(inspector.describe(topic)), {
    concurrency: 16
  })
  const found = described.flatMap((info, i): ReadonlyArray<Finding> =>
    Result.isSuccess(info) ? findingsOf(info.success) : [problem(names[i] ?? "", info.failure.message)]
  )
  const infos = described.flatMap((info) => (Result.isSuccess(info) ? [info.success] : []))
  const advice = yield* RedisPatterns.advice(infos.map(({ pattern }) => pattern))
  found.push(...advice.map((detail) => note("server", detail)))
  if (watch > 0) found.push(...(yield* growing(infos, watch)))
  return found
})

/** Groups that work, and whose backlog grows all the same. */
const growing = Effect.fnUntraced(function* (before: ReadonlyArray<Inspector.TopicInfo>, seconds: number) {
  const inspector = yield* Inspector.Inspector
  const behind = before.filter(({ groups }) => groups.some(({ consumers, lag }) => consumers.length > 0 && lag > 0))
  if (behind.length === 0) return []
  yield* Effect.sleep(seconds * 1000)
  const found = yield* Effect.forEach(
    behind,
    (earlier) =>
      Effect.match(inspector.describe(earlier.topic), {
        // Topics that cannot be looked at were told by the first look.
        onFailure: () => [],
        onSuccess: (info) => growthOf(earlier, info, seconds)
      }),
    { concurrency: 16 }
  )
  return found.flat()
})

const growthOf = (
  before: Inspector.TopicInfo,
  { groups, topic }: Inspector.TopicInfo,
  seconds: number
): ReadonlyArray<Finding> =>
  groups.flatMap(({ consumers, group, lag }) => {
    const earlier = before.groups.find((candidate) => candidate.group === group)
    const growth = lag - (earlier?.lag ?? lag)
    if (consumers.length === 0 || growth < muchGrowth) return []
    const rate = number(Math.round(growth / seconds))
    return [
      note(
        `${topic}, group ${group}`,
        `its backlog of ${number(lag)} grows by ${rate} a second, with ${count(consumers.length, "consumer")} at work`
      )
    ]
  })

const findingsOf = ({ depth, groups, retention, topic }: Inspector.TopicInfo): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const find = (level: Finding["level"], about: string, detail: string) => findings.push({ level, about, detail })
  if (groups.length === 0 && depth > 0) {
    find("note", topic, `${count(depth, "message")} and no group has ever joined: they stay until one does`)
  }
  const open = Math.max(0, ...groups.map(({ lag, pending, waiting }) => lag + pending + waiting))
  if (retention === "settled" && groups.length > 0 && depth - open > tooManySettled) {
    find(
      "problem",
      topic,
      `${number(depth - open)} messages that every group has settled are not cut off: either no consumer is alive, or a ` +
        "registered group is gone and holds them. `redis-cli SMEMBERS '{prefix:topic}:groups'` lists them; SREM gives one up"
    )
  }
  for (const { consumers, deadLetters, group, lag, oldestPendingMillis, paused, pending, waiting } of groups) {
    const about = `${topic}, group ${group}`
    const work = lag + pending + waiting
    if (paused && work > 0) {
      find("note", about, `it is paused, with ${count(work, "message")} to go: \`waybill resume ${topic} ${group}\``)
    } else if (consumers.length === 0 && work > 0) {
      find(
        "problem",
        about,
        `no consumer is alive, and ${count(work, "message")} ${work === 1 ? "waits" : "wait"} for one. If the group was ` +
          'renamed or given up, retire it, for it keeps them for ever: "Retiring a group" in docs/streams.md'
      )
    }
    const owned = consumers.reduce((sum, consumer) => sum + consumer.pending, 0)
    if (pending > owned && consumers.length > 0) {
      find(
        "note",
        about,
        `${count(pending - owned, "message")} of consumers that are gone: others take them over within the lease`
      )
    }
    if (pending > 0 && oldestPendingMillis > oldMillis) {
      find(
        "note",
        about,
        `a message has been with its consumer for ${age(oldestPendingMillis)}: does its handler still move?`
      )
    }
    if (deadLetters > 0) {
      find("note", about, `${count(deadLetters, "dead letter")}: \`waybill dead list ${topic} ${group}\``)
    }
  }
  return findings
}
