/**
 * Leases that are lost while nobody can be asked. The handler that has lost one ends before its successor begins.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Deferred, Effect, Exit, Fiber, Logger, Scope } from "effect"
import type { Delivery } from "waybill"
import { becomes } from "../redis/Fixture.ts"
import { sampled } from "../Sample.ts"
import { person, type Step, story, storing } from "./Storing.ts"

const play = <A, E>(test: Effect.Effect<A, E, RedisServer.RedisServer | Scope.Scope>) =>
  test.pipe(Effect.scoped, Effect.provide(RedisServer.layer()), Effect.provide(Logger.layer([])))

/** Blocks the event loop, as garbage collection, a long loop or a stopped process does. */
const standStill = (millis: number) =>
  Effect.sync(() => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis))

describe.each(sampled("leases", storing, 2))("a lease, %s", (pattern) => {
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
        assert.strictEqual(lost.length, 1)
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
      yield* one.publish("m")
      const inHand = yield* one.publish("in hand")
      const givenUp = () =>
        one.events.some((event) =>
          event._tag === "LeaseLost"
            ? event.deliveries.some(({ id }) => id === inHand.id)
            : event._tag === "Settled" && event.delivery.id === inHand.id
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

  /** Attempt and fence of what has begun, in order. */
  const deliveries = (steps: ReadonlyArray<Step>) => steps.flatMap(([, what]) => /^began (.*)$/.exec(what)?.[1] ?? [])

  it.live("case A14: the attempt of a lost lease counts when it comes again, wherever it had come from", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const proxy = yield* FaultProxy.make(server.port)
      const [one, two] = [yield* person(pattern, proxy.url), yield* person(pattern, server.url)]
      const { steps, tell, until } = story()
      yield* one.publish("m")
      const begin = (_: string, { attempt, fence }: Delivery.Delivery) =>
        Effect.andThen(tell("A", `began ${attempt} ${fence}`), Effect.never)
      // It interrupts and releases: that is no attempt, and the next one gets it as what came back.
      yield* two
        .consume(begin)
        .pipe(Effect.andThen(until("A", "began 1 1")), Effect.andThen(Effect.sleep("100 millis")), Effect.scoped)
      yield* one.consume(begin)
      yield* until("A", "began 1 2")
      yield* proxy.blackhole
      yield* Effect.sleep("3 seconds")
      yield* proxy.pass
      yield* until("A", "began 2 3")
      assert.deepStrictEqual(deliveries(steps), ["1 1", "1 2", "2 3"])
    }).pipe(play)
  )

  it.live(
    "case A14: the attempt of a lost lease counts when its consumer leaves before it has heard of the server",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.RedisServer
        const proxy = yield* FaultProxy.make(server.port)
        const [one, two] = [yield* person(pattern, proxy.url), yield* person(pattern, server.url)]
        const { steps, tell, until } = story()
        yield* one.publish("m")
        const scope = yield* Scope.make()
        yield* one
          .consume(
            (_, { attempt, fence }) =>
              tell("A", `began ${attempt} ${fence}`).pipe(
                Effect.andThen(Effect.never),
                Effect.onInterrupt(() => tell("A", "was interrupted"))
              ),
            { shutdown: "3 seconds" }
          )
          .pipe(Scope.provide(scope))
        yield* until("A", "began 1 1")
        yield* proxy.blackhole
        yield* until("A", "was interrupted")
        const leaving = yield* Effect.forkChild(Scope.close(scope, Exit.void))
        // What was on its way is lost.
        yield* proxy.reset
        yield* proxy.pass
        yield* Fiber.join(leaving)
        yield* two.consume((_, { attempt, fence }) => tell("B", `began ${attempt} ${fence}`))
        yield* until("B", "began 2 2")
        assert.deepStrictEqual(deliveries(steps), ["1 1", "2 2"])
      }).pipe(play)
  )

  it.live("case A14: the attempt of a handler that has ended counts when its consumer could not say so and left", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const proxy = yield* FaultProxy.make(server.port)
      const [one, two] = [yield* person(pattern, proxy.url), yield* person(pattern, server.url)]
      const { steps, tell, until } = story()
      const end = yield* Deferred.make<void>()
      yield* one.publish("m")
      const scope = yield* Scope.make()
      yield* one
        .consume(
          (_, { attempt, fence }) =>
            tell("A", `began ${attempt} ${fence}`).pipe(
              Effect.andThen(Deferred.await(end)),
              Effect.andThen(tell("A", "ended"))
            ),
          { shutdown: "3 seconds", lease: "30 seconds" }
        )
        .pipe(Scope.provide(scope))
      yield* until("A", "began 1 1")
      yield* proxy.blackhole
      yield* Deferred.succeed(end, undefined)
      yield* until("A", "ended")
      const leaving = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      // It has given up its last settlements, and tries to leave.
      while (!one.events.some(({ _tag }) => _tag === "ConsumerStopped")) yield* Effect.sleep(10)
      // What was on its way is lost.
      yield* proxy.reset
      yield* proxy.pass
      yield* Fiber.join(leaving)
      yield* two.consume((_, { attempt, fence }) => tell("B", `began ${attempt} ${fence}`))
      yield* until("B", "began 2 2")
      assert.deepStrictEqual(deliveries(steps), ["1 1", "2 2"])
    }).pipe(play)
  )
})
