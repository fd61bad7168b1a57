/**
 * Leases that are lost while nobody can be asked. The handler that has lost one ends before its successor begins.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Deferred, Effect, Logger, type Scope } from "effect"
import { becomes } from "../redis/Stage.ts"
import { person, story, storing } from "./Storing.ts"

const play = <A, E>(test: Effect.Effect<A, E, RedisServer.RedisServer | Scope.Scope>) =>
  test.pipe(Effect.scoped, Effect.provide(RedisServer.layer()), Effect.provide(Logger.layer([])))

/** Blocks the event loop, as garbage collection, a long loop or a stopped process does. */
const standStill = (millis: number) =>
  Effect.sync(() => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis))

describe.each(storing)("a lease, %s", (pattern) => {
  /** A has begun a message, then its connections carry nothing any more; B is there. */
  const cutOff = Effect.fnUntraced(function* (
    leaseLost: "interrupt" | "continue" | undefined,
    others: ReadonlyArray<string> = []
  ) {
    const server = yield* RedisServer.RedisServer
    const proxy = yield* FaultProxy.make(server.port)
    const [one, two] = [yield* person(pattern, proxy.url), yield* person(pattern, server.url)]
    const { order, tell, until } = story()
    const end = yield* Deferred.make<void>()
    for (const body of ["m", ...others]) yield* one.publish(body)
    yield* one.consume(
      (body, { attempt }) =>
        tell("A", `began ${body}`, attempt).pipe(
          Effect.andThen(Deferred.await(end)),
          Effect.andThen(tell("A", `ended ${body}`)),
          Effect.onInterrupt(() => tell("A", `was interrupted in ${body}`))
        ),
      leaseLost === undefined ? {} : { leaseLost }
    )
    yield* until("A", "began m")
    yield* proxy.blackhole
    return { one, two, proxy, end, order, tell, until }
  })

  it.live(
    "case A14: A's connection carries nothing: it is interrupted before B begins, and has nothing new until it is back",
    () =>
      Effect.gen(function* () {
        const { one, order, proxy, tell, two, until } = yield* cutOff(undefined)
        yield* two.consume((body) => Effect.andThen(tell("B", `began ${body}`), Effect.sleep(1)))
        yield* until("B", "began m")
        assert.deepStrictEqual(order(), ["A began m", "A was interrupted in m", "B began m"])
        const lost = one.events.flatMap((event) => (event._tag === "LeaseLost" ? event.deliveries : []))
        assert.deepStrictEqual(
          lost.map(({ body }) => body),
          ['"m"']
        )
        yield* proxy.pass
        yield* two.publish("n")
        yield* Effect.raceFirst(until("A", "began n"), until("B", "began n"))
        assert.deepStrictEqual(
          order().filter((step) => step.endsWith(" m")),
          ["A began m", "A was interrupted in m", "B began m"]
        )
      }).pipe(play)
  )

  it.live("case A14: nobody else is there: it is interrupted, and comes again when the connection is back", () =>
    Effect.gen(function* () {
      const { order, proxy, until } = yield* cutOff(undefined)
      yield* until("A", "was interrupted in m")
      yield* proxy.pass
      yield* until("A", "began m", 2)
      assert.deepStrictEqual(order(), ["A began m", "A was interrupted in m", "A began m"])
    }).pipe(play)
  )

  it.live("case A14: after the event loop stood still, nothing that was in hand begins before it was given up", () =>
    Effect.gen(function* () {
      const one = yield* person(pattern, (yield* RedisServer.RedisServer).url)
      const { order, tell, until } = story()
      for (const body of ["m", "in hand"]) yield* one.publish(body)
      const givenUp = () =>
        one.events.some((event) =>
          event._tag === "LeaseLost"
            ? event.deliveries.some(({ body }) => body === '"in hand"')
            : event._tag === "Settled" && event.delivery.body === '"in hand"'
        )
      yield* one.consume((body, { attempt }) =>
        body === "m"
          ? Effect.andThen(Effect.sleep(100), attempt === 1 ? standStill(5000) : Effect.void)
          : Effect.andThen(tell("A", givenUp() ? "had given it up" : "had not given it up"), tell("A", "began"))
      )
      yield* until("A", "began")
      assert.strictEqual(order()[0], "A had given it up")
    }).pipe(play)
  )

  it.live("case A14: leaseLost continue: what has not begun does not begin until the connection is back", () =>
    Effect.gen(function* () {
      const { end, order, proxy, two, until } = yield* cutOff("continue", ["n"])
      yield* Effect.sleep("3 seconds")
      yield* Deferred.succeed(end, undefined)
      yield* until("A", "ended m")
      yield* Effect.sleep("1 second")
      assert.deepStrictEqual(order(), ["A began m", "A ended m"])
      yield* proxy.pass
      yield* until("A", "ended n")
      yield* becomes("nothing is left", Effect.orDie(two.left), [0, 0])
      assert.deepStrictEqual(order(), ["A began m", "A ended m", "A began n", "A ended n"])
    }).pipe(play)
  )

  it.live("case A14: leaseLost continue: A runs on beside B, and its settlement is refused", () =>
    Effect.gen(function* () {
      const { end, one, order, proxy, tell, two, until } = yield* cutOff("continue")
      yield* two.consume((body) => tell("B", `began ${body}`))
      yield* until("B", "began m")
      yield* proxy.pass
      yield* Deferred.succeed(end, undefined)
      yield* until("A", "ended m")
      assert.deepStrictEqual(order(), ["A began m", "B began m", "A ended m"])
      const settled = () => one.events.flatMap((event) => (event._tag === "Settled" ? [event.stale] : []))
      while (settled().length === 0) yield* Effect.sleep(10)
      assert.deepStrictEqual(settled(), [true])
    }).pipe(play)
  )

  it.live("case A14: leaseLost continue with nobody else: its settlement holds", () =>
    Effect.gen(function* () {
      const { end, one, order, proxy, until } = yield* cutOff("continue")
      yield* Effect.sleep("3 seconds")
      yield* proxy.pass
      yield* Deferred.succeed(end, undefined)
      yield* until("A", "ended m")
      const settled = () => one.events.flatMap((event) => (event._tag === "Settled" ? [event.stale] : []))
      while (settled().length === 0) yield* Effect.sleep(10)
      assert.deepStrictEqual(settled(), [false])
      assert.deepStrictEqual(order(), ["A began m", "A ended m"])
    }).pipe(play)
  )
})
