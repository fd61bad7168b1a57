import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Result, Schema, Stream } from "effect"
import { Log, Producer, Topic, type Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"

const Numbers = Topic.make("numbers", { payload: Schema.Int })
const Words = Topic.make("numbers", { payload: Schema.String })

const numbers = (count: number) =>
  Producer.publishAll(
    Numbers,
    Array.from({ length: count }, (_, i) => i)
  )

const payloads = (entries: ReadonlyArray<Log.Entry<number>>) =>
  entries.map(({ payload }) => (Result.isSuccess(payload) ? payload.success : payload.failure._tag))

const inMemory = <A, E>(program: Effect.Effect<A, E, Transport.AtLeastOnce>) =>
  Effect.provide(program, MemoryStreams.layer())

describe("Log", () => {
  it.effect("goes forwards behind a position, and says nothing at the end", () =>
    inMemory(
      Effect.gen(function* () {
        yield* numbers(5)
        const page = yield* Log.first(Numbers, { limit: 3 })
        assert.deepStrictEqual(payloads(page), [0, 1, 2])
        const next = yield* Log.first(Numbers, { after: page.at(-1)?.position, limit: 3 })
        assert.deepStrictEqual(payloads(next), [3, 4])
        assert.deepStrictEqual(yield* Log.first(Numbers, { after: next.at(-1)?.position, limit: 3 }), [])
      })
    )
  )

  it.effect("goes backwards in front of a position, each page oldest first", () =>
    inMemory(
      Effect.gen(function* () {
        yield* numbers(5)
        const page = yield* Log.last(Numbers, { limit: 2 })
        assert.deepStrictEqual(payloads(page), [3, 4])
        const older = yield* Log.last(Numbers, { before: page[0]?.position, limit: 2 })
        assert.deepStrictEqual(payloads(older), [1, 2])
        const oldest = yield* Log.last(Numbers, { before: older[0]?.position, limit: 2 })
        assert.deepStrictEqual(payloads(oldest), [0])
        assert.deepStrictEqual(yield* Log.last(Numbers, { before: oldest[0]?.position, limit: 2 }), [])
      })
    )
  )

  it.effect("streams the messages that are not due yet, the next one first, also while they are removed", () =>
    inMemory(
      Effect.gen(function* () {
        const { inspector } = yield* Numbers.on
        const publish = (payloads: ReadonlyArray<number>) =>
          Producer.publishAll(Numbers, payloads, (n) => ({ id: `n-${n}`, delay: Duration.minutes(2000 - n) }))
        yield* publish(Array.from({ length: 1200 }, (_, n) => n))
        yield* Producer.publish(Numbers, 5000)
        yield* Log.delayed(Numbers).pipe(
          Stream.filter(({ payload }) => Result.isSuccess(payload) && payload.success % 400 !== 0),
          Stream.runForEach(({ id }) => inspector.removeMessage(Numbers.name, id))
        )
        const left = yield* Stream.runCollect(Log.delayed(Numbers))
        assert.deepStrictEqual(
          left.map(({ id }) => id),
          ["n-800", "n-400", "n-0"]
        )
        const [wrong] = yield* Stream.runCollect(Log.delayed(Words))
        assert(wrong !== undefined && Result.isFailure(wrong.payload))
      })
    )
  )

  it.effect("streams more than a page, whole or from a position, and ends where the log ends", () =>
    inMemory(
      Effect.gen(function* () {
        yield* numbers(1200)
        const all = yield* Stream.runCollect(Log.stream(Numbers))
        assert.deepStrictEqual(
          payloads(all),
          Array.from({ length: 1200 }, (_, i) => i)
        )
        const rest = yield* Stream.runCollect(Log.stream(Numbers, { after: all[1197]?.position }))
        assert.deepStrictEqual(payloads(rest), [1198, 1199])
      })
    )
  )

  it.effect("an entry that is no payload keeps its place and its raw body", () =>
    inMemory(
      Effect.gen(function* () {
        yield* Producer.publish(Words, "one")
        yield* numbers(1)
        const page = yield* Log.first(Numbers, { limit: 10 })
        assert.deepStrictEqual(payloads(page), ["DecodeFailure", 0])
        assert.strictEqual(page[0]?.body, '"one"')
      })
    )
  )
})
