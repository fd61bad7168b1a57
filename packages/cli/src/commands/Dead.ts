/**
 * `waybill dead`: lists, shows, redrives and discards dead letters. Redriving and discarding ask for confirmation, and
 * `--dry-run` shows what they would do.
 *
 * @module
 */
import { Console, Effect, Exit, Option, Stdio, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { DeadLetters, type Failure, Inspector, Topic } from "waybill"
import { UsageError, NotFound } from "../Problem.ts"
import {
  attemptTable,
  bodyLines,
  bodyShown,
  count,
  instant,
  messageJson,
  metadataLines,
  number,
  print,
  safe,
  shortened,
  table
} from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { confirm, yes } from "./Confirmation.ts"
import { justBefore } from "./Entry.ts"
import { limit, pages } from "./Pages.ts"
import { holds, text, time } from "./Selection.ts"
import { describeGroup, group, topic } from "./Target.ts"

const filters = {
  reason: text("reason", "Only dead letters with this reason"),
  id: text("id", "Only the message with this id"),
  contains: text("contains", "Only dead letters whose body contains this text; binary bodies are searched as bytes"),
  before: time("before", "Only messages dead-lettered before this time, such as 2026-01-31T12:00:00Z"),
  after: time("after", "Only messages dead-lettered at or after this time")
}

interface Filters {
  readonly reason: Option.Option<string>
  readonly id: Option.Option<string>
  readonly contains: Option.Option<string>
  readonly before: Option.Option<number>
  readonly after: Option.Option<number>
}

const fits =
  ({ after, before, contains, id, reason }: Filters) =>
  (letter: Inspector.DeadLetter): boolean =>
    (Option.isNone(reason) || letter.reason === reason.value) &&
    (Option.isNone(id) || letter.id === id.value) &&
    (Option.isNone(contains) || holds(letter.body, contains.value)) &&
    (Option.isNone(before) || letter.diedAt < before.value) &&
    (Option.isNone(after) || letter.diedAt >= after.value)

const list = Command.make(
  "list",
  {
    topic,
    group,
    ...filters,
    limit: limit.pipe(Flag.withDescription("Maximum number to list, 50 by default"), Flag.withDefault(50))
  },
  Effect.fnUntraced(function* ({ group, limit: most, topic, ...filters }) {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const info = yield* describeGroup(topic, group)
    const found = yield* pages(
      (page) => inspector.deadLetters(topic, group, page),
      ({ entry }) => entry,
      info.deadLetters
    ).pipe(Stream.filter(fits(filters)), Stream.take(most), Stream.runCollect)
    yield* print(json, found.map(messageJson), () =>
      found.length === 0
        ? "No matching dead letters."
        : `${table(
            ["ENTRY", "ID", "REASON", "ATTEMPTS", "DIED", "BODY"],
            found.map((letter) => [
              letter.entry,
              letter.id,
              letter.reason,
              letter.attempts,
              instant(letter.diedAt),
              shortened(bodyShown(letter.body), 50)
            ])
          )}\n${number(found.length)} shown; ${group} has ${count(info.deadLetters, "dead letter")}${
            found.length === most && found.length < info.deadLetters ? "; --limit shows more" : ""
          }.`
    )
  })
).pipe(
  Command.withDescription("List dead letters, oldest first"),
  Command.withExamples([
    { command: "waybill dead list orders billing --reason CardDeclined", description: "Only those with one reason" }
  ])
)

const failureLines = ({ fields, message, tag }: Failure.Failure): ReadonlyArray<string> => [
  `failure    ${safe(tag)}${message === "" ? "" : `: ${safe(message)}`}`,
  ...Object.entries(fields).map(([name, value]) => `field      ${safe(name)}: ${safe(JSON.stringify(value))}`)
]

const show = Command.make(
  "show",
  { topic, group, entry: Argument.String("entry").pipe(Argument.withDescription("The ENTRY that `dead list` shows")) },
  Effect.fnUntraced(function* ({ entry, group, topic }) {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    yield* describeGroup(topic, group)
    const [letter] = yield* Option.match(justBefore(entry), {
      onNone: () => Effect.succeed([]),
      onSome: (after) =>
        Effect.mapError(inspector.deadLetters(topic, group, { after: Option.some(after), limit: 1 }), toProblem)
    })
    if (letter?.entry !== entry) {
      return yield* new NotFound({
        what: `${group} of ${topic} has no dead letter ${safe(entry)}`,
        hint: `\`waybill dead list ${topic} ${group}\` lists its dead letters`
      })
    }
    yield* print(json, messageJson(letter), () =>
      [
        `entry      ${letter.entry}`,
        `id         ${safe(letter.id)}`,
        `reason     ${safe(letter.reason)}`,
        `attempts   ${letter.attempts}`,
        `published  ${instant(letter.publishedAt)}`,
        `died       ${instant(letter.diedAt)}`,
        ...metadataLines(letter),
        ...(letter.failure === undefined ? [] : failureLines(letter.failure)),
        "",
        "cause",
        ...letter.cause.split("\n").map((line) => `  ${safe(line)}`),
        ...(letter.attemptLog.length === 0 ? [] : ["", attemptTable(letter.attemptLog)]),
        "",
        ...(letter.fields === undefined
          ? bodyLines(letter.body)
          : [
              "fields (no payload among them)",
              ...letter.fields.map(([name, value]) => `  ${safe(name)}: ${bodyShown(value)}`)
            ])
      ].join("\n")
    )
  })
).pipe(
  Command.withDescription("Show one dead letter in full"),
  Command.withExamples([
    { command: "waybill dead show orders billing 1795447473548-0", description: "Including its cause and body" }
  ])
)

const selection = {
  topic,
  group,
  ...filters,
  limit: limit.pipe(Flag.withDescription("Maximum number to process; all by default"), Flag.optional),
  dryRun: Flag.Boolean("dry-run").pipe(
    Flag.withDescription("Count the matching dead letters and change nothing"),
    Flag.withDefault(false)
  ),
  rate: Flag.Finite("rate").pipe(
    Flag.withDescription("Maximum number per second; unlimited by default"),
    Flag.optional
  ),
  yes
}

const act = (verb: "redrive" | "discard") => {
  const move = verb === "redrive" ? DeadLetters.redrive : DeadLetters.discard
  return Effect.fnUntraced(function* ({
    dryRun,
    group,
    limit,
    rate,
    topic,
    yes,
    ...filters
  }: Filters & {
    readonly topic: string
    readonly group: string
    readonly limit: Option.Option<number>
    readonly dryRun: boolean
    readonly rate: Option.Option<number>
    readonly yes: boolean
  }) {
    const { json } = yield* Server
    if (Option.isSome(rate) && !(rate.value > 0))
      return yield* new UsageError({ detail: "--rate must be greater than 0" })
    const info = yield* describeGroup(topic, group)
    // The payload's schema does not matter: the filters of this command read the text.
    const raw = Topic.byName(topic)
    const where = fits(filters)
    let planned = info.deadLetters
    const most = Option.getOrUndefined(limit)
    if (dryRun || !yes) {
      const plan = yield* Effect.mapError(move(raw, group, { where, limit: most, dryRun: true }), toProblem)
      planned = plan.examined
      if (dryRun || plan.selected === 0) {
        return yield* print(
          json,
          { ...plan, dryRun },
          () =>
            `${number(plan.selected)} of ${count(plan.examined, "dead letter")} ${plan.selected === 1 ? "matches" : "match"}${dryRun ? "; nothing was changed" : ""}.`
        )
      }
      const question =
        verb === "redrive"
          ? `Redrive ${count(plan.selected, "dead letter")} to group ${group} of topic ${topic}?`
          : `Permanently delete ${count(plan.selected, "dead letter")} of group ${group} of topic ${topic}?`
      yield* confirm(question)
    }
    const what = verb === "redrive" ? "redriven" : "deleted"
    const progress = yield* showProgress(planned)
    const report = yield* move(raw, group, {
      where,
      limit: most,
      ratePerSecond: Option.getOrUndefined(rate),
      onProgress: progress.step
    }).pipe(
      Effect.mapError(toProblem),
      Effect.ensuring(progress.end),
      Effect.onExit((exit) =>
        Exit.isSuccess(exit)
          ? Effect.void
          : Console.error(`waybill: ${number(progress.done())} ${what} so far; run the same command again for the rest`)
      )
    )
    yield* print(
      json,
      { ...report, dryRun: false },
      () =>
        `${number(report.done)} ${what}${
          report.done < report.selected ? `; ${number(report.selected - report.done)} no longer existed` : ""
        }.`
    )
  })
}

/** A progress bar on standard error, if that is a terminal. */
const showProgress = Effect.fnUntraced(function* (total: number) {
  const shown = yield* (yield* Stdio.Stdio).stderrIsTerminal
  let done = 0
  let drawn = ""
  return {
    step: (report: DeadLetters.Report) => {
      done = report.done
      // More may have died since they were counted.
      const part = Math.min(30, Math.floor((report.examined / Math.max(1, total)) * 30))
      const bar = `[${"=".repeat(part)}${" ".repeat(30 - part)}] ${number(done)}`
      if (!shown || bar === drawn) return
      drawn = bar
      process.stderr.write(`\r${bar}`)
    },
    done: () => done,
    end: Effect.sync(() => {
      if (drawn !== "") process.stderr.write("\n")
    })
  }
})

const redrive = Command.make("redrive", selection, act("redrive")).pipe(
  Command.withDescription("Send dead letters back to their group; attempts are counted from zero again"),
  Command.withExamples([
    {
      command: "waybill dead redrive orders billing --reason GatewayDown --dry-run",
      description: "Count the dead letters that would be redriven"
    },
    {
      command: "waybill dead redrive orders billing --reason GatewayDown --rate 100 --yes",
      description: "At most a hundred per second, from a script"
    }
  ])
)

const discard = Command.make("discard", selection, act("discard")).pipe(
  Command.withDescription("Permanently delete dead letters"),
  Command.withExamples([
    {
      command: "waybill dead discard orders billing --before 2026-01-01T00:00:00Z",
      description: "Only those dead-lettered before 2026"
    }
  ])
)

export const dead = Command.make("dead").pipe(
  Command.withDescription("List, show, redrive and discard dead letters"),
  Command.withSubcommands([list, show, redrive, discard])
)
