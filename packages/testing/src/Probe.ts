/**
 * Waits for events of messages, so that a test never sleeps and hopes: everything since the probe was built, in order, each
 * event once.
 */
import { Clock, Context, Deferred, Effect, Layer } from "effect"
import type { NonEmptyReadonlyArray } from "effect/Array"
import { type Delivery, type Lifecycle, type Message, type Settlement, Transport } from "waybill"
import { isTestClock, yieldToOthers, passTimeUntil } from "./Scheduling.ts"

type Tag = Lifecycle.Event["_tag"]
type Tagged<T extends Tag> = Extract<Lifecycle.Event, { readonly _tag: T }>

/**
 * A message that was accepted by the transport.
 *
 * @category models
 */
interface Published {
  readonly topic: string
  readonly message: Message.Outgoing
  readonly receipt: Message.Receipt
}

/**
 * A delivery that ended; `stale` when the transport refused the settlement because the lease had moved on.
 *
 * @category models
 */
interface Settled {
  readonly delivery: Delivery.Delivery
  readonly settlement: Settlement.Settlement
  readonly stale: boolean
}

/**
 * A delivery that became a dead letter.
 *
 * @category models
 */
interface DeadLettered {
  readonly delivery: Delivery.Delivery
  readonly reason: string
  readonly cause: string
}

/**
 * Each waiting effect dies after three seconds of real time, and says what happened instead. Anything that waits for
 * the test's clock needs it moved first: `TestClock.adjust`, or `runUntilIdle`.
 *
 * @category services
 */
export class Probe extends Context.Service<
  Probe,
  {
    /** The next settlement, each one once. */
    readonly settled: Effect.Effect<Settled>
    /** The next event with this tag, each one once; with `where`, the next that matches. */
    readonly event: <T extends Tag>(tag: T, where?: (event: Tagged<T>) => boolean) => Effect.Effect<Tagged<T>>
    /** All events so far. */
    readonly events: Effect.Effect<ReadonlyArray<Lifecycle.Event>>
    /** All messages published through `Producer` so far, including duplicates. */
    readonly published: Effect.Effect<ReadonlyArray<Published>>
    /** All dead letters so far, including redriven and discarded ones. */
    readonly deadLetters: Effect.Effect<ReadonlyArray<DeadLettered>>
  }
>()("@waybill/testing/Probe") {}

interface Waiter {
  readonly fits: (event: Lifecycle.Event) => boolean
  readonly found: Deferred.Deferred<Lifecycle.Event>
}

const patienceMillis = 3000
/**
 * In steps, so that patience does not run out while the process is held up: what it waits for had no time to happen
 * either.
 */
const tickMillis = 100

/**
 * Provide it between the consumers and the transport, so that it misses nothing.
 *
 * A stopping consumer waits for its handlers by the clock of the test: when it has to, `TestClock` advances by itself until
 * the consumer has stopped. Otherwise a test that fails while a handler sleeps would hang.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { Probe } from "@waybill/testing"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const TestTransport = Probe.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))
 * ```
 *
 * @category layers
 */
export const layer: Layer.Layer<Probe, never, Transport.AtMostOnce> = Layer.suspend(() => listening(Transport.all()))

/**
 * `layer` for transports with names: one probe that observes all of them.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { Probe } from "@waybill/testing"
 * import { Transport } from "waybill"
 * import { MemoryLists, MemoryStreams } from "waybill/memory"
 *
 * class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
 * class Jobs extends Transport.Tag<Jobs>()("shop/Jobs", { guarantee: "at-least-once" }) {}
 *
 * const TestTransports = Probe.layerOn(Orders, Jobs).pipe(
 *   Layer.provideMerge(Layer.merge(MemoryStreams.layer({ as: Orders }), MemoryLists.layer({ as: Jobs })))
 * )
 * ```
 *
 * @category layers
 */
export const layerOn = <Names extends NonEmptyReadonlyArray<Transport.Name>>(
  ...on: Names
): Layer.Layer<Probe, never, Names[number]["Identifier"]> => listening(Transport.all(...on))

