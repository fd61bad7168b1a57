/**
 * The arguments that name a topic or a group. A name that does not exist is reported together with those that do.
 *
 * @module
 */
import { Effect, Result, Schema } from "effect"
import { Argument } from "effect/cli"
import { Inspector, Transport } from "waybill"
import { InUse, NotFound, ServerProblem } from "../Problem.ts"
import { safe } from "../Screen.ts"
import { toProblem } from "../Server.ts"
import { nothing } from "./Prefixes.ts"

const Name = Schema.String.check(
  Schema.isPattern(/^[^\s{}]{1,200}$/, { message: "use 1 to 200 characters without white space or braces" })
)

export const topic = Argument.String("topic").pipe(
  Argument.withDescription("Name of the topic"),
  Argument.withSchema(Name)
)
export const group = Argument.String("group").pipe(
  Argument.withDescription("Name of the group"),
  Argument.withSchema(Name)
)

/** A topic that cannot be read, and why. */
export interface Unreadable {
  readonly topic: string
  readonly why: string
}

/** The topics that could be read, and those that could not: one of them does not hide the others. */
export interface Inspected {
  readonly infos: ReadonlyArray<Inspector.TopicInfo>
  readonly unreadable: ReadonlyArray<Unreadable>
}

/** The figures of all these topics. A transient failure, such as a lost connection, fails the whole call. */
export const describeAll = Effect.fnUntraced(function* (
  topics: ReadonlyArray<string>
): Effect.fn.Return<Inspected, Transport.TransportError, Inspector.Inspector> {
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

/** For programs: an unreadable topic has its name and an `error` in place of its figures. */
export const inspectedJson = ({ infos, unreadable }: Inspected) => [
  ...infos,
  ...unreadable.map(({ topic, why }) => ({ topic, error: why }))
]

/** One line for each unreadable topic. */
export const unreadableText = (unreadable: ReadonlyArray<Unreadable>): string =>
  unreadable.map(({ topic, why }) => `${safe(topic)} cannot be read: ${safe(why)}`).join("\n")

/** Fails if some topic could not be read. */
export const allReadable = ({ unreadable }: Inspected): Effect.Effect<void, ServerProblem> =>
  unreadable.length === 0 ? Effect.void : Effect.fail(new ServerProblem({ detail: unreadableText(unreadable) }))

/** The topic's figures; fails if it does not exist. */
export const describe = Effect.fnUntraced(function* (topic: string) {
  const inspector = yield* Inspector.Inspector
  const info = yield* Effect.mapError(inspector.describe(topic), toProblem)
  if (info.depth === 0 && info.delayed === 0 && info.groups.length === 0) {
    const topics = yield* Effect.mapError(inspector.topics, toProblem)
    if (!topics.includes(topic)) {
      return yield* new NotFound({
        what: `topic ${safe(topic)} does not exist`,
        hint: topics.length === 0 ? yield* nothing : `Topics: ${list(topics)}`
      })
    }
  }
  return info
})

/** The figures of a group; fails if it does not exist. */
export const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
  return yield* groupOf(yield* describe(topic), group)
})

/** The figures of a group among those of its topic. */
export const groupOf = ({ groups, topic }: Inspector.TopicInfo, group: string) => {
  const found = groups.find((candidate) => candidate.group === group)
  if (found !== undefined) return Effect.succeed(found)
  const names = groups.map((candidate) => candidate.group)
  return Effect.fail(
    new NotFound({
      what: `topic ${safe(topic)} has no group ${safe(group)}`,
      hint: names.length === 0 ? "It has no groups" : `Groups: ${list(names)}`
    })
  )
}

const list = (names: ReadonlyArray<string>): string =>
  names.slice(0, 10).map(safe).join(", ") + (names.length > 10 ? `, and ${names.length - 10} more` : "")

/** What prevents a change, as the command says it, and what else may be done. */
export const inUse = (found: ConstructorParameters<typeof Transport.TopicInUse>[0], instead = "") =>
  new InUse({ detail: new Transport.TopicInUse(found).message + instead })

/** A change that may be refused because of what is in use. */
export const unlessInUse = Effect.mapError((error: Transport.TransportError) =>
  error.reason._tag === "TopicInUse" ? inUse(error.reason) : toProblem(error)
)
