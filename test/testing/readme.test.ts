import { assert, it } from "@effect/vitest"
import { Probe, runUntilIdle } from "@waybill/testing"
import { Effect, Layer, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"
const Invoice = Topic.make("invoices", { payload: Schema.Struct({ cents: Schema.Int }) })
const Collect = Consumer.make(Invoice, { group: "collect" }).pipe(
  Consumer.process(() => Effect.fail("declined")),
  Consumer.orElse(Consumer.retry(Schedule.spaced("1 day").pipe(Schedule.upTo({ times: 3 })))),
  Consumer.layer
)

it.effect("an invoice is tried once a day, and given up on the fourth", () =>
  Effect.gen(function* () {
    yield* Producer.publish(Invoice, { cents: 100 })
    yield* runUntilIdle()
    const [letter] = yield* (yield* Probe.Probe).deadLetters
    assert.strictEqual(letter?.delivery.attempt, 4)
  }).pipe(Effect.provide(Collect.pipe(Layer.provideMerge(Probe.layer), Layer.provideMerge(MemoryStreams.layer()))))
)
