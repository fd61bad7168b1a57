/**
 * The memory of this process is available whenever this runs: always ready.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Health from "../Health.ts"

/**
 * The store that `Health.check` asks if everything is in memory: it has nothing to report.
 *
 * @example
 * ```ts
 * import { Effect, Layer } from "effect"
 * import { Health } from "waybill"
 * import { MemoryHealth, MemoryStreams } from "waybill/memory"
 *
 * const health = Health.check().pipe(
 *   Effect.provide(Layer.merge(MemoryStreams.layer(), MemoryHealth.layer))
 * )
 * ```
 *
 * @category layers
 */
export const layer: Layer.Layer<Health.Store> = Layer.succeed(Health.Store, { problems: Effect.succeed([]) })
