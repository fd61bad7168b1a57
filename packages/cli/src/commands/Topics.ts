/**
 * `waybill topics`: lists the topics, and removes empty ones.
 *
 * @module
 */
import { Effect } from "effect"
import { Command, Flag, Prompt } from "effect/cli"
import { Inspector, type Transport } from "waybill"
import { InUse, NotConfirmed } from "../Problem.ts"
import { count, print, safe, table } from "../Screen.ts"
import { askable, Server, toProblem } from "../Server.ts"
import { nothing } from "./Prefixes.ts"
import { allReadable, describe, describeAll, inspectedJson, topic } from "./Target.ts"

const inUse = ({ message }: Transport.TopicInUse) => new InUse({ detail: message })

const remove = Command.make(
  "remove",
  {
    topic,
    yes: Flag.Boolean("yes").pipe(
      Flag.withAlias("y"),
      Flag.withDescription("Skip the confirmation"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ topic, yes }) {
    const { json } = yield* Server
    const info = yield* describe(topic)
    const reason = Inspector.inUse(info)
    if (reason !== undefined) return yield* inUse(reason)
    if (!yes) {
      const groups = info.groups.length
      const question = `Permanently remove topic ${topic}${groups === 0 ? "" : ` and its ${count(groups, "group")}`}?`
      yield* askable(`confirming "${question}" without --yes`)
      if (!(yield* Prompt.run(Prompt.Confirm({ message: safe(question), initial: false })))) {
        return yield* new NotConfirmed({ detail: "not done" })
      }
    }
    yield* (yield* Inspector.Inspector)
      .remove(topic)
      .pipe(Effect.mapError((error) => (error.reason._tag === "TopicInUse" ? inUse(error.reason) : toProblem(error))))
    yield* print(json, { topic, removed: true }, () => `Removed ${topic}.`)
  })
).pipe(
  Command.withDescription("Remove an empty topic and its groups"),
  Command.withExamples([
    { command: "waybill topics remove orders", description: "After its last consumer has stopped" }
  ])
)

export const topics = Command.make(
  "topics",
  {},
  Effect.fnUntraced(function* () {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const inspected = yield* inspector.topics.pipe(Effect.flatMap(describeAll), Effect.mapError(toProblem))
    const { infos, unreadable } = inspected
    const none = infos.length + unreadable.length === 0 ? yield* nothing : undefined
    yield* print(
      json,
      inspectedJson(inspected),
      () =>
        none ??
        table(
          ["TOPIC", "PATTERN", "STORED", "DELAYED", "GROUPS"],
          infos.map(({ delayed, depth, groups, pattern, topic }) => [topic, pattern, depth, delayed, groups.length])
        )
    )
    yield* allReadable(inspected)
  })
).pipe(
  Command.withDescription("List topics, or remove one"),
  Command.withExamples([
    { command: "waybill topics --json", description: "All figures of every topic, for a program" }
  ]),
  Command.withSubcommands([remove])
)
