/**
 * `waybill dead`: dead letters listed, shown, sent back and deleted. Sending back and deleting tell what they would do
 * with `--dry-run`, and ask before they do it.
 *
 * @module
 */
import { Console, Effect, Exit, Option, Schema, Stdio, Stream } from "effect"
import { Argument, Command, Flag, Prompt } from "effect/cli"
import { DeadLetters, type Failure, Inspector, type Message, Topic } from "waybill"
import { Misuse, NotConfirmed, NotThere } from "../Problem.ts"
import { bodyShown, bodyText, count, instant, messageJson, number, print, safe, shortened, table } from "../Screen.ts"
import { askable, Server, toProblem } from "../Server.ts"
import { justBefore } from "./Entry.ts"
import { limit, pages } from "./Pages.ts"
import { describeGroup, group, topic } from "./Target.ts"

/** A variable of a shell that was never set would otherwise pick out every dead letter. */
const text = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.filter(
      (value) => value !== "",
      () => `--${name} is empty: leave it out to take all`
    ),
    Flag.optional
  )

const filters = {
  reason: text("reason", "Only those that died of this reason"),
  id: text("id", "Only the message with this id"),
  contains: text("contains", "Only those whose body contains this text, as bytes where it is not text"),
  before: Flag.Date("before").pipe(Flag.withDescription("Only those that died before this instant"), Flag.optional),
  after: Flag.Date("after").pipe(Flag.withDescription("Only those that died at this instant or later"), Flag.optional)
}

/** Bytes are searched as bytes: what is printed of them says something else. */
const holds = (body: Message.Body, text: string): boolean =>
  typeof body === "string"
    ? body.includes(text)
    : Buffer.from(body.buffer, body.byteOffset, body.byteLength).includes(text)

interface Filters {
  readonly reason: Option.Option<string>
  readonly id: Option.Option<string>
  readonly contains: Option.Option<string>
  readonly before: Option.Option<Date>
  readonly after: Option.Option<Date>
}

const fits =
  ({ after, before, contains, id, reason }: Filters) =>
  (letter: Inspector.DeadLetter): boolean =>
    (Option.isNone(reason) || letter.reason === reason.value) &&
    (Option.isNone(id) || letter.id === id.value) &&
    (Option.isNone(contains) || holds(letter.body, contains.value)) &&
    (Option.isNone(before) || letter.diedAt < before.value.getTime()) &&
    (Option.isNone(after) || letter.diedAt >= after.value.getTime())

const list = Command.make(
  "list",
  {
    topic,
    group,
    ...filters,
    limit: limit.pipe(Flag.withDescription("How many at most, 50 by default"), Flag.withDefault(50))
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
        ? "No dead letter fits."
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
          )}\n${number(found.length)} shown of ${count(info.deadLetters, "dead letter")} of ${group}${
            found.length === most && found.length < info.deadLetters ? "; --limit shows more" : ""
          }.`
    )
  })
).pipe(
  Command.withDescription("List dead letters, oldest first"),
  Command.withExamples([
    { command: "waybill dead list orders billing --reason CardDeclined", description: "Those that died of one reason" }
  ])
)

const failureLines = ({ fields, message, tag }: Failure.Failure): ReadonlyArray<string> => [
  `failure    ${safe(tag)}${message === "" ? "" : `: ${safe(message)}`}`,
  ...Object.entries(fields).map(([name, value]) => `field      ${safe(name)}: ${safe(JSON.stringify(value))}`)
]

const show = Command.make(
  "show",
  { topic, group, entry: Argument.String("entry").pipe(Argument.withDescription("Its ENTRY in the list")) },
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
      return yield* new NotThere({
        what: `${group} of ${topic} has no dead letter ${safe(entry)}`,
        hint: `\`waybill dead list ${topic} ${group}\` shows those it has`
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
        `version    ${letter.version}`,
        `key        ${letter.key === undefined ? "" : safe(letter.key)}`,
        ...Object.entries(letter.headers).map(([name, value]) => `header     ${safe(name)}: ${safe(value)}`),
        ...(letter.failure === undefined ? [] : failureLines(letter.failure)),
        "",
        "cause",
        ...letter.cause.split("\n").map((line) => `  ${safe(line)}`),
        "",
        ...(letter.fields === undefined
          ? [typeof letter.body === "string" ? "body" : "body (no text: base64)", `  ${safe(bodyText(letter.body))}`]
          : [
              "fields, none of which is a payload",
              ...letter.fields.map(([name, value]) => `  ${safe(name)}: ${bodyShown(value)}`)
            ])
      ].join("\n")
    )
  })
).pipe(
  Command.withDescription("Everything about one dead letter"),
  Command.withExamples([
    { command: "waybill dead show orders billing 1795447473548-0", description: "With its cause and its body" }
  ])
)

const selection = {
  topic,
  group,
  ...filters,
  limit: limit.pipe(Flag.withDescription("At most so many; all by default"), Flag.optional),
  dryRun: Flag.Boolean("dry-run").pipe(Flag.withDescription("Only count them"), Flag.withDefault(false)),
  rate: Flag.Finite("rate").pipe(
    Flag.withDescription("At most so many a second; as fast as possible by default"),
    Flag.optional
  ),
  yes: Flag.Boolean("yes").pipe(Flag.withAlias("y"), Flag.withDescription("Do not ask"), Flag.withDefault(false))
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
    if (Option.isSome(rate) && !(rate.value > 0)) return yield* new Misuse({ detail: "--rate must be more than 0" })
    const info = yield* describeGroup(topic, group)
    // Whatever the payload is: a filter of this command looks at the text.
    const raw = Topic.make(topic, { payload: Schema.Unknown })
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
            `${number(plan.selected)} of ${count(plan.examined, "dead letter")} ${plan.selected === 1 ? "fits" : "fit"}${dryRun ? ", nothing was done" : ""}.`
        )
      }
      const question =
        verb === "redrive"
          ? `Send ${count(plan.selected, "dead letter")} back to ${group} of ${topic}?`
          : `Delete ${count(plan.selected, "dead letter")} of ${group} of ${topic} for good?`
      yield* askable(`"${question}" was to be answered (--yes does it)`)
      if (!(yield* Prompt.run(Prompt.Confirm({ message: safe(question), initial: false })))) {
        return yield* new NotConfirmed({ detail: "not done" })
      }
    }
    const what = verb === "redrive" ? "sent back" : "deleted"
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
          : Console.error(
              `waybill: ${number(progress.done())} ${what} until then; the same command goes on with the rest`
            )
      )
    )
    yield* print(
      json,
      { ...report, dryRun: false },
      () =>
        `${number(report.done)} ${what}${
          report.done < report.selected ? `; ${number(report.selected - report.done)} were gone already` : ""
        }.`
    )
  })
}

/** A bar on standard error, while that is a terminal. */
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
  Command.withDescription("Send dead letters back to their group, with a fresh count of attempts"),
  Command.withExamples([
    {
      command: "waybill dead redrive orders billing --reason GatewayDown --dry-run",
      description: "How many would go back"
    },
    {
      command: "waybill dead redrive orders billing --reason GatewayDown --rate 100 --yes",
      description: "A hundred a second, from a script"
    }
  ])
)

const discard = Command.make("discard", selection, act("discard")).pipe(
  Command.withDescription("Delete dead letters for good"),
  Command.withExamples([
    { command: "waybill dead discard orders billing --before 2026-01-01", description: "Those that died last year" }
  ])
)

export const dead = Command.make("dead").pipe(
  Command.withDescription("Dead letters: list, show, redrive, discard"),
  Command.withSubcommands([list, show, redrive, discard])
)
