import { assert } from "@effect/vitest"
import { Duration, Effect, Option, Schema } from "effect"
import { Commit, Settlement, type Transport } from "waybill"
import { check } from "./Check.ts"
import { type Fixture, bodies, outgoing, settle, settled, toleranceMillis } from "./Fixture.ts"

const total = Commit.counter("total")
const other = Commit.counter("other")
const names = Commit.hash("names")

/** Settles one delivery of a new message with the commit. */
const commitOne = Effect.fnUntraced(function* (
  fixture: Fixture["Service"],
  receiver: Transport.Receiver,
  commit: Commit.Commit<Commit.Condition>
) {
  yield* fixture.publish("a")
  const delivery = yield* fixture.one(receiver)
  const [answer] = yield* settle(receiver, [delivery], Settlement.commit(commit))
  return { answer, delivery }
})

const reasonOf = (answer: Transport.Settled | undefined) =>
  typeof answer !== "object" ? answer : answer._tag === "DeadLetter" ? answer.reason : answer._tag

const deadLettersOf = (fixture: Fixture["Service"], group: string) =>
  fixture.inspector.deadLetters(fixture.topic, group, { after: Option.none(), limit: 10 })

export const committing = [
  check(
    "a record with a schema reads back what was written, and says what does not fit",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const Profile = Schema.Struct({ born: Schema.Date, tags: Schema.ReadonlySet(Schema.String), big: Schema.BigInt })
      const profile = { born: new Date(0), tags: new Set(["x"]), big: 2n ** 70n }
      const one = Commit.value("one", Profile)
      const many = Commit.values("many", Profile)
      const receiver = yield* fixture.join("g")
      assert.strictEqual(yield* fixture.read(one.value), undefined)
      const writes = [one.set(profile), many.set("a", profile), many.set("b", profile), many.remove("b")]
      yield* commitOne(fixture, receiver, Commit.make({ writes }))
      assert.deepStrictEqual(yield* fixture.read(one.value), profile)
      assert.deepStrictEqual(yield* fixture.read(many.get("a")), profile)
      assert.strictEqual(yield* fixture.read(many.get("b")), undefined)
      assert.deepStrictEqual(yield* fixture.read(many.all), new Map([["a", profile]]))
      yield* commitOne(fixture, receiver, Commit.make({ writes: [names.clear, Commit.text("one").set("no json")] }))
      const failure = yield* Effect.flip(fixture.read(one.value))
      assert.deepInclude(failure, { _tag: "InvalidRecord", key: "one" })
      // Read with another schema, it does not fit either.
      yield* commitOne(fixture, receiver, Commit.make({ writes: [Commit.values("many", Schema.Int).set("a", 1)] }))
      assert.strictEqual((yield* Effect.flip(fixture.read(many.all)))._tag, "InvalidRecord")
    })
  ),

  check(
    "a commit is applied with the ack, whatever kinds of records it writes to",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const [members, scores, list, text] = [
        Commit.set("members"),
        Commit.sortedSet("scores"),
        Commit.list("list"),
        Commit.text("text")
      ]
      const receiver = yield* fixture.join("g")
      const first = Commit.make({
        writes: [
          total.set(40),
          total.add(2),
          names.set("ada", "Lovelace"),
          names.set("old", 1),
          names.increment("old", 41),
          members.add("a", "b", "c"),
          members.remove("b"),
          scores.set("low", -1.5),
          scores.set("high", Infinity),
          scores.increment("low", 0.25),
          list.append("2", "3", "4"),
          list.prepend("1"),
          list.keepLast(3),
          text.set("kept")
        ]
      })
      assert.deepStrictEqual((yield* commitOne(fixture, receiver, first)).answer, "Settled")
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
      assert.strictEqual(yield* fixture.read(total.value), 42)
      assert.deepStrictEqual(
        yield* fixture.read(names.all),
        new Map([
          ["ada", "Lovelace"],
          ["old", "42"]
        ])
      )
      assert.strictEqual(yield* fixture.read(names.get("ada")), "Lovelace")
      assert.strictEqual(yield* fixture.read(names.get("nobody")), undefined)
      assert.deepStrictEqual([...(yield* fixture.read(members.all))].sort(), ["a", "c"])
      assert.isTrue(yield* fixture.read(members.has("a")))
      assert.isFalse(yield* fixture.read(members.has("b")))
      assert.deepStrictEqual(
        [...(yield* fixture.read(scores.all))],
        [
          ["low", -1.25],
          ["high", Infinity]
        ]
      )
      assert.deepStrictEqual(yield* fixture.read(list.all), ["2", "3", "4"])
      assert.strictEqual(yield* fixture.read(text.value), "kept")
      const second = Commit.make({
        writes: [
          names.remove("ada", "old"),
          members.clear,
          scores.remove("low", "high"),
          list.clear,
          text.clear,
          total.clear
        ]
      })
      yield* commitOne(fixture, receiver, second)
      assert.strictEqual(yield* fixture.read(total.value), 0)
      assert.strictEqual((yield* fixture.read(names.all)).size, 0)
      assert.strictEqual((yield* fixture.read(members.all)).size, 0)
      assert.strictEqual((yield* fixture.read(scores.all)).size, 0)
      assert.deepStrictEqual(yield* fixture.read(list.all), [])
      assert.strictEqual(yield* fixture.read(text.value), undefined)
    })
  ),

  check(
    "a text with a ttl is gone after it",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const text = Commit.text("text")
      const receiver = yield* fixture.join("g")
      // On the real clock a short one may expire before the check has read it.
      yield* commitOne(fixture, receiver, Commit.make({ writes: [text.set("for long", { ttl: Duration.hours(5) })] }))
      assert.strictEqual(yield* fixture.read(text.value), "for long")
      yield* commitOne(fixture, receiver, Commit.make({ writes: [text.set("for now", { ttl: fixture.delay })] }))
      yield* fixture.pass(fixture.delay)
      yield* fixture.becomes("the text", fixture.read(text.value), undefined)
      yield* commitOne(
        fixture,
        receiver,
        Commit.make({ writes: [text.set("for now", { ttl: fixture.delay }), text.set("for good")] })
      )
      yield* fixture.pass(Duration.times(fixture.delay, 2))
      assert.strictEqual(yield* fixture.read(text.value), "for good")
    })
  ),

  check(
    "a commit that is repeated changes nothing",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const commit = Commit.make({ writes: [total.add(1)] })
      const { delivery } = yield* commitOne(fixture, receiver, commit)
      yield* settle(receiver, [delivery], Settlement.commit(commit))
      assert.strictEqual(yield* fixture.read(total.value), 1)
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  ),

  check(
    "many commits of one call are each applied once, and one that is refused holds up no other",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const count = 300
      const [first, ...rest] = Array.from({ length: count }, (_, i) => `${i}`)
      yield* fixture.publish(first!, ...rest)
      const deliveries = yield* fixture.take(receiver, count)
      const wrong = Commit.make({ writes: [Commit.list("total").append("x")] })
      const settlements = deliveries.map(
        (delivery, i) =>
          [delivery, Settlement.commit(i === 7 ? wrong : Commit.make({ writes: [total.add(1)] }))] as const
      )
      const [one, ...others] = settlements
      const answers = yield* receiver.settle([one!, ...others])
      assert.strictEqual(answers.filter((answer) => answer === "Settled").length, count - 1)
      assert.strictEqual(reasonOf(answers[7]), "CommitRejected")
      assert.strictEqual(yield* fixture.read(total.value), count - 1)
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
    })
  ),

  check(
    "a retried message is committed once",
    ["transactional", "redelivery"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* fixture.publish("a")
      const first = yield* fixture.one(receiver)
      yield* settle(receiver, [first], Settlement.retry(Duration.zero, "cause"))
      const second = yield* fixture.one(receiver)
      const commit = Settlement.commit(Commit.make({ writes: [total.add(1)] }))
      assert.deepStrictEqual(yield* settle(receiver, [second], commit), ["Settled"])
      assert.deepStrictEqual(yield* settle(receiver, [first], commit), ["Stale"])
      assert.strictEqual(yield* fixture.read(total.value), 1)
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  ),

  check(
    "a commit that comes too late applies nothing: neither before nor after the one of the new owner",
    ["transactional", "redelivery", "sharing", "freeze"],
    Effect.fnUntraced(function* (fixture) {
      const lease = { lease: fixture.setting.lease }
      const one = yield* fixture.join("g", lease)
      yield* fixture.publish("a")
      const late = yield* fixture.one(one)
      yield* fixture.setting.freeze(one)
      const two = yield* fixture.join("g", lease)
      yield* fixture.pass(fixture.setting.lease)
      const delivery = yield* fixture.one(two)
      assert.deepStrictEqual(yield* settle(one, [late], Settlement.commit(Commit.make({ writes: [other.add(1)] }))), [
        "Stale"
      ])
      const commit = Settlement.commit(Commit.make({ writes: [total.add(1)] }))
      assert.deepStrictEqual(yield* settle(two, [delivery], commit), ["Settled"])
      assert.deepStrictEqual(yield* settle(one, [late], commit), ["Stale"])
      assert.deepStrictEqual([yield* fixture.read(total.value), yield* fixture.read(other.value)], [1, 0])
    })
  ),

  check(
    "a commit that is refused changes nothing and becomes a dead letter, and can be applied after a redrive",
    ["transactional", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* commitOne(fixture, receiver, Commit.make({ writes: [names.set("ada", "Lovelace")] }))
      // The second write is of the wrong kind, which is known before the first one is made.
      const refused = [
        Commit.make({ writes: [total.add(1), Commit.counter("names").add(1)] }),
        // The first write fails when it is made.
        Commit.make({ writes: [names.increment("ada", 1), total.add(1)] }),
        Commit.make({
          writes: [total.add(1)],
          messages: [{ topic: `${fixture.topic}-other`, message: outgoing("x") }]
        })
      ]
      for (const commit of refused) {
        const { answer } = yield* commitOne(fixture, receiver, commit)
        assert.strictEqual(reasonOf(answer), "CommitRejected")
        assert.strictEqual(yield* fixture.read(total.value), 0)
      }
      const letters = yield* deadLettersOf(fixture, "g")
      assert.deepStrictEqual(
        letters.map(({ body, reason }) => [body, reason]),
        refused.map(() => ["a", "CommitRejected"])
      )
      assert.include(letters[0]?.cause, "names")
      yield* fixture.inspector.redrive(fixture.topic, "g", [letters[0]!.entry])
      const again = yield* fixture.one(receiver)
      const repaired = Settlement.commit(Commit.make({ writes: [total.add(1)] }))
      assert.deepStrictEqual(yield* settle(receiver, [again], repaired), ["Settled"])
      assert.strictEqual(yield* fixture.read(total.value), 1)
    })
  ),

  check(
    "a commit that is refused half way is a dead letter of its own kind, and nothing of it is applied again",
    ["transactional", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      yield* commitOne(fixture, receiver, Commit.make({ writes: [names.set("ada", "Lovelace")] }))
      const commit = Commit.make({ writes: [total.add(1), names.increment("ada", 1), other.add(1)] })
      const { answer } = yield* commitOne(fixture, receiver, commit)
      assert.strictEqual(reasonOf(answer), "PartialCommit")
      const [letter] = yield* deadLettersOf(fixture, "g")
      assert.strictEqual(letter?.reason, "PartialCommit")
      yield* fixture.inspector.redrive(fixture.topic, "g", [letter!.entry])
      const again = yield* fixture.one(receiver)
      const [second] = yield* settle(receiver, [again], Settlement.commit(Commit.make({ writes: [total.add(1)] })))
      assert.strictEqual(reasonOf(second), "PartialCommit")
      assert.deepStrictEqual([yield* fixture.read(total.value), yield* fixture.read(other.value)], [1, 0])
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
    })
  ),

  check(
    "a commit whose condition does not hold changes nothing, and its delivery can still be settled",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const Stock = Schema.Struct({ left: Schema.Int })
      const [stock, label, tags] = [Commit.values("stock", Stock), Commit.text("label"), Commit.set("tags")]
      const one = Commit.value("one", Stock)
      yield* commitOne(
        fixture,
        receiver,
        Commit.make({
          writes: [stock.set("tea", { left: 3 }), label.set("x"), tags.add("new"), one.set({ left: 1 }), other.set(0)]
        })
      )
      const holds = [
        total.is(0),
        other.is(0),
        label.is("x"),
        Commit.text("none").is(undefined),
        stock.is("tea", { left: 3 }),
        stock.is("rice", undefined),
        one.is({ left: 1 }),
        names.is("ada", undefined),
        tags.is("new", true),
        tags.is("old", false)
      ]
      const { answer } = yield* commitOne(
        fixture,
        receiver,
        Commit.make({ conditions: holds, writes: [names.set("ada", 1)] })
      )
      assert.strictEqual(answer, "Settled")
      assert.strictEqual(yield* fixture.read(names.get("ada")), "1")
      const fails: ReadonlyArray<[key: string, field: string | undefined, condition: Commit.Condition]> = [
        ["total", undefined, total.is(1)],
        ["other", undefined, other.is(7)],
        ["label", undefined, label.is("y")],
        ["label", undefined, label.is(undefined)],
        ["none", undefined, Commit.text("none").is("")],
        ["stock", "tea", stock.is("tea", { left: 2 })],
        ["stock", "tea", stock.is("tea", undefined)],
        ["names", "ada", names.is("ada", "")],
        ["tags", "new", tags.is("new", false)],
        ["tags", "old", tags.is("old", true)]
      ]
      yield* fixture.publish("a", ...fails.map((_, i) => `${i}`))
      const [last, ...deliveries] = yield* fixture.take(receiver, fails.length + 1)
      const commits = fails.map(([, , condition]) =>
        Settlement.commit(Commit.make({ conditions: [...holds.slice(0, 5), condition], writes: [total.add(1)] }))
      )
      const answers = yield* receiver.settle([
        [last!, Settlement.commit(Commit.make({ conditions: [total.is(0)], writes: [label.set("x")] }))],
        ...deliveries.map((delivery, i) => [delivery, commits[i]!] as const)
      ])
      assert.strictEqual(answers[0], "Settled")
      assert.deepStrictEqual(
        answers.slice(1).map((answer) => typeof answer === "object" && { ...answer }),
        fails.map(([key, field]) => ({ ...new Commit.ConditionFailed(field === undefined ? { key } : { key, field }) }))
      )
      assert.strictEqual(yield* fixture.read(total.value), 0)
      // They are still with the consumer: one commit is tried again, and the others are acknowledged.
      const again = Settlement.commit(Commit.make({ conditions: [total.is(0)], writes: [total.add(1)] }))
      assert.deepStrictEqual(yield* settle(receiver, deliveries.slice(0, 1), again), ["Settled"])
      yield* settle(receiver, deliveries.slice(1), Settlement.ack)
      assert.strictEqual(yield* fixture.read(total.value), 1)
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  ),

  check(
    "of two commits that were made from the same value one is applied, and without a condition one update is lost",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const update = Effect.fnUntraced(function* (count: Commit.Counter, guarded: boolean) {
        yield* fixture.publish("a", "b")
        const deliveries = yield* fixture.take(receiver, 2)
        const read = yield* fixture.read(count.value)
        const conditions = guarded ? [count.is(read)] : []
        return {
          answers: yield* settle(
            receiver,
            deliveries,
            Settlement.commit(Commit.make({ conditions, writes: [count.set(read + 1)] }))
          ),
          deliveries
        }
      })
      assert.deepStrictEqual((yield* update(other, false)).answers, ["Settled", "Settled"])
      assert.strictEqual(yield* fixture.read(other.value), 1)
      const { answers, deliveries } = yield* update(total, true)
      assert.deepStrictEqual(answers.map(reasonOf).toSorted(), ["ConditionFailed", "Settled"])
      const left = deliveries.filter((_, i) => answers[i] !== "Settled")
      const conditions = [total.is(1)]
      const second = Settlement.commit(Commit.make({ conditions, writes: [total.set(2)] }))
      assert.deepStrictEqual(yield* settle(receiver, left, second), ["Settled"])
      assert.strictEqual(yield* fixture.read(total.value), 2)
      yield* fixture.becomes("figures", fixture.figures("g"), settled)
    })
  ),

  check(
    "a condition is asked only of a delivery that is the consumer's and not done, and of a record of its kind",
    ["transactional", "deadLetters"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const commit = Commit.make({ conditions: [total.is(0)], writes: [total.add(1)] })
      const { answer, delivery } = yield* commitOne(fixture, receiver, commit)
      assert.strictEqual(answer, "Settled")
      assert.deepStrictEqual(yield* settle(receiver, [delivery], Settlement.commit(commit)), ["Stale"])
      const foreign = Commit.make({ conditions: [names.is("ada", undefined), Commit.set("total").is("a", false)] })
      const { answer: refused } = yield* commitOne(fixture, receiver, foreign)
      assert.strictEqual(reasonOf(refused), "CommitRejected")
      yield* fixture.becomes("figures", fixture.figures("g"), { ...settled, deadLetters: 1 })
    })
  ),

  check(
    "the messages of a commit are published with it, and an id once",
    ["transactional", "deduplication"],
    Effect.fnUntraced(function* (fixture) {
      const out = `${fixture.topic}/out`
      const receiver = yield* fixture.join("g")
      const message = outgoing({ body: "x", headers: { h: "1" }, key: "k", version: 2 })
      const named = outgoing({ body: "named", id: "n" })
      const publish = (...messages: ReadonlyArray<typeof message>) =>
        Commit.make({ messages: messages.map((message) => ({ topic: out, message })) })
      yield* commitOne(fixture, receiver, publish(message, named))
      yield* commitOne(fixture, receiver, publish(named, outgoing("last")))
      const theirs = yield* fixture.transport.receive({
        topic: out,
        group: "g",
        start: "earliest",
        lease: fixture.setting.safeLease,
        maxDeliveries: 5,
        shutdown: Duration.seconds(2)
      })
      const deliveries = yield* fixture.take(theirs, 3)
      assert.sameMembers([...bodies(deliveries)], ["x", "named", "last"])
      const first = deliveries.find(({ body }) => body === "x")
      assert.deepInclude(first, { headers: { h: "1" }, key: "k", version: 2, attempt: 1 })
      assert.include(
        deliveries.map(({ id }) => id),
        "n"
      )
      assert.isTrue((yield* fixture.inspector.topics).includes(out))
    })
  ),

  check(
    "a message of a commit can be delayed",
    ["transactional", "delay"],
    Effect.fnUntraced(function* (fixture) {
      const receiver = yield* fixture.join("g")
      const message = outgoing({ body: "later", due: { _tag: "After", delay: fixture.delay } })
      const commit = Commit.make({ messages: [{ topic: fixture.topic, message }] })
      const [{ answer, delivery }, millis] = yield* fixture.elapsed(
        Effect.gen(function* () {
          const { answer } = yield* commitOne(fixture, receiver, commit)
          return { answer, delivery: yield* fixture.one(receiver) }
        })
      )
      assert.strictEqual(answer, "Settled")
      assert.strictEqual(delivery.body, "later")
      assert.isAtLeast(millis, Duration.toMillis(fixture.delay) - toleranceMillis)
    })
  ),

  check(
    "a consumer whose messages may come again after the marker is not let in",
    ["transactional"],
    Effect.fnUntraced(function* (fixture) {
      yield* fixture.join("g", { redelivery: Duration.minutes(5) })
      const error = yield* Effect.flip(Effect.scoped(fixture.join("g", { redelivery: Duration.infinity })))
      assert.strictEqual(error.reason._tag, "MarkerTooShort")
    })
  )
]
