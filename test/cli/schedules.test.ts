/** `waybill schedules` on a real server. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { DateTime, Effect, Layer, Option, References, Schema } from "effect"
import { Inspector, Schedules, Topic } from "waybill"
import { IoRedis, RedisLists } from "waybill/redis"
import { run } from "./Terminal.ts"

const Report = Topic.make("reports", { payload: Schema.String })

describe("waybill schedules", () => {
  it.live(
    "lists them, and runs, pauses, resumes and removes one",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const context = yield* Layer.build(RedisLists.layer().pipe(Layer.provideMerge(IoRedis.layer({ url }))))
        const start = DateTime.makeUnsafe("2100-01-01T00:00:00Z")
        yield* Effect.provide(
          Layer.build(
            Schedules.layer([
              Schedules.cron("nightly", "0 3 * * *", { zone: "Asia/Tokyo", topic: Report, payload: "all", start }),
              Schedules.cron("weekly", "0 3 * * MON", { topic: Report, payload: "all", start })
            ])
          ),
          context
        )
        const waybill = (...args: ReadonlyArray<string>) => run(["schedules", ...args], { url })
        const json = (...args: ReadonlyArray<string>) =>
          Effect.map(waybill(...args, "--json"), ({ out }) => JSON.parse(out))

        const shown = yield* waybill("list", "reports")
        assert.match(
          shown.out,
          /SCHEDULE +STATE +WHEN +NEXT +LAST +PUBLISHED +DECLARED BY\nnightly +active +0 3 \* \* \* Asia\/Tokyo +2100-01-01 18:00:00.000Z +- +0 +waybill\n/
        )
        assert.match(shown.out, /\nweekly +active +0 3 \* \* MON UTC +2100-01-04 03:00:00.000Z /)
        assert.strictEqual((yield* waybill("remove", "reports", "weekly")).code, 0)
        const ran = yield* json("run", "reports", "nightly")
        const inspector = yield* Effect.provide(Inspector.Inspector, context)
        const stored = yield* inspector.messages("reports", { after: Option.none(), limit: 10 })
        assert.deepStrictEqual(
          stored.map(({ id }) => id),
          [ran.run]
        )
        assert.deepStrictEqual(yield* json("pause", "reports", "nightly"), {
          topic: "reports",
          schedule: "nightly",
          pause: true
        })
        assert.strictEqual((yield* json("list", "reports"))[0].state, "paused")
        assert.match((yield* waybill("resume", "reports", "nightly")).out, /^Resumed nightly of reports\.\n$/)
        assert.strictEqual((yield* json("list", "reports"))[0].state, "active")
        assert.strictEqual((yield* waybill("remove", "reports", "nightly")).code, 0)
        const again = yield* waybill("remove", "reports", "nightly")
        assert.strictEqual(again.code, 3)
        assert.include(again.err, "topic reports has no schedule nightly")
        assert.match((yield* waybill("list", "reports")).out, /has no schedules/)
      }).pipe(
        Effect.scoped,
        Effect.provide(RedisServer.layer()),
        Effect.provideService(References.MinimumLogLevel, "Error")
      ),
    60_000
  )
})
