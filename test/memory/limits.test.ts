import { assert, describe, it } from "@effect/vitest"
import { freeze, Probe } from "@waybill/testing"
import { Array as Arr, Duration, Effect, Layer, Option } from "effect"
import { TestClock } from "effect/testing"
import { Inspector, type Message, Settlement, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"

const outgoing = (body: string, id?: string): Message.Outgoing => ({
  id,
  body,
  headers: {},
  key: undefined,
  version: 1,
  due: undefined
})

const publish = (first: Message.Outgoing, ...rest: ReadonlyArray<Message.Outgoing>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) => transport.publish("t", [first, ...rest]))

const join = (group: string, options?: Partial<Transport.Subscription>) =>
  Effect.flatMap(Transport.AtMostOnce, (transport) =>
    transport.receive({
      topic: "t",
      group,
      start: "earliest",
      lease: Duration.seconds(30),
      maxDeliveries: 5,
      shutdown: Duration.seconds(1),
      ...options
    })
  )

const describeTopic = Effect.flatMap(Inspector.Inspector, (inspector) => inspector.describe("t"))

const withStreams = (options?: MemoryStreams.Options) =>
  Probe.layer.pipe(Layer.provideMerge(MemoryStreams.layer(options)))

describe("MemoryStreams", () => {
  it.effect("forgets an id when its window has passed, and not before", () =>
    Effect.gen(function* () {
      const tag = Effect.map(publish(outgoing("a", "x")), ([receipt]) => receipt?._tag)
      assert.strictEqual(yield* tag, "Stored")
      yield* TestClock.adjust("59999 millis")
      assert.strictEqual(yield* tag, "Duplicate")
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* tag, "Stored")
      yield* TestClock.adjust("59999 millis")
      assert.strictEqual(yield* tag, "Duplicate")
    }).pipe(Effect.provide(withStreams({ deduplicationWindow: "1 minute" })))
  )

  it.effect("remembers ids for ten minutes by default", () =>
    Effect.gen(function* () {
      yield* publish(outgoing("a", "x"))
      yield* TestClock.adjust("9 minutes")
      assert.strictEqual((yield* publish(outgoing("a", "x")))[0]?._tag, "Duplicate")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* publish(outgoing("a", "x")))[0]?._tag, "Stored")
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("keeps the newest dead letters up to the cap, counts the others and says so", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const receiver = yield* join("g")
      yield* publish(outgoing("a"), outgoing("b"), outgoing("c"), outgoing("d"), outgoing("e"))
      const deliveries = yield* receiver.take(5)
      yield* receiver.settle(Arr.map(deliveries, (delivery) => [delivery, Settlement.deadLetter("Broken", "cause")]))
      const letters = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(
        letters.map((letter) => letter.body),
        ["c", "d", "e"]
      )
      const group = (yield* describeTopic).groups[0]
      assert.strictEqual(group?.deadLetters, 3)
      assert.strictEqual(group?.deadLettersDropped, 2)
      const probe = yield* Probe.Probe
      assert.strictEqual((yield* probe.event("DeadLettersDropped")).count, 1)
      assert.strictEqual((yield* probe.event("DeadLettersDropped")).count, 1)
      // Discarding makes room, and the order of pages holds across the gap.
      yield* inspector.discard("t", "g", [letters[1]?.entry ?? ""])
      yield* publish(outgoing("f"))
      yield* receiver.settle([[(yield* receiver.take(1))[0], Settlement.deadLetter("Broken", "cause")]])
      assert.deepStrictEqual(
        (yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })).map((letter) => letter.body),
        ["c", "e", "f"]
      )
    }).pipe(Effect.provide(withStreams({ deadLetters: { maxCount: 3 } })))
  )

  it.effect("case F1: drops dead letters that are too old, whether a new one comes or not", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const receiver = yield* join("g")
      for (const body of ["first", "second", "third", "fourth"]) {
        yield* publish(outgoing(body))
        yield* receiver.settle([[(yield* receiver.take(1))[0], Settlement.deadLetter("Broken", "cause")]])
        yield* TestClock.adjust("4 days")
      }
      const letters = yield* inspector.deadLetters("t", "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(
        letters.map((letter) => letter.body),
        ["third", "fourth"]
      )
      assert.strictEqual((yield* describeTopic).groups[0]?.deadLettersDropped, 2)
    }).pipe(Effect.provide(withStreams({ deadLetters: { maxAge: "10 days" } })))
  )

  it.effect("with a maximal length, cuts the oldest and says what a group missed", () =>
    Effect.gen(function* () {
      const behind = yield* join("behind")
      const ahead = yield* join("ahead")
      yield* publish(outgoing("1"), outgoing("2"), outgoing("3"))
      const held = yield* ahead.take(2)
      yield* publish(outgoing("4"), outgoing("5"))
      const probe = yield* Probe.Probe
      const truncated = yield* probe.event("Truncated")
      assert.deepStrictEqual([truncated.group, truncated.count], ["behind", 2])
      assert.deepStrictEqual(
        (yield* behind.take(10)).map((delivery) => delivery.body),
        ["3", "4", "5"]
      )
      assert.deepInclude(yield* describeTopic, { depth: 3, retention: "length" })
      // What was already handed out is not lost by the cut.
      assert.deepStrictEqual(
        yield* ahead.settle([
          [held[0], Settlement.retry(Duration.zero, "cause")],
          [held[1] ?? held[0], Settlement.ack]
        ]),
        ["Settled", "Settled"]
      )
      assert.deepStrictEqual(
        (yield* ahead.take(10)).map((delivery) => delivery.body),
        ["1", "3", "4", "5"]
      )
      assert.strictEqual((yield* probe.events).filter((event) => event._tag === "Truncated").length, 1)
    }).pipe(Effect.provide(withStreams({ retention: { maxLength: 3 } })))
  )

  it.effect("a topic has its own window and retention, and others those of the layer", () =>
    Effect.gen(function* () {
      const transport = yield* Transport.AtMostOnce
      const inspector = yield* Inspector.Inspector
      const tags = Effect.forEach(["t", "u"], (topic) =>
        Effect.map(transport.publish(topic, [outgoing("a", "x")]), ([receipt]) => receipt?._tag)
      )
      assert.deepStrictEqual(yield* tags, ["Stored", "Stored"])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* tags, ["Stored", "Duplicate"])
      const retentions = yield* Effect.forEach(["t", "u"], (topic) => inspector.describe(topic))
      assert.deepStrictEqual(
        retentions.map(({ depth, retention }) => [depth, retention]),
        [
          [1, "length"],
          [1, "settled"]
        ]
      )
    }).pipe(
      Effect.provide(withStreams({ topics: { t: { deduplicationWindow: "1 minute", retention: { maxLength: 1 } } } }))
    )
  )

  it.effect("with a maximal age, cuts what is older, and says what a group missed", () =>
    Effect.gen(function* () {
      yield* join("behind")
      yield* publish(outgoing("1"), outgoing("2"))
      yield* TestClock.adjust("1 hour")
      yield* publish(outgoing("3"))
      assert.strictEqual((yield* describeTopic).depth, 3)
      yield* TestClock.adjust("1 millis")
      assert.deepInclude(yield* describeTopic, { depth: 1, retention: "length" })
      const { count } = yield* (yield* Probe.Probe).event("Truncated")
      assert.strictEqual(count, 2)
    }).pipe(Effect.provide(withStreams({ retention: { maxAge: "1 hour" } })))
  )

  it.effect("a message that is cut before a group has joined no longer has its id to itself", () =>
    Effect.gen(function* () {
      const own = { ...outgoing("1", "own"), unique: "until-settled" } as const
      const tag = Effect.map(publish(own), ([receipt]) => receipt?._tag)
      assert.strictEqual(yield* tag, "Stored")
      assert.strictEqual(yield* tag, "Duplicate")
      yield* publish(outgoing("2"))
      assert.strictEqual(yield* tag, "Stored")
      assert.strictEqual(yield* tag, "Duplicate")
    }).pipe(Effect.provide(withStreams({ retention: { maxLength: 1 } })))
  )

  it.effect("with a maximal number of bytes, cuts the oldest", () =>
    Effect.gen(function* () {
      yield* publish(outgoing("a".repeat(100)), outgoing("b".repeat(100)), outgoing("c".repeat(100)))
      assert.strictEqual((yield* describeTopic).depth, 2)
    }).pipe(Effect.provide(withStreams({ retention: { maxBytes: 250 } })))
  )

  it.effect("keeps what is unsettled, and of what is settled a history within the limits", () =>
    Effect.gen(function* () {
      const depth = Effect.map(describeTopic, ({ depth }) => depth)
      const slow = yield* join("slow")
      const quick = yield* join("quick")
      yield* publish(outgoing("1"), outgoing("2"), outgoing("3"), outgoing("4"))
      yield* quick.settle(Arr.map(yield* quick.take(10), (delivery) => [delivery, Settlement.ack] as const))
      assert.deepInclude(yield* describeTopic, { depth: 4, retention: "history" })
      yield* TestClock.adjust("1 day")
      assert.strictEqual(yield* depth, 4, "the slow group has not settled them")
      yield* slow.settle(Arr.map(yield* slow.take(3), (delivery) => [delivery, Settlement.ack] as const))
      assert.strictEqual(yield* depth, 1)
      yield* publish(outgoing("5"))
      yield* quick.settle(Arr.map(yield* quick.take(10), (delivery) => [delivery, Settlement.ack] as const))
      yield* slow.settle(Arr.map(yield* slow.take(10), (delivery) => [delivery, Settlement.ack] as const))
      assert.strictEqual(yield* depth, 1, "the last one is settled and not too old")
      const late = yield* join("late")
      assert.deepStrictEqual(
        (yield* late.take(10)).map(({ body }) => body),
        ["5"]
      )
      assert.isUndefined((yield* (yield* Probe.Probe).events).find(({ _tag }) => _tag === "Truncated"))
    }).pipe(Effect.provide(withStreams({ retention: { maxAge: "1 hour", maxLength: 2, keep: "unsettled" } })))
  )

  it.effect.each([1, 2, 5])("messages that are retried without delay do not hold up the others, %s at a time", (max) =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      const poison = Array.from({ length: max }, (_, i) => outgoing(`poison ${i}`))
      const good = Array.from({ length: 50 }, (_, i) => outgoing(`good ${i}`))
      const [first = outgoing(""), ...rest] = [...poison, ...good]
      yield* publish(first, ...rest)
      let done = 0
      let retried = 0
      for (let taken = 0; taken < 2 * good.length + 4 * max;) {
        for (const delivery of yield* receiver.take(max)) {
          taken++
          const bad = String(delivery.body).startsWith("poison")
          if (bad) retried++
          else done++
          yield* receiver.settle([[delivery, bad ? Settlement.retry(Duration.zero, "") : Settlement.ack]])
        }
      }
      assert.strictEqual(done, good.length)
      assert.isAbove(retried, good.length / 2, "nor do the others hold up the retries")
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("retries come by due time, and those of the same time in the order in which they were settled", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      const bodies = Array.from({ length: 500 }, (_, i) => String(i))
      const [first = outgoing(""), ...rest] = bodies.map((body) => outgoing(body))
      yield* publish(first, ...rest)
      // Every second has ten of them, spread all over the order of publishing.
      const seconds = (body: unknown) => 1 + ((Number(body) * 37) % 50)
      const deliveries = yield* receiver.take(500)
      yield* receiver.settle(
        Arr.map(deliveries, (delivery) => [delivery, Settlement.retry(Duration.seconds(seconds(delivery.body)), "")])
      )
      const arrived: Array<unknown> = []
      for (let second = 1; second <= 50; second++) {
        yield* TestClock.adjust("1 second")
        const batch = yield* receiver.take(500)
        assert.strictEqual(batch.length, 10, `due after ${second} s`)
        arrived.push(...batch.map((delivery) => delivery.body))
      }
      assert.deepStrictEqual(
        arrived,
        bodies.toSorted((one, other) => seconds(one) - seconds(other))
      )
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("a long log that is read while it is written keeps its order, and what is settled leaves it", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      let published = 0
      let taken = 0
      for (let round = 0; round < 200; round++) {
        const [first = outgoing(""), ...rest] = Array.from({ length: 50 }, () => outgoing(String(published++)))
        yield* publish(first, ...rest)
        const batch = yield* receiver.take(round < 100 ? 30 : 70)
        for (const delivery of batch) assert.strictEqual(delivery.body, String(taken++))
        yield* receiver.settle(Arr.map(batch, (delivery) => [delivery, Settlement.ack]))
        assert.strictEqual((yield* describeTopic).depth, published - taken)
      }
      assert.strictEqual(taken, published)
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("what no group will ever read is dropped when the first one starts behind it", () =>
    Effect.gen(function* () {
      yield* publish(outgoing("a"), outgoing("b"))
      assert.strictEqual((yield* describeTopic).depth, 2)
      yield* join("g", { start: "latest" })
      assert.strictEqual((yield* describeTopic).depth, 0)
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("a delay of a fraction of a millisecond ends", () =>
    Effect.gen(function* () {
      const receiver = yield* join("g")
      yield* publish({ ...outgoing("a"), due: { _tag: "After", delay: Duration.millis(10.3) } })
      const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* TestClock.adjust("10 millis")
      assert.isUndefined(fiber.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isDefined(fiber.pollUnsafe())
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("a receiver that wakes up before its lease has passed keeps what it holds", () =>
    Effect.gen(function* () {
      const one = yield* join("g")
      yield* publish(outgoing("a"))
      const [delivery] = yield* one.take(1)
      const two = yield* join("g")
      const fiber = yield* Effect.forkChild(two.take(1), { startImmediately: true })
      yield* Effect.scoped(Effect.andThen(freeze(one), TestClock.adjust("29 seconds")))
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      assert.deepStrictEqual(yield* one.settle([[delivery, Settlement.ack]]), ["Settled"])
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect(
    "what a silent receiver held is reported as claimed and as lost, and the receiver is no longer listed",
    () =>
      Effect.gen(function* () {
        const probe = yield* Probe.Probe
        const one = yield* join("g")
        yield* publish(outgoing("a"), outgoing("b"))
        yield* one.take(2)
        yield* freeze(one)
        const two = yield* join("g")
        const fiber = yield* Effect.forkChild(two.take(2), { startImmediately: true })
        const lost = yield* Effect.forkChild(one.lost, { startImmediately: true })
        yield* TestClock.adjust("30 seconds")
        assert.isDefined(fiber.pollUnsafe())
        assert.isDefined(lost.pollUnsafe())
        const claimed = yield* probe.event("Claimed")
        assert.deepStrictEqual([claimed.from, claimed.count], [[one.consumer], 2])
        assert.strictEqual((yield* probe.event("LeaseLost")).deliveries.length, 2)
        const group = (yield* describeTopic).groups[0]
        assert.deepStrictEqual(group?.consumers, [{ consumer: two.consumer, pending: 2, leaseLeftMillis: undefined }])
      }).pipe(Effect.provide(withStreams()))
  )

  it.effect("a group can be paused before it exists", () =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      yield* inspector.pause("t", "g")
      yield* publish(outgoing("a"))
      const receiver = yield* join("g")
      const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* TestClock.adjust("1 hour")
      assert.isUndefined(fiber.pollUnsafe())
      yield* inspector.resume("t", "g")
      yield* TestClock.adjust("1 millis")
      assert.isDefined(fiber.pollUnsafe())
    }).pipe(Effect.provide(withStreams()))
  )

  it.effect("every build of the layer is a store of its own", () =>
    Effect.gen(function* () {
      const topics = Effect.flatMap(Inspector.Inspector, (inspector) => inspector.topics)
      yield* publish(outgoing("a")).pipe(Effect.provide(MemoryStreams.layer()))
      assert.deepStrictEqual(yield* topics.pipe(Effect.provide(MemoryStreams.layer())), [])
    })
  )
})
