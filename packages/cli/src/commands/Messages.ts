/**
 * `waybill messages`: shows one message by its id, and removes, runs, reschedules or cancels it, or changes its priority. `waybill delayed` lists
 * the messages that are not due yet.
 *
 * @module
 */
import { Duration, Effect, Option, Stream } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { Inspector, type Transport } from "waybill"
import { InUse, NotFound, ServerProblem } from "../Problem.ts"
import {
  age,
  attemptTable,
  bodyLines,
  bodyShown,
  count,
  firstLine,
  instant,
  messageJson,
  metadataLines,
  number,
  print,
  safe,
  shortened,
  table
} from "../Screen.ts"
import { Server, serverMillis, toProblem } from "../Server.ts"
import { confirm, yes } from "./Confirmation.ts"
import { instantOf } from "./Instant.ts"
import { limit, more, pagesOf } from "./Pages.ts"
import { holds, text, time } from "./Selection.ts"
import { describe, topic } from "./Target.ts"

const id = Argument.String("id").pipe(
  Argument.withDescription("Id of the message, as publishing it returned and as the lists show it")
)

const notFound = (topic: string, id: string) =>
  new NotFound({
    what: `topic ${safe(topic)} stores no message ${safe(id)}`,
    hint: `It was never published, or is settled and gone. \`waybill tail ${topic}\` and \`waybill delayed ${topic}\` list what is stored`
  })

/** Asks about one message of a topic that exists, and explains what cannot be done. */
const about = Effect.fnUntraced(function* <A>(
  topic: string,
  id: string,
  ask: (inspector: Inspector.Inspector["Service"]) => Effect.Effect<A, Transport.TransportError>
) {
  const { pattern } = yield* describe(topic)
  return yield* Effect.mapError(ask(yield* Inspector.Inspector), (error) => {
    const { message, _tag: tag } = error.reason
    if (tag === "MessageNotFound") return notFound(topic, id)
    if (tag === "MessageInUse") {
      return new InUse({ detail: `${message}. \`waybill messages cancel\` interrupts its handler` })
    }
    if (tag === "MessageNotWaiting" || tag === "MessageSettled") {
      return new InUse({ detail: `${message}. \`waybill messages show\` tells where it is` })
    }
    if (error.reason._tag === "NotOffered" && error.reason.feature === "priorities") {
      return new ServerProblem({ detail: `topic ${safe(topic)} has the pattern ${safe(pattern)}: ${message}` })
    }
    const instead = `\`waybill tail ${topic}\` lists what is stored`
    return unlessOffered(topic, pattern, "find single messages by their id", instead)(error)
  })
})

/** What a pattern does not offer, and the command that comes closest. */
const unlessOffered =
  (topic: string, pattern: string, what: string, instead: string) => (error: Transport.TransportError) =>
    error.reason._tag === "NotOffered"
      ? new ServerProblem({
          detail: `topic ${safe(topic)} has the pattern ${safe(pattern)}, which cannot ${what}: ${instead}`
        })
      : toProblem(error)

const find = Effect.fnUntraced(function* (topic: string, id: string) {
  const found = yield* about(topic, id, (inspector) => inspector.message(topic, id))
  return Option.isSome(found) ? found.value : yield* notFound(topic, id)
})

const inOrNow = (millis: number): string => (millis === 0 ? "now" : `in ${age(millis)}`)

const detailsOf = (place: Inspector.MessageInGroup): string => {
  switch (place._tag) {
    case "Ready":
      return "not given to a consumer yet"
    case "Pending":
      return `attempt ${place.attempt}, held for ${age(place.heldMillis)} by ${place.consumer}`
    case "Waiting":
      return (
        `attempt ${place.attempts + 1} ${inOrNow(place.dueInMillis)}` +
        (place.cause === "" ? "" : `, after ${shortened(safe(firstLine(place.cause)), 60)}`)
      )
    case "Dead":
      return `${place.deadLetter.reason} after ${count(place.deadLetter.attempts, "attempt")}, entry ${place.deadLetter.entry}`
    case "Settled":
      return ""
  }
}

const logOf = (place: Inspector.MessageInGroup) =>
  place._tag === "Dead" ? place.deadLetter.attemptLog : "attemptLog" in place ? place.attemptLog : []

