import { rmSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, Logger, Redacted, Schedule } from "effect"
import { Redis } from "ioredis"
import { Health } from "waybill"
import { IoRedis, RedisHealth, RedisStreams } from "waybill/redis"

const silently = Effect.provide(Logger.layer([]))

const codes = ({ problems, status }: Health.Report) => [status, ...problems.map(({ code }) => code)]

/** Checks the server with a connection of its own each time. */
const check = (url: string, options: RedisHealth.Options = {}, more: IoRedis.Options = {}) =>
  Health.check({ limits: { lag: 1000 } }).pipe(
    Effect.provide([RedisStreams.layer(), RedisHealth.layer(options)]),
    Effect.provide(IoRedis.layer({ url, ...more })),
    silently
  )

const command = (url: string, ...words: readonly [string, ...ReadonlyArray<string>]) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Redis(url, { lazyConnect: true, retryStrategy: null })),
    (redis) => Effect.promise(() => redis.call(words[0], ...words.slice(1))),
    (redis) => Effect.sync(() => redis.disconnect())
  )

/** What the server calls itself in INFO, where Valkey has two versions: its own, and the one that it is compatible with. */
const versionOf = (url: string) =>
  Effect.map(command(url, "INFO", "server"), (text) => {
    const valkey = /^valkey_version:(\S+)/m.exec(String(text))?.[1]
    return valkey === undefined ? `Redis ${/^redis_version:(\S+)/m.exec(String(text))?.[1]}` : `Valkey ${valkey}`
  })

const on = (options: RedisServer.Options) => Effect.provide(Layer.fresh(RedisServer.layer(options)))

describe("RedisHealth, every pattern", () => {
  it.live("a server that keeps everything is ready", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const report = yield* check(url)
      assert.deepStrictEqual(report, { status: "ready", problems: [], server: yield* versionOf(url) })
      assert.match(report.server ?? "", /^(?:Redis|Valkey) \d+\.\d+\.\d+$/)
      assert.deepStrictEqual(codes(yield* check(url, { replicas: 1 })), ["degraded", "ReplicasMissing"])
      assert.deepStrictEqual(codes(yield* check(url, {}, { replicas: 1 })), ["degraded", "ReplicasMissing"])
      assert.deepStrictEqual(codes(yield* check(url, { replicas: 0 }, { replicas: 1 })), ["ready"])
    }).pipe(on({ appendonly: "everysec", args: ["--maxmemory", "100mb"] }))
  )

  it.live("E19 says what deletes and what forgets messages", () =>
    Effect.gen(function* () {
      const { dir, url } = yield* RedisServer.RedisServer
      assert.deepStrictEqual(codes(yield* check(url)), ["degraded", "EvictionPolicy", "PersistenceOff"])
      // Without a limit nothing is ever evicted.
      yield* command(url, "CONFIG", "SET", "maxmemory", "0")
      assert.deepStrictEqual(codes(yield* check(url)), ["degraded", "PersistenceOff"])
      yield* command(url, "CONFIG", "SET", "save", "60 1")
      assert.deepStrictEqual(codes(yield* check(url)), ["degraded", "SnapshotsOnly"])
      // Who may not read the settings is told the lesser evil.
      yield* command(url, "CONFIG", "SET", "save", "")
      yield* command(url, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config")
      const report = yield* check(url, {}, { username: "app", password: Redacted.make("secret") })
      assert.deepStrictEqual(codes(report), ["degraded", "SnapshotsOnly"])
      assert.notInclude(JSON.stringify(report), "secret")
      // Where it stands there is no place to write any more.
      yield* Effect.sync(() => rmSync(dir, { recursive: true }))
      yield* command(url, "BGSAVE")
      const failing = yield* check(url).pipe(
        Effect.repeat({
          until: (report) => codes(report).includes("PersistenceFailing"),
          schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 200 }))
        })
      )
      assert.deepStrictEqual(codes(failing), ["degraded", "PersistenceOff", "PersistenceFailing"])
    }).pipe(on({ args: ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"] }))
  )

  it.live("a user who may not query the server can still deliver messages", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      yield* command(url, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-info")
      const report = yield* check(url, {}, { username: "app", password: Redacted.make("secret") })
      assert.deepStrictEqual(codes(report), ["degraded", "NotInspectable"])
      assert.match(report.problems[0]?.detail ?? "", /\+info/)
      assert.strictEqual(report.server, yield* versionOf(url))
    }).pipe(on({}))
  )

  it.live("names the commands that the server lacks, where it may ask", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const report = yield* check(url)
      assert.deepStrictEqual(codes(report), ["degraded", "Unsupported"])
      assert.match(report.problems[0]?.detail ?? "", /lacks the commands LMPOP, SMISMEMBER: use Redis 7\.0 or newer/)
      assert.strictEqual(report.server, yield* versionOf(url))
      yield* command(url, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-command")
      assert.deepStrictEqual(codes(yield* check(url, {}, { username: "app", password: Redacted.make("secret") })), [
        "ready"
      ])
    }).pipe(
      on({ appendonly: "everysec", args: ["--rename-command", "LMPOP", "", "--rename-command", "SMISMEMBER", ""] })
    )
  )

  it.live("a replica is down, and its master ready while it follows, and degraded when it falls behind", () =>
    Effect.gen(function* () {
      const master = yield* RedisServer.RedisServer
      yield* Effect.gen(function* () {
        const replica = yield* RedisServer.RedisServer
        yield* command(replica.url, "REPLICAOF", "127.0.0.1", String(master.port))
        const report = yield* check(master.url, { replicas: 1 }).pipe(
          Effect.repeat({
            until: ({ status }) => status === "ready",
            schedule: Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 200 }))
          })
        )
        assert.deepStrictEqual(codes(report), ["ready"])
        const [status, first] = codes(yield* check(replica.url))
        assert.deepStrictEqual([status, first], ["down", "ReadOnly"])
        yield* replica.pause
        const behind = yield* check(master.url).pipe(
          Effect.repeat({
            until: ({ status }) => status !== "ready",
            schedule: Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 50 }))
          })
        )
        assert.deepStrictEqual(codes(behind), ["degraded", "ReplicasBehind"])
      }).pipe(on({}))
    }).pipe(on({ appendonly: "everysec" }))
  )

  it.live("a server that is away or stands still is down, and ready again when it is back", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const report = Effect.map(Health.check({ limits: { lag: 1 } }), codes)
      const becomes = (status: string) =>
        Effect.repeat(report, {
          until: ([is]) => is === status,
          schedule: Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 200 }))
        })
      yield* Effect.gen(function* () {
        assert.deepStrictEqual(yield* report, ["ready"])
        yield* server.pause
        assert.deepStrictEqual(yield* report, ["down", "Unreachable", "NotInspectable"])
        yield* server.resume
        assert.deepStrictEqual(yield* becomes("ready"), ["ready"])
        yield* server.kill
        assert.strictEqual((yield* report)[0], "down")
        yield* server.start
        assert.deepStrictEqual(yield* becomes("ready"), ["ready"])
      }).pipe(
        Effect.provide([RedisStreams.layer(), RedisHealth.layer()]),
        Effect.provide(IoRedis.layer({ url: server.url })),
        silently
      )
    }).pipe(on({ appendonly: "everysec" }))
  )
})
