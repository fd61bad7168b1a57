/**
 * What docs/exactly-once.md says about other stores: the message id keeps a second run from doing the work again, the fence
 * keeps a consumer that was paused for too long from overwriting its successor.
 */
import { assert, describe, it } from "@effect/vitest"
import { freeze, runUntilIdle } from "@waybill/testing"
import { Duration, Effect, Layer, Schema } from "effect"
import * as SqlClient from "effect/sql/SqlClient"
import { TestClock } from "effect/testing"
import { Consumer, type Delivery, Producer, RetryPolicy, Settlement, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import * as Sqlite from "./Sqlite.ts"

const Payment = Topic.make("payments", { payload: Schema.Struct({ order: Schema.String, cents: Schema.Int }) })

class Flaky extends Schema.TaggedError<Flaky>()("Flaky", {}) {}

const tables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE payments (message TEXT PRIMARY KEY, cents INTEGER NOT NULL)`
  yield* sql`CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT NOT NULL, fence INTEGER NOT NULL)`
})

/** The id is the primary key: in a transaction with the rest, a second run finds it and does nothing. */
const pay = Effect.fnUntraced(function* (cents: number, { id }: Pick<Delivery.Delivery, "id">) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`INSERT INTO payments (message, cents) VALUES (${id}, ${cents}) ON CONFLICT (message) DO NOTHING`
})

/** A smaller fence than the one that wrote last changes no row. */
const setState = Effect.fnUntraced(function* (
  order: string,
  state: string,
  { fence }: Pick<Delivery.Delivery, "fence">
) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`INSERT INTO orders (id, state, fence) VALUES (${order}, ${state}, ${fence})
    ON CONFLICT (id) DO UPDATE SET state = excluded.state, fence = excluded.fence WHERE excluded.fence > orders.fence`
})

describe("another store", () => {
  it.effect("the message id makes a write idempotent: handled three times, paid once", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      yield* tables
      yield* Producer.publish(Payment, { order: "o-1", cents: 500 }, { id: "p-1" })
      const attempts: Array<number> = []
      const consumer = Consumer.make(Payment, { group: "payer" }).pipe(
        Consumer.process(
          Effect.fnUntraced(function* ({ cents }, delivery) {
            attempts.push(delivery.attempt)
            yield* pay(cents, delivery)
            // It dies after the write, before the ack.
            if (delivery.attempt < 3) return yield* new Flaky()
          })
        ),
        Consumer.orElse(Consumer.retry(RetryPolicy.standard))
      )
      yield* Effect.forkScoped(Consumer.run(consumer))
      yield* runUntilIdle()
      assert.deepStrictEqual(attempts, [1, 2, 3])
      const paid = yield* sql<{ readonly cents: number }>`SELECT cents FROM payments`
      assert.deepStrictEqual(
        paid.map(({ cents }) => cents),
        [500]
      )
    }).pipe(Effect.provide(Layer.merge(MemoryStreams.layer(), Sqlite.layer)))
  )

  it.effect("the fence keeps a consumer that stood still from overwriting the one that took over", () =>
    Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const transport = yield* Transport.AtMostOnce
      yield* tables
      yield* Producer.publish(Payment, { order: "o-1", cents: 500 })
      const join = transport.receive({
        topic: Payment.name,
        group: "payer",
        start: "earliest",
        lease: Duration.seconds(30),
        maxDeliveries: 5,
        shutdown: Duration.seconds(2)
      })
      const slow = yield* join
      const [late] = yield* slow.take(1)
      yield* freeze(slow)
      yield* TestClock.adjust("31 seconds")
      const other = yield* join
      const [delivery] = yield* other.take(1)
      yield* setState("o-1", "paid by the second", delivery)
      assert.deepStrictEqual(yield* other.settle([[delivery, Settlement.ack]]), ["Settled"])
      // It wakes up in the middle of its handler, and knows nothing.
      yield* setState("o-1", "paid by the first", late)
      assert.isAbove(delivery.fence, late.fence)
      const [row] = yield* sql<{ readonly state: string }>`SELECT state FROM orders`
      assert.strictEqual(row?.state, "paid by the second")
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(MemoryStreams.layer(), Sqlite.layer)))
  )
})
