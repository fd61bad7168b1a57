/**
 * `waybill groups`: moves groups to another place, and retires those that have no consumers any more.
 *
 * @module
 */
import { Effect, Option } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Inspector } from "waybill"
import { UsageError } from "../Problem.ts"
import { count, number, print, safe, unattended } from "../Screen.ts"
import { Server } from "../Server.ts"
import { confirm, yes } from "./Confirmation.ts"
import { instantOf } from "./Instant.ts"
import { describe, describeGroup, group, groupOf, inUse, topic, unlessInUse } from "./Target.ts"

const retire = Command.make(
  "retire",
  {
    topic,
    group,
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Only say what the group holds and who consumes it"),
      Flag.withDefault(false)
    ),
    yes
  },
  Effect.fnUntraced(function* ({ dryRun, group, topic, yes }) {
    const { json } = yield* Server
    const info = yield* describe(topic)
    const plan = Inspector.retirement(info, yield* groupOf(info, group))
    const { consumers, deadLetters, heldBack, unsettled } = plan
    const holds =
      `${count(unsettled, "unsettled message")} and ${count(deadLetters, "dead letter")}` +
      (heldBack === 0 ? "" : `, and the topic keeps about ${number(heldBack)} of its messages for this group only`)
    const figures = { topic, group, ...plan }
    if (dryRun) {
      const living = consumers.map(({ consumer }) => safe(consumer)).join(", ")
      return yield* print(
        json,
        { ...figures, dryRun },
        () =>
          `Group ${safe(group)} of ${safe(topic)} has ${holds}. ` +
          (living === "" ? `Nothing was changed, and ${unattended(plan)}.` : `Stop its consumers first: ${living}.`)
      )
    }
    if (consumers.length > 0) return yield* inUse({ topic, group, found: "consumers" })
    if (!yes) yield* confirm(`Permanently retire group ${group} of topic ${topic}? It has ${holds}`)
    yield* (yield* Inspector.Inspector).retire(topic, group).pipe(unlessInUse)
    yield* print(json, { ...figures, retired: true }, () => `Retired ${safe(group)} of ${safe(topic)}.`)
  })
).pipe(
  Command.withDescription("Remove a group that was renamed or abandoned, with all it holds"),
  Command.withExamples([
    { command: "waybill groups retire orders old --dry-run", description: "What it holds, and who consumes it" },
    { command: "waybill groups retire orders old", description: "After its last consumer has stopped" }
  ])
)

const places = "earliest, latest, a time with its zone such as 2026-01-31T12:00:00Z, or the position of a message"

const place = Argument.String("place").pipe(Argument.withDescription(`${places}: the group goes on after it`))

/** The place that an argument names. */
const placeOf = (text: string): Effect.Effect<Inspector.Place, UsageError> => {
  if (text === "earliest" || text === "latest") return Effect.succeed(text)
  const at = instantOf(text)
  if (Option.isSome(at)) return Effect.succeed({ at: at.value })
  if (/^\d+-\d+$/.test(text)) return Effect.succeed({ after: text })
  return Effect.fail(new UsageError({ detail: `${safe(text)} is not a place: use ${places}` }))
}

const move = Command.make(
  "move",
  { topic, group, place, yes },
  Effect.fnUntraced(function* ({ group, place, topic, yes }) {
    const { json } = yield* Server
    const to = yield* placeOf(place)
    const { consumers, lag } = yield* describeGroup(topic, group)
    if (consumers.length > 0) return yield* inUse({ topic, group, found: "consumers" })
    if (!yes) yield* confirm(`Move group ${group} of topic ${topic} to ${place}? It has ${count(lag, "message")} to go`)
    yield* (yield* Inspector.Inspector).move(topic, group, to).pipe(unlessInUse)
    const after = yield* describeGroup(topic, group)
    yield* print(
      json,
      { topic, group, before: lag, lag: after.lag },
      () => `Moved ${safe(group)} of ${safe(topic)}: it had ${number(lag)} to go, and now has ${number(after.lag)}.`
    )
  })
).pipe(
  Command.withDescription("Move a group to another place among the stored messages"),
  Command.withExamples([
    { command: "waybill groups move orders billing latest", description: "Skip the backlog" },
    {
      command: "waybill groups move orders billing 2026-01-31T12:00:00Z",
      description: "Handle again what is still stored from that time on"
    }
  ])
)

export const groups = Command.make("groups").pipe(
  Command.withDescription("Manage the groups of a topic"),
  Command.withSubcommands([move, retire])
)
