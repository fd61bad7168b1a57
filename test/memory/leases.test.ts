import { assert, describe, it } from "@effect/vitest"
/**
 * A consumer that falls silent loses its messages to another one of its group: which of its handlers go on, and when the other
 * one begins.
 */
import { freeze } from "@waybill/testing"
import { Context, Deferred, Effect, Layer, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type Lifecycle, Producer, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryStreams } from "waybill/memory"

const Job = Topic.make("jobs", { payload: Schema.String })

const twins = {
  streams: MemoryStreams,
  lists: MemoryLists,
  "exactly-once": MemoryExactlyOnce,
  keyspace: MemoryKeyspace
} as const

describe.each(["streams", "lists", "exactly-once", "keyspace"] as const)("a lost lease in memory, %s", (name) => {
  const { layer } = twins[name]

  /** A has begun a message and is frozen; B takes it over. Returns what happened, in order. */
  const play = Effect.fnUntraced(function* (leaseLost: Consumer.LeaseLost | undefined) {
    const context = yield* Layer.build(layer())
    const transport = Context.get(context, Transport.AtLeastOnce)
    const steps: Array<string> = []
    const tell = (step: string) => Effect.sync(() => void steps.push(step))
    const receivers: Array<Transport.Receiver> = []
    const end = yield* Deferred.make<void>()
    yield* transport.lifecycle.listen((event: Lifecycle.Event) => {
      if (event._tag === "Settled") steps.push(event.stale ? "stale" : "settled")
    })
    const consume = (who: string, wait: Effect.Effect<void>, options: Partial<Consumer.Options>) =>
      Effect.forkScoped(
        Consumer.make(Job, { group: "g", lease: "30 seconds", ...options }).pipe(
          Consumer.process(() =>
            tell(`${who} began`).pipe(
              Effect.andThen(wait),
              Effect.andThen(tell(`${who} ended`)),
              Effect.onInterrupt(() => tell(`${who} was interrupted`))
            )
          ),
          Consumer.run,
          Effect.provideService(Transport.AtLeastOnce, {
            ...transport,
            receive: (subscription) =>
              Effect.tap(transport.receive(subscription), (one) => Effect.sync(() => receivers.push(one)))
          }),
          Effect.provideContext(Context.omit(Transport.AtLeastOnce)(context))
        ),
        { startImmediately: true }
      )
    yield* Producer.publish(Job, "m").pipe(Effect.provideContext(context))
    yield* consume("A", Deferred.await(end), leaseLost === undefined ? {} : { leaseLost })
    yield* TestClock.adjust("1 second")
    const [first] = receivers
    assert(first !== undefined)
    yield* freeze(first)
    yield* consume("B", Effect.void, {})
    yield* TestClock.adjust("31 seconds")
    yield* Deferred.succeed(end, undefined)
    yield* TestClock.adjust("1 second")
    return steps
  })

  it.effect("case A14: its handler is interrupted before the other one begins", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* play(undefined), ["A began", "A was interrupted", "B began", "B ended", "settled"])
    }).pipe(Effect.scoped)
  )

  it.effect("case A14: leaseLost continue: its handler goes on, and its settlement is refused", () =>
    Effect.gen(function* () {
      assert.deepStrictEqual(yield* play("continue"), ["A began", "B began", "B ended", "settled", "A ended", "stale"])
    }).pipe(Effect.scoped)
  )
})
