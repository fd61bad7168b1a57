/**
 * What an operator sees and does: figures that match the facts, dead letters, pause, and what is kept and dropped.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Array as Arr, Clock, Duration, Effect, Fiber, Option } from "effect"
import { type Inspector, type Message, Settlement, type Transport } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, bodies, settle, settled, sortedBodies, toleranceMillis } from "./Fixture.ts"

const page = (fixture: Fixture["Service"], after: string | undefined, limit: number) =>
  fixture.inspector.deadLetters(fixture.topic, "g", { after: Option.fromNullishOr(after), limit })

const byBody = (a: Message.Message, b: Message.Message) => String(a.body).localeCompare(String(b.body))

/** Publishes, and dead-letters in the order of the bodies; returns the receiver and the dead letters. */
const deadLetter = Effect.fnUntraced(function* (
  fixture: Fixture["Service"],
  first: string,
  ...rest: ReadonlyArray<string>
) {
  const receiver = yield* fixture.join("g")
  yield* fixture.publish(first, ...rest)
  const deliveries = yield* fixture.take(receiver, 1 + rest.length)
  for (const delivery of deliveries.toSorted(byBody)) {
    yield* settle(receiver, [delivery], Settlement.deadLetter("Broken", `cause of ${String(delivery.body)}`))
  }
  return { receiver, letters: yield* page(fixture, undefined, 100) }
})

