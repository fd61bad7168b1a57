/**
 * Delivery over Redis Streams with consumer groups. At least once: a message that was published is delivered to every
 * group until the group settles it, whatever crashes, as long as Redis keeps its data. A handler may see it again.
 *
 * Retries, delayed messages and dead letters live in Redis too, timed by its clock. Messages that every group has settled are cut
 * off; nothing else is, unless you ask for it.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { layer as layerOf, type Provided, markerProblem, type Receiver, TransportError } from "../Transport.ts"
import { Committer } from "./internal/commit/Committer.ts"
import * as RecordReader from "./internal/commit/RecordReader.ts"
import { wire } from "./internal/connection/ScriptReply.ts"
import { make as makeSubscriber } from "./internal/connection/Subscriber.ts"
import { hear } from "./internal/group/Wake.ts"
import { millisOf, oneOf, settingsOf, type StoreOptions, wholeOf } from "./internal/Settings.ts"
import { make as makeStore } from "./internal/Store.ts"
import { commit } from "./internal/streams/CommitParts.ts"
import { pattern } from "./internal/streams/GroupScripts.ts"
import { publish } from "./internal/streams/PublishScript.ts"
import type { StreamDelivery } from "./internal/streams/StreamDelivery.ts"
import * as StreamInspector from "./internal/streams/StreamInspector.ts"
import * as Members from "./internal/streams/StreamReceiver.ts"
import { topicKeys } from "./internal/wire/Keys.ts"
import { IoRedis } from "./IoRedis.ts"

/**
 * @category models
 */
export interface Options extends StoreOptions {
  /**
   * Which messages the topic's stream keeps. `settled`, the default: those that some group has not settled; while no group exists, everything.
   * `{ maxLength }`: about that many of the newest messages, settled or not. Lossy: what a slow group had not seen is
   * gone, and `Truncated` says so.
   */
  readonly retention?: "settled" | { readonly maxLength: number }
  /**
   * For how long it is remembered that the commit of a message was applied, 31 days by default. A group whose messages may
   * come again after that is not joined: `MarkerTooShort`. It costs about 150 bytes a message.
   */
  readonly marker?: Duration.Input
}

/**
 * The streams pattern, on the connections of `IoRedis`. Throws on a prefix with white space, braces or a colon, a duration of
 * nothing, or a count that is not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisStreams } from "waybill/redis"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const Greeter = Consumer.make(Greeting, { group: "greeter" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer
 * )
 *
 * const Main = Greeter.pipe(
 *   Layer.provide(RedisStreams.layer({ prefix: "shop" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<Provided<"transactional">, never, IoRedis> => {
  const settings = settingsOf(options)
  const { retention = "settled" } = options
  if (typeof retention !== "object") oneOf("retention", retention, ["settled"])
  const maxLength = typeof retention === "object" ? wholeOf("retention.maxLength", retention.maxLength) : undefined
  const markerMillis = millisOf("marker", options.marker ?? "31 days")
  return layerOf(
    "transactional",
    Effect.gen(function* () {
      const redis = yield* IoRedis
      const keysOf = (topic: string) => topicKeys(settings.prefix, topic, redis.db)
      const subscriber = yield* makeSubscriber(redis)
      const store = yield* makeStore(redis, {
        name: pattern,
        settings,
        publishing: (topic) => {
          const keys = keysOf(topic)
          return {
            script: publish,
            keys: (publisher) => [
              keys.stream,
              keys.meta,
              keys.publisher(publisher),
              keys.delayed,
              keys.delayedBodies,
              keys.wake
            ],
            seen: keys.seen,
            setting: maxLength ?? ""
          }
        },
        join: (subscription, { clock, lifecycle, published, redis }, opened) => {
          const { group, topic } = subscription
          const problem = markerProblem(markerMillis, settings.deadLetters.maxAgeMillis, subscription)
          if (problem !== undefined) {
            return Effect.fail(new TransportError({ operation: "receive", topic, reason: problem }))
          }
          const { done, released, retry } = keysOf(topic).group(group)
          return Members.make({
            commands: redis.commands,
            dedicated: redis.dedicated,
            hear: (heard) => hear(subscriber, topic, group, keysOf(topic), heard),
            topic,
            keys: keysOf(topic),
            subscription,
            lifecycle,
            clock,
            deadLetters: settings.deadLetters,
            committer: (consumer) =>
              new Committer<StreamDelivery>({
                commands: redis.commands,
                clock,
                prefix: settings.prefix,
                topic,
                pattern,
                markerMillis,
                script: commit,
                keys: [keysOf(topic).stream, retry, released],
                args: [group, consumer, pattern, wire, settings.deduplicationMillis, maxLength ?? ""],
                own: ({ count, detached, entry, source }) => [source, entry, detached ? 0 : count],
                done,
                target: (topic) => {
                  const { delayed, delayedBodies, meta, seen, stream, wake } = keysOf(topic)
                  return { keys: [stream, meta, delayed, delayedBodies, wake], seen }
                },
                published
              }),
            pollMillis: settings.pollMillis,
            trims: maxLength === undefined,
            opened
          })
        }
      })
      return {
        ...store.transport,
        inspector: StreamInspector.make({
          commands: redis.commands,
          prefix: settings.prefix,
          keysOf,
          steered: store.steered
        }),
        records: RecordReader.make(redis.commands, settings.prefix)
      }
    })
  )
}

/**
 * For as long as the scope is open, the receiver behaves like one whose process stands still: it takes nothing and
 * renews nothing, so that others of its group take its deliveries over once the lease has passed. For tests; it dies on
 * a receiver of another transport.
 *
 * @category testing
 */
export const silence = (receiver: Receiver): Effect.Effect<void, never, Scope.Scope> => {
  if (!(receiver instanceof Members.StreamReceiver)) {
    return Effect.die(new Error("silence needs a receiver of RedisStreams"))
  }
  return Effect.acquireRelease(receiver.setSilent(true), () => receiver.setSilent(false))
}
