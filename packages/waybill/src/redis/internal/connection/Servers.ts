/**
 * Which server has a key, and the connections that lead there.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Reason } from "../../../Transport.ts"
import {
  type Commands,
  type Connection,
  type Dedicated,
  make as makeConnection,
  type Server,
  type Shared
} from "./Connection.ts"

export interface Servers {
  /** To be shared; nothing on it may block. */
  readonly commands: Commands
  readonly dedicated: Dedicated
  /** The shared connection to every server that takes writes. */
  readonly masters: Effect.Effect<ReadonlyArray<Connection>, Reason>
  /** Why `commands` is not ready, while it is not. */
  readonly reason: () => Reason
}

/** One server has all keys. `server` runs before every attempt to connect. */
export const single = Effect.fnUntraced(function* (
  shared: Shared,
  server: Effect.Effect<Server, Reason>
): Effect.fn.Return<Servers, never, Scope.Scope> {
  const commands = yield* makeConnection(shared, { role: "commands", dedicated: false, server })
  return {
    commands,
    dedicated: (role) => makeConnection(shared, { role, dedicated: true, server }),
    masters: Effect.succeed([commands]),
    reason: () => commands.reason
  }
})
