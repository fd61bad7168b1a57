/**
 * `waybill topics`: what there is, and removing what is emptied.
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
import { allReadable, describe, describeAll, lookedJson, topic } from "./Target.ts"

const inUse = ({ message }: Transport.TopicInUse) => new InUse({ detail: message })

const remove = Command.make(
  "remove",
  {
    topic,
    yes: Flag.Boolean("yes").pipe(Flag.withAlias("y"), Flag.withDescription("Do not ask"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* ({ topic, yes }) {
    const { json } = yield* Server
    const info = yield* describe(topic)
    const reason = Inspector.inUse(info)
    if (reason !== undefined) return yield* inUse(reason)
    if (!yes) {
      const groups = info.groups.length
      const question = `Remove the topic ${topic}${groups === 0 ? "" : ` and its ${count(groups, "group")}`} for good?`
      yield* askable(`"${question}" was to be answered (--yes does it)`)
      if (!(yield* Prompt.run(Prompt.Confirm({ message: safe(question), initial: false })))) {
        return yield* new NotConfirmed({ detail: "not done" })
      }
    }
    yield* (yield* Inspector.Inspector)
      .remove(topic)
      .pipe(Effect.mapError((error) => (error.reason._tag === "TopicInUse" ? inUse(error.reason) : toProblem(error))))
    yield* print(json, { topic, removed: true }, () => `${topic} is removed.`)
  })
).pipe(
  Command.withDescription("Remove a topic that is emptied, and its groups"),
  Command.withExamples([{ command: "waybill topics remove orders", description: "When its last consumer has gone" }])
)

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
  Command.withDescription("List the topics, or remove one"),
  Command.withExamples([
    { command: "waybill topics --json", description: "Everything about every topic, for a program" }
  ]),
  Command.withSubcommands([remove])
)
