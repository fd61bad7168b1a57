import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Producer, Replies, Topic, Transport } from "waybill"
import { MemoryPubSub, MemoryStreams } from "waybill/memory"
import { quiet } from "./Running.ts"

class NoSuchItem extends Schema.TaggedError<NoSuchItem>()("NoSuchItem", { item: Schema.String }) {}
class Down extends Schema.TaggedError<Down>()("Down", {}) {}

const Quote = Topic.request(Topic.make("quotes", { payload: Schema.Struct({ item: Schema.String }) }), {
  success: Schema.Struct({ cents: Schema.Int, at: Schema.Date }),
  error: NoSuchItem
})

const at = new Date(0)

/** Begun handlers, by item. */
const quotes = (begun: Array<string> = []) =>
  Consumer.make(Quote, { group: "quotes", concurrency: 8 }).pipe(
    Consumer.respond(Quote, ({ item }, { attempt }) => {
      begun.push(item)
      switch (item) {
        case "tea":
          return Effect.succeed({ cents: 250, at })
        case "slow":
          return Effect.never
        case "later":
          return attempt === 1 ? Effect.fail(new Down()) : Effect.succeed({ cents: attempt, at })
        case "wrong":
          return Effect.succeed({ cents: 0.5, at })
        case "broken":
          return Effect.die("broken")
        case "down":
          return Effect.fail(new Down())
        default:
          return Effect.fail(new NoSuchItem({ item }))
      }
    }),
    Consumer.onFailure({ Down: Consumer.retry(Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 2 }))) })
  )

const transports = Layer.merge(MemoryStreams.layer(), MemoryPubSub.layer())

const answering = (begun?: Array<string>) =>
  Layer.merge(Consumer.layer(quotes(begun)), Replies.layer).pipe(Layer.provideMerge(transports))

const ask = (item: string, options?: Producer.RequestOptions) => Producer.request(Quote, { item }, options)

/** Lets time pass until it has ended. */
const ended = Effect.fnUntraced(function* <A, E, R>(effect: Effect.Effect<A, E, R>) {
  const fiber = yield* Effect.forkChild(effect)
  for (let second = 0; second < 60 && fiber.pollUnsafe() === undefined; second++) {
    yield* quiet()
    yield* TestClock.adjust("1 second")
  }
  return fiber.pollUnsafe() ?? assert.fail("it does not end")
})

describe("Producer.request", () => {
  it.effect("is answered with what the handler returned, or with the failure that the topic declares", () =>
    Effect.gen(function* () {
      const answers = yield* Effect.all([ask("tea"), Effect.flip(ask("wine")), ask("tea")], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(answers, [{ cents: 250, at }, new NoSuchItem({ item: "wine" }), { cents: 250, at }])
      assert.deepStrictEqual(yield* ended(ask("later")), Exit.succeed({ cents: 2, at }))
    }).pipe(Effect.provide(answering()))
  )

  it.effect("is told when its message dies, whatever it dies of", () =>
    Effect.gen(function* () {
      const why = (item: string) =>
        Effect.map(ended(ask(item)), (exit) => {
          assert(Exit.isFailure(exit))
          const failure = Exit.findErrorOption(exit)
          assert(failure._tag === "Some" && failure.value._tag === "Unanswered", String(exit))
          return `${failure.value.why} ${failure.value.detail}`
        })
      assert.strictEqual(yield* why("broken"), "DeadLettered Defect")
      assert.strictEqual(yield* why("down"), "DeadLettered Down")
      assert.strictEqual(yield* why("wrong"), "DeadLettered Defect")
    }).pipe(Effect.provide(answering()))
  )

  it.effect("ends at its deadline, which travels: nothing is begun after it, and what runs is interrupted", () =>
    Effect.gen(function* () {
      const begun: Array<string> = []
      // Their callers have died meanwhile.
      const within = (millis: number) => ({ headers: { "reply-to": "nobody", "reply-within": String(millis) } })
      yield* Producer.publish(Quote, { item: "late" }, within(9_999))
      yield* Producer.publish(Quote, { item: "in time" }, within(11_000))
      yield* TestClock.adjust("10 seconds")
      yield* Producer.publish(Quote, { item: "plain" })
      yield* Effect.gen(function* () {
        yield* quiet()
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(begun.toSorted(), ["in time", "plain"])
        assert.include(String(yield* ended(ask("slow", { timeout: "5 seconds" }))), "TimedOut")
        yield* TestClock.adjust("1 second")
        const transport = yield* Transport.AtLeastOnce
        const [group] = (yield* transport.inspector.describe(Quote.name)).groups
        assert.deepStrictEqual([group?.pending, group?.waiting, group?.deadLetters], [0, 0, 0])
      }).pipe(Effect.provide(Consumer.layer(quotes(begun))))
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(transports))))
  )

  it.effect("is taken back when its caller gives up before a handler has begun, unless others want it too", () =>
    Effect.gen(function* () {
      const { inspector } = yield* Transport.AtLeastOnce
      const depth = Effect.map(inspector.describe(Quote.name), (info) => info.depth)
      const fiber = yield* Effect.forkChild(ask("tea"))
      yield* quiet()
      assert.strictEqual(yield* depth, 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* depth, 0)
      assert.include(String(yield* ended(ask("tea", { timeout: "2 seconds" }))), "TimedOut")
      assert.strictEqual(yield* depth, 0)

      const begun: Array<string> = []
      yield* Effect.gen(function* () {
        const slow = yield* Effect.forkChild(ask("slow", { timeout: "5 minutes" }))
        yield* quiet()
        yield* Fiber.interrupt(slow)
        yield* quiet()
        yield* TestClock.adjust("2 seconds")
        const [group] = (yield* inspector.describe(Quote.name)).groups
        assert.deepStrictEqual([group?.pending, group?.deadLetters], [0, 1], "its handler was interrupted")
      }).pipe(Effect.provide(Consumer.layer(quotes(begun))))

      const audit = Consumer.make(Quote, { group: "audit" }).pipe(Consumer.process(() => Effect.void))
      yield* Effect.provide(quiet(), Consumer.layer(audit))
      const other = yield* Effect.forkChild(ask("tea"))
      yield* quiet()
      yield* Fiber.interrupt(other)
      assert.strictEqual(yield* depth, 1, "the other group has not had it")
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(transports))))
  )

  it.effect("does not wait on a transport whose consumers share messages", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(ask("tea"))
      assert.strictEqual(failure._tag === "TransportError" && failure.reason._tag, "NotOffered")
      assert.include(failure.message, "repliesOn")
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))))
  )

  it.effect("is forgotten with its caller", () =>
    Effect.gen(function* () {
      const replies = yield* Replies.Replies
      const waiting = yield* replies.to(Quote.replies)
      const fiber = yield* Effect.forkChild(ask("slow"))
      yield* quiet()
      assert.strictEqual(waiting.size, 1)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(waiting.size, 0)
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(transports))))
  )
})
