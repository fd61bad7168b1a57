/**
 * The promises of publishing: order, receipts, ids, due times, and that messages arrive as they were sent.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Clock, Duration, Effect, Option } from "effect"
import { type Message, Settlement } from "waybill"
import { check } from "./Check.ts"
import { bodies, settle, sortedBodies, toleranceMillis } from "./Fixture.ts"

export const publishing = [
  check(
    "receipts stand in the order of the messages and name the ids that consumers see",
    [],
    Effect.fnUntraced(function* (fixture) {
      const { published: receipts, receiver } = yield* fixture.audience("g", fixture.publish("a", "b", "c"))
      assert.deepStrictEqual(
        receipts.map((receipt) => receipt._tag),
        receipts.map(() => (fixture.setting.history ? "Stored" : "Sent"))
      )
      assert.strictEqual(new Set(receipts.map((receipt) => receipt.id)).size, 3, "assigned ids differ")
      const deliveries = yield* fixture.take(receiver, 3)
      assert.deepStrictEqual(
        new Map(deliveries.map((delivery) => [delivery.body, delivery.id])),
        new Map(["a", "b", "c"].map((body, i) => [body, receipts[i]?.id ?? ""]))
      )
    })
  ),

  check(
    "messages come in the order in which they were published, within a batch and from batch to batch",
    ["order"],
    Effect.fnUntraced(function* (fixture) {
      const { receiver } = yield* fixture.audience(
        "g",
        Effect.gen(function* () {
          yield* fixture.publish("1", "2", "3")
          yield* fixture.publish("4")
          yield* fixture.publish("5", "6")
        })
      )
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 2)), ["1", "2"])
      assert.deepStrictEqual(bodies(yield* fixture.take(receiver, 4)), ["3", "4", "5", "6"])
    })
  ),

  check(
    "a batch of a thousand arrives whole",
    [],
    Effect.fnUntraced(function* (fixture) {
      const sent = Array.from({ length: 1000 }, (_, i) => String(i).padStart(4, "0"))
      const [first = "", ...rest] = sent
      const { receiver } = yield* fixture.audience("g", fixture.publish(first, ...rest))
      assert.deepStrictEqual(sortedBodies(yield* fixture.take(receiver, 1000)), sent)
    })
  ),

  check(
    "concurrent publishers lose nothing, and each keeps its own order",
    ["order"],
    Effect.fnUntraced(function* (fixture) {
      const publishers = Array.from({ length: 8 }, (_, i) => `p${i}`)
      const publishing = Effect.forEach(
        publishers,
        (publisher) =>
          Effect.forEach(
            Array.from({ length: 25 }, (_, i) => i),
            (i) => fixture.publish(`${publisher}:${i}`)
          ),
        { concurrency: "unbounded" }
      )
      const { receiver } = yield* fixture.audience("g", publishing)
      const arrived = bodies(yield* fixture.take(receiver, 200))
      for (const publisher of publishers) {
        assert.deepStrictEqual(
          arrived.filter((body) => String(body).startsWith(`${publisher}:`)),
          Array.from({ length: 25 }, (_, i) => `${publisher}:${i}`)
        )
      }
    })
  ),

  ...[
    { name: "an empty body", body: "" },
    { name: "text from outside ASCII, with NUL, quotes and line ends", body: 'żółć 数据 🚚 \u0000 "quoted"\r\n\t\\' },
    { name: "a body of one mebibyte", body: "waybill ".repeat(131_072) }
  ].map(({ body, name }) =>
    check(
      `${name} arrives unchanged`,
      [],
      Effect.fnUntraced(function* (fixture) {
        const { receiver } = yield* fixture.audience("g", fixture.publish(body))
        const delivery = yield* fixture.one(receiver)
        // A plain comparison: nobody reads the difference between two mebibytes.
        assert.isTrue(delivery.body === body, "the body differs")
      })
    )
  ),

  check(
    "headers, key and version arrive unchanged, and a delivery says where it comes from",
    [],
    Effect.fnUntraced(function* (fixture) {
      const headers: Message.Headers = {
        traceparent: "00-ab-cd-01",
        "X-Case": "kept",
        empty: "",
        naïve: "ünïcode 🚚",
        lines: "\n\t"
      }
      const { receiver } = yield* fixture.audience(
        "g",
        fixture.publish({ body: "full", headers, key: "customer-7 ✓", version: 7 }, "plain")
      )
      const deliveries = yield* fixture.take(receiver, 2)
      const full = deliveries.find((delivery) => delivery.body === "full")
      const plain = deliveries.find((delivery) => delivery.body === "plain")
      assert.deepStrictEqual({ ...full?.headers }, headers)
      assert.strictEqual(full?.key, "customer-7 ✓")
      assert.strictEqual(full?.version, 7)
      assert.deepStrictEqual({ ...plain?.headers }, {})
      assert.strictEqual(plain?.key, undefined)
      assert.strictEqual(plain?.version, 1)
      assert.strictEqual(plain?.topic, fixture.topic)
      assert.strictEqual(plain?.group, "g")
      const age = (yield* Clock.currentTimeMillis) - (plain?.publishedAt ?? Number.NaN)
      assert.isTrue(age >= -toleranceMillis && age < 60_000, `published ${age} ms ago`)
    })
  ),

  check(
    "case F3: what a producer or a handler does to headers later changes nothing for anybody else",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const write = (headers: Message.Headers) => {
        // The types forbid it, and it may throw.
        Reflect.set(headers, "a", "changed")
        Reflect.set(headers, "new", "added")
        Reflect.deleteProperty(headers, "b")
      }
      const published = { a: "1", b: "2" }
      const headers = { ...published }
      const receiver = yield* fixture.join("g")
      yield* fixture.publish({ body: "with", headers }, { body: "without" })
      write(headers)
      for (let attempt = 1; attempt <= 3; attempt++) {
        const deliveries = yield* fixture.take(receiver, 2)
        for (const delivery of deliveries) {
          assert.deepStrictEqual(
            { ...delivery.headers },
            delivery.body === "with" ? published : {},
            `attempt ${attempt}`
          )
          // Consumers count a delivery's bytes on arrival and on departure: both must be equal.
          assert.isTrue(Object.isFrozen(delivery.headers))
          write(delivery.headers)
        }
        const end = attempt === 3 ? Settlement.deadLetter("Tried", "") : Settlement.retry(Duration.zero, "")
        yield* settle(receiver, deliveries, end)
      }
      for (let look = 1; look <= 2; look++) {
        const letters = yield* fixture.inspector.deadLetters(fixture.topic, "g", { after: Option.none(), limit: 2 })
        for (const letter of letters) {
          assert.deepStrictEqual({ ...letter.headers }, letter.body === "with" ? published : {}, `look ${look}`)
          write(letter.headers)
        }
        assert.strictEqual(letters.length, 2)
      }
    })
  ),

  check(
    "case F3: no group sees what the handler of another one does to headers",
    ["groups"],
    Effect.fnUntraced(function* (fixture) {
      const first = yield* fixture.join("g")
      const second = yield* fixture.join("h")
      yield* fixture.publish({ body: "a", headers: { a: "1" } })
      for (const receiver of [first, second]) {
        const { headers } = yield* fixture.one(receiver)
        assert.deepStrictEqual({ ...headers }, { a: "1" })
        Reflect.set(headers, "a", "changed")
      }
    })
  ),

  check(
    "an id that was published is a duplicate, in the same batch and in a later one",
    ["deduplication", "history"],
    Effect.fnUntraced(function* (fixture) {
      const first = yield* fixture.publish(
        { body: "a", id: "x" },
        { body: "other", id: "y" },
        { body: "a again", id: "x" }
      )
      const second = yield* fixture.publish({ body: "a once more", id: "x" }, { body: "last", id: "z" })
      assert.deepStrictEqual(
        [...first, ...second].map(({ _tag, id }) => `${_tag} ${id}`),
        ["Stored x", "Stored y", "Duplicate x", "Duplicate x", "Stored z"]
      )
      const deliveries = yield* fixture.take(yield* fixture.join("g"), 3)
      assert.deepStrictEqual(deliveries.map(({ body, id }) => `${String(body)} ${id}`).toSorted(), [
        "a x",
        "last z",
        "other y"
      ])
    })
  ),

  check(
    "an id stays a duplicate after its message is settled",
    ["deduplication", "redelivery", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish({ body: "a", id: "x" })
      yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.ack)
      const [again] = yield* fixture.publish({ body: "a", id: "x" })
      assert.strictEqual(again?._tag, "Duplicate")
      yield* fixture.publish("sentinel")
      assert.strictEqual((yield* fixture.one(receiver)).body, "sentinel")
    })
  ),

  check(
    "of many who publish one id at the same time, one stores it",
    ["deduplication", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receipts = yield* Effect.forEach(
        Array.from({ length: 20 }),
        () => fixture.publish({ body: "a", id: "x" }),
        {
          concurrency: "unbounded"
        }
      )
      assert.strictEqual(receipts.flat().filter((receipt) => receipt._tag === "Stored").length, 1)
      yield* fixture.publish("sentinel")
      assert.deepStrictEqual(sortedBodies(yield* fixture.take(yield* fixture.join("g"), 2)), ["a", "sentinel"])
    })
  ),

  check(
    "a message with a delay is not delivered before it has passed",
    ["delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const after = (delay: Duration.Duration) => ({ _tag: "After", delay }) as const
      // Far enough that messages published with it come first, however long the test is held up.
      yield* fixture.publish({ body: "far", due: after(Duration.hours(5)) }, "early")
      assert.strictEqual((yield* fixture.one(receiver)).body, "early")
      const [late, millis] = yield* fixture.elapsed(
        Effect.andThen(fixture.publish({ body: "late", due: after(fixture.delay) }), fixture.one(receiver))
      )
      assert.strictEqual(late.body, "late")
      assert.isAtLeast(millis, Duration.toMillis(fixture.delay) - toleranceMillis)
    })
  ),

  check(
    "a message with a due time is not delivered before it, and at once when it has passed",
    ["delay", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const due = (epochMillis: number) => ({ _tag: "At", epochMillis }) as const
      const now = yield* Clock.currentTimeMillis
      yield* fixture.publish(
        { body: "far", due: due(now + Duration.toMillis(Duration.hours(5))) },
        { body: "passed", due: due(now - 60_000) }
      )
      assert.strictEqual((yield* fixture.one(receiver)).body, "passed")
      const at = (yield* Clock.currentTimeMillis) + Duration.toMillis(fixture.delay)
      yield* fixture.publish({ body: "late", due: due(at) })
      assert.strictEqual((yield* fixture.one(receiver)).body, "late")
      assert.isAtLeast(yield* Clock.currentTimeMillis, at - toleranceMillis)
    })
  ),

  check(
    "delayed messages come in the order in which they are due, with the ids of their receipts",
    ["delay", "order", "history"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const due = (factor: number) => ({ _tag: "After", delay: Duration.times(fixture.delay, factor) }) as const
      const receipts = yield* fixture.publish({ body: "second", due: due(2) }, { body: "first", due: due(1) })
      const deliveries = yield* fixture.take(receiver, 2)
      assert.deepStrictEqual(
        deliveries.map(({ body, id }) => [body, id]),
        [
          ["first", receipts[1]?.id ?? ""],
          ["second", receipts[0]?.id ?? ""]
        ]
      )
    })
  ),

  check(
    "the id of a delayed message is a duplicate before it is due",
    ["delay", "deduplication", "history"],
    Effect.fnUntraced(function* (fixture) {
      const delayed = { body: "a", id: "x", due: { _tag: "After", delay: fixture.delay } } as const
      yield* fixture.publish(delayed)
      const [again] = yield* fixture.publish({ body: "a", id: "x" })
      assert.strictEqual(again?._tag, "Duplicate")
      const receiver = yield* fixture.join("g")
      assert.strictEqual((yield* fixture.one(receiver)).body, "a")
      yield* fixture.publish("sentinel")
      assert.strictEqual((yield* fixture.one(receiver)).body, "sentinel")
    })
  ),

  check(
    "a topic that another pattern has opened is refused, to publishers and to receivers",
    ["conflict"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.setting.conflict(fixture.topic)
      const published = yield* Effect.flip(fixture.publish("a"))
      assert.strictEqual(published.reason._tag, "TopicConflict")
      const joined = yield* Effect.flip(fixture.join("g"))
      assert.strictEqual(joined.reason._tag, "TopicConflict")
    })
  )
]
