/**
 * A server that is there and does not serve: it stands still, is paused, takes no more connections, or has moved to another
 * port. The numbers are those of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy } from "@waybill/testing"
import { Effect } from "effect"
import type { Redis } from "ioredis"
import { Producer } from "waybill"
import * as Port from "../../packages/testing/src/Port.ts"
import * as Fixture from "./Fixture.ts"
import { Job } from "./Jobs.ts"
import type * as Member from "./Member.ts"
import * as Pattern from "./Pattern.ts"
import { ask, many, settled } from "./Verdict.ts"

/** Longer than a command waits for its answer, which is five seconds or a little more, and longer than a lease. */
const longer = 6500

/** Every connection but that of `redis`. */
const hangUp = (redis: Redis) =>
  ask(async () => {
    for (const type of ["normal", "pubsub"]) await redis.call("CLIENT", "KILL", "TYPE", type, "SKIPME", "yes")
  })

// They wait for most of their time, and can do so at once.
describe.concurrent.each(Pattern.patterns)("a server that does not serve, %s", (pattern) => {
  it.live(
    "E36 takes no more connections: that is told, and everything goes on when it takes them again",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const member = yield* join(server.url)
        yield* publish([...many("before", 10, { act: "work" }), ["in-hand", { act: "fail", millis: 500, times: 1 }]])
        yield* member.says("began in-hand")
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
        yield* ask(() => redis.config("SET", "maxclients", "1"))
        yield* hangUp(redis)
        const error = yield* Effect.flip(
          Effect.retry(Producer.publish(Job, { act: "work" }), {
            // What was in flight at the kill is another matter.
            while: (error) =>
              error._tag === "TransportError" && error.reason._tag === "Disconnected" && error.reason.ambiguous
          })
        )
        const reason = error._tag === "TransportError" ? error.reason : undefined
        assert.deepInclude(reason, { _tag: "Refused", code: "MAXCLIENTS", permanent: false })
        yield* ask(() => redis.config("SET", "maxclients", "1000"))
        yield* publish([...many("after", 10, { act: "work" })])
        const { report } = yield* verdict()
        assert.strictEqual(report.counts.published, 21)
        assert.isAtLeast(member.happened("Reconnected"), 1)
      }).pipe(Fixture.run({ pattern })),
    60_000
  )

  const stills: Record<
    string,
    (fixture: Effect.Success<typeof Fixture.make>, member: Member.Member) => Effect.Effect<unknown>
  > = {
    "CLIENT PAUSE ALL": ({ redis }) => ask(() => redis.call("CLIENT", "PAUSE", longer, "ALL")),
    "CLIENT PAUSE WRITE": ({ redis }) => ask(() => redis.call("CLIENT", "PAUSE", longer, "WRITE")),
    SIGSTOP: ({ server }, member) =>
      Effect.andThen(
        server.pause,
        Effect.sleep(longer).pipe(
          Effect.andThen(member.happens("Disconnected")),
          Effect.andThen(server.resume),
          Effect.forkChild({ startImmediately: true })
        )
      )
  }

  it.live.each(Object.keys(stills))(
    "E9, E15 %s for longer than a command waits: what was accepted is handled, and stored once",
    (name) =>
      Effect.gen(function* () {
        const fixture = yield* Fixture.make
        const { workers, join, publish, redis, server, verdict } = fixture
        const member = yield* join(server.url, { concurrency: 8 })
        yield* publish([
          ...many("before", 20, { act: "work" }),
          ["acked", { act: "write", millis: 500 }],
          ["retried", { act: "fail", millis: 500, times: 1 }]
        ])
        yield* member.says("began acked")
        yield* member.says("began retried")
        workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
        const began = performance.now()
        yield* stills[name]!(fixture, member)
        // Asked in the middle of it, and asked again until it is stored: the receipts say once.
        yield* Effect.timeout(publish(many("during", 20, { act: "work" })), "30 seconds")
        assert.isAtLeast(performance.now() - began, longer - 500, "it was held up")
        yield* settled(redis)
        yield* publish([...many("after", 20, { act: "work" }), ["dead", { act: "fail" }]])
        const { letters, report } = yield* verdict()
        assert.deepStrictEqual(
          letters.map(({ id }) => id),
          ["dead"]
        )
        assert.strictEqual(report.counts.published, 63)
      }).pipe(Fixture.run({ pattern })),
    60_000
  )

  it.live(
    "E40 moves to another port while its name stays: what is in hand is settled there, and the work goes on",
    () =>
      Effect.gen(function* () {
        const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
        const proxy = yield* FaultProxy.make(server.port)
        const member = yield* join(proxy.url, { concurrency: 8 })
        yield* Effect.gen(function* () {
          for (let round = 0; round < 3; round++) {
            yield* publish([
              ...many(`before-${round}`, 20, { act: "work", millis: 5 }),
              [`in-hand-${round}`, { act: "write", millis: 500 }],
              [`retried-${round}`, { act: "fail", millis: 500, times: 1 }]
            ])
            yield* member.says(`began in-hand-${round}`)
            yield* member.says(`began retried-${round}`)
            workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: member.name })
            const port = yield* Port.reserve
            yield* ask(() => redis.config("SET", "port", port))
            yield* proxy.redirect(port)
            yield* Effect.timeout(publish(many(`after-${round}`, 20, { act: "work" })), "30 seconds")
            yield* settled(redis)
          }
        }).pipe(Effect.provide(Pattern.on(pattern, proxy.url)))
        const { letters, report } = yield* verdict()
        assert.deepStrictEqual(letters, [])
        assert.strictEqual(report.counts.published, 126)
        assert.isAtLeast(member.happened("Reconnected"), 3)
      }).pipe(Fixture.run({ pattern })),
    60_000
  )
})
