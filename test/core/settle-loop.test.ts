import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Duration, Effect, Exit, Fiber, Option } from "effect"
import { Commit, Consumer, Lifecycle, Settlement, type Transport } from "waybill"
import { consumerMetrics } from "../../packages/waybill/src/internal/ConsumerMetrics.ts"
import { none, type Routes } from "../../packages/waybill/src/internal/Routing.ts"
import { type Observe, type Outcome, SettleLoop } from "../../packages/waybill/src/internal/SettleLoop.ts"
import { deliveryOf } from "./FakeTransport.ts"

const delivery = (id: string) => deliveryOf({ id, receipt: id })

/** A settle loop over a store that answers when it is told to; what was sent stands in `sent`, what is free again in `free`. */
const fixture = Effect.fnUntraced(function* (
  options: { observe?: Observe; answer?: Transport.Settled; listen?: boolean; routes?: Partial<Routes> } = {}
) {
  const sent: Array<ReadonlyArray<string>> = []
  const unloaded: Array<string> = []
  const free: Array<string> = []
  const answers: Array<() => void> = []
  const lifecycle = new Lifecycle.Lifecycle()
  const events: Array<Lifecycle.Event> = []
  if (options.listen !== false) yield* lifecycle.listen((event) => events.push(event))
  const settling = new SettleLoop({
    topic: "t",
    group: "g",
    settle: (entries) =>
      Effect.callback((resume) => {
        sent.push(entries.map(([given, { _tag }]) => `${given.id} ${_tag}${"body" in given ? "" : ", named"}`))
        answers.push(() => resume(Effect.succeed(entries.map(() => options.answer ?? "Settled"))))
      }),
    routes: { ...none, ...options.routes },
    observe: options.observe,
    metrics: consumerMetrics("t", "g", Context.empty()),
    lifecycle,
    unloaded: ({ id }) => unloaded.push(id),
    settled: (entries) => free.push(...entries.map(([{ id }]) => id))
  })
  yield* Effect.forkScoped(settling.settle, { startImmediately: true })
  yield* Effect.forkScoped(settling.releases, { startImmediately: true })
  const answer = Effect.suspend(() => {
    answers.shift()?.()
    return Effect.repeat(Effect.yieldNow, { times: 5 })
  })
  const put = (...ids: ReadonlyArray<string>) => {
    for (const id of ids) settling.put(delivery(id), Settlement.ack, Exit.succeed(id))
  }
  return { settling, sent, unloaded, free, events, answer, put }
})

