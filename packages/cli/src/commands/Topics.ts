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

export const topics = Command.make(
  "topics",
  {},
  Effect.fnUntraced(function* () {
    const { json, prefix } = yield* Server
    const inspector = yield* Inspector.Inspector
    const infos = yield* inspector.topics.pipe(
      Effect.flatMap(Effect.forEach(inspector.describe, { concurrency: 32 })),
      Effect.mapError(toProblem)
    )
    yield* print(json, infos, () =>
      infos.length === 0
        ? `No topic was ever opened under the prefix ${prefix}.`
        : table(
            ["TOPIC", "PATTERN", "STORED", "DELAYED", "GROUPS"],
            infos.map(({ delayed, depth, groups, pattern, topic }) => [topic, pattern, depth, delayed, groups.length])
          )
    )
  })
).pipe(
  Command.withDescription("List the topics"),
  Command.withExamples([
    { command: "waybill topics --json", description: "Everything about every topic, for a program" }
  ])
)
