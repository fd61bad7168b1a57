/**
 * `waybill topics`: what there is.
 *
 * @module
 */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { Inspector } from "waybill"
import { print, table } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { nothing } from "./Prefixes.ts"
import { allReadable, describeAll, lookedJson } from "./Target.ts"

export const topics = Command.make(
  "topics",
  {},
  Effect.fnUntraced(function* () {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const looked = yield* inspector.topics.pipe(Effect.flatMap(describeAll), Effect.mapError(toProblem))
    const { infos, unreadable } = looked
    const none = infos.length + unreadable.length === 0 ? yield* nothing : undefined
    yield* print(
      json,
      lookedJson(looked),
      () =>
        none ??
        table(
          ["TOPIC", "PATTERN", "STORED", "DELAYED", "GROUPS"],
          infos.map(({ delayed, depth, groups, pattern, topic }) => [topic, pattern, depth, delayed, groups.length])
        )
    )
    yield* allReadable(looked)
  })
).pipe(
  Command.withDescription("List the topics"),
  Command.withExamples([
    { command: "waybill topics --json", description: "Everything about every topic, for a program" }
  ])
)