const show = Command.make(
  "show",
  { topic, id },
  Effect.fnUntraced(function* ({ id, topic }) {
    const { json } = yield* Server
    const message = yield* find(topic, id)
    const { dueAt, groups } = message
    const value = messageJson({
      ...message,
      groups: groups.map((place) =>
        place._tag === "Dead" ? { ...place, deadLetter: messageJson(place.deadLetter) } : place
      )
    })
    yield* print(json, value, () =>
      [
        `id         ${safe(message.id)}`,
        `published  ${instant(message.publishedAt)}`,
        ...(dueAt === undefined ? [] : [`due        ${instant(dueAt)}`]),
        ...metadataLines(message),
        "",
        dueAt !== undefined
          ? "It is delayed: no group has it yet."
          : groups.length === 0
            ? "Its topic has no groups."
            : table(
                ["GROUP", "STATE", "DETAILS"],
                groups.map((place) => [place.group, place._tag.toLowerCase(), detailsOf(place)])
              ),
        ...groups.flatMap((place) =>
          logOf(place).length === 0 ? [] : ["", `failed attempts in ${safe(place.group)}`, attemptTable(logOf(place))]
        ),
        "",
        ...bodyLines(message.body)
      ].join("\n")
    )
  })
).pipe(
  Command.withDescription("Show one message in full, and where it is in each group"),
  Command.withExamples([
    { command: "waybill messages show orders order-4711", description: "Which group has yet to handle it, and why" }
  ])
)

/** Where a message is, in one phrase of a question. */
const whereOf = ({ dueAt, groups }: Inspector.LocatedMessage): string =>
  dueAt !== undefined
    ? `delayed until ${instant(dueAt)}`
    : groups.length === 0
      ? "stored, and its topic has no groups"
      : groups.map(({ _tag, group }) => `${_tag.toLowerCase()} in ${group}`).join(", ")

const remove = Command.make(
  "remove",
  { topic, id, yes },
  Effect.fnUntraced(function* ({ id, topic, yes }) {
    const { json } = yield* Server
    if (!yes) {
      yield* confirm(`Permanently delete message ${id} of topic ${topic}? It is ${whereOf(yield* find(topic, id))}`)
    }
    yield* about(topic, id, (inspector) => inspector.removeMessage(topic, id))
    yield* print(json, { topic, id, removed: true }, () => `Removed ${safe(id)} of ${safe(topic)}.`)
  })
).pipe(
  Command.withDescription("Delete a message in every group, unless a consumer holds it"),
  Command.withExamples([
    { command: "waybill messages remove orders order-4711", description: "No handler begins with it any more" }
  ])
)

const cancel = Command.make(
  "cancel",
  { topic, id, yes },
  Effect.fnUntraced(function* ({ id, topic, yes }) {
    const { json } = yield* Server
    if (!yes) {
      yield* confirm(
        `Cancel message ${id} of topic ${topic}, without another attempt? It is ${whereOf(yield* find(topic, id))}`
      )
    }
    const interrupted = yield* about(topic, id, (inspector) => inspector.cancel(topic, id))
    yield* print(json, { topic, id, cancelled: true, interrupted }, () =>
      interrupted.length === 0
        ? `Cancelled ${safe(id)} of ${safe(topic)}: no consumer held it, and it is deleted.`
        : `Cancelled ${safe(id)} of ${safe(topic)}: its handler in ${interrupted.map(safe).join(", ")} is ` +
          "interrupted, and unless it succeeds before, the message becomes a dead letter, Cancelled."
    )
  })
).pipe(
  Command.withDescription("Interrupt the handler of a message, without another attempt; delete it if nothing holds it"),
  Command.withExamples([
    { command: "waybill messages cancel videos upload-17", description: "Stop a long job, in whatever process it runs" }
  ])
)

const run = Command.make(
  "run",
  { topic, id },
  Effect.fnUntraced(function* ({ id, topic }) {
    const { json } = yield* Server
    yield* about(topic, id, (inspector) => inspector.runNow(topic, id))
    yield* print(json, { topic, id, run: true }, () => `${safe(id)} of ${safe(topic)} is due now.`)
  })
).pipe(
  Command.withDescription("Make a message due now that is delayed or waits for its next attempt"),
  Command.withExamples([
    { command: "waybill messages run orders order-4711", description: "Without waiting for its next attempt" }
  ])
)

/** How a duration may be written besides the words of `Duration`. */
const units: Readonly<Record<string, string>> = { ms: "millis", s: "seconds", min: "minutes", h: "hours", d: "days" }

/** A thousand years. */
const longestDays = 365_000

/** A duration from now, or an instant in milliseconds since the epoch. */
const timeOf = (text: string): Option.Option<Duration.Duration | number> => {
  const [, amount, unit = ""] = /^(\d+(?:\.\d+)?) ?([a-z]+)$/.exec(text) ?? []
  if (amount !== undefined) {
    return Duration.fromInput(
      // Parsed: other words are refused.
      `${amount} ${units[unit] ?? unit}` as Duration.Input
    ).pipe(Option.filter((duration) => Duration.toDays(duration) <= longestDays))
  }
  return instantOf(text)
}

const when = Argument.String("when").pipe(
  Argument.withDescription("A duration from now, such as 90s, 15min, 2h or 1d, or a time such as 2026-01-31T12:00:00Z"),
  Argument.filterMap(
    timeOf,
    () => "a duration from now, such as 15min, or a time with its zone, such as 2026-01-31T12:00:00Z"
  )
)

