/**
 * `waybill topics`: lists the topics, and empties or removes them.
 *
 * @module
 */
import { Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { Inspector, type Transport } from "waybill"
import { count, number, print, safe, table } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { confirm, yes } from "./Confirmation.ts"
import { nothing } from "./Prefixes.ts"
import { allReadable, describe, describeAll, inspectedJson, inUse, topic } from "./Target.ts"

const remove = Command.make(
  "remove",
  {
    topic,
    force: Flag.Boolean("force").pipe(
      Flag.withDescription("Delete unsettled messages and dead letters too; only living consumers prevent it"),
      Flag.withDefault(false)
    ),
    yes
  },
  Effect.fnUntraced(function* ({ force, topic, yes }) {
    const { json } = yield* Server
    const info = yield* describe(topic)
    const reason = Inspector.inUse(info, { force })
    const refused = (reason: Transport.TopicInUse) =>
      inUse(reason, force || reason.found === "consumers" ? "" : ", or delete everything with --force")
    if (reason !== undefined) return yield* refused(reason)
    if (!yes) {
      const groups = info.groups.length
      const stored = info.depth + info.delayed
      const waiting = info.groups.reduce((sum, { waiting }) => sum + waiting, 0)
      const letters = info.groups.reduce((sum, { deadLetters }) => sum + deadLetters, 0)
      yield* confirm(
        `Permanently remove topic ${topic}${groups === 0 ? "" : ` and its ${count(groups, "group")}`}` +
          (force
            ? `, with ${count(stored, "stored message")}, ${number(waiting)} waiting for a retry, ` +
              `${count(letters, "dead letter")} and all schedules?`
            : "?")
      )
    }
    yield* (yield* Inspector.Inspector)
      .remove(topic, { force })
      .pipe(Effect.mapError((error) => (error.reason._tag === "TopicInUse" ? refused(error.reason) : toProblem(error))))
    yield* print(json, { topic, removed: true }, () => `Removed ${safe(topic)}.`)
  })
).pipe(
  Command.withDescription("Remove a topic and its groups, by default only an empty one"),
  Command.withExamples([
    { command: "waybill topics remove orders", description: "After its last consumer has stopped" },
    { command: "waybill topics remove orders --force", description: "With everything that is stored" }
  ])
)

const purge = Command.make(
  "purge",
  { topic, yes },
  Effect.fnUntraced(function* ({ topic, yes }) {
    const { json } = yield* Server
    const { delayed, depth, groups } = yield* describe(topic)
    const waiting = groups.reduce((sum, group) => sum + group.waiting, 0)
    const held = groups.reduce((sum, { pending }) => sum + pending, 0)
    if (!yes) {
      yield* confirm(
        `Permanently delete the messages of topic ${topic}: ${number(depth)} stored, ${number(delayed)} delayed, ` +
          `${number(waiting)} waiting for a retry? Consumers keep the ${number(held)} that they hold`
      )
    }
    yield* Effect.mapError((yield* Inspector.Inspector).purge(topic), toProblem)
    yield* print(json, { topic, depth, delayed, waiting, held, purged: true }, () => `Purged ${safe(topic)}.`)
  })
).pipe(
  Command.withDescription("Delete the messages of a topic that no consumer holds; groups and dead letters stay"),
  Command.withExamples([{ command: "waybill topics purge orders", description: "Start over with an empty backlog" }])
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
  Command.withDescription("List topics, or purge or remove one"),
  Command.withExamples([
    { command: "waybill topics --json", description: "All figures of every topic, for a program" }
  ]),
  Command.withSubcommands([purge, remove])
)
