/**
 * A failover to a replica that had not heard of the last settlements, at the same address: what the store says then and
 * what the process of a consumer knows differ, in both directions.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Deferred, Effect, Logger, Schedule, type Scope } from "effect"
import type { Redis } from "ioredis"
import { Failed, person, story, storing } from "./Storing.ts"
import { ask, client } from "./Verdict.ts"

/** A master and its replica behind a proxy: a black hole of that cuts off what has not been replicated. */
const pair = Effect.gen(function* () {
  const master = yield* RedisServer.make({ args: ["--repl-diskless-sync-delay", "0"] })
  const line = yield* FaultProxy.make(master.port)
  const replica = yield* RedisServer.make({ args: ["--replicaof", "127.0.0.1", String(line.port)] })
  const [old, next] = [yield* client(master.url), yield* client(replica.url)]
  const info = (redis: Redis, field: string) =>
    Effect.map(
      ask(() => redis.info("replication")),
      (text) => new RegExp(`^${field}:(.*)$`, "m").exec(text)?.[1]?.trim()
    )
  const linked = Effect.map(info(next, "master_link_status"), (status) => status === "up")
  const until = (holds: Effect.Effect<boolean>) =>
    holds.pipe(
      Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("10 millis") }),
      Effect.timeout("30 seconds")
    )
  yield* until(linked)
  return {
    master,
    redis: next,
    /** Everything written until now is on the replica, and nothing that comes later will be. */
    cut: Effect.gen(function* () {
      const written = Number(yield* info(old, "master_repl_offset"))
      yield* until(Effect.map(info(next, "slave_repl_offset"), (offset) => Number(offset) >= written))
      yield* line.blackhole
    }),
    /** The master dies, and the replica takes its place, under its address. */
    failover: Effect.gen(function* () {
      yield* master.kill
      yield* ask(() => next.replicaof("NO", "ONE"))
      yield* ask(() => next.config("SET", "port", master.port))
    })
  }
})

const play = <A, E>(test: Effect.Effect<A, E, Scope.Scope>) =>
  test.pipe(Effect.scoped, Effect.provide(Logger.layer([])))

describe.each(storing)("a failover, %s", (pattern) => {
  it.live(
    "case A1: a settlement that the new master has not heard of: the message comes again at once, and is done",
    () =>
      Effect.gen(function* () {
        const { cut, failover, master } = yield* pair
        const { events, consume, publish } = yield* person(pattern, master.url)
        const { steps, tell, until } = story()
        const fail = yield* Deferred.make<void>()
        const fences: Array<number> = []
        yield* publish("retried")
        yield* publish("acked")
        yield* consume(
          (body, { attempt, fence }) =>
            Effect.gen(function* () {
              fences.push(fence)
              yield* tell("A", `began ${body}`, attempt)
              if (attempt > 1) return
              yield* Deferred.await(fail)
              if (body === "retried") return yield* new Failed()
            }),
          { concurrency: 2 }
        )
        yield* until("A", "began retried")
        yield* until("A", "began acked")
        yield* cut
        yield* Deferred.succeed(fail, undefined)
        while (events.filter(({ _tag }) => _tag === "Settled").length < 2) yield* Effect.sleep(5)
        yield* failover
        // The retry would be due after two seconds; nobody but this consumer could bring them back.
        yield* until("A", "began retried", 2)
        yield* until("A", "began acked", 2)
        while (events.filter(({ _tag }) => _tag === "Settled").length < 4) yield* Effect.sleep(5)
        assert.deepStrictEqual(steps.map(([, what, attempt]) => [what, attempt]).toSorted(), [
          ["began acked", 1],
          ["began acked", 2],
          ["began retried", 1],
          ["began retried", 2]
        ])
        assert.deepStrictEqual(fences.toSorted(), [1, 1, 2, 2])
      }).pipe(play),
    60_000
  )

  it.live(
    "case A1: a delivery that the new master has not heard of: its handler is interrupted, and both messages come again",
    () =>
      Effect.gen(function* () {
        const { cut, failover, master } = yield* pair
        const { consume, publish } = yield* person(pattern, master.url)
        const { order, steps, tell, until } = story()
        const end = yield* Deferred.make<void>()
        let runs = 0
        yield* publish("first")
        yield* consume(
          (body, { attempt }) =>
            Effect.gen(function* () {
              runs++
              yield* tell("A", `began ${body}`, attempt)
              if (runs === 1) yield* Deferred.await(end)
              // The new master holds the first for this consumer and the second for nobody; it is the other way round.
              if (runs === 2) yield* Effect.never
            }).pipe(Effect.onInterrupt(() => tell("A", `was interrupted in ${body}`))),
          { prefetch: 0 }
        )
        yield* until("A", "began first")
        yield* publish("second")
        yield* cut
        yield* Deferred.succeed(end, undefined)
        yield* until("A", "began second")
        yield* failover
        yield* until("A", "began first", 2)
        yield* until("A", "began second", 2)
        assert.deepStrictEqual(order().slice(0, 3), ["A began first", "A began second", "A was interrupted in second"])
        assert.deepStrictEqual(
          steps
            .slice(3)
            .map(([, what, attempt]) => [what, attempt])
            .toSorted(),
          [
            ["began first", 2],
            ["began second", 1]
          ]
        )
      }).pipe(play),
    60_000
  )

  it.live("case A1: the store goes back behind settlements and breaks no connection: found within a lease", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* client(server.url)
      const { consume, events, publish } = yield* person(pattern, server.url)
      const { steps, tell, until } = story()
      const end = yield* Deferred.make<void>()
      const settled = (count: number) =>
        Effect.sync(() => events.filter(({ _tag }) => _tag === "Settled").length >= count).pipe(
          Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("5 millis") }),
          Effect.timeout("20 seconds")
        )
      yield* publish("m")
      yield* consume((body, { attempt }) =>
        Effect.andThen(tell("A", `began ${body}`, attempt), attempt > 1 ? Effect.void : Deferred.await(end))
      )
      yield* until("A", "began m")
      const before = yield* ask(async () => {
        const keys = await redis.keys("*")
        return Promise.all(keys.map(async (key) => [key, (await redis.dumpBuffer(key)) as Buffer] as const)) // it exists
      })
      yield* Deferred.succeed(end, undefined)
      yield* settled(1)
      const restore = redis.multi()
      for (const [key, bytes] of before) restore.restore(key, 0, bytes, "REPLACE")
      yield* ask(() => restore.exec())
      yield* settled(2)
      assert.deepStrictEqual(steps, [
        ["A", "began m", 1],
        ["A", "began m", 2]
      ])
    }).pipe(play)
  )
})
