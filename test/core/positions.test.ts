/** Moving a group, and starting one at a time, where a pattern has no places to choose. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect } from "effect"
import { Inspector, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub } from "waybill/memory"

describe("a pattern without places", () => {
  it.effect.each([
    ["lists", MemoryLists.layer()],
    ["exactly-once", MemoryExactlyOnce.layer()],
    ["keyspace", MemoryKeyspace.layer()],
    ["pubsub", MemoryPubSub.layer()]
  ] as const)("%s refuses to move a group, and to start one at a time", ([, layer]) =>
    Effect.gen(function* () {
      const transport = yield* Transport.AtMostOnce
      const subscription = { topic: "t", group: "g", lease: Duration.seconds(10), maxDeliveries: 5 }
      const receive = transport.receive({ ...subscription, start: { at: 0 }, shutdown: Duration.seconds(1) })
      assert.strictEqual((yield* Effect.flip(receive)).reason._tag, "NotOffered")
      const move = (yield* Inspector.Inspector).move("t", "g", "latest")
      yield* transport.receive({ ...subscription, start: "earliest", shutdown: Duration.seconds(1) })
      assert.strictEqual((yield* Effect.flip(move)).reason._tag, "NotOffered")
    }).pipe(Effect.scoped, Effect.provide(layer))
  )
})