const reschedule = Command.make(
  "reschedule",
  { topic, id, when },
  Effect.fnUntraced(function* ({ id, topic, when }) {
    const { json } = yield* Server
    const dueAt = Math.ceil(
      typeof when === "number"
        ? when
        : Duration.toMillis(when) +
            (yield* Effect.mapError(serverMillis, ({ message }) => new ServerProblem({ detail: message })))
    )
    yield* about(topic, id, (inspector) => inspector.reschedule(topic, id, dueAt))
    yield* print(json, { topic, id, dueAt }, () => `${safe(id)} of ${safe(topic)} is due ${instant(dueAt)}.`)
  })
).pipe(
  Command.withDescription("Change when a message is due that is delayed or waits for its next attempt"),
  Command.withExamples([
    { command: "waybill messages reschedule orders order-4711 2h", description: "In two hours, by the server's clock" },
    { command: "waybill messages reschedule orders order-4711 2026-01-31T12:00:00Z", description: "At noon, UTC" }
  ])
)

const priority = Command.make(
  "priority",
  {
    topic,
    id,
    priority: Argument.Literals("priority", ["high", "normal", "low"]).pipe(
      Argument.withDescription("How urgent it is from now on")
    )
  },
  Effect.fnUntraced(function* ({ id, priority, topic }) {
    const { json } = yield* Server
    yield* about(topic, id, (inspector) => inspector.changePriority(topic, id, priority))
    yield* print(json, { topic, id, priority }, () => `${safe(id)} of ${safe(topic)} has the priority ${priority} now.`)
  })
).pipe(
  Command.withDescription("Change how urgent a message of a queue is that orders by priority"),
  Command.withExamples([
    { command: "waybill messages priority thumbnails cat.png high", description: "The next free handler begins it" }
  ])
)

export const messages = Command.make("messages").pipe(
  Command.withDescription(
    "Show one message by its id, and remove, run, reschedule or cancel it, or change its priority"
  ),
  Command.withSubcommands([show, remove, run, reschedule, priority, cancel])
)

export const delayed = Command.make(
  "delayed",
  {
    topic,
    contains: text("contains", "Only messages whose body contains this text; binary bodies are searched as bytes"),
    key: text("key", "Only messages with this key"),
    header: Flag.KeyValuePair("header").pipe(
      Flag.withDescription("Only messages with this header, as name=value; repeat for several"),
      Flag.withDefault({})
    ),
    after: time("after", "Only messages due at or after this time, such as 2026-01-31T12:00:00Z"),
    before: time("before", "Only messages due before this time"),
    limit: limit.pipe(Flag.withDescription("Maximum number to list, 50 by default"), Flag.withDefault(50))
  },
  Effect.fnUntraced(function* ({ after, before, contains, header, key, limit, topic }) {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const info = yield* describe(topic)
    const headers = Object.entries(header)
    const selects =
      Option.isSome(contains) ||
      Option.isSome(key) ||
      Option.isSome(after) ||
      Option.isSome(before) ||
      headers.length > 0
    const fits = (one: Inspector.DelayedMessage) =>
      Option.match(after, { onNone: () => true, onSome: (time) => one.dueAt >= time }) &&
      Option.match(contains, { onNone: () => true, onSome: (text) => holds(one.body, text) }) &&
      Option.match(key, { onNone: () => true, onSome: (key) => one.key === key }) &&
      headers.every(([name, value]) => one.headers[name] === value)
    const found = yield* pagesOf(
      (page) => inspector.delayed(topic, page),
      ({ position }) => position,
      selects ? info.delayed : limit
    ).pipe(
      // They come in the order in which they are due.
      Stream.takeWhile(({ dueAt }) => Option.match(before, { onNone: () => true, onSome: (time) => dueAt < time })),
      Stream.filter(fits),
      Stream.take(limit),
      Stream.runCollect,
      Effect.mapError(
        unlessOffered(topic, info.pattern, "list delayed messages", `\`waybill stats ${topic}\` counts what is stored`)
      )
    )
    yield* print(json, found.map(messageJson), () =>
      found.length === 0
        ? selects
          ? "No matching messages are delayed."
          : "No messages are delayed."
        : `${table(
            ["ID", "DUE", "BODY"],
            found.map((one) => [one.id, inOrNow(one.dueInMillis), shortened(bodyShown(one.body), 60)])
          )}${
            selects
              ? `\n${number(found.length)} shown; ${count(info.delayed, "message")} ${info.delayed === 1 ? "is" : "are"} delayed${
                  found.length === limit ? "; --limit shows more" : ""
                }.`
              : more(info.delayed - found.length)
          }`
    )
  })
).pipe(
  Command.withDescription("List the messages of a topic that are not due yet, the next one first"),
  Command.withExamples([
    { command: "waybill delayed orders --limit 10", description: "The next ten to become due" },
    { command: "waybill delayed orders --contains order-4711", description: "Only those whose body names it" }
  ])
)
