/**
 * What a check works with: one transport, a topic of its own, and operations that wait for facts.
 *
 * @module
 */
import { assert } from "@effect/vitest"
import { Clock, Context, Duration, Effect, Equal, Exit, Fiber, Random, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Inspector } from "waybill"
import { type Commit, type Delivery, type Message, type Settlement, Transport } from "waybill"
import { yieldToOthers } from "../Scheduling.ts"

/** The facts about a transport that checks may use. */
export interface Setting {
  readonly time: "test" | "live"
  /** Whether a receiver gets what was published before it joined. */
  readonly history: boolean
  /** As short as possible, for checks that let it expire. */
  readonly lease: Duration.Duration
  /** Longer than any stall of this process: deliveries held under it stay the check's own. */
  readonly safeLease: Duration.Duration
  readonly freeze: (receiver: Transport.Receiver) => Effect.Effect<void, unknown, Scope.Scope>
  readonly conflict: (topic: string) => Effect.Effect<void, unknown>
}

type Draft = string | (Partial<Message.Outgoing> & { readonly body: string })
type SubscriptionOptions = Partial<Omit<Transport.Subscription, "topic" | "group">>
type Receiver = Pick<Transport.Receiver, "take">

export class Fixture extends Context.Service<
  Fixture,
  {
    readonly transport: Transport.Transport
    readonly inspector: Context.Service.Shape<typeof Inspector.Inspector>
    readonly setting: Setting
    readonly topic: string
    /** Long enough to notice that something was held back, short enough to wait for. */
    readonly delay: Duration.Duration
    readonly publish: (
      first: Draft,
      ...rest: ReadonlyArray<Draft>
    ) => Effect.Effect<ReadonlyArray<Message.Receipt>, Transport.TransportError>
    readonly join: (
      group: string,
      options?: SubscriptionOptions
    ) => Effect.Effect<Transport.Receiver, Transport.TransportError, Scope.Scope>
    /** Publishes, and joins a receiver that gets it: a late one where the transport can do that. */
    readonly audience: <A, E, R>(
      group: string,
      publishing: Effect.Effect<A, E, R>
    ) => Effect.Effect<
      { readonly published: A; readonly receiver: Transport.Receiver },
      E | Transport.TransportError,
      R | Scope.Scope
    >
    /** Takes until there are `count` deliveries, letting time pass where necessary. */
    readonly take: (
      receiver: Receiver,
      count: number
    ) => Effect.Effect<ReadonlyArray<Delivery.Delivery>, Transport.TransportError>
    /** Takes one delivery. */
    readonly one: (receiver: Receiver) => Effect.Effect<Delivery.Delivery, Transport.TransportError>
    /** Lets time pass while `effect` waits, and dies when it waits too long. */
    readonly within: <A, E, R>(what: string, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
    /** Repeats until the result equals `expected`; dies with the difference when it never does. */
    readonly becomes: <A, E, R>(what: string, effect: Effect.Effect<A, E, R>, expected: A) => Effect.Effect<void, E, R>
    /** Reads a record beside the topic. */
    readonly read: <A, E>(query: Commit.Query<A, E>) => Effect.Effect<A, Transport.TransportError | E>
    readonly pass: (duration: Duration.Duration) => Effect.Effect<void>
    /** Milliseconds that the effect took, by the clock in use. */
    readonly elapsed: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<readonly [A, number], E, R>
    /** The group's figures, without those that differ between runs. */
    readonly figures: (group: string) => Effect.Effect<Figures, Transport.TransportError>
  }
>()("@waybill/testing/Fixture") {}

export interface Figures {
  readonly lag: number
  readonly pending: number
  readonly waiting: number
  readonly deadLetters: number
}

/** Figures of a group that has nothing left to do. */
export const settled: Figures = { lag: 0, pending: 0, waiting: 0, deadLetters: 0 }

/** Two clocks may round differently, and a timer may fire a moment early. */
export const toleranceMillis = 10

export const outgoing = (draft: Draft): Message.Outgoing => ({
  id: undefined,
  headers: {},
  key: undefined,
  version: 1,
  due: undefined,
  ...(typeof draft === "string" ? { body: draft } : draft)
})

/** Settles all deliveries the same way. */
export const settle = (
  receiver: Transport.Receiver,
  deliveries: ReadonlyArray<Delivery.Delivery>,
  settlement: Settlement.Settlement
): Effect.Effect<ReadonlyArray<Transport.Settled>, Transport.TransportError> => {
  const [first, ...rest] = deliveries
  return first === undefined
    ? Effect.succeed([])
    : receiver.settle([[first, settlement], ...rest.map((delivery) => [delivery, settlement] as const)])
}

export const bodies = (deliveries: ReadonlyArray<Delivery.Delivery>): ReadonlyArray<Message.Body> =>
  deliveries.map((delivery) => delivery.body)

export const sortedBodies = (deliveries: ReadonlyArray<Delivery.Delivery>): ReadonlyArray<string> =>
  deliveries.map((delivery) => String(delivery.body)).sort()

/** One receiver in a scope of its own: closing the scope leaves the group. */
export const joinAndLeave = Effect.fnUntraced(function* (
  fixture: Fixture["Service"],
  group: string,
  options?: SubscriptionOptions
) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  const receiver = yield* Scope.provide(fixture.join(group, options), scope)
  return { receiver, leave: Scope.close(scope, Exit.void) }
})

