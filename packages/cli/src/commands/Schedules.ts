/**
 * `waybill schedules`: lists the schedules of a topic, and runs, pauses, resumes or removes one.
 *
 * @module
 */
import { Effect, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Schedules, Transport } from "waybill"
import { RedisPatterns } from "waybill/redis"
import { NotFound } from "../Problem.ts"
import { outcomeText, type Schedule, stateText } from "../Schedule.ts"
import { age, instant, print, safe, table } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { limit } from "./Pages.ts"
import { describe, topic } from "./Target.ts"

const id = Argument.String("schedule").pipe(Argument.withDescription("Id of the schedule"))

/** Runs an effect about the schedules of a topic, whatever its pattern. */
export const aboutSchedules = Effect.fnUntraced(function* <A>(
  name: string,
  ask: (
    topic: Schedules.Scheduled<Transport.AtMostOnce>
  ) => Effect.Effect<A, Transport.TransportError, Transport.AtMostOnce>
) {
  const { prefix } = yield* Server
  const { pattern } = yield* describe(name)
  return yield* ask({ name, on: Transport.AtMostOnce }).pipe(
    Effect.mapError(toProblem),
    Effect.provide(RedisPatterns.layer(pattern, { prefix }))
  )
})

/** How many schedules are looked up at a time. */
const concurrency = 8

/** The first schedules of a topic as the command and the page show them, and the declared ones that are not stored. */
export const shown = Effect.fnUntraced(function* (
  topic: Schedules.Scheduled<Transport.AtMostOnce>,
  limit: number
): Effect.fn.Return<
  { readonly items: ReadonlyArray<Schedule>; readonly missing: ReadonlyArray<string> },
  Transport.TransportError,
  Transport.AtMostOnce
> {
  const found = yield* Schedules.list(topic).pipe(Stream.take(limit), Stream.runCollect)
  const drifts = yield* Schedules.drifts(topic)
  const driftOf = new Map(drifts.map(({ found, schedule }) => [schedule, found]))
  const items = yield* Effect.forEach(
    found,
    (info) =>
      Schedules.outcome(topic, info).pipe(
        Effect.catchIf(
          ({ reason }) => reason._tag === "NotOffered",
          () => Effect.succeed(undefined)
        ),
        Effect.map((outcome) => ({ ...info, outcome, drift: driftOf.get(info.id) }))
      ),
    { concurrency }
  )
  return { items, missing: drifts.flatMap(({ found, schedule }) => (found === "missing" ? [schedule] : [])) }
})

const whenOf = ({ definition }: Schedules.Info): string => {
  if (definition === undefined) return "?"
  const { cron, every = 0, zone = "UTC" } = definition
  return cron === undefined ? `every ${age(every)}` : `${cron} ${zone}`
}

const at = (millis: number | undefined): string => (millis === undefined ? "-" : instant(millis))

const list = Command.make(
  "list",
  {
    topic,
    limit: limit.pipe(Flag.withDescription("Maximum number to list, 50 by default"), Flag.withDefault(50))
  },
  Effect.fnUntraced(function* ({ limit, topic }) {
    const { json } = yield* Server
    const { items, missing } = yield* aboutSchedules(topic, (topic) => shown(topic, limit))
    yield* print(json, [...items, ...missing.map((id) => ({ id, drift: "missing" }))], () =>
      items.length + missing.length === 0
        ? `${safe(topic)} has no schedules.`
        : table(
            ["SCHEDULE", "STATE", "WHEN", "NEXT", "LAST", "OUTCOME", "PUBLISHED", "DECLARED BY"],
            [
              ...items.map((info) => [
                info.id,
                stateText(info),
                whenOf(info),
                at(info.next),
                at(info.last),
                outcomeText(info) || "-",
                info.published,
                info.definition?.declared ?? "-"
              ]),
              ...missing.map((id) => [id, "declared, not stored", "-", "-", "-", "-", "-", "-"])
            ]
          )
    )
  })
).pipe(
  Command.withDescription("List the schedules of a topic, the next one first, and where running programs disagree"),
  Command.withExamples([
    { command: "waybill schedules list reports", description: "What is due next, and how the last tick ended" }
  ])
)

/** A command about one schedule. */
const steering = <A>(
  name: string,
  description: string,
  example: string,
  ask: (
    topic: Schedules.Scheduled<Transport.AtMostOnce>,
    id: string
  ) => Effect.Effect<A, Transport.TransportError, Transport.AtMostOnce>,
  said: (topic: string, id: string, result: A) => string
) =>
  Command.make(
    name,
    { topic, id },
    Effect.fnUntraced(function* ({ id, topic }) {
      const { json } = yield* Server
      const result = yield* aboutSchedules(topic, (topic) => ask(topic, id))
      if (result === false || result === undefined) {
        return yield* new NotFound({
          what: `topic ${safe(topic)} has no schedule ${safe(id)}`,
          hint: `\`waybill schedules list ${topic}\` shows those it has`
        })
      }
      yield* print(json, { topic, schedule: id, [name]: result }, () => safe(said(topic, id, result)))
    })
  ).pipe(
    Command.withDescription(description),
    Command.withExamples([{ command: `waybill schedules ${name} reports nightly`, description: example }])
  )

export const schedules = Command.make("schedules").pipe(
  Command.withDescription("List and steer the schedules of a topic"),
  Command.withSubcommands([
    list,
    steering(
      "run",
      "Publish the message of a schedule now, beside its ticks",
      "Today's report once more",
      Schedules.run,
      (topic, id, message) => `Published ${message} to ${topic}; the next tick of ${id} is unchanged.`
    ),
    steering(
      "pause",
      "Pause a schedule, also across restarts",
      "No ticks until it is resumed",
      Schedules.pause,
      (topic, id) => `Paused ${id} of ${topic}: it has no ticks until \`waybill schedules resume ${topic} ${id}\`.`
    ),
    steering(
      "resume",
      "Resume a paused schedule with its next tick",
      "Ticks meanwhile are not made up for",
      Schedules.resume,
      (topic, id) => `Resumed ${id} of ${topic}.`
    ),
    steering(
      "remove",
      "Remove a schedule; one that a program declares comes back when that starts",
      "Messages that it has published remain",
      Schedules.remove,
      (topic, id) => `Removed ${id} of ${topic}.`
    )
  ])
)
