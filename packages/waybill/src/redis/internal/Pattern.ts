/**
 * A pattern, and the layer it makes: one publisher per topic, the receivers of this process, and the registry of
 * topics. Closing the layer closes all of them.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { Inspector } from "../../Inspector.ts"
import { markerProblem } from "../../internal/Marker.ts"
import { Lifecycle } from "../../Lifecycle.ts"
import * as Transport from "../../Transport.ts"
import { IoRedis } from "../IoRedis.ts"
import type { Published } from "./commit/Committer.ts"
import * as RecordReader from "./commit/RecordReader.ts"
import type { Commands, Connection } from "./connection/Connection.ts"
import { evaluate } from "./connection/ScriptReply.ts"
import { make as makeSubscriber, type Subscriber } from "./connection/Subscriber.ts"
import { deadLetterOf } from "./inspect/DeadLetterEntry.ts"
import { claim } from "./inspect/DeadLetterScripts.ts"
import type { InspectorOptions } from "./inspect/Inspecting.ts"
import { healthOf } from "./inspect/ServerHealth.ts"
import { Confirmation } from "./publish/Confirmation.ts"
import type { Outbox } from "./publish/Outbox.ts"
import { make as makePublisher, type PublisherOptions } from "./publish/Publisher.ts"
import { Publishers } from "./publish/Publishers.ts"
import type { Publishing } from "./publish/PublishScript.ts"
import * as Schedules from "./publish/Schedules.ts"
import type { scheduleScript } from "./publish/ScheduleScripts.ts"
import type { Settings } from "./Settings.ts"
import { registry, topicKeys, type TopicKeys } from "./wire/Keys.ts"

/** A pattern with its options: a value that does nothing until a layer opens it. */
export interface Pattern<out G extends Transport.Guarantee = Transport.Guarantee> {
  /** Its name in the meta key of a topic. */
  readonly name: string
  readonly guarantee: G
  /** How long it remembers that a message's commit was applied. */
  readonly markerMillis?: number | undefined
  /** Whether its groups are given the most urgent messages first, or may be. */
  readonly priorities?: boolean | undefined
  /** Whether every consumer gets every message, whatever its group. */
  readonly broadcasts?: boolean | undefined
  /** Whether its groups may have a filter. */
  readonly filters?: boolean | undefined
  /** See `Transport`. */
  readonly unique?: Transport.Transport["unique"]
  /** Inspects topics of the pattern, whatever options they were opened with. */
  readonly inspector: (options: InspectorOptions) => Inspector["Service"]
  /** Settings that it needs and that a server lacks, in sentences. */
  readonly advice?: ((server: Connection) => Effect.Effect<ReadonlyArray<string>>) | undefined
  /** Opens it for one layer. */
  readonly open: (store: Store) => Effect.Effect<Opened, never, Scope.Scope>
}

export interface Opened {
  /** The script that stores messages; or, for a pattern that stores none, the way to send them. */
  readonly publishing: StoredPublishing | ((options: SenderOptions) => Outbox)
  /** `opened` must run once the topic exists in the store. */
  readonly join: (
    subscription: Transport.Subscription,
    opened: Effect.Effect<void>
  ) => Effect.Effect<Member, Transport.TransportError, Scope.Scope>
}

/** How messages are stored, by publishers and by schedules. */
interface StoredPublishing extends Publishing {
  readonly schedule: ReturnType<typeof scheduleScript>
}

/** A receiver as seen by the others of its process. */
export interface Member extends Transport.Receiver {
  /** A message of the topic will be due in that many milliseconds. */
  expect(millis: number): void
  /** Checks at once whether its group is paused; returns when it knows, or soon. */
  readonly refresh: Effect.Effect<void>
}

/** The options of every sender. */
export type SenderOptions = Pick<PublisherOptions, "commands" | "topic" | "keys" | "clock" | "timeoutMillis" | "opened">

/** Shared by the parts of one layer. */
export interface Store extends Settings {
  readonly redis: IoRedis["Service"]
  readonly commands: Commands
  readonly subscriber: Subscriber
  readonly keysOf: (topic: string) => TopicKeys
  readonly clock: Clock.Clock
  readonly lifecycle: Lifecycle
  /** Messages were stored by something other than a publisher: informs the registry, the lifecycle and waiting receivers. */
  readonly published: (published: Published) => Effect.Effect<void>
}

/** The layer of a pattern on the connections of `IoRedis`; `describe` interprets the options, and throws on invalid ones. */
export const layer = <G extends Transport.Guarantee, Options>(
  guarantee: G,
  describe: (options: Options) => readonly [Pattern<G>, Settings]
) => Transport.layer(guarantee, (options: Options) => make(...describe(options)))

