/**
 * Looks at every topic under a prefix, whatever pattern it was opened with, without being a producer or a consumer: for
 * tools, dashboards and health checks.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { checked, Inspector } from "../Inspector.ts"
import { TopicConflict, TransportError } from "../Transport.ts"
import * as ClaimsInspector from "./internal/claims/ClaimsInspector.ts"
import { pattern as keyspace } from "./internal/keyspace/KeyspaceScripts.ts"
import * as Keyspace from "./internal/keyspace/KeyspaceSource.ts"
import * as ExactlyOnce from "./internal/lists/CommitParts.ts"
import * as Lists from "./internal/lists/ListSource.ts"
import * as PubSubInspector from "./internal/pubsub/PubSubInspector.ts"
import { pattern as pubsub } from "./internal/pubsub/Scripts.ts"
import { settingsOf, type StoreOptions } from "./internal/Settings.ts"
import { pattern as streams } from "./internal/streams/GroupScripts.ts"
import * as StreamInspector from "./internal/streams/StreamInspector.ts"
import { topicKeys } from "./internal/wire/Keys.ts"
import { IoRedis } from "./IoRedis.ts"

/**
 * Throws on a prefix with white space, braces or a colon: that is a bug.
 *
 * @example
 * ```ts
 * import { Console, Effect, Layer } from "effect"
 * import { Inspector } from "waybill"
 * import { IoRedis, RedisInspector } from "waybill/redis"
 *
 * const program = Effect.gen(function*() {
 *   const inspector = yield* Inspector.Inspector
 *   for (const topic of yield* inspector.topics) yield* Console.log(yield* inspector.describe(topic))
 * }).pipe(
 *   Effect.provide(RedisInspector.layer({ prefix: "shop" }).pipe(Layer.provide(IoRedis.layerUrl("redis://127.0.0.1"))))
 * )
 * ```
 *
 * @category layers
 */
export const layer = (options: Pick<StoreOptions, "prefix"> = {}): Layer.Layer<Inspector, never, IoRedis> => {
  const { prefix } = settingsOf(options)
  return Layer.effect(
    Inspector,
    Effect.gen(function* () {
      const { commands, db } = yield* IoRedis
      const keysOf = (topic: string) => topicKeys(prefix, topic, db)
      const options = { commands, prefix, keysOf, steered: () => Effect.void }
      const inspectors: Record<string, Context.Service.Shape<typeof Inspector>> = {
        [streams]: StreamInspector.make(options),
        [Lists.pattern]: ClaimsInspector.make(options, Lists.pattern, (topic) => ({
          scripts: Lists.scripts("any"),
          keys: Lists.keysOf(keysOf(topic))
        })),
        [ExactlyOnce.pattern]: ClaimsInspector.make(options, ExactlyOnce.pattern, (topic) => ({
          scripts: ExactlyOnce.of("any").scripts,
          keys: Lists.keysOf(keysOf(topic))
        })),
        [keyspace]: ClaimsInspector.make(options, keyspace, (topic, group) => {
          const keys = keysOf(topic)
          return { scripts: Keyspace.scripts, keys: Keyspace.keysOf(keys, keys.group(group)) }
        }),
        [pubsub]: PubSubInspector.make(options)
      }
      // A topic that was never opened by us may be a stream that somebody else writes.
      const otherwise = inspectors[streams]!

      const of = <A>(
        topic: string,
        f: (inspector: Context.Service.Shape<typeof Inspector>) => Effect.Effect<A, TransportError>
      ): Effect.Effect<A, TransportError> => {
        const key = keysOf(topic).meta
        return commands
          .run("hget", (client) => client.hget(key, "pattern"), { key })
          .pipe(
            Effect.mapError((reason) => new TransportError({ operation: "inspect", topic, reason })),
            Effect.flatMap((found) => {
              const inspector = found === null ? otherwise : inspectors[found]
              return inspector === undefined
                ? Effect.fail(
                    new TransportError({
                      operation: "inspect",
                      topic,
                      reason: new TopicConflict({
                        topic,
                        expected: Object.keys(inspectors).join(", "),
                        found: String(found)
                      })
                    })
                  )
                : f(inspector)
            })
          )
      }

      return checked({
        topics: otherwise.topics,
        describe: (topic) => of(topic, (inspector) => inspector.describe(topic)),
        messages: (topic, page) => of(topic, (inspector) => inspector.messages(topic, page)),
        pending: (topic, group, page) => of(topic, (inspector) => inspector.pending(topic, group, page)),
        waiting: (topic, group, page) => of(topic, (inspector) => inspector.waiting(topic, group, page)),
        deadLetters: (topic, group, page) => of(topic, (inspector) => inspector.deadLetters(topic, group, page)),
        redrive: (topic, group, entries) => of(topic, (inspector) => inspector.redrive(topic, group, entries)),
        discard: (topic, group, entries) => of(topic, (inspector) => inspector.discard(topic, group, entries)),
        pause: (topic, group) => of(topic, (inspector) => inspector.pause(topic, group)),
        resume: (topic, group) => of(topic, (inspector) => inspector.resume(topic, group)),
        remove: (topic) => of(topic, (inspector) => inspector.remove(topic))
      })
    })
  )
}
