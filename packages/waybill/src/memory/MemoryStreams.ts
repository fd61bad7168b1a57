/**
 * Streams with consumer groups in the memory of this process. At least once: a message is delivered to every group until
 * the group settles it. What is not settled dies with the process.
 *
 * It answers like `RedisStreams`, without a server, and all its time is the caller's `Clock`: under `TestClock` a retry
 * that is due tomorrow is one `adjust` away.
 *
 * @module
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import type { Delivery } from "../Delivery.ts"
import { Inspector, type TopicInfo } from "../Inspector.ts"
import { Lifecycle } from "../Lifecycle.ts"
import { AtLeastOnce, AtMostOnce, type Receiver, Transport } from "../Transport.ts"
import { type Fact, Member, type StreamGroup } from "./StreamGroup.ts"
import { type StreamLimits, StreamTopic } from "./StreamTopic.ts"

/**
 * What a store forgets, and when.
 *
 * @category models
 */
export interface Options {
  /** For how long a message id that was published is remembered, and publishing it again stores nothing. 10 minutes by default. */
  readonly deduplicationWindow?: Duration.Input
  /** How many dead letters a group keeps, and for how long; the oldest go first, and `DeadLettersDropped` says so. 100,000 and 30 days by default. */
  readonly deadLetters?: { readonly maxCount?: number; readonly maxAge?: Duration.Input }
  /**
   * What a topic's log keeps. `settled`, the default: what some group has not settled; while no group exists, everything.
   * `{ maxLength }`: so many of the newest messages, settled or not. Lossy: what a slow group had not seen is gone, and
   * `Truncated` says so.
   */
  readonly retention?: "settled" | { readonly maxLength: number }
}

/**
 * A store of its own with every build: two programs share messages by sharing the layer.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const program = Producer.publish(Greeting, "hello").pipe(
 *   Effect.provide(MemoryStreams.layer({ deduplicationWindow: "1 hour" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<Transport | Inspector | AtLeastOnce | AtMostOnce> =>
  Layer.effectContext(
    Effect.gen(function* () {
      const instance = yield* Random.nextIntBetween(0x100000, 0xffffff)
      const store = new Store(options ?? {}, instance.toString(16))
      return Context.make(Transport, transportOf(store)).pipe(
        Context.add(Inspector, inspectorOf(store)),
        Context.add(AtLeastOnce, "AtLeastOnce"),
        Context.add(AtMostOnce, "AtMostOnce")
      )
    })
  )

/**
 * For as long as the scope is open, the receiver behaves like one whose process stands still: it takes nothing and
 * renews nothing, so that others of its group take its deliveries over once the lease has passed. For tests; it dies on
 * a receiver of another transport.
 *
 * @category testing
 */
export const silence = (receiver: Receiver): Effect.Effect<void, never, Scope.Scope> => {
  if (!(receiver instanceof MemoryReceiver)) return Effect.die(new Error("silence needs a receiver of MemoryStreams"))
  return Effect.acquireRelease(receiver.setSilent(true), () => receiver.setSilent(false))
}

class Store {
  readonly topics = new Map<string, StreamTopic>()
  readonly lifecycle = new Lifecycle()
  readonly #limits: StreamLimits
  readonly #instance: string
  #consumers = 0

  constructor(options: Options, instance: string) {
    this.#instance = instance
    this.#limits = {
      dedupMillis: Duration.toMillis(options.deduplicationWindow ?? "10 minutes"),
      deadLetters: {
        maxCount: options.deadLetters?.maxCount ?? 100_000,
        maxAgeMillis: Duration.toMillis(options.deadLetters?.maxAge ?? "30 days")
      },
      maxLength: typeof options.retention === "object" ? options.retention.maxLength : Infinity
    }
  }

  open(name: string): StreamTopic {
    let topic = this.topics.get(name)
    if (topic === undefined) this.topics.set(name, (topic = new StreamTopic(name, this.#limits)))
    return topic
  }

  nextConsumer(): string {
    return `memory-${this.#instance}-${++this.#consumers}`
  }
}

/** Lets the world know of a step. Nobody is resumed before the fiber that made it lets others run. */
const completed = <A>(
  { lifecycle }: Store,
  topic: StreamTopic,
  fiber: Fiber.Fiber<unknown, unknown>,
  value: A
): Effect.Effect<A> => {
  const latches = topic.opening()
  if (latches.length > 0) {
    // A task of its own, because an effect might be interrupted before it opens what others wait for.
    fiber.currentDispatcher.scheduleTask(() => {
      for (const latch of latches) latch.openUnsafe()
    }, 0)
  }
  return topic.facts.length === 0 ? Exit.succeed(value) : Effect.as(tell(lifecycle, topic.facts), value)
}

const tell = Effect.fnUntraced(function* (lifecycle: Lifecycle, facts: Array<Fact>) {
  for (let fact = facts.shift(); fact !== undefined; fact = facts.shift()) {
    if (fact._tag === "Settled") lifecycle.emit(fact)
    else yield* lifecycle.report(fact)
  }
})

/** One step of the store, at one instant. */
const step = <A, E, R>(f: (now: number, fiber: Fiber.Fiber<unknown, unknown>) => Effect.Effect<A, E, R>) =>
  Effect.withFiber<A, E, R>((fiber) => f(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(), fiber))

const transportOf = (store: Store): Context.Service.Shape<typeof Transport> => ({
  lifecycle: store.lifecycle,
  publish: (name, messages) =>
    step((now, fiber) => {
      const topic = store.open(name)
      return completed(store, topic, fiber, topic.publish(messages, now))
    }),
  receive: (subscription) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const topic = store.open(subscription.topic)
        const group = topic.join(subscription.group, subscription.start)
        return new MemoryReceiver(store, topic, group, new Member(store.nextConsumer(), subscription))
      }),
      (receiver) => receiver.leave
    )
})

