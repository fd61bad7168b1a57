/**
 * Every command settles within its deadline, and says truly whether it may have run; none is sent twice; nothing is
 * left when the scope closes. Each test breaks one thing and holds what the callers were told against the server.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Effect, Exit, Fiber, Layer, Random, Redacted, References, Schedule, Scope } from "effect"
import { Redis } from "ioredis"
import { IoRedis } from "waybill/redis"
import type { ConnectionEvent } from "../../packages/waybill/src/redis/internal/connection/Connection.ts"
import { drawing } from "../faults/Verdict.ts"

type Outcome = "done" | "ambiguous" | "not run"

/** What one caller was told, and when. */
interface Told {
  readonly key: string
  readonly outcome: Outcome
  readonly millis: number
}

/** How late an answer may come after its deadline, on a machine that is busy with other tests. */
const slack = 5000
/** A deadline that nobody reaches: who waited for it would be later than any slack. */
const far = 60_000

/** Increments a key of its own, so that the server can tell how often it ran. */
const increment = (connection: IoRedis.Commands, key: string, deadline: number): Effect.Effect<Told> =>
  Effect.suspend(() => {
    const start = performance.now()
    const told = (outcome: Outcome): Told => ({ key, outcome, millis: performance.now() - start })
    return connection
      .run("INCR", key, (client) => client.incr(key), { deadline })
      .pipe(
        Effect.map(() => told("done")),
        Effect.catchTag("Disconnected", (reason) => Effect.succeed(told(reason.ambiguous ? "ambiguous" : "not run"))),
        Effect.orDie
      )
  })

/** How often each key was incremented, asked past the proxy once everything that was on its way has arrived. */
const ranAtServer = Effect.fnUntraced(function* (keys: ReadonlyArray<string>) {
  const server = yield* RedisServer.RedisServer
  const client = yield* plainClient(server.port)
  if (keys.length === 0) return new Map<string, number>()
  const values = yield* Effect.promise(() => client.mget(...keys))
  return new Map(keys.map((key, i) => [key, Number(values[i] ?? 0)]))
})

/** The oracle. */
const check = Effect.fnUntraced(function* (all: ReadonlyArray<Told>, deadline: number) {
  const ran = yield* ranAtServer(all.map(({ key }) => key))
  for (const { key, millis, outcome } of all) {
    const times = ran.get(key) ?? 0
    const allowed = outcome === "done" ? [1] : outcome === "ambiguous" ? [0, 1] : [0]
    assert.include(allowed, times, `${key} was told "${outcome}" and ran ${times} times`)
    assert.isBelow(millis, deadline + slack, `${key} was told "${outcome}" late`)
  }
})

const plainClient = (port: number, password?: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const client = new Redis({ port, ...(password === undefined ? {} : { password }) })
      client.on("error", () => {})
      return client
    }),
    (client) => Effect.sync(() => client.disconnect())
  )

const throughProxy = Layer.unwrap(Effect.map(FaultProxy.FaultProxy, (proxy) => IoRedis.layerUrl(proxy.url))).pipe(
  Layer.provideMerge(FaultProxy.layer)
)

const live = (options?: RedisServer.Options) => throughProxy.pipe(Layer.provideMerge(RedisServer.layer(options)))

const outcomes = (all: ReadonlyArray<Told>) => [...new Set(all.map(({ outcome }) => outcome))].sort()

const many = (connection: IoRedis.Commands, name: string, count: number, deadline: number) =>
  Effect.forEach(Array.from({ length: count }), (_, i) => increment(connection, `${name}:${i}`, deadline), {
    concurrency: "unbounded"
  })

