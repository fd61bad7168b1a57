/**
 * Inspects every topic under a prefix, whatever its pattern, without being a producer or a consumer: for
 * tools, dashboards and health checks.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Inspector } from "../Inspector.ts"
import { checked } from "../internal/CheckedInspector.ts"
import { type Reason, TopicConflict, TransportError } from "../Transport.ts"
import { Patterns } from "./internal/patterns.ts"
import { settingsOf, type StoreOptions } from "./internal/Settings.ts"
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
      const patterns = yield* Patterns
      const keysOf = (topic: string) => topicKeys(prefix, topic, db)
      const inspectors = new Map(
        patterns.map(({ inspector, name }) => [
          name,
          inspector({ commands, prefix, keysOf, refresh: () => Effect.void })
        ])
      )
      const [first] = patterns

      const of = Effect.fnUntraced(function* <A>(
        topic: string,
        ask: (inspector: Inspector["Service"]) => Effect.Effect<A, TransportError>
      ) {
        const key = keysOf(topic).meta
        const failure = (reason: Reason) => new TransportError({ operation: "inspect", topic, reason })
        const found = yield* commands
          .run("hget", key, (client) => client.hget(key, "pattern"))
          .pipe(Effect.mapError(failure))
        const inspector = inspectors.get(found ?? first.name)
        if (inspector !== undefined) return yield* ask(inspector)
        const expected = [...inspectors.keys()].join(", ")
        return yield* failure(new TopicConflict({ topic, expected, found: String(found) }))
      })

      return checked({
        topics: inspectors.get(first.name)!.topics,
        describe: (topic) => of(topic, (inspector) => inspector.describe(topic)),
        messages: (topic, page) => of(topic, (inspector) => inspector.messages(topic, page)),
        message: (topic, id) => of(topic, (inspector) => inspector.message(topic, id)),
        delayed: (topic, page) => of(topic, (inspector) => inspector.delayed(topic, page)),
        removeMessage: (topic, id) => of(topic, (inspector) => inspector.removeMessage(topic, id)),
        cancel: (topic, id) => of(topic, (inspector) => inspector.cancel(topic, id)),
        reschedule: (topic, id, at) => of(topic, (inspector) => inspector.reschedule(topic, id, at)),
        runNow: (topic, id) => of(topic, (inspector) => inspector.runNow(topic, id)),
        changePriority: (topic, id, priority) =>
          of(topic, (inspector) => inspector.changePriority(topic, id, priority)),
        pending: (topic, group, page) => of(topic, (inspector) => inspector.pending(topic, group, page)),
        waiting: (topic, group, page) => of(topic, (inspector) => inspector.waiting(topic, group, page)),
        deadLetters: (topic, group, page) => of(topic, (inspector) => inspector.deadLetters(topic, group, page)),
        redrive: (topic, group, entries) => of(topic, (inspector) => inspector.redrive(topic, group, entries)),
        discard: (topic, group, entries) => of(topic, (inspector) => inspector.discard(topic, group, entries)),
        pause: (topic, group) => of(topic, (inspector) => inspector.pause(topic, group)),
        resume: (topic, group) => of(topic, (inspector) => inspector.resume(topic, group)),
        purge: (topic) => of(topic, (inspector) => inspector.purge(topic)),
        move: (topic, group, to) => of(topic, (inspector) => inspector.move(topic, group, to)),
        retire: (topic, group) => of(topic, (inspector) => inspector.retire(topic, group)),
        remove: (topic, options) => of(topic, (inspector) => inspector.remove(topic, options))
      })
    })
  )
}
