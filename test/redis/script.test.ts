import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"
import { wordsBehindKey } from "../../packages/waybill/src/redis/internal/connection/Evaluation.ts"
import * as Fixture from "./Fixture.ts"

describe("case C11: what a script asks before it writes", () => {
  it.live("with as many words as it needs: Redis 8.0.2 refuses the script otherwise", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* Fixture.client(server.url)
      for (const [command, behind] of Object.entries(wordsBehindKey)) {
        const words = command.split(" ")
        const given = words.length + 1 + behind
        const [info] = (yield* Effect.promise(() => redis.call("COMMAND", "INFO", words.join("|")))) as [
          [string, number]
        ]
        const arity = info[1]
        assert.isTrue(arity < 0 ? given === -arity : given === arity, `${command} takes ${arity}, and gets ${given}`)
      }
    }).pipe(Effect.scoped)
  )
})
