/**
 * The arguments that name a topic, or a group of one. Naming one that is not there is said, with what is there instead.
 *
 * @module
 */
import { Effect, Result, Schema } from "effect"
import { Argument } from "effect/cli"
import { Inspector, type Transport } from "waybill"
import { NotThere, ServerProblem } from "../Problem.ts"
import { safe } from "../Screen.ts"
import { toProblem } from "../Server.ts"
import { nothing } from "./Prefixes.ts"

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

/** A topic that cannot be looked at, and why. */
export interface Unreadable {
  readonly topic: string
  readonly why: string
}

/** Topics, and those among them that cannot be looked at: one of these hides no other. */
export interface Looked {
  readonly infos: ReadonlyArray<Inspector.TopicInfo>
  readonly unreadable: ReadonlyArray<Unreadable>
}

/** The figures of all these topics. A failure that passes by itself, such as a lost connection, concerns them all. */
export const describeAll = Effect.fnUntraced(function* (
  topics: ReadonlyArray<string>
): Effect.fn.Return<Looked, Transport.TransportError, Inspector.Inspector> {
  const inspector = yield* Inspector.Inspector
  const infos: Array<Inspector.TopicInfo> = []
  const unreadable: Array<Unreadable> = []
  const described = yield* Effect.forEach(topics, (topic) => Effect.result(inspector.describe(topic)), {
    concurrency: 32
  })
  for (const [i, info] of described.entries()) {
    if (Result.isSuccess(info)) infos.push(info.success)
    else if (!info.failure.reason.permanent) return yield* info.failure
    else unreadable.push({ topic: topics[i] ?? "", why: info.failure.reason.message })
  }
  return { infos, unreadable }
})

/** For a program: a topic that cannot be looked at has its name, and an `error` in the place of its figures. */
export const lookedJson = ({ infos, unreadable }: Looked) => [
  ...infos,
  ...unreadable.map(({ topic, why }) => ({ topic, error: why }))
]

/** One line for each topic that cannot be looked at. */
export const unreadableText = (unreadable: ReadonlyArray<Unreadable>): string =>
  unreadable.map(({ topic, why }) => `${safe(topic)} cannot be read: ${safe(why)}`).join("\n")

/** Fails when there are such. */
export const allReadable = ({ unreadable }: Looked): Effect.Effect<void, ServerProblem> =>
  unreadable.length === 0 ? Effect.void : Effect.fail(new ServerProblem({ detail: unreadableText(unreadable) }))

/** The topic's figures, when it is there. */
export const describe = Effect.fnUntraced(function* (topic: string) {
  const inspector = yield* Inspector.Inspector
  const info = yield* Effect.mapError(inspector.describe(topic), toProblem)
  if (info.depth === 0 && info.delayed === 0 && info.groups.length === 0) {
    const topics = yield* Effect.mapError(inspector.topics, toProblem)
    if (!topics.includes(topic)) {
      return yield* new NotThere({
        what: `there is no topic ${safe(topic)}`,
        hint: topics.length === 0 ? yield* nothing : `There is: ${list(topics)}`
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
