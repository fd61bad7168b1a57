/**
 * A plain client beside the contenders, for what a measure asks of the server itself. It is closed with the scope.
 */
import { Effect } from "effect"
import { Redis } from "ioredis"

export const client = (port: number) =>
  Effect.acquireRelease(
    Effect.sync(() => new Redis(port, "127.0.0.1")),
    (redis) => Effect.sync(() => redis.disconnect())
  )
