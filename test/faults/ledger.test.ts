/**
 * A ledger under everything at once: transfers that are published twice, consumers that die at every step on the way to
 * Redis and back, a server that is killed, and replies that are lost. In the end every transfer was applied once.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Effect, Layer, Logger, Random, Ref, type Scope } from "effect"
import { Inspector, Producer } from "waybill"
import { IoRedis } from "waybill/redis"
import { complete } from "../Sample.ts"
import * as Ledger from "./Ledger.ts"
import { client, seeded } from "./Verdict.ts"
import * as WorkerProcess from "./WorkerProcess.ts"

const steps = (["take", "commit"] as const).flatMap((step) =>
  (["before", "sent", "replied"] as const).map((moment) => [step, moment] as const)
)

const drawTransfers = Effect.fnUntraced(function* (count: number) {
  const transfers = new Map<string, Ledger.Transfer>()
  for (let i = 0; i < count; i++) {
    const from = yield* Random.nextIntBetween(0, Ledger.accounts - 1)
    const to = (from + (yield* Random.nextIntBetween(1, Ledger.accounts - 1))) % Ledger.accounts
    transfers.set(`t-${i}`, { from, to, cents: yield* Random.nextIntBetween(1, 100_000) })
  }
  return transfers
})

/** In batches, and one in ten of them once more. */
const publish = Effect.fnUntraced(function* (transfers: ReadonlyArray<readonly [string, Ledger.Transfer]>) {
  const again: Array<(typeof transfers)[0]> = []
  for (const one of transfers) if ((yield* Random.next) < 0.1) again.push(one)
  for (const some of [transfers, again]) {
    for (let i = 0; i < some.length; i += 500) {
      const batch = some.slice(i, i + 500)
      yield* Producer.publishAll(
        Ledger.Transfers,
        batch.map(([, transfer]) => transfer),
        (_, index) => ({ id: batch[index]![0] })
      )
    }
  }
  return again.length
})

const idle = Effect.map(
  Effect.flatMap(Inspector.Inspector, (inspector) => inspector.describe(Ledger.Transfers.name)),
  ({ groups }) => groups.length > 0 && groups.every(({ lag, pending, waiting }) => lag + pending + waiting === 0)
).pipe(Effect.orElseSucceed(() => false))

/** `lives`: how many workers die at a failpoint, and `replies`: how many are lost, before the rest are left in peace. */
const run = Effect.fnUntraced(function* (
  pattern: Ledger.Pattern,
  { count, lives, outages, replies }: Readonly<Record<"count" | "lives" | "outages" | "replies", number>>
) {
  const server = yield* RedisServer.RedisServer
  const proxy = yield* FaultProxy.make(server.port)
  const workers = yield* WorkerProcess.Workers
  const context = yield* Layer.build(Ledger.layerOf(pattern).pipe(Layer.provide(IoRedis.layer({ url: server.url }))))
  const drawn = yield* seeded(
    `ledger on ${pattern}`,
    Effect.gen(function* () {
      const fates = yield* Effect.forEach(
        Array.from({ length: lives }, (_, i) => i),
        (i) =>
          Effect.map(Random.nextIntBetween(1, 8), (nth) => {
            const [step, moment] = steps[i % steps.length]!
            return Ledger.failpointOf(step, moment, step === "commit" ? nth : nth + 1)
          })
      )
      return { transfers: yield* drawTransfers(count), fates }
    })
  )
  const { fates, transfers } = drawn
  const died = yield* Ref.make(0)
  const finished = yield* Ref.make(false)
  const next = yield* Ref.make(0)

  /** One worker after the other, each with a fate of its own. */
  const shift: Effect.Effect<void, WorkerProcess.WorkerFailed, Scope.Scope> = Effect.gen(function* () {
    while (!(yield* Ref.get(finished))) {
      const fate = fates[yield* Ref.getAndUpdate(next, (n) => n + 1)]
      const orders: Ledger.LedgerOrders = { pattern, url: proxy.url }
      // Its fate may come before it is ready.
      const worker = yield* Effect.result(workers.spawn("ledger-worker.ts", orders, fate))
      if (worker._tag === "Failure") {
        if (fate === undefined) return yield* worker.failure
        yield* Ref.update(died, (n) => n + 1)
        continue
      }
      // A worker without a fate, or whose fate does not come because others do all the work.
      const spared = fate === undefined ? waitFor(Ref.get(finished)) : Effect.sleep("4 seconds")
      const end = yield* Effect.raceFirst(worker.success.gone, Effect.as(spared, undefined))
      if (fate === undefined) yield* Effect.andThen(worker.success.terminate, worker.success.gone)
      else if (end === undefined) yield* worker.success.kill
      else yield* Ref.update(died, (n) => n + 1)
    }
  })

  const lost = yield* Ref.make(0)
  const hurting = Effect.gen(function* () {
    // A number, and not for as long as it takes: on a busy machine nothing would come about between two faults.
    for (let i = 0; !(yield* Ref.get(finished)) && (yield* Ref.get(lost)) < replies; i++) {
      yield* Effect.sleep(150)
      if (i % 20 === 19 && i / 20 < outages) {
        yield* server.kill
        yield* server.start
      } else if (i % 5 === 4) {
        yield* proxy.reset
      } else {
        const snapped = yield* proxy.dropReply("EVALSHA")
        const struck = yield* Effect.timeoutOption(snapped, "1 second")
        if (struck._tag === "Some") yield* Ref.update(lost, (n) => n + 1)
      }
    }
  })

  /** There is work for every life. */
  const producing = Effect.gen(function* () {
    const all = [...transfers]
    const size = Math.ceil(count / lives)
    let again = 0
    for (let i = 0; i < lives; i++) {
      again += yield* publish(all.slice(i * size, (i + 1) * size))
      yield* waitFor(Effect.map(Ref.get(next), (spawned) => spawned > i))
    }
    yield* waitFor(Effect.provideContext(idle, context))
    yield* Ref.set(finished, true)
    return again
  })

  const [again] = yield* Effect.all([producing, shift, shift, hurting], { concurrency: 4 }).pipe(
    Effect.provideContext(context)
  )
  const found = yield* Effect.provideContext(Ledger.read, context)
  const info = yield* Effect.provideContext(
    Effect.flatMap(Inspector.Inspector, (inspector) => inspector.describe(Ledger.Transfers.name)),
    context
  )
  console.log(
    `ledger on ${pattern}: ${count} transfers and ${again} of them twice, ${yield* Ref.get(died)} workers dead at their failpoints, ` +
      `${outages} restarts of the server, ${yield* Ref.get(lost)} replies lost`
  )
  assert.deepStrictEqual(Ledger.complaints(transfers, found), [])
  assert.strictEqual(info.groups[0]?.deadLetters, 0)
  assert.isAtLeast(yield* Ref.get(died), lives / 2, "workers died where they were told to")
})

