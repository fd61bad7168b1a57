/**
 * `waybill pending`, `waybill retries` and `waybill consumers`: who has what, and what waits.
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

const some = limit.pipe(Flag.withDescription("How many at most, 50 by default"), Flag.withDefault(50))

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
        ? none(info.pending, "Nothing is with a consumer.")
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
  Command.withDescription("What consumers of a group have been given and have not settled"),
  Command.withExamples([
    { command: "waybill pending orders billing", description: "Who holds which message, and for how long at most" }
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
        ? none(info.waiting, "Nothing waits for another attempt.")
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
  Command.withDescription("What waits for its next attempt"),
  Command.withExamples([
    { command: "waybill retries orders billing --limit 10", description: "The next ten that are due" }
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
        ? "No consumer of this group is alive."
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
    "The living consumers of a group: what they hold, and when each is taken for dead unless it beats"
  ),
  Command.withExamples([{ command: "waybill consumers orders billing", description: "Who works, and on how much" }])
)

/** Subscribers of a pattern that stores nothing tell how many they have, and not which. */
const none = (count: number, nothing: string): string =>
  count === 0 ? nothing : `${number(count)}, in the memory of the consumers: they cannot be listed from outside.`
