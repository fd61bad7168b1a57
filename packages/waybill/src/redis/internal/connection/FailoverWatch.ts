/**
 * Looks at the servers that a process is connected to, so that it can be told what a server in the place of another may lack. An
 * idle process does not look.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import type { ServerConnection, Shared } from "./Connection.ts"
import { historyOf, type Look, lossOf, type Watched } from "./ReplicationHistory.ts"

/** How many looks are kept: of a replica that is further behind than a minute, everything may be lost. */
const kept = 60
const period = "1 second"

/**
 * Looks at the server behind a shared connection, and emits `FailedOver` when another one, or a restarted one, takes its place.
 * The other one may be behind another connection: a server continues the history of one of `histories`.
 */
export const watch = Effect.fnUntraced(function* (
  connection: ServerConnection,
  { emit, histories }: Pick<Shared, "emit" | "histories">
): Effect.fn.Return<void, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  /** How many commands had been answered before the last look. */
  let seen = 0
  const own: Watched = { looks: [], accepted: () => connection.answered > seen }
  const ask = (client: Redis) => client.info("replication", "server").then(historyOf)

  const begin = (found: Look, answered: number) => {
    const { before, id } = found.history
    const continued = [...histories].find(({ looks }) => {
      const known = looks.at(-1)?.history.id
      return known === id || known === before
    })
    const previous = continued ?? own
    const loss = lossOf(previous.looks, found.history, previous === own ? answered > seen : previous.accepted())
    histories.delete(previous)
    previous.looks = []
    own.looks = [found]
    seen = answered
    histories.add(own)
    if (loss !== undefined) emit({ _tag: "FailedOver", role: connection.role, server: connection.address, ...loss })
  }

  yield* connection.each((client) => {
    const answered = connection.answered
    const at = clock.currentTimeMillisUnsafe()
    ask(client).then(
      (history) => {
        if (history?.isMaster === true) begin({ history, at }, answered)
      },
      // Not permitted, or lost again: then the next connection compares.
      () => {}
    )
  })

  const look = Effect.gen(function* () {
    const answered = connection.answered
    const last = own.looks.at(-1)
    if (answered === seen) return
    const at = yield* Clock.currentTimeMillis
    const history = yield* connection.run("info", [], ask)
    // A replica has given up what it had: the next connection compares.
    if (history?.isMaster !== true || own.looks.at(-1) !== last) return
    const found = { history, at }
    if (last === undefined) return begin(found, answered)
    own.looks = history.id === last.history.id ? [...own.looks.slice(1 - kept), found] : [found]
    seen = answered
  })
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(period), Effect.ignore(look))))
})
