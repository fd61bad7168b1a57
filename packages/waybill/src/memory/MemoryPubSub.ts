/**
 * Publishing and subscribing in the memory of this process. At most once: a message reaches every subscriber present
 * when it is published, and nothing is stored. Messages that a subscriber was too slow for are reported as a `Gap`
 * before the next message.
 *
 * Behaves like `RedisPubSub`, without a server, and takes all time from the caller's `Clock`.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import { type Inspector, inUse } from "../Inspector.ts"
import * as Attempts from "../internal/Attempts.ts"
import { matcher } from "../internal/Glob.ts"
import { Inbox, type InboxOptions } from "../internal/Inbox.ts"
import {
  byTopic,
  type LimitOptions,
  type Limits,
  limitsOf,
  oneOf,
  type TopicOptions,
  wholeOf
} from "../internal/Limits.ts"
import { noMoves, startProblem } from "../internal/Unplaced.ts"
import { refusal } from "../internal/Unstored.ts"
import { Lifecycle } from "../Lifecycle.ts"
import type { Outgoing, Receipt } from "../Message.ts"
import { layer as layerOf, MessageNotFound, type Subscription, TopicInUse, TransportError } from "../Transport.ts"
import { Backpressure, sizeOf } from "./internal/Backpressure.ts"
import { Channels, type SubscriberGroup } from "./internal/Channels.ts"
import { make as makeSiblings } from "./internal/Siblings.ts"
import { step } from "./internal/Step.ts"

/**
 * @category models
 */
export interface Options extends TopicOptions<Pick<LimitOptions, "deadLetters">> {
  /**
   * How many dead letters a group keeps, and for how long. The oldest are dropped first and reported as
   * `DeadLettersDropped`. 100,000 and 30 days by default.
   */
  readonly deadLetters?: { readonly maxCount?: number; readonly maxAge?: Duration.Input }
  /** How many messages may wait for a slow consumer: 1024 by default. */
  readonly buffer?: number
  /** How many bytes may wait: 64 MiB by default. A single message always may. */
  readonly bufferBytes?: number
  /**
   * What to do with a message when the buffer is full. `drop-oldest`, the default, makes room for it; `drop-newest`
   * drops it; both report a `Gap`. `fail` fails the consumer with `Overflow`.
   */
  readonly overflow?: "drop-oldest" | "drop-newest" | "fail"
}

const pattern = "pubsub"

/**
 * Programs reach each other by sharing the layer value, and a program that uses two of them for one topic is warned.
 * Throws on a buffer that is not an integer >= 1: that is a bug.
 *
 * @example
 * ```ts
 * import { Console, Effect, Layer, Schema } from "effect"
 * import { Consumer, Producer, Topic } from "waybill"
 * import { MemoryPubSub } from "waybill/memory"
 *
 * const Price = Topic.make("prices.tea", { payload: Schema.Struct({ cents: Schema.Int }), guarantee: "at-most-once" })
 *
 * const Ticker = Consumer.make(Price, { group: "ticker" }).pipe(
 *   Consumer.process(({ cents }) => Console.log(cents)),
 *   Consumer.layer
 * )
 *
 * const program = Producer.publish(Price, { cents: 250 }).pipe(
 *   Effect.provide(Ticker.pipe(Layer.provideMerge(MemoryPubSub.layer({ overflow: "drop-newest" }))))
 * )
 * ```
 *
 * @category layers
 */
