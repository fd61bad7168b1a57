/**
 * What commands name: a topic, or a group of one. Naming one that is not there is said, with what is there instead.
 *
 * @module
 */
import { Effect, Schema } from "effect"
import { Argument } from "effect/cli"
import { Inspector } from "waybill"
import { NotThere } from "../Problem.ts"
import { safe } from "../Screen.ts"
import { toProblem } from "../Server.ts"

const Name = Schema.String.check(
  Schema.isPattern(/^[^\s{}]{1,200}$/, { message: "1 to 200 characters, no white space, no braces" })
)

export const topic = Argument.String("topic").pipe(
  Argument.withDescription("Name of the topic"),
  Argument.withSchema(Name)
)
export const group = Argument.String("group").pipe(
  Argument.withDescription("Name of the group"),
  Argument.withSchema(Name)
)

/** The topic's figures, when it is there. */
export const describe = Effect.fnUntraced(function* (topic: string) {
  const inspector = yield* Inspector.Inspector
  const info = yield* Effect.mapError(inspector.describe(topic), toProblem)
  if (info.depth === 0 && info.delayed === 0 && info.groups.length === 0) {
    const topics = yield* Effect.mapError(inspector.topics, toProblem)
    if (!topics.includes(topic)) {
      return yield* new NotThere({
        what: `there is no topic ${safe(topic)}`,
        hint: topics.length === 0 ? "No topic was ever opened under this prefix" : `There is: ${list(topics)}`
      })
    }
  }
  return info
})

/** The figures of a group, when it is there. */
export const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
  const info = yield* describe(topic)
  const found = info.groups.find((candidate) => candidate.group === group)
  if (found !== undefined) return found
  const groups = info.groups.map((candidate) => candidate.group)
  return yield* new NotThere({
    what: `topic ${safe(topic)} has no group ${safe(group)}`,
    hint: groups.length === 0 ? "It has none at all" : `There is: ${list(groups)}`
  })
})

const list = (names: ReadonlyArray<string>): string =>
  names.slice(0, 10).map(safe).join(", ") + (names.length > 10 ? `, and ${names.length - 10} more` : "")
