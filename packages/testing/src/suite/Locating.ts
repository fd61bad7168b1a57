/**
 * One message by its id: found wherever it is, removed, and made due at another time.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Duration, Effect, Option } from "effect"
import { type Inspector, type Message, Settlement, type Transport } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, settle, settled } from "./Fixture.ts"

const long = Duration.hours(5)
const later = Settlement.retry(long, "not now")

/** How a message may be published, which decides what its id is. */
const ways: ReadonlyArray<readonly [string, Partial<Message.Outgoing>]> = [
  ["a message", {}],
  ["a message with an id of its own", { id: "own-1" }],
  ["a delayed message", { due: { _tag: "After", delay: long } }],
  ["a delayed message with an id of its own", { id: "own-2", due: { _tag: "After", delay: long } }]
]

/** Where it is in the group `g`: a tag, and how many attempts. */
const stateOf = Effect.fnUntraced(function* ({ inspector, topic }: Fixture["Service"], id: string) {
  const found = yield* inspector.message(topic, id)
  if (Option.isNone(found)) return "none"
  const { body, dueAt, groups, id: of } = found.value
  assert.deepStrictEqual([of, body], [id, "a"])
  if (dueAt !== undefined) return "delayed"
  const place = groups.find(({ group }) => group === "g")
  return place === undefined ? "no group" : textOf(place)
})

const textOf = (place: Inspector.MessageInGroup): string => {
  switch (place._tag) {
    case "Pending":
      return `Pending ${place.attempt}, ${place.attemptLog.length} failed`
    case "Waiting":
      return `Waiting ${place.attempts}, ${place.dueInMillis === 0 ? "due" : "later"}, ${place.cause}, ${place.attemptLog.length} failed`
    case "Dead":
      return `Dead ${place.deadLetter.reason}, ${place.deadLetter.attempts}`
    default:
      return place._tag
  }
}

const reasonOf = <A>(effect: Effect.Effect<A, Transport.TransportError>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason._tag)