export const layer = layerOf("at-most-once", (options: Options, as) => {
  const limits = byTopic<LimitOptions, Limits>(options, limitsOf)
  const capacity = wholeOf("buffer", options.buffer ?? 1024)
  const capacityBytes = wholeOf("bufferBytes", options.bufferBytes ?? 64 * 1024 * 1024)
  const overflow = oneOf("overflow", options.overflow ?? "drop-oldest", ["drop-oldest", "drop-newest", "fail"])
  return Effect.gen(function* () {
    const instance = (yield* Random.nextIntBetween(0x100000, 0xffffff)).toString(16)
    const channels = new Channels((topic) => limits(topic).deadLetters, instance)
    const siblings = yield* makeSiblings({
      pattern,
      as,
      fits: (topic, other) => matcher(topic)(other) || matcher(other)(topic),
      unsettled: () => []
    })
    const backpressure = new Backpressure(channels, capacity, capacityBytes)
    const lifecycle = new Lifecycle()
    const run = Effect.runForkWith(yield* Effect.context<never>())
    let consumers = 0

    const enter = Effect.fnUntraced(function* ({ group, start, topic }: Subscription) {
      const problem = startProblem(start)
      if (problem !== undefined) return yield* new TransportError({ operation: "receive", topic, reason: problem })
      const consumer = `memory-${instance}-${++consumers}`
      const subscribers = channels.group(topic, group)
      const clock = yield* Clock.Clock
      const inbox: Inbox = new Inbox({
        topic,
        group,
        consumer,
        capacity,
        capacityBytes,
        overflow,
        clock,
        gap: (gap) => void run(lifecycle.report({ _tag: "Gap", topic, group, consumer, gap })),
        deadLetter: (letters) => deadLetter(subscribers, topic, consumer, letters)
      })
      inbox.paused = subscribers.paused
      subscribers.inboxes.add(inbox)
      return { subscribers, inbox }
    })

    const deadLetter = (
      subscribers: SubscriberGroup,
      topic: string,
      consumer: string,
      letters: Parameters<InboxOptions["deadLetter"]>[0]
    ) =>
      step((now) => {
        let dropped = 0
        for (const [copy, settlement] of letters) {
          const { cause, failure, reason } = settlement
          const { attempt, fence, group, id, key, published, publishedAt, version } = copy
          const { body, headers } = published
          const message = { id, body, headers, key, version, publishedAt }
          const attemptLog = Attempts.read(Attempts.noted(copy.log, attempt, consumer, settlement, now))
          const end = { reason, cause, ...(failure && { failure }), attempts: attempt, attemptLog, diedAt: now }
          dropped += subscribers.dead.add({ ...message, topic: copy.topic, group, ...end }, fence, false)
        }
        return dropped === 0
          ? Exit.void
          : lifecycle.report({ _tag: "DeadLettersDropped", topic, group: subscribers.name, count: dropped })
      })

    const publish = (topic: string, messages: ReadonlyArray<Outgoing>) =>
      step((now) => Exit.succeed(channels.publish(topic, messages, now)))

    return {
      lifecycle,
      broadcasts: true,
      publish: (topic, messages) =>
        Effect.suspend(() => {
          const reason = refusal(topic, messages)
          if (reason !== undefined) return Effect.fail(new TransportError({ operation: "publish", topic, reason }))
          const only = messages.length === 1 ? messages[0] : undefined
          if (only !== undefined) {
            return siblings.using(
              topic,
              Effect.andThen(backpressure.relieved(topic, sizeOf(only)), publish(topic, messages))
            )
          }
          return Effect.uninterruptible(
            Effect.gen(function* () {
              yield* siblings.using(topic, Effect.void)
              const receipts: Array<Receipt> = []
              for (let from = 0; from < messages.length; from = receipts.length) {
                const { bytes, next } = backpressure.partOf(messages, from)
                yield* backpressure.relieved(topic, bytes)
                receipts.push(...(yield* publish(topic, next)))
              }
              return receipts
            })
          )
        }),
      receive: (subscription) =>
        Effect.map(
          Effect.acquireRelease(siblings.using(subscription.topic, enter(subscription)), ({ subscribers, inbox }) =>
            Effect.suspend(() => {
              subscribers.inboxes.delete(inbox)
              const lost = inbox.leave()
              const { group, topic } = subscription
              return lost === 0
                ? Effect.void
                : Effect.logWarning("a subscriber left, and the messages it held are lost", {
                    topic,
                    group,
                    lost
                  })
            })
          ),
          ({ inbox }) => inbox
        ),
      claimDeadLetters: (claim) => step((now) => Exit.succeed(channels.claimDeadLetters(claim, now))),
      inspector: inspectorOf(channels, lifecycle)
    }
  })
})

const inspectorOf = (channels: Channels, lifecycle: Lifecycle): Inspector["Service"] => {
  const setPaused = (topic: string, group: string, paused: boolean) =>
    Effect.suspend(() => {
      const subscribers = channels.group(topic, group)
      if (subscribers.paused === paused) return Effect.void
      subscribers.paused = paused
      for (const inbox of subscribers.inboxes) inbox.paused = paused
      const quiet = paused
        ? Effect.forEach(subscribers.inboxes, (inbox) => inbox.recall, { concurrency: "unbounded", discard: true })
        : Effect.void
      return Effect.andThen(
        quiet,
        lifecycle.report({ _tag: paused ? "ConsumerPaused" : "ConsumerResumed", topic, group })
      )
    })
  return {
    topics: Effect.sync(() => channels.topics),
    describe: (topic) => Effect.map(Clock.currentTimeMillis, (now) => channels.describe(topic, pattern, now)),
    messages: () => Effect.succeed([]),
    message: () => Effect.succeedNone,
    delayed: () => Effect.succeed([]),
    removeMessage: notFound,
    cancel: notFound,
    reschedule: notFound,
    runNow: notFound,
    changePriority: notFound,
    pending: () => Effect.succeed([]),
    waiting: () => Effect.succeed([]),
    deadLetters: (topic, group, { after, limit }) =>
      step((now) =>
        Exit.succeed(channels.deadLetters(topic, group, { after: Option.getOrUndefined(after), limit }, now))
      ),
    redrive: (topic, group, entries) => step((now) => Exit.succeed(channels.redrive(topic, group, entries, now))),
    discard: (topic, group, entries) => step((now) => Exit.succeed(channels.discard(topic, group, entries, now))),
    pause: (topic, group) => setPaused(topic, group, true),
    resume: (topic, group) => setPaused(topic, group, false),
    purge: () => Effect.void,
    move: (topic) => Effect.fail(new TransportError({ operation: "inspect", topic, reason: noMoves })),
    retire: (topic, group) =>
      step(() => {
        if (channels.retire(topic, group)) return Exit.void
        const reason = new TopicInUse({ topic, group, found: "consumers" })
        return Exit.fail(new TransportError({ operation: "inspect", topic, reason }))
      }),
    remove: (topic, options) =>
      step((now) => {
        const reason = inUse(channels.describe(topic, pattern, now), options)
        if (reason !== undefined) {
          return Exit.fail(new TransportError({ operation: "inspect", topic, reason }))
        }
        channels.remove(topic)
        return Exit.void
      })
  }
}

/** Nothing is stored here. */
const notFound = (topic: string, id: string) =>
  Effect.fail(new TransportError({ operation: "inspect", topic, reason: new MessageNotFound({ id }) }))
