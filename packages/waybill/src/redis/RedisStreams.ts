/**
 * Delivery over Redis Streams with consumer groups. At least once: a message that was published is delivered to every
 * group until the group settles it, whatever crashes, as long as Redis keeps its data. A handler may see it again.
 *
 * Retries, delayed messages and dead letters live in Redis too, timed by its clock. What every group has settled is cut
 * off; nothing else is, unless you ask for it.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import { Inspector } from "../Inspector.ts"
import { Lifecycle } from "../Lifecycle.ts"
import { AtLeastOnce, AtMostOnce, type Receiver, Transport, type TransportError } from "../Transport.ts"
import { registry, type TopicKeys, topicKeys } from "./internal/Keys.ts"
import { Publisher } from "./internal/streams/Publisher.ts"
import * as StreamInspector from "./internal/streams/StreamInspector.ts"
import * as Members from "./internal/streams/StreamReceiver.ts"
import { IoRedis } from "./IoRedis.ts"

/**
 * Everything has a default; programs that share topics must agree on `prefix`.
 *
 * @category models
 */
export interface Options {
  /** What all keys begin with, `waybill` by default. No white space, no braces. */
  readonly prefix?: string
  /** For how long a message id that was published is remembered, and publishing it again stores nothing. 10 minutes by default. */
  readonly deduplicationWindow?: Duration.Input
  /** How many dead letters a group keeps, and for how long; the oldest go first, and `DeadLettersDropped` says so. 100,000 and 30 days by default. */
  readonly deadLetters?: { readonly maxCount?: number; readonly maxAge?: Duration.Input }
  /** How long something that is due may lie unnoticed, when no program that knows of it is alive. 1 second by default. */
  readonly pollInterval?: Duration.Input
  /** How long publishing goes on trying before it fails, 5 seconds by default. */
  readonly publishTimeout?: Duration.Input
  /**
   * What the topic's stream keeps. `settled`, the default: what some group has not settled; while no group exists, everything.
   * `{ maxLength }`: about that many of the newest messages, settled or not. Lossy: what a slow group had not seen is
   * gone, and `Truncated` says so.
   */
  readonly retention?: "settled" | { readonly maxLength: number }
}

/**
 * The streams pattern, on the connections of `IoRedis`. Throws on a prefix with white space or braces, a duration of
 * nothing, or a count that is not a whole number from 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisStreams } from "waybill/redis"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const Greeter = Consumer.make(Greeting, { group: "greeter" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer
 * )
 *
 * const Main = Greeter.pipe(
 *   Layer.provide(RedisStreams.layer({ prefix: "shop" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<Transport | Inspector | AtLeastOnce | AtMostOnce, never, IoRedis> => {
  const prefix = options.prefix ?? "waybill"
  if (!/^[^\s{}]{1,200}$/.test(prefix)) {
    throw new Error(`"${prefix}" is no prefix: 1 to 200 characters, no white space, no braces`)
  }
  const settings = settingsOf(options)
  return Layer.effectContext(
    Effect.gen(function* () {
      const redis = yield* IoRedis
      const clock = yield* Clock.Clock
      const scope = yield* Scope.Scope
      const lifecycle = new Lifecycle()
      const store = new Store({ settings, prefix, redis, clock, scope, lifecycle })
      const context = yield* Effect.context<never>()
      const run = Effect.runForkWith(context)
      yield* redis.listen((event) => run(lifecycle.report(event)))
      return Context.make(Transport, {
        lifecycle,
        publish: (topic, messages) => store.publish(topic, messages),
        receive: (subscription) => store.receive(subscription)
      }).pipe(
        Context.add(
          Inspector,
          StreamInspector.make({
            commands: redis.commands,
            prefix,
            keysOf: (topic) => topicKeys(prefix, topic),
            steered: (topic, group) => store.look(topic, group)
          })
        ),
        Context.add(AtLeastOnce, "AtLeastOnce"),
        Context.add(AtMostOnce, "AtMostOnce")
      )
    })
  )
}

/**
 * For as long as the scope is open, the receiver behaves like one whose process stands still: it takes nothing and
 * renews nothing, so that others of its group take its deliveries over once the lease has passed. For tests; it dies on
 * a receiver of another transport.
 *
 * @category testing
 */
export const silence = (receiver: Receiver): Effect.Effect<void, never, Scope.Scope> => {
  if (!(receiver instanceof Members.StreamReceiver)) {
    return Effect.die(new Error("silence needs a receiver of RedisStreams"))
  }
  return Effect.acquireRelease(receiver.setSilent(true), () => receiver.setSilent(false))
}

type Publish = Context.Service.Shape<typeof Transport>["publish"]

/** The options with their defaults, in numbers that the scripts can use. */
interface Settings {
  readonly deduplicationMillis: number
  readonly deadLetters: { readonly maxCount: number; readonly maxAgeMillis: number }
  readonly pollMillis: number
  readonly publishMillis: number
  readonly maxLength: number | undefined
}

