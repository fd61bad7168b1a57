/**
 * A subscriber: messages from its subscription go into its consumer's inbox, and missing ones are detected on the
 * way. An occasional beat tells that it lives, and asks whether its group is paused.
 *
 * @module
 */
import { hostname } from "node:os"
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Gap } from "../../../Gap.ts"
import { untimed } from "../../../internal/Attempts.ts"
import { fitting } from "../../../internal/Budget.ts"
import { isGlob } from "../../../internal/Glob.ts"
import { LocalDelivery, Inbox, type InboxOptions } from "../../../internal/Inbox.ts"
import type { DeadLetter } from "../../../Settlement.ts"
import { type Reason, type Recall, type Receiver, type Subscription, TransportError } from "../../../Transport.ts"
import type { Argument } from "../connection/Script.ts"
import { type Call, calling } from "../connection/ScriptReply.ts"
import type { Listener, Subscriber } from "../connection/Subscriber.ts"
import { maxDeadCause } from "../group/Settling.ts"
import { Unclaimed } from "../group/Unclaimed.ts"
import type { Store } from "../Pattern.ts"
import { type Envelope, open } from "../wire/Envelope.ts"
import { failureText, fieldsOf } from "../wire/Fields.ts"
import { channelGlob, type GroupKeys, type TopicKeys, topicOf } from "../wire/Keys.ts"
import { fresh, write } from "../wire/Tally.ts"
import * as Scripts from "./Scripts.ts"
import { Sequences } from "./Sequences.ts"

export interface ReceiverOptions
  extends
    Pick<InboxOptions, "capacity" | "capacityBytes" | "overflow">,
    Pick<Store, "redis" | "subscriber" | "prefix" | "lifecycle" | "clock" | "deadLetters" | "pollMillis"> {
  readonly keys: TopicKeys
  readonly sharded: boolean
  readonly subscription: Subscription
  /** Runs once the topic exists in the store. */
  readonly opened: Effect.Effect<void>
}

/** A subscriber counts as alive for that many beats without one. */
const livesFor = 10
/** How long a batch of dead letters is recognised when it is sent again. */
const rememberMillis = 10 * 60 * 1000
/** Leaving waits no longer for a server that does not reply. */
const farewell = "1 second"

type Letter = readonly [copy: LocalDelivery, settlement: DeadLetter]

/** Instead of a batch's number: the letter is stored. */
const stored = -1
/** How many letters one run of the script stores, and how much of them. */
const maxLetters = 100
const maxUnits = 4 * 1024 * 1024

