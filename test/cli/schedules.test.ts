/** `waybill schedules` on a real server. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, DateTime, Effect, Layer, Option, References, Schema } from "effect"
import { Inspector, Schedules, Topic, Transport } from "waybill"
import { IoRedis, RedisLists, RedisStreams } from "waybill/redis"
import { outgoing } from "../redis/Fixture.ts"
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
        // While it runs, the program tells what it declares.
        yield* Effect.provide(
          Layer.build(
            Schedules.layer([
              Schedules.cron("nightly", "0 3 * * *", { zone: "Asia/Tokyo", topic: Report, payload: "all", start }),
              Schedules.cron("weekly", "0 3 * * MON", { topic: Report, payload: "all", start })
            ])
          ).pipe(Effect.scoped),
          context
        )
        const waybill = (...args: ReadonlyArray<string>) => run(["schedules", ...args], { url })
        const json = (...args: ReadonlyArray<string>) =>
          Effect.map(waybill(...args, "--json"), ({ out }) => JSON.parse(out))

        const shown = yield* waybill("list", "reports")
        assert.match(
          shown.out,
          /SCHEDULE +STATE +WHEN +NEXT +LAST +OUTCOME +PUBLISHED +DECLARED BY\nnightly +active +0 3 \* \* \* Asia\/Tokyo +2100-01-01 18:00:00.000Z +- +- +0 +waybill\n/
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

  it.live(
    "shows how the last tick ended and what programs declare instead, and the doctor finds overdue ones",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const context = yield* Layer.build(RedisStreams.layer().pipe(Layer.provideMerge(IoRedis.layer({ url }))))
        const schedules = Context.get(context, Transport.AtLeastOnce).schedules!
        const { now } = yield* schedules.find("reports", [])
        const tick = new Date(now - 3_600_000).toISOString()
        const text = (more: object) => JSON.stringify({ every: 3_600_000, message: { body: "x" }, ...more })
        const published = text({ last: now - 3_600_000, count: 1 })
        const message = outgoing({ id: `last@${tick}`, body: "x", headers: { tick } })
        const one = { revision: "", messages: [] }
        yield* schedules.change(
          "reports",
          [
            { ...one, id: "last", next: now + 3_600_000, text: published, messages: [message] },
            { ...one, id: "overdue", next: now - 300_000, text: text({}) },
            { ...one, id: "changed", next: now + 3_600_000, text: text({}) }
          ],
          false
        )
        const drifts = [
          { schedule: "changed", found: "changed" },
          { schedule: "gone", found: "missing" }
        ] as const
        yield* schedules.note("reports", drifts, [], 60_000)
        const { out } = yield* run(["schedules", "list", "reports"], { url })
        assert.match(out, /\noverdue +active, overdue +every 1 h /)
        assert.match(out, /\nlast +active +every 1 h +\S+ \S+ +\S+ \S+ +ready +1 +-\n/)
        assert.match(out, /\nchanged +active, declared differently /)
        assert.match(out, /\ngone +declared, not stored /)
        const doctor = yield* run(["doctor", "--watch", "0", "--json"], { url })
        const findings: ReadonlyArray<{ readonly level: string; readonly about: string; readonly detail: string }> =
          JSON.parse(doctor.out)
        assert.deepStrictEqual(
          findings.flatMap(({ about, detail, level }) =>
            about.startsWith("reports") && detail.includes("declare") ? [`${level} ${about}`] : []
          ),
          ["note reports, schedule changed", "note reports, schedule gone"]
        )
        const overdue = findings.find(({ detail }) => detail.startsWith("schedule overdue has been due for 5 min:"))
        assert.deepStrictEqual([overdue?.level, overdue?.about], ["problem", "reports"])
      }).pipe(
        Effect.scoped,
        Effect.provide(RedisServer.layer()),
        Effect.provideService(References.MinimumLogLevel, "Error")
      ),
    60_000
  )
})
