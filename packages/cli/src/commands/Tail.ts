/**
 * `waybill tail`: follows a topic without consuming anything.
 *
 * @module
 */
import { Console, Effect, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Inspector } from "waybill"
import { bodyText, instant, messageJson, safe } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { describe, topic } from "./Target.ts"

export const tail = Command.make(
  "tail",
  {
    topic,
    lines: Flag.Int("lines").pipe(
      Flag.withAlias("n"),
      Flag.withDescription("Begin with so many of the newest messages, 10 by default"),
      Flag.withDefault(10)
    ),
    follow: Flag.Boolean("follow").pipe(
      Flag.withAlias("f"),
      Flag.withDescription("Go on with what is published from now on, until interrupted"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ follow, lines, topic }) {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    if (!follow) yield* describe(topic)
    const show = (message: Inspector.StoredMessage) =>
      Console.log(
        json
          ? JSON.stringify(messageJson(message))
          : `${instant(message.publishedAt)}  ${safe(message.id)}  ${safe(bodyText(message.body))}`
      )
    const newest = yield* Effect.mapError(
      inspector.messages(topic, { after: Option.none(), limit: Math.max(1, lines), newest: true }),
      toProblem
    )
    yield* Effect.forEach(lines < 1 ? [] : newest, show, { discard: true })
    if (!follow) return
    const start = Option.fromNullishOr(newest.at(-1)?.position)
    yield* Stream.paginate(start, (after) =>
      Effect.gen(function* () {
        const page = yield* inspector.messages(topic, { after, limit: 200 })
        if (page.length === 0) yield* Effect.sleep("250 millis")
        return [page, Option.some(Option.orElse(Option.fromNullishOr(page.at(-1)?.position), () => after))] as const
      })
    ).pipe(Stream.mapError(toProblem), Stream.runForEach(show))
  })
).pipe(
  Command.withDescription("Show the newest messages of a topic and follow it, without consuming"),
  Command.withExamples([
    { command: "waybill tail orders --follow", description: "Watch what is published" },
    { command: "waybill tail orders -n 100 --json | jq .body", description: "The last hundred bodies" }
  ])
)
