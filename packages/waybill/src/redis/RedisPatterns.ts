/**
 * The patterns by name, for tools that handle topics of any of them.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Provided } from "../Transport.ts"
import * as Pattern from "./internal/Pattern.ts"
import { Patterns, patterns } from "./internal/patterns.ts"
import { settingsOf, type StoreOptions } from "./internal/Settings.ts"
import { IoRedis } from "./IoRedis.ts"

/**
 * As reported by `TopicInfo.pattern`. The first is assumed for a topic that does not record its pattern.
 *
 * @category constants
 */
export const names: ReadonlyArray<string> = patterns.map(({ name }) => name)

/**
 * The pattern of this name for publishing, whatever options its topics were opened with: a queue keeps its order, and a message
 * that expires lives for an hour. It promises what every pattern keeps. Throws on a prefix with white space, braces or a colon, and
 * dies on an unknown pattern: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Inspector, Producer, Topic } from "waybill"
 * import { IoRedis, RedisInspector, RedisPatterns } from "waybill/redis"
 *
 * const Note = Topic.make("notes", { payload: Schema.String, guarantee: "at-most-once" })
 *
 * const program = Effect.gen(function*() {
 *   const { pattern } = yield* (yield* Inspector.Inspector).describe(Note.name)
 *   yield* Producer.publish(Note, "hello").pipe(Effect.provide(RedisPatterns.layer(pattern)))
 * }).pipe(Effect.provide(RedisInspector.layer()), Effect.provide(IoRedis.layer()))
 * ```
 *
 * @category layers
 */
export const layer = (
  name: string,
  options: Pick<StoreOptions, "prefix"> = {}
): Layer.Layer<Provided<"at-most-once">, never, IoRedis> => {
  const settings = settingsOf(options)
  return Layer.unwrap(
    Effect.gen(function* () {
      const patterns = yield* Patterns
      const found = patterns.find((pattern) => pattern.name === name)
      if (found !== undefined) return Pattern.layer(found.guarantee, () => [found, settings])()
      return yield* Effect.die(
        new Error(`there is no pattern ${name}: use one of ${patterns.map(({ name }) => name).join(", ")}`)
      )
    })
  )
}

/**
 * Advice for the server's operator, in sentences: settings that topics of these patterns need and that it lacks.
 *
 * @category getters
 */
export const advice = (names: Iterable<string>): Effect.Effect<ReadonlyArray<string>, never, IoRedis> =>
  Effect.gen(function* () {
    const { masters } = yield* IoRedis
    // Their health says it if they cannot be reached.
    const servers = yield* Effect.orElseSucceed(masters, () => [])
    const wanted = new Set(names)
    const advising = (yield* Patterns).filter(({ name }) => wanted.has(name))
    const found = yield* Effect.forEach(servers, (server) =>
      Effect.forEach(advising, ({ advice }) => advice?.(server) ?? Effect.succeed([]))
    )
    return [...new Set(found.flat(2))]
  })
