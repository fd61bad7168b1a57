import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Latch, Layer, Option, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, Producer, Replies, Topic, Transport } from "waybill"
import { MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { quiet, stop } from "./Running.ts"

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

/** The same transport, with other methods. */
const changed = <On>(name: Transport.Name<On>, methods: (inner: Transport.Transport) => Partial<Transport.Transport>) =>
  Layer.effectContext(
    Effect.contextWith((context: Context.Context<On>) => {
      const inner = Context.get(context, name)
      return Effect.succeed(Context.make(name, { ...inner, ...methods(inner) }))
    })
  )

const lost = new Transport.TransportError({
  operation: "receive",
  topic: Quote.replies.name,
  reason: new Transport.Disconnected({ ambiguous: false, cause: "down" })
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

  it.effect("is not begun before the store tells the time, unless it never will", () =>
    Effect.gen(function* () {
      const begun: Array<string> = []
      let reason: Transport.TransportError["reason"] | undefined = lost.reason
      const now = Effect.suspend(() =>
        reason === undefined
          ? Effect.clockWith((clock) => clock.currentTimeMillis)
          : Effect.fail(new Transport.TransportError({ operation: "receive", topic: Quote.name, reason }))
      )
      const within = (millis: number) => ({ headers: { "reply-to": "nobody", "reply-within": String(millis) } })
      yield* Producer.publish(Quote, { item: "late" }, within(12_000))
      yield* Producer.publish(Quote, { item: "in time" }, within(60_000))
      yield* TestClock.adjust("10 seconds")
      yield* Producer.publish(Quote, { item: "unknown" }, within(1_000))
      yield* Effect.gen(function* () {
        yield* quiet()
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(begun, [])
        reason = undefined
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(begun, ["in time"])
      }).pipe(
        Effect.provide(
          Consumer.layer(quotes(begun)).pipe(Layer.provide(changed(Transport.AtLeastOnce, () => ({ now }))))
        )
      )
      reason = new Transport.NotOffered({ feature: "time", detail: "" })
      yield* Producer.publish(Quote, { item: "timeless" }, within(1_000))
      yield* quiet().pipe(
        Effect.provide(
          Consumer.layer(quotes(begun)).pipe(Layer.provide(changed(Transport.AtLeastOnce, () => ({ now }))))
        )
      )
      assert.deepStrictEqual(begun, ["in time", "timeless"])
    }).pipe(Effect.provide(transports))
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

  for (const [pattern, layer] of Object.entries({ lists: MemoryLists.layer(), keyspace: MemoryKeyspace.layer() })) {
    it.effect(`on ${pattern}, it is removed when its caller gives up, or cancelled while its handler runs`, () =>
      Effect.gen(function* () {
        const { inspector } = yield* Transport.AtLeastOnce
        const early = yield* Effect.forkChild(ask("tea"))
        yield* quiet()
        yield* Fiber.interrupt(early)
        assert.deepStrictEqual(yield* inspector.messages(Quote.name, { after: Option.none(), limit: 10 }), [])
        const begun: Array<string> = []
        yield* Effect.gen(function* () {
          const slow = yield* Effect.forkChild(ask("slow"))
          yield* quiet()
          yield* Fiber.interrupt(slow)
          yield* quiet()
          const letters = yield* inspector.deadLetters(Quote.name, "quotes", { after: Option.none(), limit: 10 })
          assert.deepStrictEqual(
            letters.map(({ reason }) => reason),
            ["Cancelled"]
          )
        }).pipe(Effect.provide(Consumer.layer(quotes(begun))))
        assert.deepStrictEqual(begun, ["slow"])
      }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(Layer.merge(layer, MemoryPubSub.layer())))))
    )
  }

  it.effect("does not wait on a transport whose consumers share messages", () =>
    Effect.gen(function* () {
      const failure = yield* Effect.flip(ask("tea"))
      assert.strictEqual(failure._tag === "TransportError" && failure.reason._tag, "NotOffered")
      assert.include(failure.message, "repliesOn")
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))))
  )

  it.effect("ends at its deadline while the store is unreachable, and is taken back once it was stored", () =>
    Effect.gen(function* () {
      const gate = Latch.makeUnsafe(false)
      const { inspector } = yield* Transport.AtLeastOnce
      const depth = Effect.map(inspector.describe(Quote.name), (info) => info.depth)
      yield* Effect.gen(function* () {
        const late = yield* Effect.forkChild(Effect.flip(ask("tea", { timeout: "1 second" })))
        const interrupted = yield* Effect.forkChild(ask("tea"))
        yield* quiet()
        const { millis } = yield* stop(interrupted)
        assert.isAtMost(millis, 1_000)
        const failure = late.pollUnsafe() ?? assert.fail("it does not end at its deadline")
        assert.include(String(failure), "a request on topic quotes has no answer: TimedOut")
        yield* gate.open
        yield* quiet()
        assert.strictEqual(yield* depth, 0)
      }).pipe(
        Effect.provide(
          changed(Transport.AtLeastOnce, ({ publish }) => ({
            publish: (...messages) => Effect.andThen(gate.await, publish(...messages))
          }))
        )
      )
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(transports))))
  )

  it.effect("subscribes once, whatever becomes of the requests that wait for it, and its deadline includes that", () =>
    Effect.gen(function* () {
      let reachable = false
      const { lifecycle } = yield* Transport.AtMostOnce
      const started: Array<string> = []
      yield* lifecycle.listen((event) => event._tag === "ConsumerStarted" && started.push(event.topic))
      const deadline = yield* Effect.gen(function* () {
        for (let n = 0; n < 3; n++) {
          const fiber = yield* Effect.forkChild(ask("tea"))
          yield* quiet()
          yield* stop(fiber)
        }
        const late = yield* Effect.forkChild(Effect.flip(ask("tea", { timeout: "1 second" })))
        yield* quiet()
        yield* TestClock.adjust("1 second")
        reachable = true
        const unheard = yield* Effect.forkChild(Effect.flip(ask("tea", { timeout: "20 seconds" })))
        yield* quiet()
        yield* TestClock.adjust("19 seconds")
        assert.isUndefined(unheard.pollUnsafe())
        yield* TestClock.adjust("1 second")
        assert.include(String(unheard.pollUnsafe()), "TimedOut")
        assert.deepStrictEqual(yield* Effect.provide(ask("tea"), Consumer.layer(quotes())), { cents: 250, at })
        return late.pollUnsafe()
      }).pipe(
        Effect.provide(
          changed(Transport.AtMostOnce, ({ receive }) => ({
            receive: (subscription) => Effect.suspend(() => (reachable ? receive(subscription) : Effect.fail(lost)))
          }))
        )
      )
      assert.include(String(deadline), "TimedOut")
      assert.deepStrictEqual(started, [Quote.replies.name])
    }).pipe(Effect.provide(Replies.layer.pipe(Layer.provideMerge(transports))))
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
