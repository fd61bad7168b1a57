/**
 * Schedules beside the messages of a topic.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Effect, Option } from "effect"
import { Settlement, type Transport } from "waybill"
import { check } from "./Check.ts"
import { bodies, type Fixture, outgoing, settle } from "./Fixture.ts"

type StoredSchedule = Transport.StoredSchedule

const second = 1000

/** A schedule of a tick a second, as it is stored. */
const text = (end: number) => JSON.stringify({ every: second, end, missed: "all", message: { body: "tick" } })

const storeOf = ({ transport }: Fixture["Service"]) =>
  transport.schedules ?? assert.fail("a transport that keeps schedules has them")

/** The ids of all, read two at a time. */
const idsOf = Effect.fnUntraced(function* <A>(
  store: Transport.Schedules,
  topic: string,
  seen: (schedules: ReadonlyArray<StoredSchedule>) => Effect.Effect<A, Transport.TransportError> | void = () => {}
) {
  const found: Array<string> = []
  for (let after = Option.none<StoredSchedule>(); ;) {
    const { schedules } = yield* store.page(topic, after, 2)
    found.push(...schedules.map(({ id }) => id))
    const last = schedules.at(-1)
    if (last === undefined) return found
    yield* seen(schedules) ?? Effect.void
    after = Option.some(last)
  }
})