const listening = <R>(
  transports: Effect.Effect<ReadonlyArray<Transport.Transport>, never, R>
): Layer.Layer<Probe, never, R> =>
  Layer.effect(
    Probe,
    Effect.gen(function* () {
      const heard = yield* transports
      const events: Array<Lifecycle.Event> = []
      const unclaimed: Array<Lifecycle.Event> = []
      let waiters: Array<Waiter> = []

      const context = yield* Effect.context<never>()
      const clock = yield* Clock.Clock
      const stopped = new Set<string>()

      const listener = (event: Lifecycle.Event) => {
        events.push(event)
        if (event._tag === "ConsumerStopped") stopped.add(event.consumer)
        if (event._tag === "ConsumerStopping" && isTestClock(clock)) {
          const done = Effect.sync(() => stopped.has(event.consumer))
          Effect.runForkWith(context)(passTimeUntil(clock, done))
        }
        const waiter = waiters.find(({ fits }) => fits(event))
        if (waiter === undefined) unclaimed.push(event)
        else {
          waiters = waiters.filter((other) => other !== waiter)
          Deferred.doneUnsafe(waiter.found, Effect.succeed(event))
        }
      }
      for (const { lifecycle } of heard) yield* lifecycle.listen(listener)

      const next = (what: string, fits: Waiter["fits"]) =>
        Effect.suspend(() => {
          const index = unclaimed.findIndex(fits)
          const [event] = index < 0 ? [] : unclaimed.splice(index, 1)
          if (event !== undefined) return Effect.succeed(event)
          const waiter = { fits, found: Deferred.makeUnsafe<Lifecycle.Event>() }
          waiters.push(waiter)
          return Deferred.await(waiter.found).pipe(
            Effect.raceFirst(impatience(() => `timed out waiting for ${what}; so far: ${summary(events)}`)),
            Effect.ensuring(Effect.sync(() => (waiters = waiters.filter((other) => other !== waiter))))
          )
        })

      const event = <T extends Tag>(tag: T, where?: (event: Tagged<T>) => boolean) => {
        const fits = (candidate: Lifecycle.Event): candidate is Tagged<T> => candidate._tag === tag
        return next(tag, (candidate) => fits(candidate) && (where === undefined || where(candidate))).pipe(
          // Immediate consequences of the event, such as a timer for the next attempt, are in place when the test goes on.
          Effect.tap(yieldToOthers),
          // `next` only finds events that match.
          Effect.map((found) => found as Tagged<T>)
        )
      }

      return Probe.of({
        event,
        settled: Effect.map(event("Settled"), ({ delivery, settlement, stale }) => ({ delivery, settlement, stale })),
        events: Effect.sync(() => events.slice()),
        published: Effect.sync(() =>
          events.flatMap((event) =>
            event._tag !== "Published"
              ? []
              : event.messages.flatMap((message, i) => {
                  const receipt = event.receipts[i]
                  return receipt === undefined ? [] : [{ topic: event.topic, message, receipt }]
                })
          )
        ),
        deadLetters: Effect.sync(() =>
          events.flatMap((event) =>
            event._tag === "Settled" && event.settlement._tag === "DeadLetter" && !event.stale
              ? [{ delivery: event.delivery, reason: event.settlement.reason, cause: event.settlement.cause }]
              : []
          )
        )
      })
    })
  )

/** Dies after a while of real time, because the clock of the test may stand still. */
const impatience = (message: () => string): Effect.Effect<never> =>
  Effect.callback((resume) => {
    let left = patienceMillis
    const timer = setInterval(() => {
      left -= tickMillis
      if (left > 0) return
      clearInterval(timer)
      resume(Effect.die(new Error(message())))
    }, tickMillis)
    return Effect.sync(() => clearInterval(timer))
  })

const summary = (events: ReadonlyArray<Lifecycle.Event>): string => {
  const counts = new Map<string, number>()
  for (const event of events) {
    const name = event._tag === "Settled" ? `Settled (${event.settlement._tag})` : event._tag
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return Array.from(counts, ([name, count]) => `${count} ${name}`).join(", ") || "nothing"
}
