/**
 * `waybill pause` and `waybill resume`.
 *
 * @module
 */
import { Effect } from "effect"
import { Command } from "effect/cli"
import { Inspector } from "waybill"
import { print } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { describeGroup, group, topic } from "./Target.ts"

export const pause = Command.make(
  "pause",
  { topic, group },
  Effect.fnUntraced(function* ({ group, topic }) {
    const { json } = yield* Server
    const { consumers } = yield* describeGroup(topic, group)
    // Only Waybill's consumers obey: those of other programs have no heartbeat here.
    const who =
      consumers.length === 0
        ? "it has no living Waybill consumers; any that join"
        : "its consumers finish what they hold and"
    yield* Effect.mapError((yield* Inspector.Inspector).pause(topic, group), toProblem)
    yield* print(
      json,
      { topic, group, paused: true },
      () => `Paused ${group} of ${topic}: ${who} take nothing new until \`waybill resume ${topic} ${group}\`.`
    )
  })
).pipe(
  Command.withDescription("Pause a group: its consumers take nothing new until it is resumed"),
  Command.withExamples([{ command: "waybill pause orders billing", description: "Before a migration" }])
)

export const resume = Command.make(
  "resume",
  { topic, group },
  Effect.fnUntraced(function* ({ group, topic }) {
    const { json } = yield* Server
    yield* describeGroup(topic, group)
    yield* Effect.mapError((yield* Inspector.Inspector).resume(topic, group), toProblem)
    yield* print(json, { topic, group, paused: false }, () => `Resumed ${group} of ${topic}.`)
  })
).pipe(
  Command.withDescription("Resume a paused group"),
  Command.withExamples([{ command: "waybill resume orders billing", description: "After the migration" }])
)