const waitFor = (condition: Effect.Effect<boolean>): Effect.Effect<void> =>
  Effect.flatMap(condition, (met) => (met ? Effect.void : Effect.andThen(Effect.sleep(50), waitFor(condition))))

const play = <A, E>(test: Effect.Effect<A, E, RedisServer.RedisServer | WorkerProcess.Workers | Scope.Scope>) =>
  test.pipe(
    Effect.scoped,
    Effect.provide(WorkerProcess.layer.pipe(Layer.provideMerge(RedisServer.layer({ appendonly: "always" })))),
    Effect.provide(Logger.layer([]))
  )

describe("a ledger", () => {
  it.live(
    `on RedisExactlyOnce: ${complete ? "50,000" : "10,000"} transfers, each applied once`,
    () =>
      play(
        run(
          "exactly-once",
          complete
            ? { count: 50_000, lives: 24, outages: 3, replies: 120 }
            : { count: 10_000, lives: 12, outages: 2, replies: 40 }
        )
      ),
    240_000
  )

  it.live(
    "on RedisStreams: 10,000 transfers, each applied once",
    () => play(run("streams", { count: 10_000, lives: 12, outages: 1, replies: 40 })),
    240_000
  )

  it.live(
    "written by hand with SISMEMBER and SADD: the same check finds what it breaks",
    () =>
      play(
        Effect.gen(function* () {
          const server = yield* RedisServer.RedisServer
          const workers = yield* WorkerProcess.Workers
          const redis = yield* client(server.url)
          const [transfers, fates] = yield* seeded(
            "naive ledger",
            Effect.all([
              drawTransfers(1000),
              Effect.gen(function* () {
                // The first dies in a place that is certain to do harm: a transfer is six commands, and after four of them it is
                // applied, and nobody knows.
                const first = 6 * (yield* Random.nextIntBetween(3, 10)) + 4
                return [first, ...(yield* Effect.replicateEffect(Random.nextIntBetween(20, 60), 9))]
              })
            ])
          )
          const raw = Array.from(transfers, ([id, transfer]) => JSON.stringify({ id, ...transfer }))
          yield* Effect.promise(() => redis.lpush("queue:transfers", ...raw))
          for (const dieAfter of fates) {
            const worker = yield* workers.spawn("naive-ledger-worker.ts", { url: server.url, dieAfter })
            yield* worker.gone
          }
          const last = yield* workers.spawn("naive-ledger-worker.ts", { url: server.url, dieAfter: 0 })
          const length = Effect.promise(
            async () => (await redis.llen("queue:transfers")) + (await redis.llen("processing:transfers"))
          )
          yield* waitFor(Effect.map(length, (left) => left === 0))
          yield* last.kill
          const entries = (name: string) =>
            Effect.map(
              Effect.promise(() => redis.hgetall(name)),
              (all) => new Map(Object.entries(all))
            )
          const wrong = Ledger.complaints(transfers, {
            balances: yield* entries("balances"),
            applied: yield* entries("applied")
          })
          console.log(`naive ledger: ${wrong.length} complaints, such as "${wrong[0]}"`)
          assert.isNotEmpty(wrong)
        })
      ),
    120_000
  )
})