const publishersOf = (
  pattern: Pattern,
  publishing: Opened["publishing"],
  { clock, commands, keysOf, limitsOf, publishMillis, redis }: Store,
  register: (topic: string) => Effect.Effect<void>,
  expect: (topic: string, millis: number) => void,
  scope: Scope.Scope
): Publishers =>
  new Publishers(scope, (topic, durability, own) => {
    const keys = keysOf(topic)
    const options: SenderOptions = {
      commands,
      topic,
      keys,
      clock,
      timeoutMillis: publishMillis,
      opened: register(topic)
    }
    if (typeof publishing === "function") return publishing(options)
    return makePublisher({
      ...options,
      pattern: pattern.name,
      publishing,
      deduplicationMillis: limitsOf(topic).deduplicationMillis,
      delayed: (millis) => expect(topic, millis),
      confirmation:
        durability === "stored"
          ? undefined
          : new Confirmation({
              durability,
              clock,
              key: keys.meta,
              connect: Scope.provide(redis.dedicated(`publisher:${topic}`, keys.meta), own)
            })
    })
  })

const make = Effect.fnUntraced(function* (pattern: Pattern, settings: Settings) {
  const redis = yield* IoRedis
  const { commands, db } = redis
  const clock = yield* Clock.Clock
  const lifecycle = new Lifecycle()
  const run = Effect.runForkWith(yield* Effect.context<never>())
  yield* redis.listen((event) => run(lifecycle.report(event)))

  const members = new Set<{ readonly topic: string; readonly group: string; readonly member: Member }>()

  /** Adds the topic to the registry. A failure undoes nothing; the next opening tries again. */
  const register = (topic: string): Effect.Effect<void> => {
    const key = registry(settings.prefix)
    return Effect.ignore(commands.run("sadd", key, (client) => client.sadd(key, topic)))
  }

  const expect = (topic: string, millis: number) => {
    for (const one of members) if (one.topic === topic) one.member.expect(millis)
  }

  const store: Store = {
    ...settings,
    redis,
    commands,
    subscriber: yield* makeSubscriber(redis),
    keysOf: (topic) => topicKeys(settings.prefix, topic, db),
    clock,
    lifecycle,
    published: ({ dueIn, messages, opened, receipts, topic }) =>
      Effect.suspend(() => {
        if (dueIn < Infinity) expect(topic, dueIn)
        if (lifecycle.active) lifecycle.emit({ _tag: "Published", topic, messages, receipts })
        return opened ? register(topic) : Effect.void
      })
  }
  const opened = yield* pattern.open(store)
  const publishers = publishersOf(pattern, opened.publishing, store, register, expect, yield* Scope.Scope)
  const transport: Omit<Transport.Transport, "guarantee" | "inspector"> = {
    lifecycle,
    priorities: pattern.priorities,
    broadcasts: pattern.broadcasts,
    now: commands
      .run("time", [], (client) => client.time())
      .pipe(
        Effect.map(([seconds, micros]) => Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)),
        Effect.mapError((reason) => new Transport.TransportError({ operation: "inspect", reason }))
      ),
    filters: pattern.filters,
    unique: pattern.unique,
    health: healthOf(redis, redis.replicas),
    durable: typeof opened.publishing !== "function",
    publish: (topic, messages, durability = settings.durability) => publishers.publish(topic, messages, durability),
    claimDeadLetters: ({ from = "", group, handled, held, lease, limit, topic }) => {
      const keys = store.keysOf(topic).group(group)
      const named = { handled: handled.length, limit, lease: Duration.toMillis(lease), from }
      const args = [...handled, ...held]
      return evaluate(commands, { topic, pattern: pattern.name }, claim, keys, named, { args }).pipe(
        Effect.map(({ letters, position }) => ({
          position,
          letters: letters.map(({ entry, fields }) => deadLetterOf(topic, group, entry, fields))
        })),
        Effect.mapError((reason) => new Transport.TransportError({ operation: "receive", topic, reason }))
      )
    },
    receive: Effect.fnUntraced(function* (subscription) {
      const { group, topic } = subscription
      const problem = markerProblem(
        pattern.markerMillis ?? Infinity,
        settings.limitsOf(subscription.topic).deadLetters.maxAgeMillis,
        subscription
      )
      if (problem !== undefined)
        return yield* new Transport.TransportError({ operation: "receive", topic, reason: problem })
      const member = yield* opened.join(subscription, register(topic))
      const entry = { topic, group, member }
      yield* Effect.acquireRelease(
        Effect.sync(() => members.add(entry)),
        () => Effect.sync(() => members.delete(entry))
      )
      return member
    })
  }
  const inspector = pattern.inspector({
    ...store,
    refresh: (topic, group) =>
      Effect.forEach(
        [...members].filter((one) => one.topic === topic && one.group === group),
        ({ member }) => member.refresh,
        { discard: true }
      )
  })
  const { publishing } = opened
  const schedules =
    typeof publishing === "function"
      ? undefined
      : Schedules.make({ ...store, ...publishing, pattern: pattern.name, script: publishing.schedule })
  const records = pattern.guarantee === "transactional" ? RecordReader.make(commands, settings.prefix) : undefined
  return { ...transport, inspector, records, schedules }
})
