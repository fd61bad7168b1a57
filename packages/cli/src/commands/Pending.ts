/**
 * `waybill pending`, `waybill retries` and `waybill consumers`: which consumer holds what, and what is waiting.
 *
 * @module
 */
import { Effect, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Inspector } from "waybill"
import { age, bodyShown, firstLine, messageJson, number, print, safe, shortened, table } from "../Screen.ts"
import { Server } from "../Server.ts"
import { limit, more, pages } from "./Pages.ts"
import { describeGroup, group, topic } from "./Target.ts"

const some = limit.pipe(Flag.withDescription("Maximum number to list, 50 by default"), Flag.withDefault(50))

export const pending = Command.make(
  "pending",
  { topic, group, limit: some },
  Effect.fnUntraced(function* ({ group, limit, topic }) {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const info = yield* describeGroup(topic, group)
    const found = yield* pages(
      (page) => inspector.pending(topic, group, page),
      ({ position }) => position,
      limit
    ).pipe(Stream.runCollect)
    yield* print(json, found.map(messageJson), () =>
      found.length === 0
        ? none(info.pending, "No pending messages.")
        : `${table(
            ["ID", "CONSUMER", "ATTEMPT", "HELD", "BODY"],
            found.map((one) => [
              one.id,
              one.consumer,
              one.attempt,
              age(one.heldMillis),
              shortened(bodyShown(one.body), 60)
            ])
          )}${more(info.pending - found.length)}`
    )
  })
).pipe(
  Command.withDescription("List messages that consumers of a group hold and have not settled"),
  Command.withExamples([
    { command: "waybill pending orders billing", description: "Which consumer holds which message, and for how long" }
  ])
)

export const retries = Command.make(
  "retries",
  { topic, group, limit: some },
  Effect.fnUntraced(function* ({ group, limit, topic }) {
    const { json } = yield* Server
    const inspector = yield* Inspector.Inspector
    const info = yield* describeGroup(topic, group)
    const found = yield* pages(
      (page) => inspector.waiting(topic, group, page),
      ({ position }) => position,
      limit
    ).pipe(Stream.runCollect)
    yield* print(json, found.map(messageJson), () =>
      found.length === 0
        ? none(info.waiting, "No messages are waiting for another attempt.")
        : `${table(
            ["ID", "ATTEMPTS", "DUE", "CAUSE", "BODY"],
            found.map((one) => [
              one.id,
              one.attempts,
              one.dueInMillis === 0 ? "now" : `in ${age(one.dueInMillis)}`,
              shortened(safe(firstLine(one.cause)), 40),
              shortened(bodyShown(one.body), 60)
            ])
          )}${more(info.waiting - found.length)}`
    )
  })
).pipe(
  Command.withDescription("List messages that are waiting for their next attempt"),
  Command.withExamples([
    { command: "waybill retries orders billing --limit 10", description: "The next ten to become due" }
  ])
)

export const consumers = Command.make(
  "consumers",
  { topic, group },
  Effect.fnUntraced(function* ({ group, topic }) {
    const { json } = yield* Server
    const info = yield* describeGroup(topic, group)
    yield* print(json, info.consumers, () =>
      info.consumers.length === 0
        ? "This group has no living consumers."
        : table(
            ["CONSUMER", "PENDING", "LEASE LEFT"],
            info.consumers.map(({ consumer, leaseLeftMillis, pending }) => [
              consumer,
              pending,
              leaseLeftMillis === undefined ? "" : age(leaseLeftMillis)
            ])
          )
    )
  })
).pipe(
  Command.withDescription(
    "List the living consumers of a group, the number of messages each holds, and the time left on its lease"
  ),
  Command.withExamples([
    { command: "waybill consumers orders billing", description: "Which consumers run, and how many messages they hold" }
  ])
)

/** Subscribers of a pattern that stores nothing report how many messages they hold, but not which. */
const none = (count: number, nothing: string): string =>
  count === 0 ? nothing : `${number(count)}, in the consumers' memory: they cannot be listed.`
