import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Duration, Effect } from "effect"
import { Settlement, type Transport } from "waybill"
import * as Fixture from "./Fixture.ts"

describe("hooks for dead letters", () => {
  it.live("a lost state of the group loses no letter, and few claims are kept whatever a hook does", () =>
    Effect.gen(function* () {
      const { groupKey, join, publish, redis, settle, take, transport } = yield* Fixture.make()
      const receiver = yield* join()
      const claim = (more: Partial<Transport.DeadLetterClaim> = {}) => {
        assert(transport.claimDeadLetters !== undefined)
        const lease = Duration.minutes(1)
        return transport.claimDeadLetters({
          topic: "t",
          group: "g",
          handled: [],
          held: [],
          limit: 1000,
          lease,
          from: undefined,
          ...more
        })
      }
      const die = Effect.fnUntraced(function* (...[first = "", ...rest]: ReadonlyArray<string>) {
        yield* publish(first, ...rest)
        yield* settle(receiver, yield* take(receiver, rest.length + 1), Settlement.deadLetter("Broken", "cause"))
      })
      const { position } = yield* claim()
      yield* die("a")
      yield* Effect.promise(() => redis.del(groupKey("state")))
      const found = yield* claim({ from: position })
      assert.deepStrictEqual(
        found.letters.map(({ body, id, reason }) => [body, id === "", reason]),
        [["a", false, "Broken"]]
      )
      yield* die(...Array.from({ length: 300 }, (_, n) => `${n}`))
      const { letters } = yield* claim()
      assert.lengthOf(letters, 255)
      assert.lengthOf((yield* claim()).letters, 0)
      const handled = letters.map(({ entry }) => entry)
      assert.lengthOf((yield* claim({ handled })).letters, 45)
      // Large ones come a few at a time.
      yield* die(...Array.from({ length: 4 }, () => "x".repeat(400_000)))
      assert.lengthOf((yield* claim()).letters, 3)
      assert.lengthOf((yield* claim()).letters, 1)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})