export const inspecting = [
  check(
    "case F5: a page with a limit that is not an integer >= 1 is refused, with the same error for every list",
    [],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      yield* fixture.publish("a")
      for (const limit of [0, -1, 1.5, NaN, Infinity, -Infinity, 2 ** 53]) {
        const page = { after: Option.none<string>(), limit }
        const errors = yield* Effect.all([
          Effect.flip(inspector.messages(topic, page)),
          Effect.flip(inspector.messages(topic, { before: Option.none(), limit })),
          Effect.flip(inspector.messages(topic, { before: Option.some("1-1"), limit })),
          Effect.flip(inspector.pending(topic, "g", page)),
          Effect.flip(inspector.waiting(topic, "g", { ...page, after: Option.some("1-1") })),
          Effect.flip(inspector.deadLetters(topic, "g", page))
        ])
        for (const { operation, reason } of errors) {
          assert.deepStrictEqual([operation, reason._tag, reason.permanent], ["inspect", "InvalidLimit", true])
          assert.strictEqual(reason.message, `limit must be an integer >= 1, got ${limit}`)
        }
      }
    })
  ),
  check(
    "case B13: a name that no topic or no group can have is refused, with the same error whatever is asked",
    [],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const page = { after: Option.none<string>(), limit: 1 }
      const inGroup = (topic: string, group: string) => [
        Effect.flip(inspector.pending(topic, group, page)),
        Effect.flip(inspector.waiting(topic, group, page)),
        Effect.flip(inspector.deadLetters(topic, group, page)),
        Effect.flip(inspector.redrive(topic, group, ["1-1"])),
        Effect.flip(inspector.discard(topic, group, ["1-1"])),
        Effect.flip(inspector.pause(topic, group)),
        Effect.flip(inspector.resume(topic, group))
      ]
      const names = ["", "\ud800", "a\udc00b", "a b", "{a}", "x".repeat(201)]
      // Checks that run beside this one open topics of their own.
      const opened = Effect.map(
        inspector.topics,
        Arr.filter((name) => name === topic || names.includes(name))
      )
      const before = yield* opened
      for (const name of names) {
        const ofTopic = [Effect.flip(inspector.describe(name)), Effect.flip(inspector.messages(name, page))]
        for (const { operation, reason } of yield* Effect.all([...ofTopic, ...inGroup(name, "g")])) {
          assert.deepInclude(
            { ...reason, operation },
            { operation: "inspect", _tag: "InvalidName", kind: "topic", name }
          )
          assert.isTrue(reason.message.isWellFormed() && reason.permanent)
        }
      }
      for (const name of ["", "\ud800", "a\udc00b"]) {
        for (const { reason } of yield* Effect.all(inGroup(topic, name))) {
          assert.deepInclude({ ...reason }, { _tag: "InvalidName", kind: "group", name })
        }
      }
      // A successful pause would open the topic.
      assert.deepStrictEqual(yield* opened, before)
    })
  ),
  check(
    "case A13: what is stored is listed in the order in which it is handed out, page by page from either end",
    ["history"],
    Effect.fnUntraced(function* (fixture) {
      const draft = (priority: string, i: number) => ({ body: `${i} ${priority}`, headers: { priority } })
      const [first, ...rest] = ["normal", "low", "high", "normal", "high", "low", "normal", "low"].map(draft)
      assert(first !== undefined)
      yield* fixture.publish(first)
      for (const one of rest) yield* fixture.publish(one)
      for (const limit of [1, 3, 100]) {
        const forwards: Array<Inspector.StoredMessage> = []
        for (let more = true; more;) {
          const after = Option.fromNullishOr(forwards.at(-1)?.position)
          const page = yield* fixture.inspector.messages(fixture.topic, { after, limit })
          forwards.push(...page)
          more = page.length > 0
        }
        const backwards: Array<Inspector.StoredMessage> = []
        for (let more = true; more;) {
          const before = Option.fromNullishOr(backwards[0]?.position)
          const page = yield* fixture.inspector.messages(fixture.topic, { before, limit })
          backwards.unshift(...page)
          more = page.length > 0
        }
        const listed = yield* fixture.inspector.messages(fixture.topic, { after: Option.none(), limit: 100 })
        assert.strictEqual(listed.length, 8)
        assert.deepStrictEqual(forwards, listed, `forwards by ${limit}`)
        assert.deepStrictEqual(backwards, listed, `backwards by ${limit}`)
      }
      const listed = yield* fixture.inspector.messages(fixture.topic, { after: Option.none(), limit: 100 })
      assert.deepStrictEqual(
        bodies(yield* fixture.take(yield* fixture.join("g"), 8)),
        listed.map(({ body }) => body)
      )
    })
  ),

  check(
    "a topic is listed from when it is opened, and describing an unknown one opens nothing",
    [],
    Effect.fnUntraced(function* (fixture) {
      const unknown = yield* fixture.inspector.describe(fixture.topic)
      assert.deepStrictEqual(
        { topic: unknown.topic, depth: unknown.depth, delayed: unknown.delayed, groups: unknown.groups },
        { topic: fixture.topic, depth: 0, delayed: 0, groups: [] }
      )
      assert.notInclude(yield* fixture.inspector.topics, fixture.topic)
      yield* fixture.publish("a")
      assert.include(yield* fixture.inspector.topics, fixture.topic)
    })
  ),

  check(
    "the figures agree with what happened, step by step",
    ["redelivery", "deadLetters", "delay"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const expect = (what: string, figures: Partial<typeof settled>) =>
        fixture.becomes(what, fixture.figures("g"), { ...settled, ...figures })
      yield* expect("nothing yet", {})
      yield* fixture.publish("a", "b", "c", "d", "e")
      yield* expect("published", { lag: 5 })
      const [a, b, c] = yield* fixture.take(receiver, 3)
      assert(a !== undefined && b !== undefined && c !== undefined)
      yield* expect("taken", { lag: 2, pending: 3 })
      const due = (yield* Clock.currentTimeMillis) + 3_600_000
      yield* settle(receiver, [a], Settlement.ack)
      yield* settle(receiver, [b], Settlement.retry(Duration.hours(1), "cause"))
      yield* expect("acked and retried", { lag: 2, pending: 1, waiting: 1 })
      yield* settle(receiver, [c], Settlement.deadLetter("Broken", "cause"))
      yield* expect("dead-lettered", { lag: 2, waiting: 1, deadLetters: 1 })
      yield* fixture.publish({ body: "f", due: { _tag: "After", delay: Duration.hours(1) } })
      yield* fixture.take(receiver, 2)
      yield* fixture.pass(Duration.millis(20))
      yield* expect("the rest taken", { pending: 2, waiting: 1, deadLetters: 1 })
      const info = yield* fixture.inspector.describe(fixture.topic)
      assert.strictEqual(info.delayed, 1)
      for (const at of [info.nextDelayedAt, info.groups[0]?.nextRetryAt]) {
        assert.closeTo(at ?? Number.NaN, due, 30_000)
      }
      assert.isAtLeast(info.groups[0]?.oldestPendingMillis ?? Number.NaN, 20 - toleranceMillis)
      const consumers = info.groups[0]?.consumers ?? []
      assert.deepStrictEqual(
        consumers.map(({ consumer, pending }) => [consumer, pending]),
        [[receiver.consumer, 2]]
      )
      const leaseLeftMillis = consumers[0]?.leaseLeftMillis
      if (leaseLeftMillis !== undefined) {
        const lease = Duration.toMillis(fixture.setting.safeLease)
        assert.isTrue(leaseLeftMillis > 0 && leaseLeftMillis <= lease, `${leaseLeftMillis} of ${lease} ms`)
      }
    })
  ),

  check(
    "a group tells for how long the oldest of what its consumers hold has been with them",
    [],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const oldest = Effect.map(
        fixture.inspector.describe(fixture.topic),
        ({ groups }) => groups[0]?.oldestPendingMillis ?? Number.NaN
      )
      yield* fixture.publish("a")
      const [delivery] = yield* fixture.take(receiver, 1)
      assert(delivery !== undefined)
      yield* fixture.pass(Duration.millis(200))
      assert.isAtLeast(yield* oldest, 200 - toleranceMillis)
      yield* settle(receiver, [delivery], Settlement.ack)
      yield* fixture.becomes("nothing is held", oldest, 0)
    })
  ),

  check(
    "what is pending and what waits can be read in pages, with consumer, attempt, due time and cause",
    ["redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish({ body: "a", id: "a", headers: { h: "1" }, key: "k", version: 2 }, "b", "c", "d")
      const taken = yield* fixture.take(receiver, 4)
      const due = (yield* Clock.currentTimeMillis) + 3_600_000
      const waits = taken.filter(({ body }) => body === "a" || body === "d")
      for (const [i, delivery] of waits.toSorted(byBody).entries()) {
        yield* settle(
          receiver,
          [delivery],
          Settlement.retry(Duration.hours(1 + i), `cause of ${String(delivery.body)}`)
        )
      }
      const all = <A extends { readonly position: string }>(
        read: (page: Inspector.Page) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>
      ) =>
        Effect.gen(function* () {
          const [first, ...none] = yield* read({ after: Option.none(), limit: 1 })
          assert(first !== undefined && none.length === 0, "one item a page was asked for")
          const rest = yield* read({ after: Option.some(first.position), limit: 10 })
          assert.deepStrictEqual(yield* read({ after: Option.some((rest.at(-1) ?? first).position), limit: 10 }), [])
          return [first, ...rest]
        })
      const pending = yield* all((page) => fixture.inspector.pending(fixture.topic, "g", page))
      assert.deepStrictEqual(
        pending.toSorted(byBody).map(({ attempt, body, consumer }) => [body, consumer, attempt]),
        ["b", "c"].map((body) => [body, receiver.consumer, 1])
      )
      for (const { heldMillis } of pending) assert.isAtLeast(heldMillis, 0)
      const waiting = yield* all((page) => fixture.inspector.waiting(fixture.topic, "g", page))
      assert.deepStrictEqual(
        waiting.map(({ attempts, body, cause }) => [body, attempts, cause]),
        [
          ["a", 1, "cause of a"],
          ["d", 1, "cause of d"]
        ]
      )
      assert.closeTo(waiting[0]?.dueAt ?? Number.NaN, due, 30_000)
      assert.closeTo(waiting[0]?.dueInMillis ?? Number.NaN, 3_600_000, 30_000)
      const { headers, id, key, version } = waiting[0]!
      assert.deepStrictEqual(
        { headers: { ...headers }, id, key, version },
        { headers: { h: "1" }, id: "a", key: "k", version: 2 }
      )
      // A message that was handed back waits too, and may be taken at once.
      yield* settle(receiver, [taken.find(({ body }) => body === "b")!], Settlement.retry(Duration.zero, "again"))
      const again = yield* fixture.one(receiver)
      assert.strictEqual(again.attempt, 2)
      const now = yield* fixture.inspector.pending(fixture.topic, "g", { after: Option.none(), limit: 10 })
      assert.deepStrictEqual(now.map(({ attempt, body }) => [body, attempt]).toSorted(), [
        ["b", 2],
        ["c", 1]
      ])
    })
  ),

  check(
    "what is stored can be read in pages, oldest or newest first, without consuming it",
    ["history", "order"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.publish({ body: "a", id: "x", headers: { h: "1" }, key: "k", version: 2 }, "b", "c", "d")
      const read = (after: string | undefined, limit: number) =>
        fixture.inspector.messages(fixture.topic, { after: Option.fromNullishOr(after), limit })
      const readBackwards = (before: string | undefined, limit: number) =>
        fixture.inspector.messages(fixture.topic, { before: Option.fromNullishOr(before), limit })
      const first = yield* read(undefined, 2)
      assert.deepStrictEqual(
        first.map(({ body }) => body),
        ["a", "b"]
      )
      assert.deepStrictEqual(
        (yield* read(first[1]?.position, 10)).map(({ body }) => body),
        ["c", "d"]
      )
      assert.deepStrictEqual(
        (yield* readBackwards(undefined, 3)).map(({ body }) => body),
        ["b", "c", "d"]
      )
      const all = yield* read(undefined, 10)
      const before = (index: number, limit: number) =>
        Effect.map(readBackwards(all[index]?.position, limit), (page) => page.map(({ body }) => body))
      assert.deepStrictEqual(yield* before(3, 2), ["b", "c"])
      assert.deepStrictEqual(yield* before(1, 2), ["a"])
      assert.deepStrictEqual(yield* before(0, 2), [])
      const { headers, id, key, version } = first[0]!
      assert.deepStrictEqual(
        { headers: { ...headers }, id, key, version },
        { headers: { h: "1" }, id: "x", key: "k", version: 2 }
      )
      assert.deepStrictEqual(bodies(yield* fixture.take(yield* fixture.join("g"), 4)), ["a", "b", "c", "d"])
    })
  ),

  check(
    "a dead letter keeps the message, the reason, the cause, what the failure said, and the attempts",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const body = '{"not json 🚚'
      const [receipt] = yield* fixture.publish({ body, headers: { h: "1" }, key: "k", version: 2 })
      yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.retry(Duration.zero, "first"))
      const delivery = yield* fixture.one(receiver)
      const cause = "Error: second\n    at somewhere (file.ts:1:1) ✗"
      const failure = {
        tag: "CardDeclined",
        message: "the card was declined ✗",
        fields: { cents: 1200, of: ["a", null, true], _tag: { tag: "" }, "": "\n" }
      }
      yield* settle(receiver, [delivery], Settlement.deadLetter("declined", cause, failure))
      const died = yield* Clock.currentTimeMillis
      const [letter, ...others] = yield* page(fixture, undefined, 10)
      assert.deepStrictEqual(others, [])
      assert(letter !== undefined)
      const { attemptLog, diedAt, entry, headers, ...rest } = letter
      assert.deepStrictEqual(rest, {
        id: receipt?.id ?? "",
        body,
        key: "k",
        version: 2,
        publishedAt: delivery.publishedAt,
        topic: fixture.topic,
        group: "g",
        reason: "declined",
        cause,
        failure,
        attempts: 2
      })
      assert.deepStrictEqual({ ...headers }, { h: "1" })
      assert.isNotEmpty(entry)
      assert.closeTo(diedAt, died, 5000)
      assert.deepStrictEqual(
        attemptLog.map(({ attempt, consumer, message, tag }) => [attempt, consumer, tag, message]),
        [
          [1, receiver.consumer, "Retry", "first"],
          [2, receiver.consumer, "CardDeclined", "the card was declined ✗"]
        ]
      )
      assert.closeTo(attemptLog[0]!.endedAt, died, 5000)
      assert.closeTo(attemptLog[1]!.endedAt, diedAt, 100)
    })
  ),

  check(
    "dead letters are listed in pages, oldest first, without gaps",
    ["deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      yield* deadLetter(fixture, "a", "b", "c", "d", "e")
      const pages: Array<ReadonlyArray<unknown>> = []
      let after: string | undefined
      for (let i = 0; i < 4; i++) {
        const letters = yield* page(fixture, after, 2)
        pages.push(letters.map((letter) => letter.body))
        after = letters.at(-1)?.entry ?? after
      }
      assert.deepStrictEqual(pages, [["a", "b"], ["c", "d"], ["e"], []])
    })
  ),

  check(
    "a redriven message comes back with its id, a fresh count of attempts and a fence that goes on",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const [receipt] = yield* fixture.publish({ body: "a", headers: { h: "1" } })
      yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.retry(Duration.zero, "cause"))
      const before = yield* fixture.one(receiver)
      yield* settle(receiver, [before], Settlement.deadLetter("Broken", "cause"))
      const [letter] = yield* page(fixture, undefined, 10)
      const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
      yield* Effect.yieldNow
      assert.strictEqual(yield* fixture.inspector.redrive(fixture.topic, "g", [letter?.entry ?? ""]), 1)
      assert.deepStrictEqual(yield* page(fixture, undefined, 10), [])
      const [after] = yield* fixture.within("the message", Fiber.join(fiber))
      assert.strictEqual(after.id, receipt?.id)
      assert.strictEqual(after.body, "a")
      assert.deepStrictEqual({ ...after.headers }, { h: "1" })
      assert.strictEqual(after.attempt, 1)
      assert.isAbove(after.fence, before.fence)
    })
  ),

  check(
    "redriving a dead letter twice, or by two at a time, never doubles the message",
    ["retry", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const { letters, receiver } = yield* deadLetter(fixture, "a", "b", "c")
      const entries = letters.map((letter) => letter.entry)
      const counts = yield* Effect.all(
        [
          fixture.inspector.redrive(fixture.topic, "g", entries),
          fixture.inspector.redrive(fixture.topic, "g", entries),
          fixture.inspector.redrive(fixture.topic, "g", entries.slice(1))
        ],
        { concurrency: "unbounded" }
      )
      assert.strictEqual(counts[0] + counts[1] + counts[2], 3, `redriven: ${counts.join(" + ")}`)
      assert.strictEqual(yield* fixture.inspector.redrive(fixture.topic, "g", entries), 0)
      const again = yield* fixture.take(receiver, 3)
      assert.deepStrictEqual(sortedBodies(again), ["a", "b", "c"])
      yield* settle(receiver, again, Settlement.ack)
      yield* fixture.publish("sentinel")
      assert.strictEqual((yield* fixture.one(receiver)).body, "sentinel")
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, pending: 1 })
    })
  ),

  check(
    "a redrive goes to its own group only",
    ["retry", "deadLetters", "groups"],
    Effect.fnUntraced(function* (fixture) {
      const other = yield* fixture.join("other")
      const { letters, receiver } = yield* deadLetter(fixture, "a")
      yield* settle(other, yield* fixture.take(other, 1), Settlement.ack)
      yield* fixture.inspector.redrive(
        fixture.topic,
        "g",
        letters.map((letter) => letter.entry)
      )
      assert.strictEqual((yield* fixture.one(receiver)).body, "a")
      yield* fixture.publish("sentinel")
      assert.strictEqual((yield* fixture.one(other)).body, "sentinel")
    })
  ),

  check(
    "discarding deletes the dead letters named, and counts those that were there",
    ["deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const { letters } = yield* deadLetter(fixture, "a", "b", "c")
      const [a, , c] = letters.map((letter) => letter.entry)
      assert(a !== undefined && c !== undefined)
      assert.strictEqual(yield* fixture.inspector.discard(fixture.topic, "g", [a, c]), 2)
      assert.strictEqual(yield* fixture.inspector.discard(fixture.topic, "g", [a, c]), 0)
      assert.deepStrictEqual(
        (yield* page(fixture, undefined, 10)).map((letter) => letter.body),
        ["b"]
      )
      assert.strictEqual(yield* fixture.inspector.redrive(fixture.topic, "g", [a]), 0)
    })
  ),

  check(
    "a paused group takes nothing new until it is resumed, while another goes on",
    ["pause", "groups", "retry"],
    Effect.fnUntraced(function* (fixture) {
      const paused = yield* fixture.join("g")
      const other = yield* fixture.join("other")
      yield* fixture.publish("held")
      const held = yield* fixture.one(paused)
      yield* fixture.inspector.pause(fixture.topic, "g")
      yield* fixture.inspector.pause(fixture.topic, "g")
      const fiber = yield* Effect.forkChild(paused.take(10), { startImmediately: true })
      yield* fixture.publish("a")
      assert.deepStrictEqual(bodies(yield* fixture.take(other, 2)), ["held", "a"])
      yield* fixture.pass(fixture.delay)
      assert.isUndefined(fiber.pollUnsafe(), "nothing new while paused")
      const pausedGroup = (yield* fixture.inspector.describe(fixture.topic)).groups.find(({ group }) => group === "g")
      assert.strictEqual(pausedGroup?.paused, true)
      assert.deepStrictEqual(yield* settle(paused, [held], Settlement.ack), ["Settled"], "what it holds, it finishes")
      yield* fixture.inspector.resume(fixture.topic, "g")
      assert.deepStrictEqual(bodies(yield* fixture.within("the message", Fiber.join(fiber))), ["a"])
      const group = (yield* fixture.inspector.describe(fixture.topic)).groups.find(({ group }) => group === "g")
      assert.strictEqual(group?.paused, false)
    })
  ),

  check(
    "a message is kept until every group has settled it, and dropped then",
    ["trimming", "groups", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const depth = Effect.map(fixture.inspector.describe(fixture.topic), (info) => info.depth)
      const one = yield* fixture.join("one")
      const two = yield* fixture.join("two")
      yield* fixture.publish("a", "b", "c")
      yield* settle(one, yield* fixture.take(one, 3), Settlement.ack)
      assert.strictEqual(yield* depth, 3, "two has not seen them yet")
      const deliveries = yield* fixture.take(two, 3)
      assert.strictEqual(yield* depth, 3, "two holds them")
      yield* settle(two, deliveries, Settlement.ack)
      yield* fixture.becomes("depth", depth, 0)
    })
  ),

  check(
    "a group that comes later keeps what it has not settled from being dropped",
    ["trimming", "groups", "history", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const depth = Effect.map(fixture.inspector.describe(fixture.topic), (info) => info.depth)
      const one = yield* fixture.join("one")
      yield* fixture.publish("a", "b", "c")
      const two = yield* fixture.join("two")
      yield* settle(one, yield* fixture.take(one, 3), Settlement.ack)
      yield* fixture.pass(fixture.delay)
      const deliveries = yield* fixture.take(two, 3)
      assert.deepStrictEqual(sortedBodies(deliveries), ["a", "b", "c"])
      assert.strictEqual(yield* depth, 3)
      yield* settle(two, deliveries, Settlement.ack)
      yield* fixture.becomes("depth", depth, 0)
    })
  ),

  check(
    "a message that waits for its retry holds back no other from being dropped",
    ["trimming", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("waits", "b", "c")
      const [waits, ...others] = yield* fixture.take(receiver, 3)
      assert(waits !== undefined)
      yield* settle(receiver, [waits], Settlement.retry(Duration.hours(1), "cause"))
      yield* settle(receiver, others, Settlement.ack)
      yield* fixture.becomes(
        "depth",
        Effect.map(fixture.inspector.describe(fixture.topic), (info) => info.depth <= 1),
        true
      )
    })
  ),

  check(
    "a topic without groups keeps everything",
    ["history"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.publish("a", "b")
      yield* fixture.pass(fixture.delay)
      yield* fixture.publish("c")
      assert.strictEqual((yield* fixture.inspector.describe(fixture.topic)).depth, 3)
      assert.deepStrictEqual(sortedBodies(yield* fixture.take(yield* fixture.join("g"), 3)), ["a", "b", "c"])
    })
  )
]