/** Subscribes; returns when the server has confirmed. Leaves when the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: ReceiverOptions
): Effect.fn.Return<PubSubReceiver, TransportError, Scope.Scope> {
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const receiver = new PubSubReceiver(options, (gap) => run(receiver.report(gap)))
  yield* Effect.acquireRelease(receiver.start, () => receiver.stop)
  const { keys, prefix, redis, sharded, subscriber, subscription } = options
  const listen = (kind: Parameters<Subscriber["subscribe"]>[0], name: string, listener: Listener) =>
    Effect.mapError(subscriber.subscribe(kind, name, listener), receiver.failureOf)
  const kind = sharded ? "shard" : "channel"
  yield* listen(kind, keys.group(subscription.group).redriven, receiver.again)
  if (isGlob(subscription.topic))
    yield* listen("pattern", channelGlob(prefix, subscription.topic, redis.db), receiver.listener)
  else yield* listen(kind, keys.channel, receiver.listener)
  return receiver
})

export class PubSubReceiver implements Receiver {
  readonly consumer = `${hostname()}-${process.pid}-${SecureRandom.uuidV4Unsafe().slice(0, 8)}`
  readonly #options: ReceiverOptions
  readonly #call: Call<Omit<TopicKeys, "publisher"> & GroupKeys & { readonly publisher: string }>
  readonly #inbox: Inbox
  readonly #sequences = new Sequences()
  readonly #unclaimed = new Unclaimed()
  readonly #isGlob: boolean
  #channel = ""
  #topic: string
  #unnamed = 0
  #letterBatches = 0
  #open = false
  #paused = false
  /** Paused, and nothing begins here any more. */
  #quiet = false
  #quieting: Fiber.Fiber<unknown> | undefined
  #beating: Fiber.Fiber<unknown> | undefined

  constructor(options: ReceiverOptions, gap: (gap: Gap) => void) {
    this.#options = options
    const { keys, redis, subscription } = options
    const { group, topic } = subscription
    const named = { ...keys, ...keys.group(group), publisher: keys.publisher(this.consumer) }
    this.#call = calling(redis.commands, { topic, pattern: Scripts.pattern }, named)
    this.#topic = topic
    this.#isGlob = isGlob(topic)
    const deadLetter: InboxOptions["deadLetter"] = (letters) => this.#deadLetter(letters)
    this.#inbox = new Inbox({ ...options, topic, group, consumer: this.consumer, gap, deadLetter })
    this.take = this.#inbox.take
    this.settle = this.#inbox.settle
    this.lost = this.#inbox.lost
    this.recalled = this.#inbox.recalled
  }

  readonly take: Receiver["take"]
  readonly settle: Receiver["settle"]
  readonly lost: Receiver["lost"]
  readonly recalled: Effect.Effect<Recall>
  readonly unclaimed = this.#unclaimed.wait

  /** Nothing is ever due from elsewhere. */
  expect(): void {}

  readonly refresh: Effect.Effect<void> = Effect.suspend(() => Effect.ignore(this.#beat))

  readonly listener: Listener = {
    message: (bytes, channel) => {
      const envelope = open(bytes)
      const { id: given, number, producer } = envelope
      const id = given ?? (number === undefined ? this.#nextId() : `${producer}-${number}`)
      const missing = this.#sequences.follow(channel, envelope, id)
      this.#inbox.add(this.#deliveryOf(this.#topicOf(channel), id, envelope), missing)
    },
    interrupted: () => this.#sequences.interrupt(),
    refused: (reason) => this.#inbox.fail(this.failureOf(reason))
  }

  /** Redriven to the group. A letter that is lost on the way was not received by any subscriber. */
  readonly again: Listener = {
    message: (bytes) => {
      const envelope = open(bytes)
      const { topic } = this.#options.subscription
      this.#inbox.add(this.#deliveryOf(envelope.topic ?? topic, envelope.id ?? this.#nextId(), envelope))
    },
    interrupted: () => {},
    refused: (reason) => this.#inbox.fail(this.failureOf(reason))
  }

  readonly failureOf = (reason: Reason): TransportError =>
    new TransportError({ operation: "receive", topic: this.#options.subscription.topic, reason })

  report(gap: Gap): Effect.Effect<void> {
    const { lifecycle, subscription } = this.#options
    const { group, topic } = subscription
    return lifecycle.report({ _tag: "Gap", topic, group, consumer: this.consumer, gap })
  }

  get start(): Effect.Effect<void, TransportError> {
    return Effect.gen({ self: this }, function* () {
      yield* Effect.mapError(this.#beat, this.failureOf)
      this.#beating = yield* Effect.forkDetach(this.#beats)
    })
  }

  get stop(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      for (const fiber of [this.#beating, this.#quieting]) if (fiber !== undefined) yield* Fiber.interrupt(fiber)
      const { group, topic } = this.#options.subscription
      const lost = this.#inbox.leave()
      if (lost > 0)
        yield* Effect.logWarning("a subscriber left, and the messages it held are lost", { topic, group, lost })
      yield* Effect.ignore(this.#call(Scripts.leave, { consumer: this.consumer }, { deadline: farewell }))
    })
  }

  readonly #beats: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    while (true) {
      yield* Effect.sleep(this.#options.pollMillis * (yield* Random.nextBetween(0.75, 1)))
      const result = yield* Effect.result(this.#beat)
      if (Result.isFailure(result) && result.failure.permanent) this.#inbox.fail(this.failureOf(result.failure))
    }
  })

  readonly #beat: Effect.Effect<void, Reason> = Effect.gen({ self: this }, function* () {
    const { clock, deadLetters, lifecycle, opened, pollMillis, subscription } = this.#options
    const { group, topic } = subscription
    const { nextDue, oldestTakenAt } = this.#inbox
    const now = clock.currentTimeMillisUnsafe()
    const { dropped, isNew, paused, unclaimed } = yield* this.#call(Scripts.beat, {
      group,
      consumer: this.consumer,
      lease: pollMillis * livesFor,
      holds: this.#inbox.pending,
      waits: this.#inbox.waiting,
      due: nextDue === undefined ? -1 : Math.max(0, nextDue - now),
      held: oldestTakenAt === undefined ? -1 : Math.max(0, now - oldestTakenAt),
      ...deadLetters,
      quiet: this.#quiet ? 1 : 0,
      hooks: this.#unclaimed.asked
    })
    this.#unclaimed.tell(unclaimed)
    if (!this.#open || isNew) {
      this.#open = true
      yield* opened
    }
    if (dropped > 0) yield* lifecycle.report({ _tag: "DeadLettersDropped", topic, group, count: dropped })
    if (paused === this.#paused) return
    this.#paused = this.#inbox.paused = paused
    this.#quiet = false
    if (this.#quieting !== undefined) yield* Fiber.interrupt(this.#quieting)
    this.#quieting = this.#paused ? yield* Effect.forkDetach(this.#quieten) : undefined
    yield* lifecycle.report({ _tag: this.#paused ? "ConsumerPaused" : "ConsumerResumed", topic, group })
  })

  /** A beat does not wait for this: the consumer may be slow to respond. */
  readonly #quieten: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    yield* this.#inbox.recall
    this.#quiet = true
    yield* Effect.ignore(this.#beat)
  })

  /** Some at a time. Those that were stored are not sent again with the rest. */
  #deadLetter(letters: NonEmptyReadonlyArray<Letter>): Effect.Effect<void, TransportError> {
    return Effect.gen({ self: this }, function* () {
      let open = letters.filter(([copy]) => copy.letterBatch !== stored)
      while (isReadonlyArrayNonEmpty(open)) {
        const copies = open.map(([copy]) => copy)
        const count = fitting(copies, maxLetters, maxUnits)
        yield* this.#store(copies[0]!, open.slice(0, count))
        open = open.slice(count)
      }
    })
  }

  #store(first: LocalDelivery, letters: ReadonlyArray<Letter>): Effect.Effect<void, TransportError> {
    const { deadLetters, lifecycle, subscription } = this.#options
    const { group, topic } = subscription
    // The same ones again: whether they were stored is not known.
    if (first.letterBatch === 0) first.letterBatch = ++this.#letterBatches
    const args: Array<Argument> = []
    for (const [copy, settlement] of letters) {
      const { cause, failure, reason } = settlement
      const fields = fieldsOf({ ...copy.published, key: copy.key, version: copy.version })
      const { attempt, fence, id, publishedAt } = copy
      const tally = write({ ...fresh, log: untimed(copy.log, attempt, this.consumer, settlement) })
      args.push(reason, cause.slice(0, maxDeadCause), tally, failureText(failure))
      args.push(attempt, fence, id, publishedAt, copy.topic, fields.length, ...fields)
    }
    return this.#call(
      Scripts.deadLetter,
      { consumer: this.consumer, ...deadLetters, batch: first.letterBatch, ttl: rememberMillis },
      { args }
    ).pipe(
      Effect.mapError((reason) => new TransportError({ operation: "settle", topic, reason })),
      Effect.tap(() =>
        Effect.sync(() => {
          for (const [copy] of letters) copy.letterBatch = stored
        })
      ),
      Effect.flatMap(({ dropped }) =>
        dropped > 0 ? lifecycle.report({ _tag: "DeadLettersDropped", topic, group, count: dropped }) : Effect.void
      )
    )
  }

  #nextId(): string {
    return `${this.consumer}-${++this.#unnamed}`
  }

  #topicOf(channel: string): string {
    if (this.#isGlob && channel !== this.#channel) {
      this.#channel = channel
      this.#topic = topicOf(this.#options.prefix, channel)
    }
    return this.#topic
  }

  #deliveryOf(topic: string, id: string, envelope: Envelope): LocalDelivery {
    const { at, fence, key, version } = envelope
    const { clock, subscription } = this.#options
    const publishedAt = at ?? clock.currentTimeMillisUnsafe()
    return new LocalDelivery(topic, subscription.group, id, envelope, key, version, publishedAt, (fence ?? 0) + 1)
  }
}