describe("settlements", () => {
  const named = { ...delivery("a"), handle: { id: "a", attempt: 1, fence: 1, receipt: "a" } }
  const settle = (how: Settlement.Settlement, options: Parameters<typeof fixture>[0]) =>
    Effect.gen(function* () {
      const { sent, settling, unloaded } = yield* fixture(options)
      settling.put(named, how, Exit.void)
      yield* Effect.repeat(Effect.yieldNow, { times: 5 })
      return { sent: sent.flat(), unloaded }
    })

  it.effect("of a delivery that is acked no more is held than its handle, unless somebody looks at it", () =>
    Effect.gen(function* () {
      const again = Settlement.retry(Duration.zero, "cause")
      const quiet = { listen: false }
      assert.deepStrictEqual(yield* settle(Settlement.ack, quiet), { sent: ["a Ack, named"], unloaded: ["a"] })
      assert.deepStrictEqual(yield* settle(again, quiet), { sent: ["a Retry"], unloaded: [] })
      const commit = Settlement.commit(Commit.make({}))
      assert.deepStrictEqual(yield* settle(commit, quiet), { sent: ["a Ack"], unloaded: [] })
      assert.deepStrictEqual(yield* settle(Settlement.ack, {}), { sent: ["a Ack"], unloaded: [] })
      const observed = { ...quiet, observe: () => Effect.void }
      assert.deepStrictEqual(yield* settle(Settlement.ack, observed), { sent: ["a Ack"], unloaded: [] })
    })
  )

  it.effect("travel together while one batch is in flight, at most 1,000 of them", () =>
    Effect.gen(function* () {
      const { answer, free, put, sent } = yield* fixture()
      put("a", "b")
      yield* Effect.yieldNow
      put(...Array.from({ length: 1001 }, (_, i) => `${i}`))
      yield* answer
      yield* answer
      assert.deepStrictEqual(
        sent.map((entries) => entries.length),
        [2, 1000, 1]
      )
      assert.strictEqual(free.length, 1002)
    })
  )

  it.effect.each<[what: string, answer: Transport.Settled, told: string]>([
    ["as it was sent", "Settled", "Ack"],
    ["as stale", "Stale", "Ack stale"],
    ["as the dead letter that its commit became", Settlement.deadLetter("CommitRejected", ""), "DeadLetter"]
  ])("are told of %s", ([, answered, told]) =>
    Effect.gen(function* () {
      const { answer, events, put } = yield* fixture({ answer: answered })
      put("a")
      yield* Effect.yieldNow
      yield* answer
      assert.deepStrictEqual(
        events.map((event) => event._tag === "Settled" && `${event.settlement._tag}${event.stale ? " stale" : ""}`),
        [told]
      )
    })
  )

  it.effect("are made anew by the routes when a condition of a commit failed, and then end once", () =>
    Effect.gen(function* () {
      const seen: Array<Outcome> = []
      const options: Parameters<typeof fixture>[0] = {
        answer: new Commit.ConditionFailed({ key: "stock", field: "tea" }),
        routes: { rows: new Map([["ConditionFailed", Consumer.deadLetter("TooOften")]]) },
        observe: (outcomes) => Effect.sync(() => seen.push(...outcomes))
      }
      const { answer, events, free, sent, settling } = yield* fixture(options)
      settling.put(delivery("a"), Settlement.commit(Commit.make({})), Exit.succeed("a"))
      settling.put(delivery("b"), Settlement.ack, Exit.succeed("b"))
      yield* Effect.yieldNow
      yield* answer
      assert.deepStrictEqual([events, free, seen], [[], [], []])
      options.answer = "Settled"
      yield* answer
      assert.deepStrictEqual(sent, [
        ["a Ack", "b Ack"],
        ["a DeadLetter", "b DeadLetter"]
      ])
      assert.deepStrictEqual(free, ["a", "b"])
      assert.deepStrictEqual(
        seen.map(({ settlement, value }) => [settlement._tag === "DeadLetter" && settlement.reason, value]),
        [
          ["TooOften", Option.none()],
          ["TooOften", Option.none()]
        ]
      )
      assert.strictEqual(events.length, 2)
    })
  )

  it.effect("wait for the observer, who sees what handlers returned, until it is halted", () =>
    Effect.gen(function* () {
      const seen: Array<Outcome> = []
      const observe: Observe = (outcomes) => {
        seen.push(...outcomes)
        return Effect.never
      }
      const { answer, put, sent, settling } = yield* fixture({ observe })
      put("a")
      yield* Effect.yieldNow
      yield* answer
      put("b")
      yield* answer
      assert.deepStrictEqual(
        seen.map(({ value }) => value),
        [Option.some("a")]
      )
      assert.strictEqual(sent.length, 1)
      settling.halt()
      yield* answer
      assert.deepStrictEqual(sent[1], ["b Ack"])
    })
  )

  it.effect("are flushed once the store has answered for all of them", () =>
    Effect.gen(function* () {
      const { answer, put, settling } = yield* fixture()
      yield* settling.flushed
      put("a")
      const flushed = yield* Effect.forkChild(settling.flushed, { startImmediately: true })
      yield* Effect.repeat(Effect.yieldNow, { times: 5 })
      assert.isUndefined(flushed.pollUnsafe())
      yield* answer
      yield* Fiber.join(flushed)
    })
  )
})

describe("what no handler has begun", () => {
  it.effect("goes back beside a settlement that waits, the later part first", () =>
    Effect.gen(function* () {
      const { answer, put, sent, settling } = yield* fixture()
      put("a")
      settling.release([delivery("1")])
      settling.release([delivery("2"), delivery("3")])
      settling.release([delivery("0")])
      const returned = yield* Deferred.make<void>()
      yield* Effect.forkScoped(Effect.andThen(settling.returned, Deferred.succeed(returned, undefined)))
      yield* Effect.yieldNow
      assert.deepStrictEqual(sent, [["1 Release"], ["a Ack"]])
      yield* answer
      assert.deepStrictEqual(sent[2], ["0 Release", "2 Release", "3 Release"])
      assert.isFalse(Deferred.isDoneUnsafe(returned))
      yield* answer
      yield* answer
      assert.isTrue(Deferred.isDoneUnsafe(returned))
    })
  )
})
