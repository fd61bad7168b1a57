/**
 * A ledger. Its consumer touches nothing: it says what is to become true, and that happens together with the ack. In memory,
 * or on Redis with `REDIS_URL`, under keys of this run.
 */
import { NodeRuntime } from "@effect/platform-node"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Config, Console, Effect, Layer, Option, Random, Redacted, References, Schedule, Schema, Stream } from "effect"
import { Commit, Consumer, DeadLetters, Inspector, Producer, Records, Topic } from "waybill"
import { MemoryExactlyOnce } from "waybill/memory"
import { IoRedis, RedisExactlyOnce } from "waybill/redis"

const Transfer = Topic.make("ledger/transfers", {
  payload: Schema.Struct({ from: Schema.String, to: Schema.String, cents: Schema.Int }),
  guarantee: "transactional"
})
/** Its name begins as that of the transfers does, up to the slash: a commit may publish to it. */
const Receipt = Topic.make("ledger/receipts", { payload: Schema.String, guarantee: "transactional" })

const balances = Commit.hash("balances")
const count = Commit.counter("transfers")
const last = Commit.list("last")

const Ledger = Consumer.make(Transfer, { group: "ledger" }).pipe(
  Consumer.transactional(
    Effect.fnUntraced(function* ({ cents, from, to }, { id }) {
      const line = `${id}: ${from} -> ${to}, ${cents}`
      return Commit.make({
        writes: [
          balances.increment(from, -cents),
          balances.increment(to, cents),
          count.add(1),
          last.append(line),
          last.keepLast(10)
        ],
        messages: [yield* Producer.message(Receipt, line, { id })]
      })
    })
  ),
  Consumer.orElse(Consumer.deadLetter()),
  Consumer.layer
)

const Payout = Topic.make("ledger/payouts", {
  payload: Schema.Struct({ account: Schema.String, cents: Schema.Int }),
  guarantee: "transactional"
})

class Overdrawn extends Schema.TaggedError<Overdrawn>()("Overdrawn", {}) {}

/** What is paid depends on the balance: the commit is applied only while that is what the handler has read. */
const Payouts = Consumer.make(Payout, { group: "payouts", concurrency: 3 }).pipe(
  Consumer.transactional(function* ({ account, cents }) {
    const balance = yield* Records.observe(Payout, balances.get(account))
    if (Number(balance.value ?? 0) < cents) return yield* new Overdrawn()
    return Commit.make({ conditions: [balance.unchanged], writes: [balances.increment(account, -cents)] })
  }),
  Consumer.onFailure({
    ConditionFailed: Consumer.retry(Schedule.spaced("10 millis").pipe(Schedule.upTo({ times: 10 })))
  }),
  Consumer.orElse(Consumer.deadLetter()),
  Consumer.layer
)

const Clerk = Consumer.make(Receipt, { group: "clerk" }).pipe(
  Consumer.process((line) => Console.log(`receipt for ${line}`)),
  Consumer.layer
)

/** The memory of published ids is made short here, so that a duplicate is stored: the marker of the ledger knows it. */
const options = { deduplicationWindow: "100 millis" } as const

const Store = Layer.unwrap(
  Effect.gen(function* () {
    const url = yield* Config.option(Config.Redacted("REDIS_URL"))
    if (Option.isNone(url)) return MemoryExactlyOnce.layer(options)
    const prefix = `ledger-${(yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)}`
    return RedisExactlyOnce.layer({ ...options, prefix }).pipe(
      Layer.provide(temporaryKeys(prefix)),
      Layer.provide(IoRedis.layer({ url: Redacted.value(url.value) }))
    )
  })
)

const done = Effect.flatMap(Inspector.Inspector, (inspector) =>
  Effect.forEach([Transfer, Receipt, Payout], ({ name }) => inspector.describe(name))
).pipe(
  Effect.map((topics) =>
    topics.every(({ groups }) => groups.every(({ lag, pending, waiting }) => lag + pending + waiting === 0))
  ),
  Effect.delay("50 millis"),
  Effect.repeat({ until: (idle) => idle })
)

Effect.gen(function* () {
  const transfers = [
    { from: "ada", to: "grace", cents: 500 },
    { from: "grace", to: "edsger", cents: 200 },
    { from: "edsger", to: "ada", cents: 50 }
  ]
  const publish = Producer.publishAll(Transfer, transfers, (_, i) => ({ id: `transfer-${i}` }))
  yield* publish
  // The receipts are printed before, and not as it happens between.
  yield* done
  yield* Effect.sleep("300 millis")
  const again = yield* publish
  yield* Console.log(`published again: ${again.map(({ _tag }) => _tag).join(", ")}`)
  yield* done
  yield* Console.log(`applied ${yield* Records.read(Transfer, count.value)} of 6 messages, which are 3 transfers`)
  for (const [name, cents] of yield* Records.read(Transfer, balances.all)) yield* Console.log(`${name} has ${cents}`)
  yield* Producer.publishAll(
    Payout,
    Array.from({ length: 3 }, () => ({ account: "grace", cents: 200 }))
  )
  yield* done
  const [grace, overdrawn] = yield* Effect.all([
    Records.read(Transfer, balances.get("grace")),
    Stream.runCount(DeadLetters.stream(Payout, "payouts"))
  ])
  yield* Console.log(`three payouts of 200, and grace had 300: ${overdrawn} overdrawn, ${grace} left`)
}).pipe(
  Effect.provide(Layer.mergeAll(Ledger, Payouts, Clerk).pipe(Layer.provideMerge(Store))),
  // Who starts and stops differs from run to run.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