describe("IoRedis under faults", () => {
  it.live("a reset before or after execution: told at once, and never sent again", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const proxy = yield* FaultProxy.FaultProxy
      yield* proxy.resetBefore("INCR")
      const before = yield* many(commands, "before", 20, far)
      yield* commands.ready
      yield* proxy.dropReply("INCR")
      const after = yield* many(commands, "after", 20, far)
      yield* commands.ready
      const healed = yield* increment(commands, "healed", 30_000)

      assert.deepStrictEqual(outcomes([...before, ...after]), ["ambiguous"])
      assert.strictEqual(healed.outcome, "done")
      // At once: nobody waited for the deadline.
      yield* check([...before, ...after, healed], 0)
      const ran = yield* ranAtServer(["before:0", "after:0"])
      assert.deepStrictEqual([...ran.values()], [0, 1])
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("the same oracle convicts ioredis as it comes: it sends a command again whose reply was lost", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const naive = yield* plainClient(proxy.port)
      yield* proxy.dropReply("INCR")
      assert.strictEqual(yield* Effect.promise(() => naive.incr("naive")), 2)
      const verdict = yield* Effect.exit(check([{ key: "naive", outcome: "done", millis: 0 }], 0))
      assert.isTrue(Exit.isFailure(verdict))
    }).pipe(Effect.scoped, Effect.provide(FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))))
  )

  it.live("a reply cut in the middle", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const proxy = yield* FaultProxy.FaultProxy
      // What a new connection asks about the server is answered by then.
      yield* commands.run("PING", [], (client) => client.ping())
      // ":1\r\n" each: two arrive, and half of the third.
      yield* proxy.cutAfter(10, "replies")
      const told = yield* many(commands, "cut", 10, far)
      assert.deepStrictEqual(
        told.map(({ outcome }) => outcome),
        ["done", "done", ...Array.from({ length: 8 }, () => "ambiguous" as const)]
      )
      yield* check(told, 0)
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("a half-open connection: the deadline strikes, and what was kept on the way runs at most once", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const proxy = yield* FaultProxy.FaultProxy
      const reader = yield* redis.dedicated("reader", [])
      yield* reader.ready
      yield* proxy.blackhole
      const [inFlight, read, other] = yield* Effect.all(
        [
          many(redis.commands, "in flight", 20, 500),
          Effect.flip(reader.run("BLPOP", "list", (client) => client.blpop("list", 0), { deadline: "500 millis" })),
          // Its own deadline is far, but the connection is destroyed under it.
          increment(redis.commands, "other", far)
        ],
        { concurrency: "unbounded" }
      )
      assert.deepInclude(read, { _tag: "Disconnected", ambiguous: true })
      assert.deepStrictEqual(outcomes([...inFlight, other]), ["ambiguous"])
      const waiting = yield* many(redis.commands, "waiting", 20, 500)
      assert.deepStrictEqual(outcomes(waiting), ["not run"])

      yield* proxy.pass
      const healed = yield* increment(redis.commands, "healed", 30_000)
      assert.strictEqual(healed.outcome, "done")
      yield* reader.ready
      // Until only the two new connections are left, bytes of the old ones may still be on their way.
      yield* proxy.connections.pipe(Effect.repeat({ until: (count) => count === 2, schedule: Schedule.spaced(10) }))
      yield* check([...inFlight, other, ...waiting, healed], 500)
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("a stopped server: told in time, and nothing that was told not to have run runs later", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const server = yield* RedisServer.RedisServer
      yield* server.pause
      const inFlight = yield* many(commands, "in flight", 20, 400)
      const waiting = yield* many(commands, "waiting", 20, 400)
      assert.deepStrictEqual(outcomes(inFlight), ["ambiguous"])
      assert.deepStrictEqual(outcomes(waiting), ["not run"])
      yield* server.resume
      const healed = yield* increment(commands, "healed", 30_000)
      assert.strictEqual(healed.outcome, "done")
      yield* check([...inFlight, ...waiting, healed], 400)
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("a server killed and started again on its files: what was acknowledged is there, and nothing twice", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const server = yield* RedisServer.RedisServer
      let settled = 0
      const worker = (name: string) =>
        Effect.gen(function* () {
          const all: Array<Told> = []
          while (settled < 1500) {
            all.push(yield* increment(commands, `${name}:${all.length}`, far))
            settled++
          }
          return all
        })
      const workers = yield* Effect.forkChild(
        Effect.forEach(["a", "b", "c", "d"], worker, { concurrency: "unbounded" })
      )
      for (const milestone of [200, 700]) {
        yield* Effect.sync(() => settled).pipe(
          Effect.repeat({ until: (count) => count >= milestone, schedule: Schedule.spaced(1) })
        )
        yield* server.kill
        yield* server.start
      }
      const told = (yield* Fiber.join(workers)).flat()
      assert.deepStrictEqual(outcomes(told), ["ambiguous", "done"])
      yield* check(told, far)
    }).pipe(Effect.scoped, Effect.provide(live({ appendonly: "always" })))
  )

  it.live("connections killed by the server: only what is in flight hears of it, and everybody comes back", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const server = yield* RedisServer.RedisServer
      const admin = yield* plainClient(server.port)
      const events: Array<ConnectionEvent> = []
      yield* redis.listen((event) => events.push(event))
      const reader = yield* redis.dedicated("reader", [])
      yield* reader.ready
      const told: Array<Told> = []
      for (let round = 0; round < 5; round++) {
        yield* redis.commands.ready
        yield* reader.ready
        const read = yield* Effect.forkChild(
          Effect.flip(reader.run("BLPOP", "list", (client) => client.blpop("list", 0))),
          {
            startImmediately: true
          }
        )
        yield* Effect.promise(() => admin.call("CLIENT", "KILL", "TYPE", "normal"))
        told.push(...(yield* many(redis.commands, `round ${round}`, 20, far)))
        assert.deepInclude(yield* Fiber.join(read), { _tag: "Disconnected", ambiguous: true })
      }
      yield* redis.commands.ready
      yield* reader.ready
      yield* check(told, far)
      const count = (tag: string, role: string) =>
        events.filter((event) => event._tag === tag && event.role === role).length
      // The event comes right after the connection, so the last may be on its way.
      yield* Effect.sync(() => count("Reconnected", "reader") + count("Reconnected", "commands")).pipe(
        Effect.repeat({ until: (reconnected) => reconnected === 10, schedule: Schedule.spaced(5) })
      )
      assert.strictEqual(count("Disconnected", "reader"), 5)
      assert.strictEqual(count("Disconnected", "commands"), 5)
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("scripts flushed all the time: each run once, and nobody notices", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const server = yield* RedisServer.RedisServer
      const admin = yield* plainClient(server.port)
      let flushes = 0
      const flushing = yield* Effect.forkChild(
        Effect.forever(
          Effect.andThen(
            Effect.promise(() => admin.script("FLUSH")),
            Effect.sync(() => flushes++)
          )
        )
      )
      const add = { name: "add", lua: `#!lua\nreturn redis.call("INCR", KEYS[1])` }
      const keys = Array.from({ length: 2000 }, (_, i) => `script:${i}`)
      const answers = yield* Effect.forEach(keys, (key) => commands.eval(add, [key], []), { concurrency: 8 })
      yield* Fiber.interrupt(flushing)
      assert.isAbove(flushes, 10)
      assert.isTrue(answers.every((answer) => answer === 1))
      const ran = yield* ranAtServer(keys)
      assert.isTrue(keys.every((key) => ran.get(key) === 1))
      const proxy = yield* FaultProxy.FaultProxy
      assert.isAbove((yield* proxy.commands).get("EVAL") ?? 0, 10)
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("a master that became a replica is left, once its answers are in", () =>
    Effect.gen(function* () {
      const [commands] = yield* (yield* IoRedis.IoRedis).masters
      if (commands === undefined) return assert.fail("there is one server")
      const server = yield* RedisServer.RedisServer
      const admin = yield* plainClient(server.port)
      const before = yield* commands.clientId
      yield* Effect.promise(() => admin.replicaof("127.0.0.1", "1"))
      const [refused, answered] = yield* Effect.all(
        [
          Effect.flip(commands.run("SET", "k", (client) => client.set("k", "v"))),
          commands.run("GET", "k", (client) => client.get("k"))
        ],
        { concurrency: "unbounded" }
      )
      assert.deepInclude(refused, { _tag: "Refused", code: "READONLY" })
      assert.isNull(answered)
      yield* Effect.promise(() => admin.replicaof("NO", "ONE"))
      yield* commands.run("SET", "k", (client) => client.set("k", "v"))
      assert.notStrictEqual(yield* commands.clientId, before)
    }).pipe(Effect.scoped, Effect.provide(live()))
  )

  it.live("a password changed on the server: told at once, and healed by the new one", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ args: ["--requirepass", "old"] })
      let password = "old"
      const redis = yield* IoRedis.make({ port: server.port, password: Effect.sync(() => Redacted.make(password)) })
      const admin = yield* plainClient(server.port, "old")
      yield* Effect.promise(() => admin.config("SET", "requirepass", "new"))
      yield* Effect.promise(() => admin.call("CLIENT", "KILL", "TYPE", "normal"))
      const started = performance.now()
      const reason = yield* Effect.flip(
        redis.commands
          .run("GET", "k", (client) => client.get("k"), { deadline: "1 minute" })
          .pipe(
            // What was in flight at the kill is another matter.
            Effect.retry({ while: (reason) => reason._tag === "Disconnected" })
          )
      )
      assert.strictEqual(reason._tag, "AuthenticationFailed")
      assert.strictEqual((yield* Effect.flip(redis.commands.ready))._tag, "AuthenticationFailed")
      assert.isBelow(performance.now() - started, 20_000)
      // Nobody waits for the next attempt to connect: the refusal is there in the next turns, before any time has passed.
      const again = yield* Effect.forkChild(
        Effect.flip(redis.commands.run("GET", "k", (client) => client.get("k"), { deadline: "1 minute" })),
        { startImmediately: true }
      )
      for (let turn = 0; turn < 10; turn++) yield* Effect.yieldNow
      assert.isDefined(again.pollUnsafe())
      password = "new"
      assert.isNull(
        yield* redis.commands
          .run("GET", "k", (client) => client.get("k"))
          .pipe(
            Effect.retry({ while: (reason) => reason._tag === "AuthenticationFailed", schedule: Schedule.spaced(50) })
          )
      )
      // The refusal is past: a socket that takes nothing more is waited out, not answered with the old refusal.
      yield* redis.commands.run("END", [], (client) => Promise.resolve(void client.stream.end()))
      assert.isNull(yield* redis.commands.run("GET", "k", (client) => client.get("k")))
    }).pipe(Effect.scoped)
  )

  it.live("callbacks that throw are logged, and break nothing", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const proxy = yield* FaultProxy.FaultProxy
      let thrown = 0
      yield* redis.listen(() => {
        thrown++
        throw new Error("a bug in a listener")
      })
      yield* redis.commands.eachServer("k", () => {
        if (thrown++ === 1) throw new Error("a bug in a setup")
      })
      for (let round = 0; round < 3; round++) {
        yield* redis.commands
          .run("PING", [], (client) => client.ping())
          .pipe(Effect.retry({ while: (reason) => reason._tag === "Disconnected" && reason.ambiguous }))
        yield* proxy.reset
      }
      assert.isAbove(thrown, 3)
    }).pipe(Effect.scoped, Effect.provide(live()), Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.live.each([
    ["idle", "none"],
    ["with commands in flight to a stopped server", "pause"],
    ["in a black hole", "blackhole"],
    ["waiting for a server that is gone", "kill"],
    ["refused", "refuse"]
  ] as const)("closing %s returns soon and leaves no call, no socket", ([, fault]) =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const proxy = yield* FaultProxy.FaultProxy
      const scope = yield* Scope.make()
      const redis = yield* Scope.provide(IoRedis.make({ url: proxy.url }), scope)
      const reader = yield* Scope.provide(redis.dedicated("reader", []), scope)
      yield* reader.ready
      const read = reader.run("BLPOP", "list", (client) => client.blpop("list", 0), { deadline: "Infinity" })
      const early = yield* Effect.forkChild(Effect.exit(read), { startImmediately: true })
      if (fault === "pause") yield* server.pause
      if (fault === "blackhole") yield* proxy.blackhole
      if (fault === "kill") yield* server.kill
      if (fault === "refuse") yield* Effect.andThen(proxy.refuse, proxy.reset)
      const calls = yield* Effect.forkChild(many(redis.commands, "call", 100, far), { startImmediately: true })
      // Made after the fault: it never connects.
      const late = yield* Scope.provide(redis.dedicated("late", []), scope)
      const lateCalls = yield* Effect.forkChild(many(late, "late", 10, far), { startImmediately: true })
      if (fault === "none") yield* Fiber.join(calls)

      const started = performance.now()
      yield* Scope.close(scope, Exit.void)
      assert.isBelow(performance.now() - started, slack)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(early)))
      const told = [...(yield* Fiber.join(calls)), ...(yield* Fiber.join(lateCalls))]
      assert.isBelow(performance.now() - started, slack)
      assert.deepInclude(yield* Effect.flip(redis.commands.run("PING", [], (client) => client.ping())), {
        _tag: "Disconnected",
        ambiguous: false
      })

      yield* server.start
      yield* server.resume
      yield* proxy.pass
      yield* proxy.connections.pipe(Effect.repeat({ until: (count) => count === 0, schedule: Schedule.spaced(10) }))
      yield* check(told, far)
    }).pipe(
      Effect.scoped,
      Effect.provide(FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer({ appendonly: "always" }))))
    )
  )

  it.live("anything, at any time, in any order", () =>
    Effect.gen(function* () {
      const draw = yield* drawing("ioredis-faults")
      const { commands } = yield* IoRedis.IoRedis
      const proxy = yield* FaultProxy.FaultProxy
      const server = yield* RedisServer.RedisServer
      const pause = Effect.flatMap(draw(Random.nextIntBetween(20, 250)), (millis) => Effect.sleep(millis))
      const faults = [
        proxy.reset,
        proxy.dropReply("INCR"),
        proxy.resetBefore("INCR"),
        proxy.resetBefore("HELLO"),
        proxy.dropReply("PING"),
        Effect.flatMap(draw(Random.nextIntBetween(1, 2000)), (bytes) => proxy.cutAfter(bytes, "replies")),
        Effect.flatMap(draw(Random.nextIntBetween(1, 5000)), (bytes) => proxy.cutAfter(bytes, "requests")),
        Effect.andThen(proxy.blackhole, Effect.andThen(Effect.sleep(800), proxy.pass)),
        Effect.andThen(proxy.refuse, Effect.andThen(proxy.reset, Effect.andThen(Effect.sleep(500), proxy.pass))),
        Effect.andThen(server.pause, Effect.andThen(Effect.sleep(800), server.resume)),
        Effect.andThen(server.kill, server.start)
      ]
      let over = false
      const worker = (name: number) =>
        Effect.gen(function* () {
          const all: Array<Told> = []
          while (!over) {
            all.push(yield* increment(commands, `${name}:${all.length}`, 300))
            yield* Effect.sleep(1)
          }
          return all
        })
      const workers = yield* Effect.forkChild(
        Effect.forEach(Array.from({ length: 20 }).keys(), worker, { concurrency: "unbounded" })
      )
      for (const fault of yield* draw(Random.shuffle([...faults, ...faults]))) {
        yield* fault
        yield* pause
      }
      over = true
      const told = (yield* Fiber.join(workers)).flat()
      yield* increment(commands, "healed", 30_000)
      yield* proxy.connections.pipe(Effect.repeat({ until: (count) => count === 1, schedule: Schedule.spaced(10) }))
      const count = (outcome: Outcome) => told.filter((one) => one.outcome === outcome).length
      assert.isAbove(count("done"), 100)
      assert.isAbove(count("ambiguous"), 20)
      assert.isAbove(count("not run"), 20)
      yield* check(told, 300)
    }).pipe(Effect.scoped, Effect.provide(live({ appendonly: "always" })))
  )
})
