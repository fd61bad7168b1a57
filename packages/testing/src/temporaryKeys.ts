/**
 * Keys that are deleted when a layer closes, for tests and examples on a Redis server that has other uses too.
 *
 * @module
 */
import { Effect, Layer } from "effect"
import { IoRedis } from "waybill/redis"

/** How many keys the server looks at in a call. */
const step = 1000

/**
 * Deletes every key of these transports' prefixes as it closes. Give each run a prefix of its own, and provide this layer to theirs,
 * so that it closes after them. If the server cannot be reached then, a warning in the log says what is left.
 *
 * @category testing
 *
 * @example
 * ```ts
 * import { temporaryKeys } from "@waybill/testing/temporaryKeys"
 * import { Layer } from "effect"
 * import { IoRedis, RedisStreams } from "waybill/redis"
 *
 * const prefix = "test-7f3a"
 *
 * export const layer = RedisStreams.layer({ prefix }).pipe(
 *   Layer.provide(temporaryKeys(prefix)),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 */
export const temporaryKeys = (...prefixes: ReadonlyArray<string>): Layer.Layer<never, never, IoRedis.IoRedis> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const { masters } = yield* IoRedis.IoRedis
      const deleteAll = Effect.fnUntraced(function* (prefix: string) {
        // A prefix may hold what means something in a pattern.
        const pattern = `*${prefix.replace(/[\\*?[\]]/g, "\\$&")}:*`
        for (const server of yield* masters) {
          let cursor = "0"
          do {
            const [next, found] = yield* server.run("SCAN", [], (redis) =>
              redis.scan(cursor, "MATCH", pattern, "COUNT", step)
            )
            const keys = found.filter((key) => key.startsWith(`{${prefix}:`) || key.startsWith(`${prefix}:`))
            // In a cluster they are in several slots, and one command takes keys of one.
            yield* server.run("UNLINK", keys, (redis) => Promise.all(keys.map((key) => redis.unlink(key))))
            cursor = next
          } while (cursor !== "0")
        }
      })
      yield* Effect.addFinalizer(() =>
        Effect.forEach(prefixes, deleteAll, { discard: true }).pipe(
          Effect.catch((error) => Effect.logWarning(`keys under ${prefixes.join(", ")} are left on Redis`, error))
        )
      )
    })
  )
