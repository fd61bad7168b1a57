import { assert, describe, it } from "@effect/vitest"
import { Context, Duration, Effect, Exit, Fiber, Scope } from "effect"
import { Commit, type Delivery, Lifecycle } from "waybill"
import { consumerMetrics } from "../../packages/waybill/src/internal/ConsumerMetrics.ts"
import { Prefetch } from "../../packages/waybill/src/internal/Prefetch.ts"
import { none } from "../../packages/waybill/src/internal/Routing.ts"
import { SettleLoop } from "../../packages/waybill/src/internal/SettleLoop.ts"
import { type Handle, type One, Undecodable, Workers } from "../../packages/waybill/src/internal/Workers.ts"
import { deliveryOf } from "./FakeTransport.ts"

const delivery = (id: string) => deliveryOf({ id, receipt: id })

const one = (
  run: (delivery: Delivery.Delivery) => Effect.Effect<unknown, unknown>,
  returns: One["returns"] = "anything"
): Handle => ({
  _tag: "One",
  returns,
  run
})

const batch = (
  run: (deliveries: ReadonlyArray<Delivery.Delivery>) => Effect.Effect<ReadonlyArray<Exit.Exit<unknown, unknown>>>
): Handle => ({ _tag: "Batch", size: 3, within: Duration.seconds(1), run })

/** Workers over a prefetch that the test fills, and a settle loop that does not run: what was put waits in `settled`. */
const fixture = Effect.fnUntraced(function* (handle: Handle, concurrency = 1) {
  const settled: Array<string> = []
  const metrics = consumerMetrics("t", "g", Context.empty())
  const prefetch = new Prefetch({
    window: concurrency,
    prefetch: 100,
    initial: concurrency,
    bytes: 1000,
    lease: Duration.seconds(15),
    metrics,
    release: () => undefined
  })
  const settling = new SettleLoop({
    topic: "t",
    group: "g",
    settle: (entries) =>
      Effect.sync(() =>
        entries.map(([{ id }, settlement]) => {
          settled.push(`${id} ${settlement._tag === "DeadLetter" ? settlement.reason : settlement._tag}`)
          return "Settled"
        })
      ),
    routes: none,
    observe: undefined,
    metrics,
    lifecycle: new Lifecycle.Lifecycle(),
    unloaded: (delivery) => prefetch.unloaded(delivery),
    settled: (entries) => prefetch.settled(entries)
  })
  yield* Effect.forkScoped(settling.settle, { startImmediately: true })
  const { handlerDuration } = metrics
  const lease = Duration.seconds(15)
  const elsewhere = () => false
  const workers = new Workers({
    handle,
    routes: none,
    concurrency,
    lease,
    prefetch,
    settling,
    handlerDuration,
    stores: true,
    elsewhere
  })
  const fibers = yield* Effect.forEach(workers.loops, (loop) => Effect.forkScoped(loop, { startImmediately: true }))
  const some = (...ids: ReadonlyArray<string>) => {
    const deliveries = ids.map(delivery)
    prefetch.add(deliveries, 0)
    return deliveries
  }
  const turns = Effect.repeat(Effect.yieldNow, { times: 20 })
  yield* turns
  return { workers, prefetch, settled, fibers, some, turns }
})

describe("how a delivery ends", () => {
  it.effect.each<[what: string, end: string, handle: Handle]>([
    ["a handler that succeeds at once", "Ack", one(() => Effect.void)],
    ["one that succeeds later", "Ack", one(() => Effect.yieldNow)],
    ["one that dies", "Defect", one(() => Effect.die("no"))],
    [
      "one that throws",
      "Defect",
      one(() => {
        throw new Error("no")
      })
    ],
    ["one that interrupts itself", "Retry", one(() => Effect.interrupt)],
    ["a failure without a route", "Unrouted", one(() => Effect.fail("no"))],
    ["a body that the schema refuses", "DecodeFailure", one(() => Effect.fail(new Undecodable("no")))],
    ["a commit", "Ack", one(() => Effect.succeed(Commit.make({})), "commit")],
    ["something else instead of a commit", "Defect", one(() => Effect.succeed(1), "commit")],
    [
      "a scope that does not close",
      "Defect",
      one(() => Effect.orDie(Effect.flatMap(scope, (it) => Scope.addFinalizer(it, Effect.die("no")))))
    ],
    ["a batch", "Ack", batch((deliveries) => Effect.succeed(deliveries.map(() => Exit.void)))],
    ["a batch that returns too few", "Defect", batch(() => Effect.succeed([]))],
    ["a batch that dies", "Defect", batch(() => Effect.die("no"))]
  ])("%s: %s", ([, end, handle]) =>
    Effect.gen(function* () {
      const { prefetch, settled, some, turns } = yield* fixture(handle)
      some("a")
      // A batch does not wait to be filled after the end.
      prefetch.close()
      yield* turns
      assert.deepStrictEqual(settled, [`a ${end}`])
    })
  )
})

/** The scope that each delivery brings along: `Handle.run` has lost its types. */
const scope = Effect.contextWith((context: Context.Context<never>) =>
  Effect.fromOption(Context.getOption(context, Scope.Scope))
)

describe("who holds it", () => {
  it.effect("a revoked one is interrupted and not settled, and its worker is replaced", () =>
    Effect.gen(function* () {
      const { settled, some, turns, workers } = yield* fixture(
        one(({ id }) => (id === "a" ? Effect.never : Effect.void))
      )
      const [a] = some("a", "b")
      yield* turns
      assert.deepStrictEqual(settled, [])
      workers.revoke(new Set([a!]))
      yield* turns
      assert.deepStrictEqual(settled, ["b Ack"])
    })
  )

  it.effect("those at work when time is up are released", () =>
    Effect.gen(function* () {
      const { fibers, prefetch, settled, some, turns, workers } = yield* fixture(
        one(() => Effect.never),
        2
      )
      some("a", "b", "c")
      yield* turns
      prefetch.close()
      workers.interrupt()
      yield* Fiber.awaitAll(fibers)
      yield* turns
      assert.sameMembers(settled, ["a Release", "b Release"])
    })
  )

  it.effect("a batch that is still being gathered can be recalled, one that has begun cannot", () =>
    Effect.gen(function* () {
      const { some, turns, workers } = yield* fixture(batch(() => Effect.never))
      some("a", "b")
      yield* turns
      assert.deepStrictEqual(
        workers.recall(({ id }) => id === "a").map(({ id }) => id),
        ["a"]
      )
      some("c", "d")
      yield* turns
      assert.deepStrictEqual(
        workers.recall(() => true),
        []
      )
    })
  )

  it.effect("a worker ends once nothing comes any more and what it had is done", () =>
    Effect.gen(function* () {
      const { fibers, prefetch, settled, some, turns } = yield* fixture(
        one(() => Effect.yieldNow),
        3
      )
      some("a")
      prefetch.close()
      yield* Fiber.awaitAll(fibers)
      yield* turns
      assert.deepStrictEqual(settled, ["a Ack"])
    })
  )
})
