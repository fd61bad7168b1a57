/**
 * Finds the prefixes in use on the servers, so that a wrong one is answered with those that have topics.
 *
 * @module
 */
import { Effect } from "effect"
import { IoRedis } from "waybill/redis"
import { safe } from "../Screen.ts"
import { Server } from "../Server.ts"

/** Keys per step and maximum steps on each server: on one with many millions of keys the scan stops early. */
const count = 1000
const rounds = 500

/** The prefixes of the topic registries that a scan finds; none if scanning is not permitted. */
const found: Effect.Effect<ReadonlyArray<string>, never, IoRedis.IoRedis> = Effect.gen(function* () {
  const { masters } = yield* IoRedis.IoRedis
  const names = new Set<string>()
  for (const server of yield* masters) {
    let cursor = "0"
    for (let round = 0; round < rounds; round++) {
      const at = cursor
      const [next, keys] = yield* server.run("scan", [], (client) =>
        client.scan(at, "MATCH", "*:topics", "COUNT", count, "TYPE", "set")
      )
      for (const key of keys) {
        const prefix = key.slice(0, -":topics".length)
        if (/^[^\s{}:]{1,200}$/.test(prefix)) names.add(prefix)
      }
      cursor = next
      if (cursor === "0") break
    }
  }
  return [...names].sort()
}).pipe(Effect.orElseSucceed(() => []))

/** The message when there are no topics. */
export const nothing: Effect.Effect<string, never, IoRedis.IoRedis | Server> = Effect.gen(function* () {
  const { prefix } = yield* Server
  const others = (yield* found).filter((other) => other !== prefix)
  return (
    `There are no topics under the prefix ${prefix}.` +
    (others.length === 0
      ? ""
      : ` Prefixes with topics: ${others.slice(0, 10).map(safe).join(", ")}` +
        `${others.length > 10 ? `, and ${others.length - 10} more` : ""}. Choose one with --prefix.`)
  )
})
