/** A master found through Sentinels: by what most of them and the newest say, again after a failover, and never the old one. */
import { assert, describe, it, layer } from "@effect/vitest"
import { RedisSentinel } from "@waybill/testing"
import { Array as Arr, Effect, Fiber, Redacted, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic, type Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { masterOf } from "../../packages/waybill/src/redis/internal/connection/Sentinel.ts"
import { run } from "../cli/Terminal.ts"

const passwords = { password: "p@s", sentinelPassword: "s&s" }

const answers = (...told: ReadonlyArray<readonly [port: number, epoch: number]>) =>
  told.map(([port, epoch]) => ({ master: { host: "h", port }, epoch }))

describe("who is the master", () => {
  it.each([
    ["nobody says", answers(), undefined],
    ["all agree", answers([1, 0], [1, 0]), 1],
    ["one knows a newer failover than the others", answers([1, 3], [1, 3], [2, 4]), 2],
    ["most of the newest", answers([1, 0], [2, 0], [2, 0]), 2],
    ["no majority", answers([1, 0], [2, 0]), undefined]
  ] as const)("%s", (_, told, port) => {
    assert.strictEqual(masterOf(told)?.port, port)
  })
})

const Numbers = Topic.make("numbers", { payload: Schema.Finite })

const urlOf = ({ addresses, name }: RedisSentinel.RedisSentinel["Service"]) =>
  `redis-sentinel://:${encodeURIComponent(passwords.password)}@${addresses.join(",")}/${name}` +
  `?sentinelPassword=${encodeURIComponent(passwords.sentinelPassword)}`

/** The port of the server at the other end. */
const port = (redis: IoRedis.IoRedis["Service"]) =>
  redis.commands.run("SELECT", [], async ({ options }) => options.port)

const reasonOf = (options: IoRedis.Options): Effect.Effect<Transport.Reason, unknown> =>
  Effect.scoped(IoRedis.make({ startTimeout: "3 seconds", ...options })).pipe(
    Effect.flip,
    Effect.map((error) => error.reason)
  )

layer(RedisSentinel.layer(passwords), { excludeTestServices: true, timeout: "60 seconds" })(
  "through Sentinels",
  (it) => {
    it.effect("a wrong password, an unknown name, and servers that are no Sentinels are told at once", () =>
      Effect.gen(function* () {
        const { addresses, master, name, replica } = yield* RedisSentinel.RedisSentinel
        const password = Redacted.make(passwords.password)
        const sentinelPassword = Redacted.make(passwords.sentinelPassword)
        const known = { sentinels: addresses, name, password, sentinelPassword }
        const denied = yield* reasonOf({ ...known, sentinelPassword: Redacted.make("wrong") })
        assert.strictEqual(denied._tag, "AuthenticationFailed")
        const unknown = yield* reasonOf({ ...known, name: "other" })
        assert.match(unknown.message, /watches no master named "other"/)
        const server = `127.0.0.1:${(yield* master).port}`
        const wrong = yield* reasonOf({ ...known, sentinels: [server], sentinelPassword: password })
        assert.match(wrong.message, /is not a Sentinel/)
        // Reached at another address, which leads to a server that is no master.
        const follower = `127.0.0.1:${(yield* replica).port}`
        const replaced = yield* reasonOf({ ...known, natMap: { [server]: follower }, startTimeout: "500 millis" })
        assert.deepInclude(replaced, { _tag: "Refused", code: "READONLY" })
        // One of them is enough, and one that is not there does no harm.
        const redis = yield* IoRedis.make({ ...known, sentinels: ["127.0.0.1:1", ...addresses.slice(0, 1)] })
        assert.strictEqual(yield* port(redis), (yield* master).port)
      })
    )

    it.effect("a program publishes and consumes on while the master changes, and is told", () =>
      Effect.gen(function* () {
        const servers = yield* RedisSentinel.RedisSentinel
        const redis = yield* IoRedis.make({ url: urlOf(servers) })
        const told: Array<string> = []
        yield* redis.listen(({ _tag }) => void told.push(_tag))
        const program = Effect.gen(function* () {
          const taken = new Set<number>()
          yield* Consumer.make(Numbers, { group: "g" }).pipe(
            Consumer.process((n) => Effect.sync(() => void taken.add(n))),
            Consumer.run,
            Effect.forkScoped
          )
          let last = 0
          const publish = Effect.suspend(() => Producer.publish(Numbers, last++))
          yield* Effect.repeat(publish, { times: 20 })
          const failOver = yield* Effect.forkScoped(servers.failOver)
          yield* Effect.repeat(publish, { until: () => failOver.pollUnsafe() !== undefined })
          const next = yield* Fiber.join(failOver)
          yield* port(redis).pipe(
            Effect.repeat({ until: (port) => port === next.port, schedule: Schedule.spaced("10 millis") }),
            Effect.timeout("20 seconds")
          )
          // What the old master accepted until then may be lost, which is what FailedOver says.
          const since = last
          yield* Effect.repeat(publish, { times: 20 })
          const missing = () => Arr.filter(Arr.range(since, last - 1), (n) => !taken.has(n))
          yield* Effect.sync(missing).pipe(
            Effect.repeat({ until: Arr.isArrayEmpty, schedule: Schedule.spaced("10 millis") }),
            Effect.timeout("20 seconds")
          )
        })
        yield* program.pipe(Effect.provide(RedisStreams.layer()), Effect.provideService(IoRedis.IoRedis, redis))
        assert.include(told, "FailedOver")
      })
    )

    it.effect(
      "a master that stops is left at once when another one is announced, and takes nothing when it is back",
      () =>
        Effect.gen(function* () {
          const servers = yield* RedisSentinel.RedisSentinel
          const redis = yield* IoRedis.make({ url: urlOf(servers) })
          // A master of before that has yet to become a replica would come back with a history of its own.
          yield* servers.whole
          const old = yield* servers.master
          assert.strictEqual(yield* port(redis), old.port)
          yield* old.pause
          const inFlight = yield* Effect.forkChild(
            Effect.flip(redis.commands.run("SET", "k", (client) => client.set("k", "old"), { deadline: "1 minute" }))
          )
          const next = yield* servers.successorOf(old)
          const reason = yield* Fiber.join(inFlight)
          assert.deepInclude(reason, { _tag: "Disconnected", ambiguous: true })
          // And not because the server was silent for too long.
          assert.include(reason.message, "another server has become the master")
          assert.strictEqual(yield* port(redis), next.port)
          yield* old.resume
          const late = yield* IoRedis.make({ url: urlOf(servers) })
          for (const one of [redis, late]) assert.strictEqual(yield* port(one), next.port)
          yield* servers.whole
          const doctor = yield* run(["doctor", "--watch", "0"], { url: urlOf(servers) })
          assert.match(doctor.out, /server: it has taken over/)
          assert.match(doctor.out, /min-replicas-to-write/)
        })
    )

    it.effect("a master without enough replicas refuses", () =>
      Effect.gen(function* () {
        const servers = yield* RedisSentinel.RedisSentinel
        const { commands } = yield* IoRedis.make({ url: urlOf(servers) })
        const need = (count: number) =>
          commands.run("CONFIG", [], (client) => client.config("SET", "min-replicas-to-write", count))
        yield* Effect.acquireRelease(need(2), () => Effect.ignore(need(0)))
        const reason = yield* Effect.flip(commands.run("SET", "k", (client) => client.set("k", "v")))
        assert.deepInclude(reason, { _tag: "Refused", code: "NOREPLICAS" })
      })
    )
  }
)
