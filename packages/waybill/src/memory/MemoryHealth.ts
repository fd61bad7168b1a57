/**
 * The memory of this process is always there while anybody can ask: it is ready.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Health from "../Health.ts"

/**
 * What `Health.check` asks where everything is in memory: there is nothing to say.
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
