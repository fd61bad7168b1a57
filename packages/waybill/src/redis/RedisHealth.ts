/**
 * Checks a Redis server against what Waybill's promises need: that it can be reached and written to, evicts nothing, keeps what
 * it has accepted, and that its replicas follow.
 *
 * It reads `INFO`, and `CONFIG GET save` and `COMMAND INFO` where they are permitted: managed servers often forbid them. `HELLO`
 * tells which server it is.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Health from "../Health.ts"
import { healthOf } from "./internal/inspect/ServerHealth.ts"
import { wholeOf } from "./internal/Settings.ts"
import { IoRedis } from "./IoRedis.ts"

/**
 * @category models
 */
export interface Options {
  /** How many replicas the server must have; by default as many as `IoRedis` was told. Existing replicas must follow in any case. */
  readonly replicas?: number
}

/**
 * Lets `Health.check` ask the server behind `IoRedis`. Throws on a number of replicas that is not an integer.
 *
 * | code | impact | when |
 * |---|---|---|
 * | `Unreachable` | down | no connection, no reply, or authentication failed |
 * | `Unsupported` | down | it is too old, a node of a cluster or a Sentinel given as a single server; its version is in the detail |
 * | `Unsupported` | degraded | it lacks commands that patterns need; they are in the detail |
 * | `Loading` | down | it is still reading its data from disk |
 * | `ReadOnly` | down | it is a replica and accepts no writes |
 * | `NotInspectable` | degraded | `INFO` is not permitted, so nothing below is known |
 * | `EvictionPolicy` | degraded | it has a memory limit and deletes keys when it is reached |
 * | `PersistenceOff` | degraded | it writes nothing to disk |
 * | `SnapshotsOnly` | degraded | it writes snapshots only; a crash loses everything since the last one |
 * | `PersistenceFailing` | degraded | its last write to disk failed; it may refuse writes because of it |
 * | `ReplicasMissing` | degraded | fewer replicas than `replicas` |
 * | `ReplicasBehind` | degraded | a replica is not online, or silent for more than 10 seconds |
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Health } from "waybill"
 * import { IoRedis, RedisHealth, RedisStreams } from "waybill/redis"
 *
 * const program = Health.check({ accept: ["SnapshotsOnly"] }).pipe(
 *   Effect.provide([RedisStreams.layer(), RedisHealth.layer({ replicas: 1 })]),
 *   Effect.provide(IoRedis.layer())
 * )
 * ```
 *
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<Health.Store, never, IoRedis> => {
  const own = options.replicas === undefined ? undefined : wholeOf("replicas", options.replicas, 0)
  return Layer.effect(
    Health.Store,
    Effect.map(IoRedis, (redis) => healthOf(redis, own ?? redis.replicas))
  )
}
