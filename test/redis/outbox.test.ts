import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Outgoing } from "../../packages/waybill/src/Message.ts"
import { Outbox } from "../../packages/waybill/src/redis/internal/publish/Outbox.ts"

const message: Outgoing = {
  id: undefined,
  body: "x".repeat(2_000_000),
  headers: {},
  key: undefined,
  version: 1,
  due: undefined
}

/** Twenty callers at once, two of which fit into a batch, on a store that takes `millis` for each. */
const twenty = Effect.fnUntraced(function* (millis: number) {
  const outbox = new Outbox({
    topic: "t",
    clock: yield* Clock.Clock,
    timeoutMillis: 5000,
    opened: Effect.void,
    sending: (calls) => () =>
      Effect.as(Effect.sleep(millis), {
        isNew: false,
        receipts: calls.map(() => ({ _tag: "Stored" as const, id: "m" }))
      }),
    repeats: () => false
  })
  const runner = yield* Effect.forkChild(outbox.run, { startImmediately: true })
  const callers = yield* Effect.forEach(Array.from({ length: 20 }), () =>
    Effect.forkChild(outbox.publish([message]), { startImmediately: true })
  )
  for (let i = 0; i < 60; i++) yield* TestClock.adjust("1 second")
  yield* Fiber.interrupt(runner)
  const exits = callers.map((fiber) => fiber.pollUnsafe())
  return {
    stored: exits.filter((exit) => exit !== undefined && Exit.isSuccess(exit)).length,
    failed: exits.filter((exit) => exit !== undefined && Exit.isFailure(exit)).length
  }
})

describe("callers that wait for their messages to be sent", () => {
  it.effect("case B3: a queue that moves may take longer than a caller waits for the first sign of it", () =>
    Effect.gen(function* () {
      // Ten batches of four seconds each: the last caller waits for forty.
      assert.deepStrictEqual(yield* twenty(4000), { stored: 20, failed: 0 })
    })
  )
})