export const scheduled = [
  check(
    "each tick that is due is published once and in order, however many watch",
    ["schedules", "history", "order"],
    Effect.fnUntraced(function* (fixture) {
      const { topic } = fixture
      const store = storeOf(fixture)
      const { now } = yield* store.find(topic, [])
      const last = Math.floor(now / second) * second
      const ticks = [last - 2 * second, last - second, last]
      const absent = { id: "s", revision: "" }
      yield* Effect.all([store.watch(topic), store.watch(topic)])
      assert.deepStrictEqual(
        yield* store.change(topic, [{ ...absent, next: ticks[0], text: text(last), messages: [] }], true),
        [[]]
      )
      const receiver = yield* fixture.join("g")
      const deliveries = yield* fixture.take(receiver, ticks.length)
      assert.deepStrictEqual(
        deliveries.map(({ id }) => id),
        ticks.map((tick) => `s@${new Date(tick).toISOString()}`)
      )
      assert.deepStrictEqual(bodies(deliveries), ["tick", "tick", "tick"])
      yield* settle(receiver, deliveries, Settlement.ack)
      const { schedules } = yield* store.find(topic, ["s"])
      assert.isUndefined(schedules[0]?.next)
    })
  ),

  check(
    "a change that is based on another revision is not made, and its message is not stored",
    ["schedules", "history"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const store = storeOf(fixture)
      const change = (revision: string, body: string) =>
        store.change(
          topic,
          [
            {
              id: "s",
              revision,
              next: undefined,
              text: text(0),
              messages: [outgoing({ id: `${revision}-${body}`, body })]
            }
          ],
          false
        )
      const revision = Effect.map(store.find(topic, ["s"]), ({ schedules }) => schedules[0]?.revision ?? "")
      assert.strictEqual(yield* revision, "")
      assert.deepStrictEqual(yield* change("", "a"), [[{ _tag: "Stored", id: "-a" }]])
      const first = yield* revision
      assert.deepStrictEqual(yield* change("", "b"), [undefined])
      assert.deepStrictEqual(yield* change(first, "c"), [[{ _tag: "Stored", id: `${first}-c` }]])
      assert.deepStrictEqual(yield* change(first, "d"), [undefined])
      assert.notStrictEqual(yield* revision, first)
      const receiver = yield* fixture.join("g")
      const deliveries = yield* fixture.take(receiver, 2)
      assert.deepStrictEqual(bodies(deliveries).toSorted(), ["a", "c"])
      yield* settle(receiver, deliveries, Settlement.ack)
      assert.include(yield* inspector.topics, topic)
    })
  ),

  check(
    "where ticks must not overlap, none is published until the message of the one before is settled",
    ["schedules", "untilSettled", "history"],
    Effect.fnUntraced(function* (fixture) {
      const { topic, transport } = fixture
      const store = storeOf(fixture)
      const told: Array<unknown> = []
      yield* transport.lifecycle.overhear((event) => {
        if (event._tag === "TicksMissed") told.push(event)
      })
      yield* store.watch(topic)
      const receiver = yield* fixture.join("g")
      const { now } = yield* store.find(topic, [])
      const last = Math.floor(now / second) * second
      /** Lets the ticks of the last seconds be due. */
      const due = (ticks: number, revision: string) =>
        store.change(
          topic,
          [
            {
              id: "s",
              revision,
              next: last - (ticks - 1) * second,
              text: JSON.stringify({ ...JSON.parse(text(last)), overlap: "skip" }),
              messages: []
            }
          ],
          true
        )
      yield* due(3, "")
      const [delivery] = yield* fixture.take(receiver, 1)
      assert.deepStrictEqual(delivery?.headers["tick"], new Date(last - 2 * second).toISOString())
      yield* fixture.becomes(
        "the others are left out",
        Effect.sync(() => told),
        [{ _tag: "TicksMissed", topic, schedule: "s", count: 2, reason: "overlap" }]
      )
      yield* settle(receiver, delivery === undefined ? [] : [delivery], Settlement.ack)
      const { schedules } = yield* store.find(topic, ["s"])
      yield* due(1, schedules[0]?.revision ?? "")
      const [next] = yield* fixture.take(receiver, 1)
      assert.deepStrictEqual(next?.headers["tick"], new Date(last).toISOString())
    })
  ),

  check(
    "what processes find of the schedules they declare is known to others until it is over",
    ["schedules"],
    Effect.fnUntraced(function* (fixture) {
      const { topic } = fixture
      const store = storeOf(fixture)
      const [a, b] = [
        { schedule: "a", found: "changed" },
        { schedule: "b", found: "missing" }
      ] as const
      const long = 60 * second
      const known = Effect.map(store.drifts(topic, 10), (all) =>
        all.map(({ found, schedule }) => `${found} ${schedule}`)
      )
      assert.deepStrictEqual(yield* known, [])
      yield* store.note(topic, [a, b], [], long)
      assert.deepStrictEqual((yield* known).toSorted(), ["changed a", "missing b"])
      assert.strictEqual((yield* store.drifts(topic, 1)).length, 1)
      yield* store.note(topic, [{ ...a, found: "missing" }], [a], long)
      yield* store.note(topic, [], [b], long)
      assert.deepStrictEqual(yield* known, ["missing a"])
    })
  ),

  check(
    "schedules keep their topic, unless it is removed by force",
    ["schedules"],
    Effect.fnUntraced(function* (fixture) {
      const { inspector, topic } = fixture
      const store = storeOf(fixture)
      const create = store.change(
        topic,
        [{ id: "s", revision: "", next: undefined, text: text(0), messages: [] }],
        false
      )
      yield* create
      const failure = yield* Effect.flip(inspector.remove(topic))
      assert.strictEqual(failure.reason._tag === "TopicInUse" && failure.reason.found, "schedules")
      yield* inspector.remove(topic, { force: true })
      assert.notInclude(yield* inspector.topics, topic)
      // None of them is left.
      assert.deepStrictEqual(yield* create, [[]])
    })
  ),

  check(
    "schedules are listed in the order in which they are due, page after page",
    ["schedules"],
    Effect.fnUntraced(function* (fixture) {
      const { topic } = fixture
      const store = storeOf(fixture)
      const { now } = yield* store.find(topic, [])
      const later = now + 3_600_000
      const one = (id: string, next: number | undefined) => ({ id, revision: "", next, text: text(0), messages: [] })
      yield* store.change(
        topic,
        [one("never", undefined), one("c", later + 1), one("b", later), one("a", later), one("d", later + 2)],
        false
      )
      const { next, schedules } = yield* store.due(topic)
      assert.deepStrictEqual([next, schedules], [later, []])
      assert.deepStrictEqual(yield* idsOf(store, topic), ["a", "b", "c", "d", "never"])
    })
  ),

  check(
    "each schedule is listed, although those of the pages before are removed or moved",
    ["schedules"],
    Effect.fnUntraced(function* (fixture) {
      const { topic } = fixture
      const store = storeOf(fixture)
      const { now } = yield* store.find(topic, [])
      const ids = ["B", "a", "aa", "b", "b-", "c"]
      for (const next of [undefined, now + 3_600_000]) {
        for (const [text, later] of [
          ["", undefined],
          ["{}", now + 7_200_000]
        ] as const) {
          yield* store.change(
            topic,
            ids.map((id) => ({ id, revision: "", next, text: "{}", messages: [] })),
            false
          )
          const change = (all: ReadonlyArray<StoredSchedule>) =>
            store.change(
              topic,
              all.map(({ id, revision }) => ({ id, revision, next: later, text, messages: [] })),
              false
            )
          const found = yield* idsOf(store, topic, change)
          assert.deepStrictEqual([...new Set(found)], ids)
          const { schedules } = yield* store.find(topic, ids)
          yield* store.change(
            topic,
            schedules.filter(({ revision }) => revision !== "").map((one) => ({ ...one, text: "", messages: [] })),
            false
          )
        }
      }
    })
  )
]
