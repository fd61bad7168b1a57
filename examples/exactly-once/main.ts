/**
 * A ledger. Its consumer touches nothing: it says what is to become true, and that happens together with the ack. In memory,
 * or on Redis with `REDIS_URL`.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Clock, Config, Console, Effect, Layer, Option, Redacted, Schema } from "effect"
import { Commit, Consumer, Inspector, Producer, Records, Topic } from "waybill"
import { MemoryExactlyOnce } from "waybill/memory"
import { IoRedis, RedisExactlyOnce } from "waybill/redis"

const Transfer = Topic.make("ledger/transfers", {
  payload: Schema.Struct({ from: Schema.String, to: Schema.String, cents: Schema.Int })
})
/** Its name begins as that of the transfers does, up to the slash: a commit may publish to it. */
const Receipt = Topic.make("ledger/receipts", { payload: Schema.String })

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

const Clerk = Consumer.make(Receipt, { group: "clerk" }).pipe(
  Consumer.process((line) => Console.log(`receipt for ${line}`)),
  Consumer.layer
)

/** The memory of published ids is made short here, so that a duplicate is stored: the marker of the ledger knows it. */
const options = { deduplicationWindow: "100 millis" } as const

const Store = Layer.unwrap(
  Effect.map(Config.option(Config.Redacted("REDIS_URL")), (url) =>
    Option.isSome(url)
      ? RedisExactlyOnce.layer({ ...options, prefix: "example-exactly-once" }).pipe(
          Layer.provide(IoRedis.layer({ url: Redacted.value(url.value) }))
        )
      : MemoryExactlyOnce.layer(options)
  )
)

const done = Effect.flatMap(Inspector.Inspector, (inspector) =>
  Effect.forEach([Transfer, Receipt], ({ name }) => inspector.describe(name))
).pipe(
  Effect.map((topics) =>
    topics.every(({ groups }) => groups.every(({ lag, pending, waiting }) => lag + pending + waiting === 0))
  ),
  Effect.delay("50 millis"),
  Effect.repeat({ until: (idle) => idle })
)

Effect.gen(function* () {
  const { read } = yield* Records.Records
  const before = yield* read(Transfer, count.value)
  const run = yield* Clock.currentTimeMillis
  const transfers = [
    { from: "ada", to: "grace", cents: 500 },
    { from: "grace", to: "edsger", cents: 200 },
    { from: "edsger", to: "ada", cents: 50 }
  ]
  const publish = Producer.publishAll(Transfer, transfers, (_, i) => ({ id: `${run}-${i}` }))
  yield* publish
  yield* Effect.sleep("300 millis")
  const again = yield* publish
  yield* Console.log(`published again: ${again.map(({ _tag }) => _tag).join(", ")}`)
  yield* done
  yield* Console.log(`applied ${(yield* read(Transfer, count.value)) - before} of 6 messages, which are 3 transfers`)
  for (const [name, cents] of yield* read(Transfer, balances.all)) yield* Console.log(`${name} has ${cents}`)
}).pipe(Effect.provide(Layer.mergeAll(Ledger, Clerk).pipe(Layer.provideMerge(Store))), NodeRuntime.runMain)
