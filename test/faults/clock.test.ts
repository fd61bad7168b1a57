/**
 * The wall clock of the server jumps. Everything that is due, lives or expires goes by it. The number is that of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer, ServerClock } from "@waybill/testing"
import { Deferred, Duration, Effect, Logger, type Scope } from "effect"
import { becomes } from "../redis/Fixture.ts"
import { sampled } from "../Sample.ts"
import { Failed, person, story, storing } from "./Storing.ts"

const hour = Duration.hours(1)
const back = Duration.negate(hour)

const play = <A, E>(test: Effect.Effect<A, E, Scope.Scope>) =>
  test.pipe(Effect.scoped, Effect.provide(Logger.layer([])))

/** A server whose clock jumps. */
const jumping = Effect.gen(function* () {
  const clock = yield* ServerClock.make
  return { ...(yield* RedisServer.make({ clock })), jump: clock.shift }
})

/** Milliseconds that it took. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(effect, () => performance.now() - began)
  })

const { unavailable } = ServerClock
const title = (text: string) => (unavailable === undefined ? text : `${text} (${unavailable})`)

describe.skipIf(unavailable !== undefined).each(sampled("clock", storing, 2))(
  title("the server's clock, %s"),
  (pattern) => {
    /** A has begun m and lives, or does not any more; the clock jumps, and B is there, since before or from then on. */
    const takeover = Effect.fnUntraced(function* (by: Duration.Duration, lives: boolean, early: boolean) {
      const { jump, port, url } = yield* jumping
      const proxy = yield* FaultProxy.make(port)
      const [one, two] = [yield* person(pattern, proxy.url), yield* person(pattern, url)]
      const { order, tell, until } = story()
      const end = yield* Deferred.make<void>()
      yield* one.publish("m")
      yield* one.consume((body) =>
        Effect.andThen(tell("A", `began ${body}`), Effect.andThen(Deferred.await(end), tell("A", `ended ${body}`)))
      )
      yield* until("A", "began m")
      const join = two.consume((body) => tell("B", `began ${body}`))
      if (early) yield* join
      if (!lives) yield* proxy.blackhole
      yield* jump(by)
      if (!early) yield* join
      return { end, one, order, two, until }
    })

    it.live.each([true, false])(
      "case A6, E34: an hour back, and a consumer dies: its messages are taken over after its lease (a peer is there: %s)",
      (early) =>
        Effect.gen(function* () {
          const { until } = yield* takeover(back, false, early)
          // The lease is two seconds; the rest is for a machine that has other things to do.
          assert.isBelow(yield* timed(until("B", "began m")), 8000)
        }).pipe(play)
    )

    it.live("case A6, E34: an hour back: a consumer that lives keeps what it holds", () =>
      Effect.gen(function* () {
        const { end, one, order, two, until } = yield* takeover(back, true, true)
        yield* Effect.sleep("5 seconds")
        yield* Deferred.succeed(end, undefined)
        yield* until("A", "ended m")
        yield* becomes("nothing is left", Effect.orDie(two.left), [0, 0])
        assert.deepStrictEqual(order(), ["A began m", "A ended m"])
        assert.isFalse(one.events.some(({ _tag }) => _tag === "LeaseLost"))
      }).pipe(play)
    )

    it.live("E34 an hour forward: a lease may end early, and every message is settled once", () =>
      Effect.gen(function* () {
        const { end, one, two, until } = yield* takeover(hour, true, true)
        yield* Deferred.succeed(end, undefined)
        yield* Effect.raceFirst(until("A", "ended m"), until("B", "began m"))
        yield* becomes("nothing is left", Effect.orDie(two.left), [0, 0])
        const settled = () => [...one.events, ...two.events].filter((event) => event._tag === "Settled" && !event.stale)
        // The store knows it before the consumer has the reply.
        yield* becomes(
          "it is settled",
          Effect.sync(() => settled().length > 0),
          true
        )
        assert.strictEqual(settled().length, 1)
      }).pipe(play)
    )

    it.live(
      "E34 back and forward: a retry is as early or as late as the clock, and what is published keeps its order",
      () =>
        Effect.gen(function* () {
          const { jump, url } = yield* jumping
          const { consume, left, publish } = yield* person(pattern, url)
          const { steps, tell, until } = story()
          yield* consume((body, { attempt }) =>
            Effect.andThen(
              tell("A", `began ${body}`, attempt),
              body.startsWith("fails") && attempt === 1 ? Effect.fail(new Failed()) : Effect.void
            )
          )
          // Its retry is due after two seconds.
          yield* publish("fails 1")
          yield* until("A", "began fails 1")
          yield* becomes("it waits", Effect.orDie(left), [1, 0])
          yield* jump(Duration.seconds(-3))
          const late = yield* timed(until("A", "began fails 1", 2))
          assert.isAbove(late, 3500)
          assert.isBelow(late, 10_000)
          yield* jump(Duration.zero)
          yield* publish("fails 2")
          yield* until("A", "began fails 2")
          yield* becomes("it waits", Effect.orDie(left), [1, 0])
          yield* jump(Duration.minutes(1))
          const early = yield* timed(until("A", "began fails 2", 2))
          assert.isBelow(early, 1900)
          const before = steps.length
          yield* publish("a")
          yield* jump(Duration.minutes(-10))
          yield* publish("b")
          yield* jump(Duration.zero)
          yield* publish("c")
          yield* until("A", "began c")
          assert.deepStrictEqual(
            steps.slice(before).map(([, what]) => what),
            ["began a", "began b", "began c"]
          )
          yield* becomes("nothing is left", Effect.orDie(left), [0, 0])
        }).pipe(play)
    )
  }
)
