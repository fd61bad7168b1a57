/**
 * The server's clock decides about what lies on the server: a program whose wall clock is far ahead or behind sees the same
 * as any other, beside programs whose clocks are right.
 */
import { assert, describe, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Clock, Context, Duration, Effect, Fiber, Layer, Option, References, Scope } from "effect"
import { type Delivery, Inspector, Settlement, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"
import { becomes, client, type Draft, outgoing } from "./Fixture.ts"

const skewMillis = 400_000
/** Far less than the skew, and more than a busy machine holds anybody up. */
const tolerance = 20_000
const lease = Duration.millis(1500)

const options = { deadLetters: { maxAge: "1 minute" }, deduplicationWindow: "2 seconds" } as const

interface Pattern {
  readonly layer: Layer.Layer<Transport.AtMostOnce | Inspector.Inspector, never, IoRedis.IoRedis>
  readonly stores: boolean
}

const patterns: Record<string, Pattern> = {
  RedisStreams: { layer: RedisStreams.layer(options), stores: true },
  RedisLists: { layer: RedisLists.layer(options), stores: true },
  RedisExactlyOnce: { layer: RedisExactlyOnce.layer(options), stores: true },
  RedisKeyspace: {
    layer: RedisKeyspace.layer({ ...options, notifications: "enable", ttl: "1 minute" }),
    stores: true
  },
  RedisPubSub: { layer: RedisPubSub.layer({ deadLetters: options.deadLetters }), stores: false }
}

/** The same clock, set wrong: timers and durations are right. */
const skewed = (clock: Clock.Clock, millis: number): Clock.Clock => {
  const nanos = BigInt(millis) * 1_000_000n
  const wrong: Clock.Clock = Object.create(clock)
  return Object.defineProperties(wrong, {
    currentTimeMillisUnsafe: { value: () => clock.currentTimeMillisUnsafe() + millis },
    currentTimeMillis: { value: Effect.map(clock.currentTimeMillis, (now) => now + millis) },
    currentTimeNanosUnsafe: { value: () => clock.currentTimeNanosUnsafe() + nanos },
    currentTimeNanos: { value: Effect.map(clock.currentTimeNanos, (now) => now + nanos) },
    monotonicTimeNanosUnsafe: { value: () => clock.monotonicTimeNanosUnsafe() },
    sleep: { value: (duration: Duration.Duration) => clock.sleep(duration) }
  }) as Clock.Clock
}

const page = { after: Option.none<string>(), limit: 10 }

describe.each(sampled("skewed clocks", Object.entries(patterns), 2))("case C16 %s", (_, { layer, stores }) => {
  /** A program whose clock is wrong, as long as the scope is open. */
  const program = Effect.fnUntraced(function* (millis: number) {
    const { url } = yield* RedisServer.RedisServer
    const clock = skewed(yield* Clock.Clock, millis)
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const inside = <A, E>(self: Effect.Effect<A, E, Scope.Scope>) =>
      self.pipe(Scope.provide(scope), Effect.provideService(Clock.Clock, clock))
    const context = yield* inside(Layer.build(layer.pipe(Layer.provide(IoRedis.layer({ url })), Layer.fresh)))
    const transport = Context.get(context, Transport.AtMostOnce)
    const inspector = Context.get(context, Inspector.Inspector)
    const redis = yield* client(url)
    const take = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
      const taken: Array<Delivery.Delivery> = []
      while (taken.length < count) taken.push(...(yield* inside(receiver.take(count - taken.length))))
      return taken
    })
    return {
      inside,
      /** What the server takes for the time. */
      now: Effect.map(
        Effect.promise(() => redis.time()),
        ([seconds, micros]) => Number(seconds) * 1000 + Number(micros) / 1000
      ),
      publish: (topic: string, draft: Draft | string) => inside(transport.publish(topic, [outgoing(draft)])),
      join: (topic: string) =>
        inside(
          transport.receive({
            topic,
            group: "g",
            start: "earliest",
            lease,
            maxDeliveries: 5,
            shutdown: Duration.seconds(2)
          })
        ),
      take,
      settle: (receiver: Transport.Receiver, delivery: Delivery.Delivery, settlement: Settlement.Settlement) =>
        inside(receiver.settle([[delivery, settlement]])),
      letters: (topic: string) => inside(inspector.deadLetters(topic, "g", page)),
      redrive: (topic: string, entries: ReadonlyArray<string>) => inside(inspector.redrive(topic, "g", entries)),
      describe: (topic: string) => inside(inspector.describe(topic)),
      group: (topic: string) =>
        Effect.map(inside(inspector.describe(topic)), ({ groups }) => {
          const [group] = groups
          assert(group !== undefined)
          return group
        })
    }
  })

  const test = (
    name: string,
    body: (skew: number) => Effect.Effect<void, unknown, Scope.Scope | RedisServer.RedisServer>,
    skip = false
  ) =>
    it.live.each([
      ["ahead", skewMillis],
      ["behind", -skewMillis]
    ] as const)(`${name}, its clock 400 s %s`, ([, skew]) =>
      skip
        ? Effect.void
        : body(skew).pipe(
            Effect.scoped,
            Effect.provide(RedisServer.layer()),
            Effect.provideService(References.MinimumLogLevel, "Error")
          )
    )

  /** Milliseconds that it took, by no wall clock. */
  const elapsed = <A, E, R>(self: Effect.Effect<A, E, R>) =>
    Effect.map(Effect.timed(self), ([took, value]) => [Duration.toMillis(took), value] as const)

  test("delays, retries and due times are the server's", (skew) =>
    Effect.gen(function* () {
      const { describe, group, join, now, publish, settle, take } = yield* program(skew)
      const receiver = yield* join("t")
      if (stores) {
        const [waited] = yield* elapsed(
          Effect.gen(function* () {
            yield* publish("t", { body: "delayed", due: { _tag: "After", delay: Duration.millis(300) } })
            const [delivery] = yield* take(receiver, 1)
            assert(delivery !== undefined)
            assert.closeTo(delivery.publishedAt, yield* now, tolerance)
            yield* settle(receiver, delivery, Settlement.ack)
          })
        )
        assert.isAtLeast(waited, 290)
        const due = { _tag: "At", epochMillis: (yield* now) + 300 } as const
        const [until] = yield* elapsed(
          Effect.andThen(
            publish("t", { body: "due", due }),
            Effect.flatMap(take(receiver, 1), ([delivery]) => settle(receiver, delivery!, Settlement.ack))
          )
        )
        assert.isAtLeast(until, 200)
        assert.isBelow(until, tolerance)
        yield* publish("t", { body: "far", due: { _tag: "After", delay: Duration.hours(1) } })
        const { nextDelayedAt } = yield* describe("t")
        assert.closeTo(nextDelayedAt ?? 0, (yield* now) + 3_600_000, tolerance)
      }
      yield* publish("t", "retried")
      const [first] = yield* take(receiver, 1)
      assert(first !== undefined)
      // Where the server keeps nothing, it does not note the time either: it is the publisher's.
      assert.closeTo(first.publishedAt, (yield* now) + (stores ? 0 : skew), tolerance)
      const [again, [second]] = yield* elapsed(
        Effect.andThen(settle(receiver, first, Settlement.retry(Duration.millis(300), "not yet")), take(receiver, 1))
      )
      assert.isAtLeast(again, 290)
      assert.isBelow(again, tolerance)
      assert(second !== undefined)
      assert.strictEqual(second.attempt, 2)
      yield* settle(receiver, second, Settlement.retry(Duration.hours(1), "later"))
      yield* becomes(
        "when the retry is due",
        Effect.gen(function* () {
          const { nextRetryAt } = yield* group("t")
          return Math.abs((nextRetryAt ?? 0) - (yield* now) - 3_600_000) < tolerance
        }),
        true
      )
    }))

  test("dead letters, their age and what is held are the server's", (skew) =>
    Effect.gen(function* () {
      const { group, join, letters, now, publish, redrive, settle, take } = yield* program(skew)
      const right = yield* program(0)
      const receiver = yield* join("t")
      yield* publish("t", "held")
      const [held] = yield* take(receiver, 1)
      assert(held !== undefined)
      if (stores) {
        const { consumers, oldestPendingMillis } = yield* group("t")
        assert.isBelow(oldestPendingMillis, tolerance)
        const [{ leaseLeftMillis = -1 } = {}] = consumers
        assert.isTrue(leaseLeftMillis > 0 && leaseLeftMillis <= Duration.toMillis(lease), `${leaseLeftMillis} ms left`)
      }
      assert.deepStrictEqual(yield* settle(receiver, held, Settlement.deadLetter("Broken", "cause")), ["Settled"])
      // The letters are kept for a minute: by neither clock has it passed.
      for (const asked of [letters, right.letters]) {
        const told = yield* asked("t")
        assert.strictEqual(told.length, 1)
        assert.closeTo(told[0]?.diedAt ?? 0, yield* now, tolerance)
      }
      const [letter] = yield* letters("t")
      assert.strictEqual(yield* redrive("t", [letter?.entry ?? ""]), 1)
      const [back] = yield* take(receiver, 1)
      assert(back !== undefined)
      assert.deepStrictEqual(yield* settle(receiver, back, Settlement.ack), ["Settled"])
    }))

  test(
    "leases, heartbeats and ids are the server's",
    (skew) =>
      Effect.gen(function* () {
        const wrong = yield* program(skew)
        const other = yield* program(-skew)
        const receiver = yield* wrong.join("t")
        const peer = yield* other.join("t")
        const [stored] = yield* wrong.publish("t", { body: "kept", id: "x" })
        assert.strictEqual(stored?._tag, "Stored")
        const [again] = yield* other.publish("t", { body: "kept", id: "x" })
        assert.strictEqual(again?._tag, "Duplicate")
        const [kept] = yield* wrong.take(receiver, 1)
        assert(kept !== undefined)
        const taking = yield* Effect.forkChild(other.take(peer, 1), { startImmediately: true })
        yield* Effect.sleep(Duration.times(lease, 2))
        assert.isUndefined(taking.pollUnsafe(), "the peer took what is still held")
        // Its window of two seconds is over.
        assert.strictEqual((yield* wrong.publish("t", { body: "new", id: "x" }))[0]?._tag, "Stored")
        const [fresh] = yield* Fiber.join(taking)
        assert.strictEqual(fresh?.body, "new")
        assert.deepStrictEqual(yield* wrong.settle(receiver, kept, Settlement.ack), ["Settled"])
        // One that stands still loses what it holds within about a lease.
        yield* wrong.publish("t", "lost")
        const [lost] = yield* wrong.take(receiver, 1)
        assert(lost !== undefined)
        yield* wrong.inside(freeze(receiver))
        const [took, [claimed]] = yield* elapsed(other.take(peer, 1))
        assert.strictEqual(claimed?.body, "lost")
        assert.strictEqual(claimed?.attempt, 2)
        assert.isBelow(took, tolerance)
        assert.deepStrictEqual(yield* wrong.settle(receiver, lost, Settlement.ack), ["Stale"])
      }),
    !stores
  )
})
