/**
 * Stored messages with their bodies decoded, for people and tools. One that cannot be read does not hide the others.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Result from "effect/Result"
import type { Message } from "../Message.ts"
import { DecodeFailure, type Inspected } from "../Topic.ts"
import { render } from "./Routing.ts"

/** Through the schema of the message's own version. */
export const decoded = <P, RD, M extends Message>(
  { decode, name }: Inspected<P, unknown, RD>,
  message: M
): Effect.Effect<M & { readonly payload: Result.Result<P, DecodeFailure> }, never, RD> =>
  Effect.suspend(() => decode(message.body, message.version)).pipe(
    Effect.catchCause((cause) => {
      const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
      if (Cause.hasDies(cause)) return undecodable(name, `decoding died: ${render(cause)}`)
      if (failure === undefined) return Effect.failCause(cause as Cause.Cause<never>) // only interruptions
      return failure instanceof DecodeFailure
        ? Effect.fail(failure)
        : undecodable(name, `migrating it from version ${message.version} failed: ${render(cause)}`)
    }),
    Effect.result,
    Effect.map((payload) => ({ ...message, payload }))
  )

const undecodable = (topic: string, issue: string) => Effect.fail(new DecodeFailure({ topic, issue }))
