/** Who is online: by the clock of the store alone, and for as long as any connection is there. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Clock, Context, Effect, Exit, Layer, References, Scope } from "effect"
import { TestClock } from "effect/testing"
import { MemoryKeyspace, MemoryPubSub } from "waybill/memory"
import { IoRedis, RedisKeyspace, RedisPubSub } from "waybill/redis"
import { News } from "../../../examples/chat/src/News.ts"
import { Presence, ttlMillis } from "../../../examples/chat/src/Presence.ts"
import { Channels, Expiring } from "../../../examples/chat/src/Transports.ts"
import { quiet, until } from "../../core/Running.ts"

/** A process whose clock on the wall is so much off; its monotonic one is not. */
const shifted = (clock: Clock.Clock, millis: number): Clock.Clock => ({
  monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
  monotonicTimeNanos: clock.monotonicTimeNanos,
  currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
  currentTimeNanos: clock.currentTimeNanos,
  currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
  currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis),
  sleep: (duration) => clock.sleep(duration)
})

const server = Effect.map(Layer.build(Layer.fresh(Presence.layer)), (context) => Context.get(context, Presence))

/** A connection, and what closes it. */
const connection = Effect.fnUntraced(function* (presence: Context.Service.Shape<typeof Presence>, tab: string) {
  const scope = yield* Scope.make()
  const sign = yield* Scope.provide(presence.enter("ada", tab), scope)
  return { sign, close: Scope.close(scope, Exit.void) }
})

const onMemory = Effect.provide([
  MemoryKeyspace.layer({ ttl: ttlMillis, as: Expiring }),
  Layer.provide(News.layer, MemoryPubSub.layer({ as: Channels }))
])

describe("presence", () => {
  it.live(
    "case C16: a server whose clock is ahead or behind sees who is there, and who is gone",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make()
        const ttl = 3000
        const redis = IoRedis.layer({ url })
        const store = Layer.mergeAll(
          RedisKeyspace.layer({ ttl, notifications: "poll", as: Expiring }),
          Layer.provide(News.layer, RedisPubSub.layer({ as: Channels }))
        ).pipe(Layer.provide(redis))
        const context = yield* Layer.build(store)
        const clock = yield* Clock.Clock
        const off = (millis: number) =>
          server.pipe(Effect.provideContext(context), Effect.provideService(Clock.Clock, shifted(clock, millis)))
        const right = yield* off(0)
        const ahead = yield* off(400_000)
        const behind = yield* off(-400_000)
        const servers = { right, ahead, behind }
        const online = () => Object.values(servers).map((one) => one.isOnline("ada"))
        const all = (expected: boolean) =>
          Effect.gen(function* () {
            while (online().some((one) => one !== expected)) yield* Effect.sleep("20 millis")
          }).pipe(Effect.timeout("20 seconds"))
        for (const one of Object.values(servers)) {
          const ada = yield* connection(one, "tab")
          yield* all(true)
          yield* ada.close
          yield* all(false)
        }
        // Of one that says nothing more, the store forgets the sign.
        const ada = yield* connection(right, "tab")
        yield* all(true)
        const late = yield* off(400_000)
        assert.isTrue(late.isOnline("ada"))
        yield* all(false)
        yield* ada.close
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    60_000
  )

  it.effect("case C17: of two connections with one tab id the newer closes, and the older is still present", () =>
    Effect.gen(function* () {
      const [one, other] = [yield* server, yield* server]
      const changes: Array<unknown> = []
      for (const presence of [one, other]) yield* presence.hear((change) => changes.push(change))
      for (const newerOn of [one, other]) {
        const older = yield* connection(one, "tab")
        yield* until("ada is there", () => one.isOnline("ada") && other.isOnline("ada"))
        const newer = yield* connection(newerOn, "tab")
        yield* quiet()
        changes.length = 0
        yield* newer.close
        yield* quiet()
        for (let second = 0; second < 30; second++) yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(changes, [])
        assert.deepStrictEqual([one.isOnline("ada"), other.isOnline("ada")], [true, true])
        yield* older.close
        yield* until("ada is gone", () => !one.isOnline("ada") && !other.isOnline("ada"))
      }
      yield* quiet()
    }).pipe(Effect.scoped, onMemory)
  )

  it.effect("a connection of a server that was killed ends soon after the one that has replaced it", () =>
    Effect.gen(function* () {
      const killed = yield* server
      const one = yield* server
      // Its server makes no more signs for it, and cannot be asked.
      const dead = yield* Scope.make()
      const lost = yield* Effect.map(Scope.provide(Layer.build(Layer.fresh(Presence.layer)), dead), (context) =>
        Context.get(context, Presence)
      )
      const scope = yield* Scope.make()
      yield* Scope.provide(lost.enter("ada", "tab"), scope)
      yield* Scope.close(dead, Exit.void)
      const newer = yield* connection(one, "tab")
      yield* until("ada is there", () => one.isOnline("ada") && killed.isOnline("ada"))
      yield* newer.close
      yield* quiet()
      for (let second = 0; second < 15; second++) yield* TestClock.adjust("1 second")
      assert.deepStrictEqual([one.isOnline("ada"), killed.isOnline("ada")], [false, false])
    }).pipe(Effect.scoped, onMemory)
  )
})
