/**
 * A group destroyed while its consumers run, with the topic and the group's own state still in place, continues where it
 * left off.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, freeze, RedisServer } from "@waybill/testing"
import { Duration, Effect, Layer } from "effect"
import { type Delivery, Settlement, type Transport } from "waybill"
import * as Fixture from "./Fixture.ts"

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

const numbers = (count: number): readonly [string, ...Array<string>] => [
  "0",
  ...Array.from({ length: count - 1 }, (_, i) => String(i + 1))
]

const fixture = Effect.gen(function* () {
  const made = yield* Fixture.make()
  const { groupKey, key, redis, settle, take } = made
  return {
    ...made,
    destroy: (...of: ReadonlyArray<"stream" | "retry">) =>
      Effect.promise(async () => {
        const multi = redis.multi()
        for (const name of of) multi.xgroup("DESTROY", name === "stream" ? key("stream") : groupKey("retry"), "g")
        await multi.exec()
      }),
    /** Another group holds everything in the stream. */
    keeper: made.join({ group: "keeps everything" }),
    recreated: (times: number) =>
      Fixture.becomes(
        "groups that were made again",
        Effect.sync(() => made.events.filter(({ _tag }) => _tag === "GroupRecreated").length),
        times
      ),
    /** Waits for a beat that began after now. */
    beat: Effect.gen(function* () {
      const ask = Effect.promise(async () => String(await redis.hget(groupKey("state"), "noted")))
      const before = yield* ask
      yield* Fixture.becomes(
        "a beat",
        Effect.map(ask, (now) => now !== before),
        true
      )
    }),
    /** Takes `id` and lets it wait again, until it has failed so often. */
    fail: Effect.fnUntraced(function* (receiver: Transport.Receiver, times: number, last: Duration.Duration) {
      const seen: Array<readonly [number, number]> = []
      for (let i = 1; i <= times; i++) {
        const [delivery] = yield* take(receiver, 1)
        seen.push([delivery!.attempt, delivery!.fence])
        yield* settle(receiver, [delivery!], Settlement.retry(i === times ? last : Duration.zero, "no"))
      }
      return seen
    }),
    /** All that comes within a while, settled at once. */
    rest: Effect.fnUntraced(function* (receiver: Transport.Receiver, millis: number) {
      const taken: Array<Delivery.Delivery> = []
      yield* Effect.forever(
        Effect.gen(function* () {
          const some = yield* receiver.take(100)
          taken.push(...some)
          yield* settle(receiver, some)
        })
      ).pipe(Effect.timeoutOption(millis))
      return taken
    })
  }
})