const testStep = Duration.seconds(1)
const testSteps = 3600
const liveLimit = Duration.seconds(20)

export const make = Effect.fnUntraced(function* (
  setting: Setting
): Effect.fn.Return<Fixture["Service"], never, Transport.AtMostOnce> {
  const transport = yield* Transport.AtMostOnce
  const { inspector, records } = transport
  const topic = `check-${(yield* Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER)).toString(36)}`
  const inTest = setting.time === "test"

  const pass = (duration: Duration.Duration) => (inTest ? TestClock.adjust(duration) : Effect.sleep(duration))

  const within = <A, E, R>(what: string, effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> => {
    const inVain = Effect.die(new Error(`timed out waiting for ${what}`))
    if (!inTest) return Effect.timeoutOrElse(effect, { duration: liveLimit, orElse: () => inVain })
    return Effect.gen(function* () {
      const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
      for (let i = 0; i < testSteps; i++) {
        yield* yieldToOthers
        const exit = fiber.pollUnsafe()
        if (exit !== undefined) return yield* exit
        yield* TestClock.adjust(testStep)
      }
      yield* Fiber.interrupt(fiber)
      return yield* inVain
    })
  }

  const take: Fixture["Service"]["take"] = (receiver, count) => {
    const taken: Array<Delivery.Delivery> = []
    return within(
      `${count} deliveries`,
      Effect.gen(function* () {
        while (taken.length < count) {
          const max = count - taken.length
          const batch = yield* receiver.take(max)
          assert.isAtMost(batch.length, max, "take hands out at most what it was asked for")
          taken.push(...batch)
        }
        return taken
      })
    ).pipe(
      Effect.catchDefect((defect) =>
        Effect.die(new Error(`${String(defect)}; received: ${JSON.stringify(bodies(taken))}`, { cause: defect }))
      )
    )
  }

  const becomes: Fixture["Service"]["becomes"] = (what, effect, expected) =>
    Effect.gen(function* () {
      for (let i = 0; ; i++) {
        const actual = yield* effect
        if (Equal.equals(actual, expected)) return
        if (i === (inTest ? 300 : 1000)) return assert.deepStrictEqual(actual, expected, what)
        yield* inTest ? Effect.andThen(yieldToOthers, TestClock.adjust("100 millis")) : Effect.sleep("20 millis")
      }
    })

  const join: Fixture["Service"]["join"] = (group, options) =>
    transport.receive({
      topic,
      group,
      start: "earliest",
      lease: setting.safeLease,
      maxDeliveries: 5,
      shutdown: Duration.seconds(2),
      ...options
    })

  return {
    transport,
    inspector,
    setting,
    topic,
    delay: inTest ? Duration.minutes(1) : Duration.millis(200),
    publish: (first, ...rest) => transport.publish(topic, [outgoing(first), ...rest.map(outgoing)]),
    join,
    audience: Effect.fnUntraced(function* (group, publishing) {
      const early = setting.history ? undefined : yield* join(group)
      const published = yield* publishing
      return { published, receiver: early ?? (yield* join(group)) }
    }),
    take,
    one: (receiver) => Effect.map(take(receiver, 1), (deliveries) => deliveries[0]!),
    within,
    becomes,
    read: (query) =>
      records?.read({ name: topic }, query) ?? Effect.die(new Error("a transport that commits has records")),
    pass,
    elapsed: (effect) =>
      Effect.gen(function* () {
        const before = yield* Clock.currentTimeMillis
        const result = yield* effect
        return [result, (yield* Clock.currentTimeMillis) - before] as const
      }),
    figures: (group) =>
      Effect.map(inspector.describe(topic), (info) => {
        const found = info.groups.find((candidate) => candidate.group === group)
        assert(found !== undefined, `the inspector does not know the group ${group}`)
        const { deadLetters, lag, pending, waiting } = found
        return { lag, pending, waiting, deadLetters }
      })
  }
})
