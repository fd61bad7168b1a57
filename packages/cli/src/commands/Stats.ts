/**
 * `waybill stats`: backlog, pending messages, retries and dead letters of every group, once or repeatedly.
 *
 * @module
 */
import { Console, Effect, Option, Schedule, Stdio, Terminal } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Inspector } from "waybill"
import { whileRead } from "../Output.ts"
import { age, print, table } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { nothing } from "./Prefixes.ts"
import { retryWhileUnreachable } from "./retryWhileUnreachable.ts"
import { allReadable, describe, describeAll, inspectedJson, unreadableText } from "./Target.ts"

export const stats = Command.make(
  "stats",
  {
    topic: Argument.String("topic").pipe(Argument.withDescription("Only this topic"), Argument.optional),
    watch: Flag.Boolean("watch").pipe(
      Flag.withAlias("w"),
      Flag.withDescription("Refresh until interrupted; with --json, one line per refresh"),
      Flag.withDefault(false)
    ),
    interval: Flag.Finite("interval").pipe(
      Flag.withDescription("Seconds between refreshes, 2 by default"),
      Flag.withDefault(2),
      Flag.filter(
        (seconds) => seconds >= 0.2,
        () => "use at least 0.2 seconds"
      )
    )
  },
  Effect.fnUntraced(function* ({ interval, topic, watch }) {
    const { address, json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const names = Option.match(topic, { onNone: () => inspector.topics, onSome: (name) => Effect.succeed([name]) })
    const inspect = Effect.flatMap(names, describeAll)
    // A topic that does not exist is reported at once.
    if (Option.isSome(topic)) yield* describe(topic.value)
    if (!watch) {
      const inspected = yield* Effect.mapError(inspect, toProblem)
      const none = inspected.infos.length + inspected.unreadable.length === 0 ? yield* nothing : undefined
      yield* print(json, inspectedJson(inspected), () => none ?? text(inspected.infos))
      return yield* allReadable(inspected)
    }
    const none = yield* nothing

    const terminal = yield* Terminal.Terminal
    const clears = !json && (yield* (yield* Stdio.Stdio).stdoutIsTerminal)
    let before: ReadonlyArray<Inspector.TopicInfo> = []
    yield* retryWhileUnreachable(inspect).pipe(
      Effect.tap((inspected) =>
        Effect.gen(function* () {
          if (json) return yield* Console.log(JSON.stringify(inspectedJson(inspected)))
          const { infos, unreadable } = inspected
          const figures = [
            infos.length + unreadable.length === 0 ? none : text(infos, before, interval),
            ...(unreadable.length === 0 ? [] : [unreadableText(unreadable)])
          ].join("\n")
          if (clears) yield* Effect.ignore(terminal.display("\u001b[2J\u001b[H"))
          yield* Console.log(`${address}, every ${interval} s, Ctrl-C to stop\n\n${figures}`)
          before = infos
        })
      ),
      Effect.repeat(Schedule.spaced(interval * 1000)),
      whileRead
    )
  })
).pipe(
  Command.withDescription("Show backlog, pending messages, retries and dead letters of every group"),
  Command.withExamples([
    { command: "waybill stats --watch", description: "Refresh every two seconds" },
    {
      command: "waybill stats orders --json | jq '.[0].groups[] | select(.lag > 1000)'",
      description: "Groups with a backlog of more than 1,000"
    }
  ])
)

const text = (
  infos: ReadonlyArray<Inspector.TopicInfo>,
  before: ReadonlyArray<Inspector.TopicInfo> = [],
  seconds = 1
): string => {
  const rows: Array<ReadonlyArray<string | number>> = []
  for (const info of infos) {
    if (info.groups.length === 0) rows.push([info.topic, "(no group)", info.depth, 0, "", 0, 0, 0, "", ""])
    const earlier = before.find(({ topic }) => topic === info.topic)
    for (const group of info.groups) {
      const was = earlier?.groups.find((candidate) => candidate.group === group.group)
      rows.push([
        info.topic,
        group.group,
        group.lag,
        group.pending,
        group.pending === 0 ? "" : age(group.oldestPendingMillis),
        group.waiting,
        group.deadLetters,
        group.consumers.length,
        group.paused ? "paused" : group.consumers.length === 0 && group.lag + group.pending > 0 ? "no consumer" : "",
        was === undefined ? "" : trend(group.lag - was.lag, seconds)
      ])
    }
  }
  return table(["TOPIC", "GROUP", "LAG", "PENDING", "OLDEST", "WAITING", "DEAD", "CONSUMERS", "STATE", "TREND"], rows)
}

const trend = (change: number, seconds: number): string =>
  change === 0 ? "" : `lag ${change > 0 ? "+" : "-"}${Math.round(Math.abs(change) / seconds).toLocaleString("en-US")}/s`
