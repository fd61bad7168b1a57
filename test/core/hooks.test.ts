import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Result, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type DeadLetters, type Lifecycle, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { quiet, stop } from "./Running.ts"

class Bad extends Schema.TaggedError<Bad>()("Bad", { n: Schema.Int }) {}
class Down extends Schema.TaggedError<Down>()("Down", {}) {}

const Numbers = Topic.make("numbers", { payload: Schema.Int })

/** Odd numbers die. */
const judge = Consumer.make(Numbers, { group: "judge", concurrency: 4 }).pipe(
  Consumer.process((n) => (n % 2 === 1 ? Effect.fail(new Bad({ n })) : Effect.succeed(`${n} is even`))),
  Consumer.onFailure({ Bad: Consumer.deadLetter() })
)

const numberOf = ({ payload }: DeadLetters.Decoded<number>) => Result.getOrElse(payload, () => -1)

const listening = Effect.gen(function* () {
  const transport = yield* Transport.AtLeastOnce
  const events: Array<Lifecycle.Event> = []
  yield* transport.lifecycle.listen((event) => events.push(event))
  return events
})

const started = <A, R>(consumer: Consumer.Consumer<A, never, R>) =>
  Effect.tap(Effect.forkChild(Consumer.run(consumer)), quiet)

describe("Consumer.onDeadLetter", () => {
  it.effect("runs once for each message that dies, in whatever way, and for nothing else", () =>
    Effect.gen(function* () {
      const died: Array<string> = []
      const hooked = judge.pipe(
        Consumer.onDeadLetter((letter) =>
          Effect.sync(() => died.push(`${numberOf(letter)} ${letter.reason} ${letter.failure?.fields["n"]}`))
        )
      )
      yield* Producer.publish(Numbers, 1)
      const before = yield* started(judge)
      yield* stop(before)
      const consumers = [yield* started(hooked), yield* started(hooked)]
      const transport = yield* Transport.AtLeastOnce
      yield* Producer.publishAll(Numbers, [2, 3, 4, 5])
      yield* transport.publish(Numbers.name, [
        { id: undefined, headers: {}, key: undefined, version: 1, due: undefined, body: "{" }
      ])
      yield* quiet()
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(died.sort(), ["-1 DecodeFailure undefined", "3 Bad 3", "5 Bad 5"])
      // While nobody listens, and afterwards.
      for (const consumer of consumers) yield* stop(consumer)
      yield* Producer.publish(Numbers, 7)
      yield* stop(yield* started(judge))
      yield* started(hooked)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(died.slice(3), ["7 Bad 7"])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("is retried by its own policy, holds up nobody, and its end is told", () =>
    Effect.gen(function* () {
      const events = yield* listening
      const tries = new Map<number, number>()
      const hooked = judge.pipe(
        Consumer.onDeadLetter(
          (letter) =>
            Effect.suspend(() => {
              const n = numberOf(letter)
              const count = (tries.get(n) ?? 0) + 1
              tries.set(n, count)
              return n === 1 || (n === 3 && count < 3)
                ? Effect.fail(new Down())
                : n === 5
                  ? Effect.die("five")
                  : Effect.void
            }),
          { retry: Schedule.spaced("1 minute").pipe(Schedule.upTo({ times: 4 })) }
        )
      )
      yield* started(hooked)
      yield* Producer.publishAll(Numbers, [1, 3, 5, 7])
      yield* quiet()
      assert.deepStrictEqual([...tries.values()], [1, 1, 1, 1])
      for (let minute = 0; minute < 6; minute++) yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        [...tries],
        [
          [1, 5],
          [3, 3],
          [5, 1],
          [7, 1]
        ]
      )
      const told = events.flatMap((event) => (event._tag === "DeadLetterUnhandled" ? [event.error] : []))
      assert.lengthOf(told, 2)
      assert.include(told[0], "five")
      assert.include(told[1], "Down")
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("what it has not finished when its consumer stops is run by the next", () =>
    Effect.gen(function* () {
      const died: Array<string> = []
      const first = judge.pipe(
        Consumer.onDeadLetter((letter) =>
          Effect.andThen(
            Effect.sync(() => died.push(`first ${numberOf(letter)}`)),
            letter.payload._tag === "Success" && letter.payload.success === 1 ? Effect.never : Effect.void
          )
        )
      )
      const one = yield* started(first)
      yield* Producer.publishAll(Numbers, [1, 3])
      yield* quiet()
      assert.deepStrictEqual(died.sort(), ["first 1", "first 3"])
      const { millis } = yield* stop(one)
      assert.isAtMost(millis, 21_000)
      yield* started(
        judge.pipe(Consumer.onDeadLetter((letter) => Effect.sync(() => died.push(`next ${numberOf(letter)}`))))
      )
      assert.deepStrictEqual(died.slice(2), ["next 1"])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("does not run again for a letter whose confirmation has failed", () =>
    Effect.gen(function* () {
      const died: Array<number> = []
      const hooked = judge.pipe(Consumer.onDeadLetter((letter) => Effect.sync(() => died.push(numberOf(letter)))))
      const inner = yield* Transport.AtLeastOnce
      const { claimDeadLetters } = inner
      assert(claimDeadLetters !== undefined)
      const reason = new Transport.NotOffered({ feature: "claims", detail: "" })
      let failed = false
      const failing = {
        ...inner,
        claimDeadLetters: (claim: Transport.DeadLetterClaim) =>
          Effect.suspend(() => {
            if (claim.handled.length === 0 || failed) return claimDeadLetters(claim)
            failed = true
            return Effect.fail(new Transport.TransportError({ operation: "receive", topic: Numbers.name, reason }))
          })
      }
      const first = yield* Effect.provideService(started(hooked), Transport.AtLeastOnce, failing)
      yield* Producer.publish(Numbers, 1)
      yield* quiet()
      yield* stop(first)
      assert(failed)
      yield* started(hooked)
      yield* TestClock.adjust("5 minutes")
      assert.deepStrictEqual(died, [1])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("one that has died with the hook under way is found once its claim has expired", () =>
    Effect.gen(function* () {
      const died: Array<number> = []
      yield* started(judge)
      const { claimDeadLetters } = yield* Transport.AtLeastOnce
      assert(claimDeadLetters !== undefined)
      const claim = claimDeadLetters({
        topic: Numbers.name,
        group: "judge",
        handled: [],
        held: [],
        limit: 10,
        lease: Duration.minutes(1),
        from: undefined
      })
      yield* claim
      yield* Producer.publish(Numbers, 9)
      yield* quiet()
      assert.lengthOf((yield* claim).letters, 1)
      yield* started(judge.pipe(Consumer.onDeadLetter((letter) => Effect.sync(() => died.push(numberOf(letter))))))
      yield* TestClock.adjust("59 seconds")
      assert.deepStrictEqual(died, [])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(died, [9])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )
})

describe("hooks that wait", () => {
  const counted = Effect.fnUntraced(function* () {
    const inner = yield* Transport.AtLeastOnce
    const counts = { claims: 0 }
    const transport = {
      ...inner,
      claimDeadLetters: (claim: Transport.DeadLetterClaim) =>
        Effect.suspend(() => {
          counts.claims++
          assert(inner.claimDeadLetters !== undefined)
          return inner.claimDeadLetters(claim)
        })
    }
    return { counts, transport }
  })

  it.effect("ask for nothing while there is nothing, however long", () =>
    Effect.gen(function* () {
      const died: Array<number> = []
      const hooked = judge.pipe(Consumer.onDeadLetter((letter) => Effect.sync(() => died.push(numberOf(letter)))))
      const { counts, transport } = yield* counted()
      yield* Effect.provideService(started(hooked), Transport.AtLeastOnce, transport)
      yield* Producer.publish(Numbers, 1)
      yield* quiet()
      assert.deepStrictEqual(died, [1])
      const before = counts.claims
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(counts.claims, before)
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("one that takes longer than the lease runs once", () =>
    Effect.gen(function* () {
      const died: Array<string> = []
      const hooked = Consumer.make(Numbers, { group: "judge", lease: "3 seconds" }).pipe(
        Consumer.process((n) => Effect.fail(new Bad({ n }))),
        Consumer.onFailure({ Bad: Consumer.deadLetter() }),
        Consumer.onDeadLetter((letter) =>
          Effect.andThen(
            Effect.sync(() => died.push(`begins ${numberOf(letter)}`)),
            Effect.andThen(
              Effect.sleep("1 minute"),
              Effect.sync(() => died.push("ends"))
            )
          )
        )
      )
      yield* started(hooked)
      yield* started(hooked)
      yield* Producer.publish(Numbers, 1)
      yield* quiet()
      for (let second = 0; second < 65; second++) yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(died, ["begins 1", "ends"])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )
})

describe("Consumer.onSettled", () => {
  it.effect("runs after each settlement, with what the handler returned, also while the consumer stops", () =>
    Effect.gen(function* () {
      const ended: Array<string> = []
      const hooked = judge.pipe(
        Consumer.onSettled(({ settled, settlement, value }) =>
          Effect.andThen(
            Effect.sleep("1 second"),
            Effect.sync(() => ended.push(`${settlement._tag} ${settled} ${value._tag === "Some" ? value.value : ""}`))
          )
        ),
        Consumer.onSettled(() => Effect.die("a broken hook harms nobody"))
      )
      const fiber = yield* started(hooked)
      yield* Producer.publishAll(Numbers, [2, 3])
      yield* quiet()
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(ended.sort(), ["Ack Settled 2 is even", "DeadLetter Settled "])
      yield* Producer.publish(Numbers, 4)
      yield* quiet()
      assert.lengthOf(ended, 2)
      yield* stop(fiber)
      assert.deepStrictEqual(ended.slice(2), ["Ack Settled 4 is even"])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )
})
