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
  type Keys,
  make as makeConnection,
  type Server,
  type ServerConnection,
  type Shared
} from "./Connection.ts"
import { watch } from "./FailoverWatch.ts"

export interface Servers {
  /** Sends commands and scripts to the server that has their keys, on a shared connection: nothing may block. */
  readonly commands: Commands
  /** The shared connection to each server that takes writes: one, or in a cluster one a shard. */
  readonly masters: Effect.Effect<ReadonlyArray<Connection>, Reason>
  /**
   * A connection of its own for a role that blocks or subscribes, such as `reader:orders`; it goes where these keys go, and is
   * closed with the scope. Returns at once and connects in the background.
   */
  readonly dedicated: Dedicated
  /** What tells the server that has these keys now from all others. */
  readonly serverOf: (keys: string | Keys) => string
  /** As `dedicated`, but to that server and no other. */
  readonly dedicatedTo: (role: string, server: string) => Effect.Effect<Connection, never, Scope.Scope>
  /** Calls `listener` whenever other servers have some keys, until the scope closes. It must not throw. */
  readonly onMove: (listener: () => void) => Effect.Effect<void, never, Scope.Scope>
  /** Finds out which servers have which keys. */
  readonly refresh: Effect.Effect<void>
  /** Why `commands` is not ready, while it is not. */
  readonly reason: () => Reason
}

/** One server has all keys. `server` runs before every attempt to connect, `made` with each connection. */
export const single = Effect.fnUntraced(function* (
  shared: Shared,
  server: Effect.Effect<Server, Reason>,
  made: (connection: ServerConnection) => Effect.Effect<unknown, never, Scope.Scope> = () => Effect.void
): Effect.fn.Return<Servers, never, Scope.Scope> {
  const beside = (): Commands => commands
  const connect = (role: string, dedicated: boolean) =>
    Effect.tap(makeConnection(shared, { role, dedicated, server, beside }), made)
  const commands = yield* connect("commands", false)
  yield* watch(commands, shared)
  const dedicated: Dedicated = (role) => connect(role, true)
  return {
    commands,
    dedicated,
    dedicatedTo: (role) => dedicated(role, []),
    serverOf: () => "",
    onMove: () => Effect.void,
    refresh: Effect.void,
    masters: Effect.succeed([commands]),
    reason: () => commands.reason
  }
})
