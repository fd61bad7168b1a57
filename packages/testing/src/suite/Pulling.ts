/**
 * Deliveries as a stream, unsettled.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Option, Schema, Stream } from "effect"
import { Consumer, Topic, Transport } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, settled } from "./Fixture.ts"

/** The result of `f` for the first `count` deliveries of the group `g`. */
const pull = <A, E>(
  { setting, topic, transport }: Fixture["Service"],
  count: number,
  f: (one: Consumer.Pulled<number>) => Effect.Effect<A, E>
) =>
  Consumer.deliveries(Topic.make(topic, { payload: Schema.Int, guarantee: "at-most-once" }), {
    group: "g",
    lease: setting.safeLease
  }).pipe(
    Stream.mapEffect(f),
    Stream.take(count),
    Stream.runCollect,
    // Weaker than most patterns' guarantee, so that this fits all of them.
    Effect.provideService(Transport.AtMostOnce, transport)
  )

export const pulling = [
  check(
    "a stream of deliveries is given what is published while it runs, and acknowledges it",
    [],
    Effect.fnUntraced(function* (fixture) {
      const { lifecycle } = fixture.transport
      const joined = yield* Deferred.make<void>()
      yield* lifecycle.listen((event) => {
        if (event._tag === "ConsumerStarted" && event.topic === fixture.topic) Deferred.doneUnsafe(joined, Exit.void)
      })
      const fiber = yield* Effect.forkChild(
        pull(fixture, 2, ({ ack, payload }) => Effect.map(ack, (settled) => `${payload} ${settled}`))
      )
      yield* Deferred.await(joined)
      yield* fixture.publish("1", "2")
      const told = yield* fixture.within("both deliveries", Fiber.join(fiber))
      assert.sameMembers(told, ["1 Settled", "2 Settled"])
    })
  ),

  check(
    "what a stream of deliveries leaves is the next one's; the attempt counts when the stream failed",
    ["history", "retry", "redelivery", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.publish("1", "rubbish")
      const attempt = ({ delivery }: Consumer.Pulled<number>) => Effect.succeed(delivery.attempt)
      const next = <A, E>(f: (one: Consumer.Pulled<number>) => Effect.Effect<A, E>) =>
        fixture.within("a delivery", pull(fixture, 1, f))
      assert.deepStrictEqual(yield* next(attempt), [1])
      assert.isTrue(Exit.hasFails(yield* Effect.exit(next((one) => Effect.flatMap(attempt(one), Effect.fail)))))
      assert.deepStrictEqual(yield* next(attempt), [2])
      assert.deepStrictEqual(yield* next(({ deadLetter }) => deadLetter("no-good")), ["Settled"])
      yield* fixture.becomes("both are dead letters", fixture.figures("g"), { ...settled, deadLetters: 2 })
      const letters = yield* fixture.inspector.deadLetters(fixture.topic, "g", { after: Option.none(), limit: 2 })
      assert.sameMembers(
        letters.map(({ attempts, reason }) => `${reason} ${attempts}`),
        ["DecodeFailure 1", "no-good 2"]
      )
    })
  )
]