/** Longer than this no timer of a runtime lasts; who waits longer looks again. */
const longestSleep = 24 * 60 * 60 * 1000

class MemoryReceiver implements Receiver {
  readonly consumer: string
  readonly #store: Store
  readonly #topic: StreamTopic
  readonly #group: StreamGroup
  readonly #member: Member

  constructor(store: Store, topic: StreamTopic, group: StreamGroup, member: Member) {
    this.#store = store
    this.consumer = member.consumer
    this.#topic = topic
    this.#group = group
    this.#member = member
    group.join(member)
  }

  readonly take = (max: number): Effect.Effect<NonEmptyReadonlyArray<Delivery>> =>
    Effect.withFiber((fiber) => {
      // Interrupted between this step and the caller's next one, the fiber would lose what it took: yield before, not there.
      if (fiber.currentOpCount + 64 > fiber.cache.maxOpsBeforeYield) {
        return Effect.flatMap(Effect.yieldNow, () => this.take(max))
      }
      const clock = fiber.getRef(Clock.Clock)
      const now = clock.currentTimeMillisUnsafe()
      this.#topic.promote(now)
      this.#group.reclaim(this.#member, now)
      // What others must know comes first: nothing may come between the deliveries and who asked for them.
      const told = completed(this.#store, this.#topic, fiber, undefined)
      if (!Exit.isExit(told)) return Effect.flatMap(told, () => this.take(max))
      const deliveries = this.#group.take(this.#member, Math.max(1, max), now)
      return isReadonlyArrayNonEmpty(deliveries)
        ? Exit.succeed(deliveries)
        : Effect.flatMap(this.#change(clock, now), () => this.take(max))
    })

  readonly settle: Receiver["settle"] = (settlements) =>
    step((now, fiber) => {
      const answers = settlements.map(([delivery, settlement]) =>
        this.#group.settle(this.#member, delivery, settlement, now)
      )
      return completed(this.#store, this.#topic, fiber, answers)
    })

  readonly lost: Receiver["lost"] = Effect.suspend(() => {
    const robbed = this.#member.robbed
    const lost = this.#member.losses()
    if (!isReadonlyArrayNonEmpty(lost)) return Effect.flatMap(robbed.await, () => this.lost)
    const { group, topic } = lost[0]
    return Effect.as(this.#store.lifecycle.report({ _tag: "LeaseLost", topic, group, deliveries: lost }), lost)
  })

  readonly leave = step((_, fiber) => {
    this.#group.leave(this.#member)
    return completed(this.#store, this.#topic, fiber, undefined)
  })

  setSilent(silent: boolean): Effect.Effect<void> {
    return step((now, fiber) => {
      this.#group.setSilent(this.#member, silent ? now : undefined)
      return completed(this.#store, this.#topic, fiber, undefined)
    })
  }

  /** Waits until there may be something to take. */
  #change(clock: Clock.Clock, now: number): Effect.Effect<void> {
    const { changed } = this.#topic
    const due = Math.min(this.#topic.nextDelayedAt ?? Infinity, this.#group.nextDue())
    if (due === Infinity) return changed.await
    return Effect.raceFirst(changed.await, clock.sleep(Duration.millis(Math.min(due - now, longestSleep))))
  }
}

const inspectorOf = (store: Store): Context.Service.Shape<typeof Inspector> => {
  const inGroup = <A>(name: string, group: string, otherwise: A, f: (group: StreamGroup) => A) =>
    step((_, fiber) => {
      const topic = store.topics.get(name)
      const found = topic?.group(group)
      return topic === undefined || found === undefined
        ? Exit.succeed(otherwise)
        : completed(store, topic, fiber, f(found))
    })
  const setPaused = (name: string, group: string, paused: boolean) =>
    step((_, fiber) => {
      const topic = store.open(name)
      topic.setPaused(group, paused)
      return completed(store, topic, fiber, undefined)
    })
  return {
    topics: Effect.sync(() => Array.from(store.topics.keys())),
    describe: (name) => step((now) => Exit.succeed(store.topics.get(name)?.describe(now) ?? nothing(name))),
    deadLetters: (topic, group, { after, limit }) =>
      inGroup(topic, group, [], (group) => group.deadLetters(Option.getOrUndefined(after), limit)),
    redrive: (topic, group, entries) => inGroup(topic, group, 0, (group) => group.redrive(entries)),
    discard: (topic, group, entries) => inGroup(topic, group, 0, (group) => group.discard(entries)),
    pause: (topic, group) => setPaused(topic, group, true),
    resume: (topic, group) => setPaused(topic, group, false)
  }
}

const nothing = (topic: string): TopicInfo => ({
  topic,
  pattern: "streams",
  depth: 0,
  delayed: 0,
  nextDelayedAt: undefined,
  groups: []
})