export const locating = [
  ...ways.map(([name, parts]) =>
    check(
      `${name} is found by the id of its receipt wherever it is, and what waits can be run at once`,
      ["lookup", "retry", "deadLetters", "delay", "deduplication"],
      Effect.fnUntraced(function* (fixture) {
        const { inspector, topic } = fixture
        const receiver = yield* fixture.join("g")
        yield* fixture.publish("other")
        yield* settle(receiver, yield* fixture.take(receiver, 1), Settlement.ack)
        const [receipt] = yield* fixture.publish({ body: "a", ...parts })
        const id = receipt!.id // one message was published
        const is = (expected: string) => fixture.becomes("the place", stateOf(fixture, id), expected)
        if (parts.due === undefined) yield* is("Ready")
        else {
          yield* is("delayed")
          const [listed, ...others] = yield* inspector.delayed(topic, { after: Option.none(), limit: 10 })
          assert.deepStrictEqual([listed?.id, listed?.body, others], [id, "a", []])
          assert.isAbove(listed?.dueInMillis ?? 0, Duration.toMillis(long) / 2)
          const rest = yield* inspector.delayed(topic, { after: Option.some(listed!.position), limit: 10 })
          assert.deepStrictEqual(rest, [])
          yield* inspector.reschedule(topic, id, listed!.dueAt + 1000)
          const found = yield* inspector.message(topic, id)
          assert.strictEqual(Option.getOrThrow(found).dueAt, listed!.dueAt + 1000)
          yield* inspector.runNow(topic, id)
        }
        const first = yield* fixture.one(receiver)
        assert.strictEqual(first.id, id)
        yield* is("Pending 1, 0 failed")
        assert.strictEqual(yield* reasonOf(inspector.runNow(topic, id)), "MessageNotWaiting")
        yield* settle(receiver, [first], later)
        yield* is("Waiting 1, later, not now, 1 failed")
        yield* inspector.runNow(topic, id)
        const second = yield* fixture.one(receiver)
        assert.deepStrictEqual([second.id, second.attempt], [id, 2])
        yield* is("Pending 2, 1 failed")
        yield* settle(receiver, [second], later)
        yield* is("Waiting 2, later, not now, 2 failed")
        // A time that is over.
        yield* inspector.reschedule(topic, id, 0)
        const third = yield* fixture.one(receiver)
        assert.strictEqual(third.attempt, 3)
        yield* settle(receiver, [third], Settlement.deadLetter("Broken", "cause"))
        yield* is("Dead Broken, 3")
        const letters = yield* inspector.deadLetters(topic, "g", { after: Option.none(), limit: 10 })
        assert.strictEqual(
          yield* inspector.redrive(
            topic,
            "g",
            letters.map(({ entry }) => entry)
          ),
          1
        )
        yield* fixture.becomes(
          "it waits",
          Effect.map(stateOf(fixture, id), (state) => state.slice(0, 7)),
          "Waiting"
        )
        const fourth = yield* fixture.one(receiver)
        yield* is("Pending 1, 0 failed")
        yield* settle(receiver, [fourth], Settlement.ack)
        const gone = Effect.map(stateOf(fixture, id), (state) => state === "none" || state === "Settled")
        yield* fixture.becomes("it is over", gone, true)
      })
    )
  ),

  check(
    "a message is in one place of each group",
    ["lookup", "groups", "retry"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const one = yield* fixture.join("one")
      const two = yield* fixture.join("two")
      const three = yield* fixture.join("three")
      const [receipt] = yield* fixture.publish("a")
      const id = receipt!.id // one message was published
      yield* settle(one, yield* fixture.take(one, 1), later)
      yield* fixture.take(two, 1)
      const found = Option.getOrThrow(yield* inspector.message(topic, id))
      const tags = found.groups.map(({ _tag, group }) => `${group} ${_tag}`).sort()
      assert.deepStrictEqual(tags, ["one Waiting", "three Ready", "two Pending"])
      assert.deepStrictEqual(
        found.groups.flatMap((place) => (place._tag === "Pending" ? [place.consumer] : [])),
        [two.consumer]
      )
      assert.strictEqual(yield* reasonOf(inspector.removeMessage(topic, id)), "MessageInUse")
      yield* fixture.take(three, 1)
    })
  ),

  check(
    "a removed message begins nowhere, and the messages around it do",
    ["lookup", "retry", "deadLetters", "delay", "deduplication", "order"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const receiver = yield* fixture.join("g")
      const idOf = (parts: Partial<Message.Outgoing>) =>
        Effect.map(fixture.publish({ body: "a", ...parts }), ([receipt]) => receipt!.id)
      const [waits, dies] = [yield* idOf({}), yield* idOf({ id: "own" })]
      const [first, second] = yield* fixture.take(receiver, 2)
      assert.strictEqual(yield* reasonOf(inspector.removeMessage(topic, waits)), "MessageInUse")
      yield* settle(receiver, [first!], later)
      yield* settle(receiver, [second!], Settlement.deadLetter("Broken", "cause"))
      const late = yield* idOf({ due: { _tag: "After", delay: long } })
      const ready = [yield* idOf({}), yield* idOf({})]
      yield* fixture.publish("before")
      ready.push(yield* idOf({ headers: { of: "between" } }))
      yield* fixture.publish("behind")
      ready.push(yield* idOf({}))
      const all = [waits, dies, late, ...ready]
      for (const id of all) {
        yield* inspector.removeMessage(topic, id)
        assert.isTrue(Option.isNone(yield* inspector.message(topic, id)), id)
        assert.strictEqual(yield* reasonOf(inspector.removeMessage(topic, id)), "MessageNotFound")
        assert.strictEqual(yield* reasonOf(inspector.runNow(topic, id)), "MessageNotFound")
      }
      const missed: Array<string> = []
      yield* fixture.transport.lifecycle.listen((event) => {
        const isMissing = event._tag === "Gap" || event._tag === "Truncated"
        if (isMissing && event.topic === topic) missed.push(event._tag)
      })
      const left = yield* fixture.take(receiver, 2)
      assert.deepStrictEqual(
        left.map(({ body }) => body),
        ["before", "behind"]
      )
      yield* settle(receiver, left, Settlement.ack)
      yield* fixture.publish("last")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.ack)
      assert.deepStrictEqual(missed, [])
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
      assert.strictEqual((yield* inspector.describe(topic)).delayed, 0)
    })
  ),

  check(
    "a message whose priority is changed is delivered by it, once, wherever it waits",
    ["priorities", "lookup", "retry", "deadLetters", "delay"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const publish = (body: string, priority: Message.Priority, parts: Partial<Message.Outgoing> = {}) =>
        Effect.map(fixture.publish({ body, headers: { priority }, ...parts }), ([receipt]) => receipt!.id)
      const first = yield* publish("1", "low")
      const second = yield* publish("2", "normal")
      yield* publish("3", "normal", { id: "own" })
      const fourth = yield* publish("4", "high")
      yield* inspector.changePriority(topic, first, "high")
      yield* inspector.changePriority(topic, fourth, "low")
      yield* inspector.changePriority(topic, second, "high")
      yield* inspector.changePriority(topic, second, "low")
      yield* inspector.changePriority(topic, "own", "low")
      yield* inspector.changePriority(topic, "own", "normal")
      const listed = yield* inspector.messages(topic, { after: Option.none(), limit: 3 })
      const rest = yield* inspector.messages(topic, { after: Option.some(listed.at(-1)!.position), limit: 3 })
      const last = yield* inspector.messages(topic, { before: Option.none(), limit: 2 })
      assert.deepStrictEqual(
        [listed, rest, last].map((page) => page.map(({ body }) => body).join(" ")),
        ["1 3 4", "2", "4 2"]
      )
      const receiver = yield* fixture.join("g")
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, lag: 4 })
      const taken = yield* fixture.take(receiver, 4)
      assert.deepStrictEqual(
        taken.map(({ body, headers: { priority } }) => `${String(body)} ${priority}`),
        ["1 high", "3 normal", "4 low", "2 low"]
      )
      yield* settle(receiver, [taken[0]!, taken[3]!], Settlement.ack)
      yield* settle(receiver, [taken[1]!], later)
      yield* settle(receiver, [taken[2]!], Settlement.deadLetter("Broken", "cause"))
      const late = yield* publish("5", "low", { id: "late", due: { _tag: "After", delay: long } })
      for (const id of ["own", late]) {
        yield* inspector.changePriority(topic, id, "high")
        const found = Option.getOrThrow(yield* inspector.message(topic, id))
        assert.strictEqual(found.headers["priority"], "high")
        yield* inspector.runNow(topic, id)
        const again = yield* fixture.one(receiver)
        assert.deepStrictEqual([again.id, again.headers["priority"]], [id, "high"])
        yield* settle(receiver, [again], Settlement.ack)
      }
      assert.strictEqual(yield* reasonOf(inspector.changePriority(topic, fourth, "high")), "MessageSettled")
      assert.strictEqual(yield* reasonOf(inspector.changePriority(topic, "none", "high")), "MessageNotFound")
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
    })
  ),

  check(
    "the id of a removed message is free, and that of a removed dead letter",
    ["lookup", "deadLetters", "deduplication"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const publish = Effect.map(fixture.publish({ body: "a", id: "own" }), ([receipt]) => receipt?._tag)
      assert.strictEqual(yield* publish, "Stored")
      yield* inspector.removeMessage(topic, "own")
      assert.strictEqual(yield* publish, "Stored")
      const receiver = yield* fixture.join("g")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.deadLetter("Broken", "cause"))
      assert.strictEqual(yield* publish, "Duplicate")
      yield* inspector.removeMessage(topic, "own")
      assert.strictEqual(yield* publish, "Stored")
      assert.strictEqual(yield* publish, "Duplicate")
    })
  ),

  check(
    "a cancelled delivery is told to its consumer, and is a dead letter however it ends, unless it is done",
    ["cancel", "retry", "deadLetters", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const receiver = yield* fixture.join("g")
      const reasons = Effect.map(inspector.deadLetters(topic, "g", { after: Option.none(), limit: 10 }), (letters) =>
        letters.map(({ body, reason }) => `${String(body)} ${reason}`).sort()
      )
      for (const [body, ending] of [
        ["retried", later],
        ["settled", Settlement.cancelled],
        ["released", Settlement.release],
        ["done", Settlement.ack]
      ] as const) {
        const [receipt] = yield* fixture.publish(body)
        const id = receipt!.id // one message was published
        const delivery = yield* fixture.one(receiver)
        assert.deepStrictEqual(yield* inspector.cancel(topic, id), ["g"])
        const { cancelled } = receiver
        assert(cancelled !== undefined)
        const told = yield* fixture.within("it is told", cancelled)
        assert.deepStrictEqual(
          told.map(({ receipt }) => receipt),
          [delivery.receipt]
        )
        assert.deepStrictEqual(yield* settle(receiver, [delivery], ending), ["Settled"])
        // Only a take looks for what was handed back.
        yield* fixture.publish("next")
        const next = yield* fixture.one(receiver)
        assert.strictEqual(next.body, "next")
        yield* settle(receiver, [next], Settlement.ack)
        if (body !== "released")
          assert.include(["MessageSettled", "MessageNotFound"], yield* reasonOf(inspector.cancel(topic, id)))
      }
      yield* fixture.publish("last")
      yield* settle(receiver, [yield* fixture.one(receiver)], Settlement.ack)
      yield* Effect.forkScoped(Effect.ignore(receiver.take(1)))
      yield* fixture.becomes("the dead letters", reasons, [
        "released Cancelled",
        "retried Cancelled",
        "settled Cancelled"
      ])
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 3 })
    })
  ),

  check(
    "a cancelled message whose consumer dies is a dead letter, and the next consumer is not given it",
    ["cancel", "sharing", "redelivery", "deadLetters", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, setting, topic } = fixture
      const receiver = yield* fixture.join("g", { lease: setting.lease })
      const [receipt] = yield* fixture.publish("cancelled")
      yield* fixture.one(receiver)
      yield* setting.freeze(receiver)
      assert.deepStrictEqual(yield* inspector.cancel(topic, receipt!.id), ["g"])
      yield* fixture.publish("next")
      const other = yield* fixture.join("g", { lease: setting.lease })
      const next = yield* fixture.one(other)
      assert.strictEqual(next.body, "next")
      yield* settle(other, [next], Settlement.ack)
      // Only a take looks for what the dead have left.
      const given = yield* Effect.forkScoped(other.take(1), { startImmediately: true })
      yield* fixture.becomes(
        "the dead letters",
        Effect.andThen(
          fixture.pass(setting.lease),
          Effect.map(inspector.deadLetters(topic, "g", { after: Option.none(), limit: 10 }), (letters) =>
            letters.map(({ body, reason }) => `${String(body)} ${reason}`)
          )
        ),
        ["cancelled Cancelled"]
      )
      assert.isUndefined(given.pollUnsafe())
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
    })
  ),

  check(
    "a message that no consumer holds is cancelled by deleting it",
    ["cancel", "retry", "delay"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const receiver = yield* fixture.join("g")
      const [first] = yield* fixture.publish("waits")
      yield* settle(receiver, [yield* fixture.one(receiver)], later)
      const [second] = yield* fixture.publish("ready")
      const [third] = yield* fixture.publish({ body: "delayed", due: { _tag: "After", delay: long } })
      for (const receipt of [first, second, third]) {
        assert.deepStrictEqual(yield* inspector.cancel(topic, receipt!.id), [])
        assert.strictEqual(yield* reasonOf(inspector.cancel(topic, receipt!.id)), "MessageNotFound")
      }
      yield* fixture.publish("next")
      assert.strictEqual((yield* fixture.one(receiver)).body, "next")
    })
  )
]
