/**
 * `waybill doctor`: checks the server and the topics for risks to messages, and says how to fix them.
 *
 * @module
 */
import { Clock, Effect, Result, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Health, Inspector, Schedules, Transport } from "waybill"
import { IoRedis, RedisHealth, RedisPatterns } from "waybill/redis"
import { ProblemsFound } from "../Problem.ts"
import { lateMillis } from "../Schedule.ts"
import { age, count, number, print, safe, unattended } from "../Screen.ts"
import { millisOf, Server, toProblem } from "../Server.ts"

/** `problem`: messages are lost, stuck or at risk. `note`: worth knowing. */
export interface Finding {
  readonly level: "problem" | "note"
  readonly about: string
  readonly detail: string
}

/** Settled messages are trimmed from a stream within seconds; more than this many have another cause. */
const tooManySettled = 10_000
/** Times in Redis are the server's; a larger difference only makes them confusing to read. */
const clockMillis = 2000
const oldMillis = 60 * 60 * 1000
/** A backlog fluctuates; one that grows by more than this within the interval is not being kept up with. */
const muchGrowth = 100
const oldest = [7, 0] as const

export const doctor = Command.make(
  "doctor",
  {
    watch: Flag.Finite("watch").pipe(
      Flag.withDescription(
        "Seconds between two readings of the backlogs, to detect growth; 2 by default, 0 reads once"
      ),
      Flag.withDefault(2),
      Flag.filter(
        (seconds) => seconds >= 0,
        () => "must not be negative"
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
      ...(yield* failovers),
      ...(yield* clock),
      ...(yield* topics(watch))
    ]
    const problems = findings.filter(({ level }) => level === "problem").length
    const named = runs === undefined ? [] : [note("server", runs)]
    yield* print(json, [...named, ...findings], () =>
      findings.length === 0
        ? `${address} is healthy${runs === undefined ? "" : `: ${safe(runs)}`}.`
        : [...named, ...findings]
            .map(({ about, detail, level }) => `${level === "problem" ? "!!" : "  "} ${safe(about)}: ${safe(detail)}`)
            .join("\n")
    )
    if (problems > 0) return yield* new ProblemsFound({ count: problems })
  })
).pipe(
  Command.withDescription("Check for risks to messages, such as unsafe server settings and topics without consumers"),
  Command.withExamples([
    { command: "waybill doctor", description: "Exits with code 4 if it finds problems" },
    {
      command: "waybill doctor --json | jq '.[] | select(.level == \"problem\")'",
      description: "Only the problems, for a script"
    }
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

/** Checks the version in `INFO server`. Servers other than Redis report the version they are compatible with. */
export const versionFindings = (text: string): ReadonlyArray<Finding> => {
  const [, version, major, minor] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(text) ?? []
  if (version === undefined) return [note("server", "it does not report its version")]
  const behind = Number(major) - oldest[0] || Number(minor) - oldest[1]
  return behind >= 0 ? [] : [problem("server", `it is version ${version}: use Redis ${oldest.join(".")} or newer`)]
}

/** The findings about every server that takes writes, each once. */
const ofEach = (
  find: (server: IoRedis.Connection) => Effect.Effect<ReadonlyArray<Finding>, unknown>
): Effect.Effect<ReadonlyArray<Finding>, never, IoRedis.IoRedis> =>
  Effect.gen(function* () {
    const { masters } = yield* IoRedis.IoRedis
    // One that cannot be asked is reported by the servers' health.
    const servers = yield* Effect.orElseSucceed(masters, () => [])
    const found = yield* Effect.forEach(servers, (server) => Effect.orElseSucceed(find(server), () => []))
    return [...new Map(found.flat().map((finding) => [finding.detail, finding])).values()]
  })

const version = ofEach((server) =>
  Effect.map(
    server.run("info", [], (client) => client.info("server")),
    versionFindings
  )
)

/** If COMMAND INFO is permitted, the servers' health reports missing commands. */
const commandsThere = ofEach((server) =>
  Effect.match(
    server.run("command|info", [], (client) => client.call("COMMAND", "INFO", "EVALSHA")),
    {
      onFailure: () => [note("server", "its available commands are unknown: COMMAND INFO is not permitted")],
      onSuccess: () => []
    }
  )
)

/** What `INFO replication` and `cluster-require-full-coverage` of a master say about the next failover, and the last. */
export const failoverFindings = (
  about: string,
  text: string,
  cluster?: { readonly requiresFullCoverage: boolean }
): ReadonlyArray<Finding> => {
  const field = (name: string) => new RegExp(`^${name}:(.*)$`, "m").exec(text)?.[1]?.trim()
  const findings: Array<Finding> = []
  const replicas = Number(field("connected_slaves") ?? 0)
  if (replicas > 0 && field("min_slaves_good_slaves") === undefined) {
    const why = "if it is replaced by a replica, it accepts writes until it learns of that, and loses them"
    findings.push(note(about, `${why}. Set min-replicas-to-write to 1`))
  }
  if (cluster !== undefined && replicas === 0) {
    findings.push(note(about, "it has no replica: if it fails, nothing takes over its slots"))
  }
  if (cluster?.requiresFullCoverage === true) {
    const why = "if one master fails, all of them refuse commands until a replica has taken over"
    findings.push(note(about, `${why}. Set cluster-require-full-coverage to no, and the other topics go on`))
  }
  if (!/^0*$/.test(field("master_replid2") ?? "")) {
    const why = "it has taken over from another master. Programs that were connected then tell what may be lost"
    findings.push(note(about, `${why}: FailedOver in their logs, and waybill_failovers_total`))
  }
  return findings
}

const failovers: Effect.Effect<ReadonlyArray<Finding>, never, IoRedis.IoRedis> = Effect.gen(function* () {
  const masters = yield* (yield* IoRedis.IoRedis).masters
  const found = yield* Effect.forEach(masters, (master) =>
    Effect.gen(function* () {
      const text = yield* master.run("info", [], (client) => client.info("replication"))
      if (masters.length === 1) return failoverFindings("server", text)
      const setting = yield* (
        master
          .run("config|get", [], (client) => client.config("GET", "cluster-require-full-coverage"))
          // Not permitted on managed servers.
          .pipe(Effect.catch(() => Effect.succeed(undefined)))
      )
      return failoverFindings(`server ${master.address}`, text, {
        requiresFullCoverage: Array.isArray(setting) && setting[1] === "yes"
      })
    })
  )
  return found.flat()
  // The server's health reports what cannot be read.
}).pipe(Effect.catch(() => Effect.succeed([])))

const clock = ofEach((server) =>
  Effect.gen(function* () {
    const off = (yield* millisOf(server)) - (yield* Clock.currentTimeMillis)
    return Math.abs(off) < clockMillis
      ? []
      : [
          note(
            "clock",
            `the server's clock is ${age(Math.abs(off))} ${off > 0 ? "ahead of" : "behind"} this machine's. Retries and delays follow the server's`
          )
        ]
  })
)

const topics = Effect.fnUntraced(function* (watch: number) {
  const inspector = yield* Inspector.Inspector
  const names = yield* Effect.mapError(inspector.topics, toProblem)
  // One unreadable topic does not hide the others.
  const described = yield* Effect.forEach(names, (topic) => Effect.result(inspector.describe(topic)), {
    concurrency: 16
  })
  const found = described.flatMap((info, i): ReadonlyArray<Finding> =>
    Result.isSuccess(info) ? findingsOf(info.success) : [problem(names[i] ?? "", info.failure.message)]
  )
  const infos = described.flatMap((info) => (Result.isSuccess(info) ? [info.success] : []))
  const advice = yield* RedisPatterns.advice(infos.map(({ pattern }) => pattern))
  found.push(...advice.map((detail) => note("server", detail)))
  found.push(...(yield* schedules(infos)))
  if (watch > 0) found.push(...(yield* growing(infos, watch)))
  return found
})

/** How many schedules of a topic are counted. */
const mostOverdue = 1000

/** Schedules whose ticks nobody publishes, or that are not as programs declare them. */
const schedules = Effect.fnUntraced(function* (infos: ReadonlyArray<Inspector.TopicInfo>) {
  const { prefix } = yield* Server
  const found = yield* Effect.forEach(
    Map.groupBy(infos, ({ pattern }) => pattern),
    ([pattern, topics]) =>
      Effect.provide(
        Effect.forEach(topics, ({ topic }) => schedulesOf(topic), { concurrency: 16 }),
        RedisPatterns.layer(pattern, { prefix })
      )
  )
  return found.flat(2)
})

const schedulesOf = Effect.fnUntraced(
  function* (name: string) {
    const topic = { name, on: Transport.AtMostOnce }
    const overdue = yield* Schedules.list(topic).pipe(
      Stream.takeWhile(({ overdueMillis }) => overdueMillis > lateMillis),
      Stream.take(mostOverdue),
      Stream.runCollect
    )
    const findings = (yield* Schedules.drifts(topic)).map(({ found, schedule }) =>
      note(
        `${name}, schedule ${schedule}`,
        `${driftText[found]}: two releases run side by side, or it was changed since`
      )
    )
    const [first] = overdue
    if (first === undefined) return findings
    const { id, overdueMillis } = first
    const others = overdue.length === 1 ? "" : `, and ${overdue.length - 1} more`
    return [
      problem(
        name,
        `schedule ${id} has been due for ${age(overdueMillis)}${others}: no program that consumes the topic or has ` +
          "`Schedules.layer` is alive, or it cannot read the schedule"
      ),
      ...findings
    ]
  },
  // Topics without schedules, and those that the first reading has reported.
  Effect.catch(() => Effect.succeed([]))
)

const driftText = {
  changed: "a running program declares it differently",
  missing: "a running program declares it, and it is not stored",
  undeclared: "it is stored, although a running program no longer declares it"
} as const

/** Groups with consumers whose backlog grows all the same. */
const growing = Effect.fnUntraced(function* (before: ReadonlyArray<Inspector.TopicInfo>, seconds: number) {
  const inspector = yield* Inspector.Inspector
  const behind = before.filter(({ groups }) => groups.some(({ consumers, lag }) => consumers.length > 0 && lag > 0))
  if (behind.length === 0) return []
  yield* Effect.sleep(seconds * 1000)
  const found = yield* Effect.forEach(
    behind,
    (earlier) =>
      Effect.match(inspector.describe(earlier.topic), {
        // Unreadable topics were reported by the first reading.
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
        `its backlog of ${number(lag)} grows by ${rate} per second with ${count(consumers.length, "consumer")} running`
      )
    ]
  })

const findingsOf = ({ depth, groups, retention, topic }: Inspector.TopicInfo): ReadonlyArray<Finding> => {
  const findings: Array<Finding> = []
  const find = (level: Finding["level"], about: string, detail: string) => findings.push({ level, about, detail })
  if (groups.length === 0 && depth > 0) {
    find("note", topic, `${count(depth, "message")}, and no group has ever joined: they are kept until one does`)
  }
  const open = Math.max(0, ...groups.map(({ lag, pending, waiting }) => lag + pending + waiting))
  if (retention === "settled" && groups.length > 0 && depth - open > tooManySettled) {
    find(
      "problem",
      topic,
      `${number(depth - open)} messages that every group has settled are not trimmed: either no consumer is alive, or a ` +
        `registered group no longer exists and holds them. \`waybill stats ${topic}\` lists the groups; \`waybill groups retire ${topic} <group>\` removes one`
    )
  }
  for (const info of groups) {
    const { consumers, deadLetters, group, lag, newer, oldestPendingMillis, paused, pending, waiting } = info
    const about = `${topic}, group ${group}`
    const work = lag + pending + waiting
    if (paused && work > 0) {
      find("note", about, `paused with ${count(work, "message")} left: \`waybill resume ${topic} ${group}\``)
    } else if (consumers.length === 0 && work > 0) {
      find(
        "problem",
        about,
        `${unattended(info)}, and ${count(work, "message")} ${work === 1 ? "is" : "are"} waiting for one. If the group was ` +
          `renamed or abandoned, retire it, or it keeps them for ever: \`waybill groups retire ${topic} ${group}\``
      )
    }
    if (newer !== undefined && waiting > 0) {
      find(
        "problem",
        about,
        `messages are set aside, because ${newer}: update the consumers of this group, or let the producers write the older ` +
          "version for now"
      )
    }
    const owned = consumers.reduce((sum, consumer) => sum + consumer.pending, 0)
    if (pending > owned && consumers.length > 0) {
      find(
        "note",
        about,
        `${count(pending - owned, "message")} held by consumers that are gone: others take them over within the lease`
      )
    }
    if (pending > 0 && oldestPendingMillis > oldMillis) {
      find(
        "note",
        about,
        `a message has been with its consumer for ${age(oldestPendingMillis)}: its handler may be stuck`
      )
    }
    if (deadLetters > 0) {
      find("note", about, `${count(deadLetters, "dead letter")}: \`waybill dead list ${topic} ${group}\``)
    }
  }
  return findings
}
