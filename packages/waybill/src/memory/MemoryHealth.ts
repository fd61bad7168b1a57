/**
 * The memory of this process is always there while anybody can ask: it is ready.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Health from "../Health.ts"

export const layer: Layer.Layer<Health.Store> = Layer.succeed(Health.Store, { problems: Effect.succeed([]) })
