import { assert, describe, it } from "@effect/vitest"
import { freeze, TransportSuite } from "@waybill/testing"
import { Array as Arr, Duration, Effect, Exit, Layer } from "effect"
import { type Delivery, type Inspector, type Message, Settlement, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"

type Port = Transport.Transport
type Operator = Inspector.Inspector["Service"]
type Deliveries = Arr.NonEmptyReadonlyArray<Delivery.Delivery>

/** An honest transport with one thing about it changed. */
const broken = (sabotage: {
  readonly publish?: (honest: Port["publish"]) => Port["publish"]
  readonly receiver?: (honest: Transport.Receiver, port: Port) => Partial<Transport.Receiver>
  readonly inspector?: (honest: Operator, port: Port) => Partial<Operator>
}) =>
  Layer.effect(
    Transport.AtMostOnce,
    Effect.gen(function* () {
      const port = yield* Transport.AtMostOnce
      const { inspector } = port
      return {
        ...port,
        inspector: { ...inspector, ...sabotage.inspector?.(inspector, port) },
        publish: sabotage.publish?.(port.publish) ?? port.publish,
        receive: (subscription) =>
          Effect.map(port.receive(subscription), (receiver) => ({
            ...receiver,
            ...sabotage.receiver?.(receiver, port)
          }))
      }
    })
  ).pipe(Layer.provide(MemoryStreams.layer()))

const onTake = (
  change: (deliveries: Deliveries, honest: Transport.Receiver) => Effect.Effect<Deliveries, Transport.TransportError>
) =>
  broken({
    receiver: (honest) => ({ take: (max) => Effect.flatMap(honest.take(max), (taken) => change(taken, honest)) })
  })

const onSettle = (change: (settlement: Settlement.Settlement) => Settlement.Settlement) =>
  broken({
    receiver: (honest) => ({
      settle: (endings) =>
        honest.settle(
          // Changed or not, it ends what it ended: a saboteur cares for no type.
          Arr.map(endings, ([handle, settlement]) => [handle, change(settlement)] as unknown as Transport.Ending)
        )
    })
  })

const onPublish = (change: (message: Message.Outgoing) => Message.Outgoing) =>
  broken({ publish: (honest) => (topic, messages) => honest(topic, Arr.map(messages, change)) })

const mutants: ReadonlyArray<readonly [sabotage: string, layer: ReturnType<typeof broken>, check: string]> = [
  [
    "acks before it hands out",
    onTake((taken, honest) =>
      Effect.as(honest.settle(Arr.map(taken, (delivery) => [delivery, Settlement.ack])), taken)
    ),
    "leaving a group releases what was taken and not settled, and only that"
  ],
  [
    "counts no attempts",
    onTake((taken) => Effect.succeed(Arr.map(taken, (delivery) => ({ ...delivery, attempt: 1 })))),
    "a retry counts the attempt and keeps the message as it was"
  ],
  [
    "hands out the same fence again",
    onTake((taken) => Effect.succeed(Arr.map(taken, (delivery) => ({ ...delivery, fence: 1 })))),
    "a retry counts the attempt and keeps the message as it was"
  ],
  [
    "hands out in any order",
    onTake((taken) => Effect.succeed(Arr.reverse(taken))),
    "messages come in the order in which they were published, within a batch and from batch to batch"
  ],
  [
    "forgets ids",
    onPublish((message) => ({ ...message, id: undefined })),
    "an id that was published is a duplicate, in the same batch and in a later one"
  ],
  [
    "delivers before the due time",
    onPublish((message) => ({ ...message, due: undefined })),
    "a message with a delay is not delivered before it has passed"
  ],
  [
    "reads text as Latin-1",
    onPublish((message) => ({ ...message, body: Buffer.from(message.body).toString("latin1") })),
    "text from outside ASCII, with NUL, quotes and line ends arrives unchanged"
  ],
  [
    "retries at once",
    onSettle((settlement) => (settlement._tag === "Retry" ? { ...settlement, delay: Duration.zero } : settlement)),
    "a retry does not come before its delay has passed"
  ],
  [
    "retries for ever what should die",
    onSettle((settlement) => (settlement._tag === "DeadLetter" ? Settlement.retry(Duration.zero, "") : settlement)),
    "a dead letter keeps the message, the reason, the cause, what the failure said, and the attempts"
  ],
  [
    "counts a release as an attempt",
    onSettle((settlement) => (settlement._tag === "Release" ? Settlement.retry(Duration.zero, "") : settlement)),
    "a release does not count the attempt, and others may have the message at once"
  ],
  [
    "calls a stale settlement settled",
    broken({
      receiver: (honest) => ({
        settle: (entries) =>
          Effect.as(
            honest.settle(entries),
            Arr.map(entries, () => "Settled" as const)
          )
      })
    }),
    "a retry by the former owner is stale and changes nothing"
  ],
  [
    "loses what an interrupted take had in hand",
    broken({ receiver: (honest) => ({ take: (max) => Effect.tap(honest.take(max), () => Effect.yieldNow) }) }),
    "interrupting a take loses nothing, whenever it comes"
  ],
  [
    "redrives by publishing again",
    broken({
      inspector: (honest, port) => ({
        redrive: (topic, group, entries) =>
          Effect.gen(function* () {
            const count = yield* honest.redrive(topic, group, entries)
            for (const _ of entries) yield* port.publish(topic, [copy])
            return count
          })
      })
    }),
    "redriving a dead letter twice, or by two at a time, never doubles the message"
  ],
  [
    "ignores pause",
    broken({ inspector: () => ({ pause: () => Effect.void }) }),
    "a paused group takes nothing new until it is resumed, while another goes on"
  ],
  [
    "drops what a group still holds",
    broken({
      inspector: (honest) => ({
        describe: (topic) => Effect.map(honest.describe(topic), (info) => ({ ...info, depth: 0 }))
      })
    }),
    "a message is kept until every group has settled it, and dropped then"
  ]
]

const named = (name: string) => {
  const found = TransportSuite.checks.find((check) => check.name === name)
  assert(found !== undefined, `there is no check "${name}"`)
  return found
}

const copy: Message.Outgoing = { id: undefined, body: "a", headers: {}, key: undefined, version: 1, due: undefined }

describe("TransportSuite", () => {
  it.effect.each(mutants)("notices a transport that %s", ([, layer, check]) =>
    Effect.gen(function* () {
      const options = { time: "test", freeze } as const
      yield* TransportSuite.verify(named(check), { ...options, layer: MemoryStreams.layer() })
      const exit = yield* Effect.exit(TransportSuite.verify(named(check), { ...options, layer }))
      assert.isTrue(Exit.isFailure(exit), "the check passed")
    })
  )

  it("knows its checks by distinct names", () => {
    const names = TransportSuite.checks.map((check) => check.name)
    assert.strictEqual(new Set(names).size, names.length)
  })
})

// The same checks on the real clock: nothing in them may depend on time standing still.
TransportSuite.run("MemoryStreams on the real clock", {
  layer: MemoryStreams.layer(),
  time: "live",
  lease: "100 millis",
  freeze
})
