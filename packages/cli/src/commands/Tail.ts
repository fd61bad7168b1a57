/**
 * `waybill tail`: shows the messages of a topic, or those ahead of a group, without consuming anything.
 *
 * @module
 */
import { Console, Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Inspector } from "waybill"
import { drained, whileRead } from "../Output.ts"
import { NotFound } from "../Problem.ts"
import { bodyShown, instant, messageJson, safe } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { pages } from "./Pages.ts"
import { retryWhileUnreachable } from "./retryWhileUnreachable.ts"
import { describe, describeGroup, topic } from "./Target.ts"

const show = (json: boolean) => (message: Inspector.StoredMessage | Inspector.PendingMessage) =>
  Effect.andThen(
    Console.log(
      json
        ? JSON.stringify(messageJson(message))
        : `${instant(message.publishedAt)}  ${safe(message.id)}  ${bodyShown(message.body)}${
            "consumer" in message ? `  (with ${safe(message.consumer)})` : ""
          }`
    ),
    drained
  )

/** No output would not tell the user that there will never be any. */
const refuseUnstored = Effect.fnUntraced(function* (topic: string) {
  const inspector = yield* Inspector.Inspector
  const { pattern, retention } = yield* Effect.mapError(inspector.describe(topic), toProblem)
  if (retention !== "none") return
  return yield* new NotFound({
    what: `topic ${safe(topic)} has the pattern ${pattern}, which stores no messages: there is nothing to show`,
    hint: "Who subscribes sees them as they are published"
  })
})

/** Messages after the position, as they are published. */
const following = (topic: string, start: Option.Option<string>) =>
  Stream.unwrap(
    Effect.map(Inspector.Inspector, (inspector) =>
      Stream.paginate(start, (after) =>
        Effect.gen(function* () {
          const page = yield* retryWhileUnreachable(inspector.messages(topic, { after, limit: 200 }))
          if (page.length === 0) yield* Effect.sleep("250 millis")
          return [page, Option.some(Option.orElse(Option.fromNullishOr(page.at(-1)?.position), () => after))] as const
        })
      )
    )
  )

/** The newest messages, oldest first. */
const newestOf = Effect.fnUntraced(function* (inspector: Inspector.Inspector["Service"], topic: string, lines: number) {
  const pages: Array<ReadonlyArray<Inspector.StoredMessage>> = []
  let before = Option.none<string>()
  for (let left = lines; left > 0;) {
    const page = yield* inspector.messages(topic, { before, limit: Math.min(200, left) })
    if (page.length === 0) break
    pages.push(page)
    before = Option.fromNullishOr(page[0]?.position)
    left -= page.length
  }
  return pages.reverse().flat()
})

const tailTopic = Effect.fnUntraced(function* (topic: string, lines: number, follow: boolean) {
  const { json } = yield* Server
  const inspector = yield* Inspector.Inspector
  if (!follow) yield* describe(topic)
  const newest = yield* Effect.mapError(newestOf(inspector, topic, Math.max(1, lines)), toProblem)
  yield* Effect.forEach(lines < 1 ? [] : newest, show(json), { discard: true })
  if (!follow) return
  yield* Stream.runForEach(following(topic, Option.fromNullishOr(newest.at(-1)?.position)), show(json))
})

const tailGroup = Effect.fnUntraced(function* (
  topic: string,
  group: string,
  lines: Option.Option<number>,
  follow: boolean
) {
  const { json } = yield* Server
  const inspector = yield* Inspector.Inspector
  // First the group's position, then what is pending: a message delivered in between is shown as pending, and only once.
  const { lag, pending, reached } = yield* describeGroup(topic, group)
  const start = Option.fromNullishOr(reached)
  const shown = new Set<string>()
  const held = pages(
    (page) => inspector.pending(topic, group, page),
    ({ position }) => position,
    pending
  ).pipe(Stream.tap(({ id }) => Effect.sync(() => shown.add(id))))
  const ahead = follow
    ? following(topic, start)
    : pages(
        (page) => inspector.messages(topic, { ...page, after: Option.orElse(page.after, () => start) }),
        ({ position }) => position,
        lag
      )
  const all = Stream.concat(
    held,
    Stream.filter(ahead, ({ id }) => !shown.delete(id))
  )
  yield* Stream.runForEach(Option.match(lines, { onNone: () => all, onSome: (n) => Stream.take(all, n) }), show(json))
})

export const tail = Command.make(
  "tail",
  {
    topic,
    group: Flag.String("group").pipe(
      Flag.withAlias("g"),
      Flag.withDescription(
        "Start at this group's position: first the messages its consumers hold, then those it has not been given"
      ),
      Flag.optional
    ),
    lines: Flag.Int("lines").pipe(
      Flag.withAlias("n"),
      Flag.withDescription(
        "Number of newest messages to start with, 10 by default. With --group: show at most this many of the oldest, then stop"
      ),
      Flag.filter(
        (lines) => lines >= 0,
        () => "must not be negative"
      ),
      Flag.optional
    ),
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Keep printing new messages until interrupted"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ follow, group, lines, topic }) {
    yield* refuseUnstored(topic)
    if (Option.isSome(group)) return yield* whileRead(tailGroup(topic, group.value, lines, follow))
    const count = Option.getOrElse(lines, () => 10)
    yield* whileRead(tailTopic(topic, count, follow))
  })
).pipe(
  Command.withDescription("Show the newest messages of a topic, or those ahead of a group, without consuming"),
  Command.withExamples([
    { command: "waybill tail orders --follow", description: "Follow the topic" },
    {
      command: "waybill tail orders --group billing",
      description: "Messages that billing holds or has not been given yet"
    },
    { command: "waybill tail orders -n 100 --json | jq .body", description: "The last hundred bodies" }
  ])
)