describe("groups that are destroyed", () => {
  for (const which of [["stream"], ["retry"], ["stream", "retry"]] as const) {
    it.live(`case A7: ${which.join(" and ")}: what waits for its fourth attempt goes on, once`, () =>
      Effect.gen(function* () {
        const { destroy, fail, join, keeper, publish, recreated, rest } = yield* fixture
        const receiver = yield* join()
        yield* keeper
        yield* publish({ body: "m", id: "m" })
        assert.deepStrictEqual(yield* fail(receiver, 3, Duration.seconds(2)), [
          [1, 1],
          [2, 2],
          [3, 3]
        ])
        yield* destroy(...which)
        yield* recreated(1)
        const taken = yield* rest(receiver, 4000)
        assert.deepStrictEqual(
          taken.map(({ attempt, fence, id }) => [id, attempt, fence]),
          [["m", 4, 4]]
        )
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }

  for (const waits of [true, false]) {
    it.live(`case A7: what was acknowledged does not come again, ${waits ? "a beat later" : "at once"}`, () =>
      Effect.gen(function* () {
        const { beat, destroy, join, keeper, publish, recreated, rest, settle, take } = yield* fixture
        const receiver = yield* join()
        yield* keeper
        yield* publish(...numbers(101))
        const taken = yield* take(receiver, 100)
        // The oldest is held to the end: where the group began again would be in front of all of them.
        const [first, ...others] = taken
        yield* settle(receiver, others)
        if (waits) yield* beat
        yield* destroy("stream", "retry")
        yield* recreated(1)
        assert.deepStrictEqual(
          (yield* rest(receiver, 1500)).map(({ body }) => body),
          ["100"]
        )
        assert.deepStrictEqual(yield* settle(receiver, [first!]), ["Settled"])
        assert.deepStrictEqual(yield* rest(receiver, 1500), [])
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }

  for (const waits of [true, false]) {
    it.live(`case A7: what consumers held is settled once each, ${waits ? "a beat later" : "at once"}`, () =>
      Effect.gen(function* () {
        const { beat, destroy, events, group, join, keeper, publish, recreated, settle, take } = yield* fixture
        const lease = Duration.seconds(2)
        const living = yield* join({ lease })
        const dead = yield* join({ lease })
        yield* keeper
        yield* publish("a", "b", "c", "d")
        const died = yield* take(dead, 2)
        const held = yield* take(living, 2)
        if (waits) yield* beat
        yield* freeze(dead)
        yield* destroy("stream", "retry")
        yield* recreated(1)
        const again = yield* take(living, 2)
        assert.deepStrictEqual(
          again.map(({ body, fence }) => [body, fence]),
          died.map(({ body }) => [body, 2])
        )
        if (waits) assert.deepStrictEqual(yield* settle(dead, died), ["Stale", "Stale"])
        assert.deepStrictEqual(yield* settle(living, [...again, ...held]), Array(4).fill("Settled"))
        yield* Fixture.becomes(
          "figures",
          Effect.map(group(), ({ lag, pending, waiting }) => [lag, pending, waiting]),
          [0, 0, 0]
        )
        const mine = new Set(held.map(({ id }) => id))
        assert.deepStrictEqual(
          events.flatMap((event) =>
            event._tag === "LeaseLost" ? event.deliveries.filter(({ id }) => mine.has(id)) : []
          ),
          [],
          "the living one kept what it held"
        )
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }

  for (const waits of [true, false]) {
    it.live(`case A7: one dead letter an id, ${waits ? "a beat later" : "at once"}, and twice in a row`, () =>
      Effect.gen(function* () {
        const { beat, destroy, join, keeper, letters, publish, recreated, rest, settle, take } = yield* fixture
        const receiver = yield* join()
        yield* keeper
        yield* publish({ body: "held", id: "held" }, { body: "m", id: "m" }, { body: "n", id: "n" })
        const [held, m, n] = yield* take(receiver, 3)
        yield* settle(receiver, [m!], Settlement.deadLetter("Bad", "x"))
        yield* settle(receiver, [n!], Settlement.retry(Duration.zero, "x"))
        const [again] = yield* take(receiver, 1)
        yield* settle(receiver, [again!], Settlement.deadLetter("Bad", "x"))
        if (waits) yield* beat
        for (const times of [1, 2]) {
          yield* destroy("stream", "retry")
          yield* recreated(times)
        }
        assert.deepStrictEqual(yield* rest(receiver, 1500), [])
        assert.deepStrictEqual(
          (yield* letters).map(({ attempts, id }) => [id, attempts]),
          [
            ["m", 1],
            ["n", 2]
          ]
        )
        assert.deepStrictEqual(yield* settle(receiver, [held!], Settlement.retry(Duration.zero, "x")), ["Settled"])
        const [last] = yield* take(receiver, 1)
        assert.deepStrictEqual([last?.id, last?.attempt, last?.fence], ["held", 2, 2])
      }).pipe(Effect.scoped, Effect.provide(servers))
    )
  }

  it.live("case A7: destroyed while the consumer is away: it goes on where the last one stood", () =>
    Effect.gen(function* () {
      const { destroy, join, joinAndLeave, keeper, publish, rest, settle, take } = yield* fixture
      const { leave, receiver } = yield* joinAndLeave()
      yield* keeper
      yield* publish("retried", "released", "acked", "unread")
      const [retried, , acked] = yield* take(receiver, 3)
      yield* settle(receiver, [retried!], Settlement.retry(Duration.millis(100), "x"))
      yield* settle(receiver, [acked!])
      yield* leave
      yield* destroy("stream", "retry")
      const taken = yield* rest(yield* join(), 2000)
      assert.deepStrictEqual(taken.map(({ attempt, body, fence }) => [body, attempt, fence]).sort(), [
        ["released", 1, 2],
        ["retried", 2, 2],
        ["unread", 1, 2]
      ])
    }).pipe(Effect.scoped, Effect.provide(servers))
  )
})
