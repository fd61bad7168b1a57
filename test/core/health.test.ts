import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"
import { Health, Inspector, Transport } from "waybill"
import { MemoryHealth, MemoryStreams } from "waybill/memory"

const group = (name: string, figures: Partial<Inspector.GroupInfo> = {}): Inspector.GroupInfo => ({
  group: name,
  lag: 0,
  pending: 0,
  oldestPendingMillis: 0,
  waiting: 0,
  nextRetryAt: undefined,
  deadLetters: 0,
  deadLettersDropped: 0,
  paused: false,
  consumers: [],
  ...figures
})

const store = (problems: Health.Store["Service"]["problems"]) => Layer.succeed(Health.Store, { problems })

const sound = store(Effect.succeed([]))

const infoOf = (topic: string, groups: ReadonlyArray<Inspector.GroupInfo>): Inspector.TopicInfo => ({
  topic,
  pattern: "streams",
  retention: "settled",
  published: 0,
  depth: 0,
  delayed: 0,
  nextDelayedAt: undefined,
  groups
})

const inspector = (groups: ReadonlyArray<Inspector.GroupInfo>) =>
  Layer.mock(Inspector.Inspector, {
    topics: Effect.succeed(["orders", "audit"]),
    describe: (topic) => Effect.succeed(infoOf(topic, topic === "orders" ? groups : []))
  })

const problem = (code: Health.Problem["code"], impact: Health.Problem["impact"]): Health.Problem => ({
  code,
  impact,
  detail: "so it is"
})

const codes = ({ problems, status }: Health.Report) => [status, ...problems.map(({ code }) => code)]

const limits = { lag: 10, oldestPending: "1 minute", deadLetters: 3 } as const