const settingsOf = (options: Options): Settings => ({
  deduplicationMillis: millisOf("deduplicationWindow", options.deduplicationWindow ?? "10 minutes"),
  deadLetters: {
    maxCount: wholeOf("deadLetters.maxCount", options.deadLetters?.maxCount ?? 100_000),
    maxAgeMillis: millisOf("deadLetters.maxAge", options.deadLetters?.maxAge ?? "30 days")
  },
  pollMillis: millisOf("pollInterval", options.pollInterval ?? "1 second"),
  publishMillis: millisOf("publishTimeout", options.publishTimeout ?? "5 seconds"),
  maxLength:
    typeof options.retention === "object" ? wholeOf("retention.maxLength", options.retention.maxLength) : undefined
})

/** A script that meets a bad number after its first write would leave half a batch, so none gets that far. */
const millisOf = (option: string, input: Duration.Input): number => {
  const millis = Duration.toMillis(Duration.fromInputUnsafe(input))
  if (!(millis > 0)) throw new Error(`${option} must be longer than nothing`)
  // As long as anyone will wait: a thousand years.
  return Math.min(Math.ceil(millis), 1000 * 365 * 24 * 60 * 60 * 1000)
}

const wholeOf = (option: string, count: number): number => {
  if (!Number.isSafeInteger(count) || count < 1)
    throw new Error(`${option} must be a whole number from 1, not ${count}`)
  return count
}

interface StoreOptions {
  readonly settings: Settings
  readonly prefix: string
  readonly redis: Context.Service.Shape<typeof IoRedis>
  readonly clock: Clock.Clock
  readonly scope: Scope.Scope
  readonly lifecycle: Lifecycle
}

/** What the parts of one layer know of each other. */
class Store {
  readonly #options: StoreOptions
  readonly #publishers = new Map<string, Publisher>()
  readonly #receivers = new Set<{
    readonly topic: string
    readonly group: string
    readonly member: Members.StreamReceiver
  }>()

  constructor(options: StoreOptions) {
    this.#options = options
  }

  publish(...[topic, messages]: Parameters<Publish>): ReturnType<Publish> {
    const publisher = this.#publishers.get(topic)
    if (publisher !== undefined) return publisher.publish(messages)
    return Effect.flatMap(this.#open(topic), (opened) => opened.publish(messages))
  }

  #open(topic: string): Effect.Effect<Publisher> {
    const { clock, prefix, redis, scope, settings } = this.#options
    return Effect.suspend(() => {
      const known = this.#publishers.get(topic)
      if (known !== undefined) return Effect.succeed(known)
      const publisher = new Publisher({
        commands: redis.commands,
        topic,
        keys: topicKeys(prefix, topic),
        clock,
        deduplicationMillis: settings.deduplicationMillis,
        timeoutMillis: settings.publishMillis,
        maxLength: settings.maxLength,
        opened: this.#register(topic),
        delayed: (millis) => {
          for (const receiver of this.#receivers) if (receiver.topic === topic) receiver.member.expect(millis)
        }
      })
      this.#publishers.set(topic, publisher)
      return Scope.addFinalizer(scope, publisher.close).pipe(
        Effect.andThen(Effect.forkIn(publisher.run, scope)),
        Effect.as(publisher)
      )
    })
  }

  receive(
    subscription: Parameters<typeof Members.make>[0]["subscription"]
  ): Effect.Effect<Receiver, TransportError, Scope.Scope> {
    const { group, topic } = subscription
    const { clock, lifecycle, prefix, redis, settings } = this.#options
    const keys: TopicKeys = topicKeys(prefix, topic)
    return Effect.gen({ self: this }, function* () {
      const member = yield* Members.make({
        commands: redis.commands,
        dedicated: redis.dedicated,
        topic,
        keys,
        subscription,
        lifecycle,
        clock,
        deadLetters: settings.deadLetters,
        pollMillis: settings.pollMillis,
        trims: settings.maxLength === undefined,
        opened: this.#register(topic)
      })
      const entry = { topic, group, member }
      yield* Effect.acquireRelease(
        Effect.sync(() => this.#receivers.add(entry)),
        () => Effect.sync(() => this.#receivers.delete(entry))
      )
      return member
    })
  }

  /** Makes the receivers of a group in this process look at once whether they are paused. */
  look(topic: string, group: string): Effect.Effect<void> {
    return Effect.forEach(
      [...this.#receivers].filter((receiver) => receiver.topic === topic && receiver.group === group),
      ({ member }) => member.look,
      { discard: true }
    )
  }

  /** Puts the topic into the registry. Failing is no reason to fail what was done; the next opening tries again. */
  #register(topic: string): Effect.Effect<void> {
    const { prefix, redis } = this.#options
    const key = registry(prefix)
    return Effect.ignore(redis.commands.run("sadd", (client) => client.sadd(key, topic), { key }))
  }
}
