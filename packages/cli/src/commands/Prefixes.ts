/**
 * Which prefixes there are on the server: who looks under a wrong one sees nothing, and is told where something is.
 *
 * @module
 */
import { Effect } from "effect"
import { IoRedis } from "waybill/redis"
import { safe } from "../Screen.ts"
import { Server } from "../Server.ts"

/** So many keys at a time, and so often: a server with many millions of keys is not walked through to the end. */
const count = 1000
const rounds = 500

/** The registries of topics that a walk over the keys meets; none where that is not permitted. */
const found: Effect.Effect<ReadonlyArray<string>, never, IoRedis.IoRedis> = Effect.gen(function* () {
  const { commands } = yield* IoRedis.IoRedis
  const names = new Set<string>()
  let cursor = "0"
  for (let round = 0; round < rounds; round++) {
    const at = cursor
    const [next, keys] = yield* commands.run("scan", (client) =>
      client.scan(at, "MATCH", "*:topics", "COUNT", count, "TYPE", "set")
    )
    for (const key of keys) {
      const prefix = key.slice(0, -":topics".length)
      if (/^[^\s{}:]{1,200}$/.test(prefix)) names.add(prefix)
    }
    cursor = next
    if (cursor === "0") break
  }
  return [...names].sort()
}).pipe(Effect.orElseSucceed(() => []))

/** The message where there is no topic. */
export const nothing: Effect.Effect<string, never, IoRedis.IoRedis | Server> = Effect.gen(function* () {
  const { prefix } = yield* Server
  const others = (yield* found).filter((other) => other !== prefix)
  return (
    `No topic was ever opened under the prefix ${prefix}.` +
    (others.length === 0
      ? ""
      : ` There are topics under ${others.slice(0, 10).map(safe).join(", ")}` +
        `${others.length > 10 ? `, and ${others.length - 10} more` : ""}: --prefix chooses one.`)
  )
})