describe("Health.check", () => {
  it.effect("in memory it is ready", () =>
    Effect.gen(function* () {
      const report = yield* Health.check({ limits })
      assert.deepStrictEqual(report, { status: "ready", problems: [] })
    }).pipe(Effect.provide([MemoryHealth.layer, MemoryStreams.layer()]))
  )

  it.effect("says which server it is, and does without a server that does not say it", () =>
    Effect.gen(function* () {
      const saying = (server: Health.Store["Service"]["server"]) =>
        Layer.succeed(Health.Store, { problems: Effect.succeed([]), ...(server === undefined ? {} : { server }) })
      const reportOf = (server: Health.Store["Service"]["server"]) =>
        Health.check().pipe(Effect.provide([saying(server), inspector([])]))
      const ready = { status: "ready", problems: [] } as const
      assert.deepStrictEqual(yield* reportOf(Effect.succeed("Valkey 9.1.2")), { ...ready, server: "Valkey 9.1.2" })
      for (const silent of [undefined, Effect.undefined, Effect.die("a bug")]) {
        assert.deepStrictEqual(yield* reportOf(silent), ready)
      }
      const waiting = yield* Effect.forkChild(reportOf(Effect.never), { startImmediately: true })
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* Fiber.join(waiting), ready)
    })
  )

  it.effect("is as bad as the worst problem, which comes first; what is accepted is left out", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(codes(yield* Health.check()), ["down", "ReadOnly", "SnapshotsOnly", "EvictionPolicy"])
      assert.deepStrictEqual(codes(yield* Health.check({ accept: ["ReadOnly"] })), [
        "degraded",
        "SnapshotsOnly",
        "EvictionPolicy"
      ])
      const all = yield* Health.check({ accept: ["ReadOnly", "SnapshotsOnly", "EvictionPolicy"] })
      assert.deepStrictEqual(codes(all), ["ready"])
    }).pipe(
      Effect.provide([
        store(
          Effect.succeed([
            problem("SnapshotsOnly", "degraded"),
            problem("ReadOnly", "down"),
            problem("EvictionPolicy", "degraded")
          ])
        ),
        inspector([])
      ])
    )
  )

  it.effect("holds groups against limits, and says which and by how much", () =>
    Effect.gen(function* () {
      const { problems, status } = yield* Health.check({ limits })
      assert.strictEqual(status, "degraded")
      assert.deepStrictEqual(
        problems.map(({ code, detail }) => [code, detail]),
        [
          ["Lag", "group billing of topic orders: 11 messages were never delivered, the limit is 10"],
          ["OldestPending", "group billing of topic orders: a message has been pending for 1m 1s, the limit is 1m"],
          ["DeadLetters", "group billing of topic orders: 4 dead letters, the limit is 3"]
        ]
      )
      assert.strictEqual((yield* Health.check()).status, "ready")
      assert.strictEqual((yield* Health.check({ limits, topics: (topic) => topic !== "orders" })).status, "ready")
    }).pipe(
      Effect.provide([
        sound,
        inspector([
          group("billing", { lag: 11, oldestPendingMillis: 61_000, deadLetters: 4 }),
          group("at the limits", { lag: 10, oldestPendingMillis: 60_000, deadLetters: 3 })
        ])
      ])
    )
  )

  it.effect(
    "a topic that cannot be inspected, or not in time, hides no other, and takes no instance out of service",
    () =>
      Effect.gen(function* () {
        const looked = Layer.mock(Inspector.Inspector, {
          topics: Effect.succeed(["broken", "orders", "slow"]),
          describe: (topic) =>
            topic === "slow"
              ? Effect.never
              : topic === "broken"
                ? Effect.fail(
                    new Transport.TransportError({
                      operation: "inspect",
                      topic,
                      reason: new Transport.WrongKeyType({ key: "k", detail: "no stream" })
                    })
                  )
                : Effect.succeed(infoOf(topic, [group("billing", { lag: 11 })]))
        })
        const checking = yield* Effect.forkChild(Health.check({ limits }).pipe(Effect.provide([sound, looked])), {
          startImmediately: true
        })
        yield* TestClock.adjust("3 seconds")
        const report = yield* Fiber.join(checking)
        assert.deepStrictEqual(codes(report), ["degraded", "NotInspectable", "Lag", "NotInspectable"])
        assert.match(report.problems[2]?.detail ?? "", /not every group.*no reply within 3 seconds/)
      })
  )

  it.effect("a store that cannot be inspected, a bug and silence are down, not failures", () =>
    Effect.gen(function* () {
      const broken = Layer.mock(Inspector.Inspector, {
        topics: Effect.fail(
          new Transport.TransportError({
            operation: "inspect",
            reason: new Transport.Disconnected({ ambiguous: false, cause: "reset" })
          })
        )
      })
      const failing = Health.check({ limits }).pipe(Effect.provide([store(Effect.die(new Error("a bug"))), broken]))
      assert.deepStrictEqual(codes(yield* failing), ["down", "CheckFailed", "NotInspectable"])
      const silent = yield* Effect.forkChild(
        Health.check().pipe(Effect.provide([store(Effect.never), inspector([])])),
        { startImmediately: true }
      )
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(codes(yield* Fiber.join(silent)), ["down", "Unreachable"])
    })
  )
})

describe("Health.respond", () => {
  it.effect("answers 200, 200 and 503 with the report as JSON", () =>
    Effect.gen(function* () {
      const answer = Effect.fnUntraced(function* (problems: ReadonlyArray<Health.Problem>) {
        const response = yield* Health.respond().pipe(Effect.provide([store(Effect.succeed(problems)), inspector([])]))
        const web = HttpServerResponse.toWeb(response)
        assert.match(web.headers.get("content-type") ?? "", /^application\/json/)
        assert.strictEqual(web.headers.get("cache-control"), "no-store")
        return [web.status, yield* Effect.promise(() => web.json())]
      })
      const lag = problem("Lag", "degraded")
      const loading = problem("Loading", "down")
      assert.deepStrictEqual(yield* answer([]), [200, { status: "ready", problems: [] }])
      assert.deepStrictEqual(yield* answer([lag]), [200, { status: "degraded", problems: [lag] }])
      assert.deepStrictEqual(yield* answer([lag, loading]), [503, { status: "down", problems: [loading, lag] }])
    })
  )

  it("is a route as it is", () => {
    assert.isDefined(HttpRouter.add("GET", "/health", Health.respond()))
  })
})
