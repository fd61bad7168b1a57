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
    // Only ours look whether they may: those of other programs have no heartbeat here.
    const who =
      consumers.length === 0
        ? "no consumer of Waybill is alive in it, and those that come"
        : "its consumers finish what they hold and"
    yield* Effect.mapError((yield* Inspector.Inspector).pause(topic, group), toProblem)
    yield* print(
      json,
      { topic, group, paused: true },
      () => `${group} of ${topic} is paused: ${who} take nothing new until \`waybill resume ${topic} ${group}\`.`
    )
  })
).pipe(
  Command.withDescription("Let a group take nothing new until it is resumed"),
  Command.withExamples([{ command: "waybill pause orders billing", description: "Before a migration" }])
)

export const resume = Command.make(
  "resume",
  { topic, group },
  Effect.fnUntraced(function* ({ group, topic }) {
    const { json } = yield* Server
    yield* describeGroup(topic, group)
    yield* Effect.mapError((yield* Inspector.Inspector).resume(topic, group), toProblem)
    yield* print(json, { topic, group, paused: false }, () => `${group} of ${topic} goes on.`)
  })
).pipe(
  Command.withDescription("Let a paused group go on"),
  Command.withExamples([{ command: "waybill resume orders billing", description: "After the migration" }])
)
