/**
 * Servers that announce keys, that do not, and that do not let us ask.
 */
import { assert, layer } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Effect, Fiber } from "effect"
import type { Transport } from "waybill"
import { becomes } from "./Fixture.ts"
import { consume, make } from "./KeyspaceFixture.ts"

const Servers = RedisServer.layer()

const failing = (effect: Effect.Effect<unknown, Transport.TransportError, never>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

/** The body of the next message, or that there was none. */
const bodyOf = (receiver: Transport.Receiver) =>
  Effect.orElseSucceed(
    Effect.map(receiver.take(1), ([{ body }]) => body),
    () => "not yet"
  )

layer(Servers, { excludeTestServices: true, timeout: "60 seconds" })("notifications", (it) => {
  const flags = (redis: { config: (how: "SET", name: string, value: string) => Promise<unknown> }, value: string) =>
    Effect.promise(() => redis.config("SET", "notify-keyspace-events", value))
  const asked = (redis: { config: (how: "GET", name: string) => Promise<unknown> }) =>
    Effect.map(
      Effect.promise(() => redis.config("GET", "notify-keyspace-events")),
      (reply) => [...String((reply as ReadonlyArray<string>)[1])].toSorted().join("")
    )

  it.effect("off: receiving fails and says what to set, while publishing goes on; nothing is switched on unasked", () =>
    Effect.gen(function* () {
      const { join, publish, redis } = yield* make({ notifications: "require" })
      for (const [found, needed] of [
        ["", "K$"],
        ["xE", "xEK$"],
        ["xK", "xK$"],
        ["$E", "$EK"]
      ] as const) {
        yield* flags(redis, found)
        const reason = yield* failing(Effect.scoped(join()))
        assert.deepInclude(reason, { _tag: "NotificationsDisabled", found, needed })
        assert.isTrue(reason.permanent)
        assert.strictEqual(yield* asked(redis), [...found].toSorted().join(""))
      }
      yield* publish("a")
      yield* flags(redis, "K$")
      // The one who failed does not stand in the way of the next.
      assert.deepStrictEqual(yield* consume(yield* join(), 1), ["a"])
    })
  )

  it.effect("enable adds what is missing and switches nothing off", () =>
    Effect.gen(function* () {
      const { join, redis } = yield* make({ notifications: "enable" })
      yield* flags(redis, "xEg")
      yield* join()
      assert.strictEqual(yield* asked(redis), "$EKgx")
      yield* flags(redis, "KEA")
      yield* join({ group: "other" })
      assert.strictEqual(yield* asked(redis), "AEK")
    })
  )

  it.effect("where CONFIG is denied, a key is written to see whether it is announced", () =>
    Effect.gen(function* () {
      const { another, redis, server } = yield* make()
      yield* Effect.promise(() => redis.acl("SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-config"))
      const url = server.url.replace("redis://", "redis://limited:pw@")
      for (const notifications of ["require", "enable"] as const) {
        const limited = yield* another({ url, notifications, pollInterval: "1 hour" })
        yield* flags(redis, "K$")
        const receiver = yield* limited.join({ group: notifications, start: "latest" })
        const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
        yield* limited.publish(notifications)
        assert.strictEqual((yield* Fiber.join(fiber))[0].body, notifications)
      }
      yield* flags(redis, "Ex")
      const disabled = yield* failing(
        Effect.scoped((yield* another({ url, notifications: "require" })).join({ group: "a" }))
      )
      assert.deepInclude(disabled, { _tag: "NotificationsDisabled", needed: "K$" })
      const denied = yield* failing(
        Effect.scoped((yield* another({ url, notifications: "enable" })).join({ group: "b" }))
      )
      assert.deepInclude(denied, { _tag: "NotPermitted", command: "config|get" })
      yield* becomes(
        "nothing is left of it",
        Effect.promise(() => redis.keys("*probe*")),
        []
      )
    })
  )

  it.effect(
    "poll needs no events: what is published is found within the interval, delayed messages and redriven ones too",
    () =>
      Effect.gen(function* () {
        const { join, publish, redis } = yield* make({ notifications: "poll", pollInterval: "50 millis" })
        yield* flags(redis, "")
        const receiver = yield* join()
        yield* publish("a", { body: "late", due: { _tag: "At", epochMillis: Date.now() + 100 } })
        assert.deepStrictEqual(yield* consume(receiver, 2), ["a", "late"])
        assert.strictEqual(yield* asked(redis), "")
      })
  )

  it.effect("events that are off after a lost connection are reported to who waits, until they are on again", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const proxy = yield* FaultProxy.make(server.port)
      const terms = { notifications: "require", url: proxy.url, pollInterval: "50 millis" } as const
      const { join, publish, redis } = yield* make(terms)
      yield* flags(redis, "K$")
      const receiver = yield* join()
      const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* flags(redis, "")
      yield* proxy.reset
      const reason = yield* failing(Fiber.join(fiber))
      assert.strictEqual(reason._tag, "NotificationsDisabled")
      yield* flags(redis, "K$")
      yield* publish("a")
      yield* becomes("taken again", bodyOf(receiver), "a")
    })
  )

  it.effect("case A10: enable finds out that somebody overwrote the flags, and switches on what is missing again", () =>
    Effect.gen(function* () {
      const { join, key, redis } = yield* make({ notifications: "enable", pollInterval: "1 hour" })
      const receiver = yield* join()
      for (const [i, overwritten] of ["Egx", "Kx"].entries()) {
        yield* flags(redis, overwritten)
        yield* becomes(
          "on again, beside what is there",
          asked(redis),
          [...new Set(`${overwritten}K$`)].toSorted().join("")
        )
        yield* Effect.promise(() => redis.set(key(`message:k${i}`), `${i}`, "EX", 60))
        assert.deepStrictEqual(yield* consume(receiver, 1), [`${i}`])
      }
    })
  )

  it.effect.each(["enable", "require"] as const)(
    "case A10: with a scan, keys that others wrote while events were off are taken in afterwards (%s)",
    (notifications) =>
      Effect.gen(function* () {
        const { join, key, redis } = yield* make({ notifications, scan: true, pollInterval: "50 millis" })
        yield* flags(redis, "K$")
        const receiver = yield* join()
        yield* flags(redis, "Egx")
        yield* Effect.promise(() => redis.set(key("message:k"), "meanwhile", "EX", 60))
        if (notifications === "require") {
          assert.strictEqual((yield* failing(receiver.take(1)))._tag, "NotificationsDisabled")
          yield* flags(redis, "K$")
        }
        yield* becomes("taken in", bodyOf(receiver), "meanwhile")
      })
  )

  it.effect("case A10: require, and both where CONFIG is denied, report within seconds that events are off", () =>
    Effect.gen(function* () {
      const { another, redis, server } = yield* make()
      yield* Effect.promise(() => redis.acl("SETUSER", "watching", "on", ">pw", "~*", "&*", "+@all", "-config"))
      const limited = server.url.replace("redis://", "redis://watching:pw@")
      for (const [url, notifications, expected] of [
        [server.url, "require", "NotificationsDisabled"],
        [limited, "require", "NotificationsDisabled"],
        [limited, "enable", "NotPermitted"]
      ] as const) {
        yield* flags(redis, "K$")
        const { join, publish } = yield* another({ url, notifications, pollInterval: "1 second" })
        const receiver = yield* join({ start: "latest", group: `${notifications} ${url === limited}` })
        const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
        yield* flags(redis, "Egx")
        const reason = yield* failing(
          Effect.timeout(Fiber.join(fiber), "8 seconds").pipe(Effect.catchTag("TimeoutError", Effect.die))
        )
        assert.strictEqual(reason._tag, expected)
        assert.isTrue(reason.permanent)
        // What is ours is found all the same, and it is over as soon as they are on again.
        yield* flags(redis, "K$")
        yield* publish("a")
        yield* becomes("taken again", bodyOf(receiver), "a")
      }
      // Each layer asked once, and did not fill the server's log with the same question.
      const log = (yield* Effect.promise(() => redis.acl("LOG"))) as ReadonlyArray<ReadonlyArray<unknown>>
      const refused = log.filter((entry) => entry.includes("config|get") && entry.includes("watching"))
      const counts = refused.map((entry) => Number(entry[entry.indexOf("count") + 1]))
      assert.isAtMost(
        counts.reduce((sum, count) => sum + count, 0),
        2
      )
      yield* becomes(
        "nothing is left of it",
        Effect.promise(() => redis.keys("*probe*")),
        []
      )
    })
  )
})
