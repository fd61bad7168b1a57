/**
 * A consumer is a declaration: decode, process, and a route for every failure. It settles each delivery in exactly one way,
 * and it only runs, or even compiles, once every failure has a route.
 *
 * ```
 * decode   (the topic's schema)      invalid: dead letter at once, raw bytes kept
 * process  (your Effect)             A | E | defect | interruption
 * decide   (Exit -> Settlement)      ack | retry after a delay | dead letter | release
 * settle   (one step in the store)
 * ```
 *
 * @module
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual, identity } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import { type Pipeable, pipeArguments } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import type * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Commit, Condition, ConditionFailed } from "./Commit.ts"
import * as DeadLetters from "./DeadLetters.ts"
import type { Delivery } from "./Delivery.ts"
import type { Gap } from "./Gap.ts"
import type { DeadLetter } from "./Inspector.ts"
import { durationOf, finiteOf, millisOf, oneOf, shown, wholeOf } from "./internal/Limits.ts"
import { inBackground, type Program, run as runProgram } from "./internal/Member.ts"
import { isName } from "./internal/Name.ts"
import { PulledDeliveries, type PulledDelivery } from "./internal/PulledDeliveries.ts"
import { responder } from "./internal/Responder.ts"
import * as Routing from "./internal/Routing.ts"
import * as Tracing from "./internal/Tracing.ts"
import { type Handle, type One, type Told, Undecodable } from "./internal/Workers.ts"
import type { Filter } from "./Message.ts"
import * as RetryPolicy from "./RetryPolicy.ts"
import type { Settlement } from "./Settlement.ts"
import { DecodeFailure, type RequestTopic, type Topic } from "./Topic.ts"
import {
  defaultName,
  find,
  type Guarantee,
  type GuaranteeOf,
  type Included,
  includes,
  type Name,
  type Needs,
  NotOffered,
  notProvided,
  TransportError
} from "./Transport.ts"

/** Where one kind of failure leads. Made by `retry`, `deadLetter` and `acknowledge`. */
export type { Route } from "./internal/Routing.ts"

/** What happens to a handler whose message may be given to another consumer. */
export type LeaseLost = "interrupt" | "continue"

export interface Options<
  G extends Guarantee = "at-least-once",
  L extends LeaseLost = LeaseLost,
  Type extends string = never
> {
  /** Consumers of one group share its messages; every group gets all of them. */
  readonly group: string
  /**
   * How many handlers run at a time: 1 by default, which handles messages one after the other in the order of delivery; at
   * most 100,000. With `processBatch`, how many batches.
   */
  readonly concurrency?: number
  /**
   * How many deliveries may wait in this process for a free handler. By default up to 1024, and fewer when handlers
   * are slow.
   */
  readonly prefetch?: number
  /**
   * How many bytes of messages may be in this process, waiting or being handled. 64 MiB by default. Large messages
   * are taken fewer at a time, and one that is larger than this is taken alone.
   */
  readonly prefetchBytes?: number
  /** How many outcomes of `Consumer.stream` may wait to be read before settling pauses. 256 by default. */
  readonly bufferSize?: number
  /**
   * Where a new group begins: with everything stored (`earliest`, the default), only with what comes later (`latest`),
   * or, on streams, with what was stored at a time or later.
   */
  readonly start?: "earliest" | "latest" | DateTime.DateTime
  /**
   * Which messages the group wants; all of them by default. The store passes over the others: they are neither sent nor
   * decoded, and count as settled for this group. For patterns on which every group gets every message (streams,
   * keyspace); on others the consumer fails with `NotOffered`. Members that want different messages get `TopicConflict`.
   * `types`: those with these tags, of a topic whose payload is a `Topic.union`.
   */
  readonly only?: Filter & { readonly types?: ReadonlyArray<Type> | undefined }
  /**
   * How long a silent consumer keeps its messages. 15 s by default. Live consumers renew in time, however long
   * handlers take.
   */
  readonly lease?: Duration.Input
  /**
   * How often a message may take its consumer's process down before it is dead-lettered without being handled. 5 by
   * default.
   */
  readonly maxDeliveries?: number
  /**
   * How long running handlers may take to finish when the consumer stops, before they are interrupted and their
   * messages released. 20 s by default.
   */
  readonly shutdown?: Duration.Input
  /**
   * What happens to a handler whose lease is lost: the store reports it, or has not replied for nine tenths of the
   * lease. `interrupt`, the default, stops the handler before another consumer may begin; an outage longer than the
   * lease therefore interrupts every handler. `continue` lets it run to its end, possibly beside its successor, in
   * which case its settlement is refused; nothing new begins meanwhile. Not available for `Consumer.transactional`.
   */
  readonly leaseLost?: L
  /**
   * A weaker guarantee that is enough for this consumer; by default that of its topic. It consumes from the topic's own
   * transport if the program has it, and otherwise from the default transport that keeps the weaker guarantee.
   */
  readonly guarantee?: G
  /**
   * How the span of an attempt relates to the producer's, where a tracer is installed. `link`, the default and what
   * OpenTelemetry's conventions recommend: a trace of its own, linked to the producer's. `parent`: a child in the
   * same trace, and linked too. The span of a batch has many producers, so it is always linked only.
   */
  readonly trace?: "link" | "parent"
}

/** A topic and a group, without a handler yet. `E`: how migrating an older payload may fail. */
export interface Source<
  out P,
  out R,
  out L extends LeaseLost = LeaseLost,
  out G extends Guarantee = Guarantee,
  out E = never
> extends Pipeable {
  readonly topic: { readonly name: string; readonly on: Name }
  readonly decode: (delivery: Delivery) => Effect.Effect<P, Undecodable | E, R>
  readonly decodeDeadLetter: (letter: DeadLetter) => Effect.Effect<DeadLetters.Decoded<P>, never, R>
  readonly options: Options<G, L, string>
}

/**
 * `A`: what the handler returns. `E`: the failures that have no route yet. `R`: the services it needs. `P`: the payload of its
 * messages.
 */
export interface Consumer<out A, out E, out R, out P = unknown> extends Pipeable {
  readonly [TypeId]: { readonly A: () => A; readonly E: () => E; readonly R: () => R; readonly P: () => P }
  readonly source: Source<unknown, unknown, LeaseLost, Guarantee, unknown>
  readonly handle: ErasedHandle
  readonly routes: Routing.Routes
  readonly hooks: Hooks
}

/** What runs after the handlers. */
interface Hooks {
  readonly deadLettered: ReadonlyArray<
    (letter: DeadLetters.Decoded<unknown>) => Effect.Effect<unknown, unknown, unknown>
  >
  readonly settled: ReadonlyArray<(outcome: Outcome<unknown>) => Effect.Effect<unknown, never, unknown>>
}

const noHooks: Hooks = { deadLettered: [], settled: [] }

/** The handler without its types, which the interface above preserves. */
type ErasedHandle =
  | {
      readonly _tag: "One"
      readonly returns: One["returns"]
      readonly run: (delivery: Delivery) => Effect.Effect<unknown, unknown, unknown>
    }
  | {
      readonly _tag: "Batch"
      readonly size: number
      readonly within: Duration.Duration
      /**
       * `limit` wraps the handler and not the decoding: a body that cannot be decoded stays so, however long the rest
       * takes.
       */
      readonly run: (
        deliveries: ReadonlyArray<Delivery>,
        limit?: Limit
      ) => Effect.Effect<ReadonlyArray<Exit.Exit<unknown, unknown>>, never, unknown>
    }

type Limit = <A, E, R>(self: Effect.Effect<A, E, R>) => Effect.Effect<A, E | HandlerTimeout, R>

/** Each handler has a fiber of its own from the start. */
const mostHandlers = 100_000

const PipeableProto = {
  pipe() {
    return pipeArguments(this, arguments)
  }
}

const TypeId = "~waybill/Consumer"

const ConsumerProto = { ...PipeableProto, [TypeId]: { A: identity, E: identity, R: identity, P: identity } }

/** Whether the value is a consumer, as made by `process`, `processBatch` or `transactional`. */
export const isConsumer = (value: unknown): value is Consumer<unknown, unknown, unknown> =>
  Predicate.hasProperty(value, TypeId)

/**
 * Begins a consumer of `topic`. Throws on an invalid group name (empty, or with white space, braces or half of a surrogate
 * pair) and on options out of range, such as a concurrency below 1 or a lease below 100 ms: those are bugs.
 *
 * @example
 * ```ts
 * import { Console, Effect, Layer, Schema } from "effect"
 * import { Consumer, Producer, Topic } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const Greeter = Consumer.make(Greeting, { group: "greeter", concurrency: 8 }).pipe(
 *   Consumer.process((name) => Console.log(`hello ${name}`)),
 *   Consumer.layer
 * )
 *
 * const program = Producer.publish(Greeting, "world").pipe(
 *   Effect.provide(Greeter.pipe(Layer.provideMerge(MemoryStreams.layer())))
 * )
 * ```
 */
export const make = <
  P,
  On,
  RD,
  RE,
  E,
  G extends Included<GuaranteeOf<On>> = GuaranteeOf<On> & Included<GuaranteeOf<On>>,
  const L extends LeaseLost = "interrupt"
>(
  topic: Topic<P, On, RD, RE, E>,
  options: Options<G, L, TagOf<P>>
): Source<P, RD | Enough<On, G>, L, G, Exclude<E, DecodeFailure>> => {
  if (!isName(options.group)) {
    throw new Error(`invalid group name ${shown(options.group)}: use 1 to 200 characters without white space or braces`)
  }
  wholeOf("concurrency", options.concurrency ?? 1, 1, mostHandlers)
  wholeOf("prefetch", options.prefetch ?? 0, 0)
  wholeOf("bufferSize", options.bufferSize ?? 1)
  wholeOf("prefetchBytes", options.prefetchBytes ?? 1)
  wholeOf("maxDeliveries", options.maxDeliveries ?? 1)
  if (options.only?.types !== undefined && topic.type === undefined) {
    throw new Error(`the messages of topic ${topic.name} do not say their types: its payload is no Topic.union`)
  }
  const { start = "earliest" } = options
  if (!DateTime.isDateTime(start)) oneOf("start", start, ["earliest", "latest"])
  const guarantee: Guarantee = options.guarantee ?? topic.on.guarantee
  oneOf("guarantee", guarantee, ["at-most-once", "at-least-once", "transactional"])
  if (!includes(topic.on.guarantee, guarantee)) {
    throw new Error(`topic ${topic.name} promises only ${topic.on.guarantee}, but its consumer asks for ${guarantee}`)
  }
  oneOf("trace", options.trace ?? "link", ["link", "parent"])
  oneOf<LeaseLost>("leaseLost", options.leaseLost ?? "interrupt", ["interrupt", "continue"])
  durationOf("shutdown", options.shutdown ?? "20 seconds")
  if (!(Duration.toMillis(finiteOf("lease", options.lease ?? "15 seconds")) >= 100)) {
    throw new Error("lease must be at least 100 ms: it is renewed three times in that time")
  }
  const decode = (delivery: Delivery): Effect.Effect<P, Undecodable | Exclude<E, DecodeFailure>, RD> => {
    const { body, version } = delivery
    if (version > topic.version) return Effect.fail(new Undecodable(topic.version))
    let decoded: Effect.Effect<P, DecodeFailure | E, RD>
    try {
      decoded = topic.decode(body, version)
    } catch (defect) {
      decoded = Exit.die(defect)
    }
    return Exit.isExit(decoded) && Exit.isSuccess(decoded)
      ? (decoded as Exit.Exit<P>) // isExit cannot know what the effect would have produced
      : Effect.catchCause(decoded, undecodable)
  }
  const source: Source<P, RD, L, G, Exclude<E, DecodeFailure>> = Object.assign(Object.create(PipeableProto), {
    topic,
    decode,
    decodeDeadLetter: (letter: DeadLetter) => DeadLetters.decode(topic, letter),
    options: { ...options }
  })
  return source
}

type TagOf<P> = P extends { readonly _tag: infer Tag extends string } ? Tag : never

/** On the default transport, only the guarantee that the consumer asks for is needed, even if its topic has a stronger one. */
type Enough<On, G extends Guarantee> = On extends Needs<Guarantee> ? Needs<G> : On

/**
 * Messages that the schema rejects, and those whose decoding died. An interruption says nothing about the message, and a failed
 * migration has a route.
 */
const undecodable = <E>(cause: Cause.Cause<E>): Effect.Effect<never, Undecodable | Exclude<E, DecodeFailure>> => {
  const rest = Cause.fromReasons<never>(cause.reasons.flatMap((reason) => (reason._tag === "Fail" ? [] : [reason])))
  if (Cause.hasDies(rest)) return Effect.fail(new Undecodable(rest))
  if (Cause.hasInterrupts(rest)) return Effect.failCause(rest)
  return Effect.mapError(
    Effect.failCause(cause),
    (failure) =>
      failure instanceof DecodeFailure ? new Undecodable(failure.message) : (failure as Exclude<E, DecodeFailure>) // just checked
  )
}

const makeConsumer = <A, E, R, P>(fields: {
  readonly source: Consumer<A, E, R>["source"]
  readonly handle: ErasedHandle
  readonly routes: Routing.Routes
  readonly hooks?: Hooks
}): Consumer<A, E, R, P> => Object.assign(Object.create(ConsumerProto), { hooks: noHooks, ...fields })

/** What a handler returns: an effect or, from a generator function, a generator as `Effect.gen` takes it. */
export type HandlerResult =
  | Effect.Effect<unknown, unknown, unknown>
  | Generator<Effect.Effect<unknown, unknown, unknown>, unknown, never>

/** The effect that a handler stands for. */
export type HandlerEffect<H> =
  H extends Generator<infer Step, infer A, never> ? Effect.Effect<A, Effect.Error<Step>, Effect.Services<Step>> : H

/** The services that a handler needs besides the scope that each delivery provides. */
type Required<H> = Exclude<Effect.Services<HandlerEffect<H>>, Scope.Scope>

type Decoding<P, RS, ES> = Source<P, RS, LeaseLost, Guarantee, ES>

/** The consumer of a source and a handler. */
type Processed<H, RS, ES, P> = Consumer<
  Effect.Success<HandlerEffect<H>>,
  Effect.Error<HandlerEffect<H>> | ES,
  Required<H> | RS,
  P
>

/**
 * Handles deliveries one at a time in each of `concurrency` workers. The delivery carries the message id, the attempt, the
 * headers and the fence.
 *
 * The handler is a function that returns an effect, or a generator function. Each delivery has its own scope, which
 * is closed with the handler's exit before the message is settled.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.Struct({ file: Schema.String }) })
 *
 * const Shrink = Consumer.make(Thumbnail, { group: "shrink", concurrency: 4 }).pipe(
 *   Consumer.process(({ file }, { attempt, id }) => Effect.log(`${id}: shrinking ${file}, attempt ${attempt}`)),
 *   Consumer.layer
 * )
 * ```
 */
export const process: {
  <P, H extends HandlerResult>(
    handler: (payload: P, delivery: Delivery) => H
  ): <RS, ES>(source: Decoding<P, RS, ES>) => Processed<H, RS, ES, P>
  <P, RS, ES, H extends HandlerResult>(
    source: Decoding<P, RS, ES>,
    handler: (payload: NoInfer<P>, delivery: Delivery) => H
  ): Processed<H, RS, ES, P>
} = dual(
  2,
  <P, RS, ES, H extends HandlerResult>(
    source: Decoding<P, RS, ES>,
    handler: (payload: P, delivery: Delivery) => H
  ): Processed<H, RS, ES, P> => makeConsumer({ source, routes: Routing.none, handle: one(source, handler, "anything") })
)

/**
 * `process` with a handler for each type of message, by `_tag`. A missing handler does not compile, nor does one for a type that
 * the topic does not have.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const OrderPlaced = Schema.TaggedStruct("OrderPlaced", { id: Schema.String, cents: Schema.Int })
 * const OrderCancelled = Schema.TaggedStruct("OrderCancelled", { id: Schema.String })
 * const Orders = Topic.make("orders", { payload: Topic.union({ OrderPlaced, OrderCancelled }) })
 *
 * const Billing = Consumer.make(Orders, { group: "billing" }).pipe(
 *   Consumer.dispatch({
 *     OrderPlaced: ({ cents, id }) => Effect.log(`charging ${cents} for ${id}`),
 *     OrderCancelled: ({ id }) => Effect.log(`refunding ${id}`)
 *   }),
 *   Consumer.layer
 * )
 * ```
 */
export const dispatch: {
  <P extends Tagged, const Handlers extends HandlersOf<P, Handlers>>(
    handlers: Handlers
  ): <RS, ES>(source: Decoding<P, RS, ES>) => Processed<ResultOf<Handlers>, RS, ES, P>
  <P extends Tagged, RS, ES, const Handlers extends HandlersOf<P, Handlers>>(
    source: Decoding<P, RS, ES>,
    handlers: Handlers
  ): Processed<ResultOf<Handlers>, RS, ES, P>
} = dual(
  2,
  <P extends Tagged, RS, ES, const Handlers extends HandlersOf<P, Handlers>>(
    source: Decoding<P, RS, ES>,
    handlers: Handlers
  ): Processed<ResultOf<Handlers>, RS, ES, P> => {
    // Each handler takes the payloads of its tag.
    const byTag = handlers as Readonly<Record<string, (payload: P, delivery: Delivery) => ResultOf<Handlers>>>
    return process(source, (payload: P, delivery): ResultOf<Handlers> => byTag[payload._tag]!(payload, delivery))
  }
)

interface Tagged {
  readonly _tag: string
}

/** A handler for each tag, and none for others. */
type HandlersOf<P extends Tagged, Handlers> = {
  readonly [Tag in P["_tag"]]: (payload: Extract<P, { readonly _tag: Tag }>, delivery: Delivery) => HandlerResult
} & { readonly [Tag in Exclude<keyof Handlers, P["_tag"]>]: never }

type ResultOf<Handlers> = Handlers[keyof Handlers] extends (...args: never) => infer H
  ? Extract<H, HandlerResult>
  : never

/**
 * Handles deliveries one at a time in each of `concurrency` workers, with a handler that changes nothing itself: it
 * returns a commit, and the transport applies that together with the ack, all of it once per message id or none of
 * it. A commit that the store refuses becomes a dead letter: `CommitRejected` if nothing was applied, `PartialCommit`
 * if some of it was. A commit whose conditions do not hold when it is applied changes nothing: the handler has failed with
 * `Commit.ConditionFailed`, which needs a route like any other failure.
 *
 * For topics with the guarantee `transactional`. The marker must outlast every possible redelivery of a message, so a retry
 * policy without an end fails with `MarkerTooShort`. Other side effects of the handler may happen more than once.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Consumer, Topic } from "waybill"
 *
 * const Deposit = Topic.make("ledger/deposits", {
 *   payload: Schema.Struct({ account: Schema.String, cents: Schema.Int }),
 *   guarantee: "transactional"
 * })
 * const balances = Commit.hash("balances")
 *
 * const Ledger = Consumer.make(Deposit, { group: "ledger", concurrency: 64 }).pipe(
 *   Consumer.transactional(({ account, cents }) =>
 *     Effect.succeed(Commit.make({ writes: [balances.increment(account, cents)] }))
 *   ),
 *   Consumer.layer
 * )
 * ```
 */
export const transactional =
  <
    P,
    H extends
      | Effect.Effect<Commit<Condition>, unknown, unknown>
      | Generator<Effect.Effect<unknown, unknown, unknown>, Commit<Condition>, never>
  >(
    handler: (payload: P, delivery: Delivery) => H
  ) =>
  <RS, ES>(
    source: Source<P, RS, "interrupt", "transactional", ES>
  ): Consumer<
    Effect.Success<HandlerEffect<H>>,
    Effect.Error<HandlerEffect<H>> | ES | Unmet<Effect.Success<HandlerEffect<H>>>,
    Required<H> | RS,
    P
  > =>
    makeConsumer({ source, routes: Routing.none, handle: one(source, handler, "commit") })

/** How a commit with conditions may fail. */
type Unmet<A> = A extends Commit<infer C> ? ([C] extends [never] ? never : ConditionFailed) : never

const one = <P>(
  source: Decoding<P, unknown, unknown>,
  handler: (payload: P, delivery: Delivery) => HandlerResult,
  returns: One["returns"]
): ErasedHandle => ({
  _tag: "One",
  returns,
  run: (delivery) => {
    const decoded = source.decode(delivery)
    return Exit.isExit(decoded) && Exit.isSuccess(decoded)
      ? effectOf(handler(decoded.value as P, delivery)) // isExit cannot know what the effect would have produced
      : Effect.flatMap(decoded, (payload) => effectOf(handler(payload, delivery)))
  }
})

/** The types guarantee one of these; JavaScript does not. */
const effectOf = (result: HandlerResult): Effect.Effect<unknown, unknown, unknown> => {
  if (Effect.isEffect(result)) return result
  if (typeof result?.next === "function") return Effect.gen(() => result)
  return Exit.die(
    new Error(
      Predicate.isPromiseLike(result)
        ? "the handler returned a promise: wrap the call in Effect.tryPromise"
        : "the handler must return an effect"
    )
  )
}

/**
 * Handles requests as `process` does, and answers each: with what the handler returns, or with its failure if that is one of the
 * topic's `error`. Both are acknowledged. Any other failure needs a route; when it ends in a dead letter, the caller
 * gets `Unanswered`.
 *
 * A request whose deadline has passed by the store's clock is acknowledged without being handled. One that was published by
 * `Producer.publish` is handled without an answer. An answer is sent before the ack, so after a crash in
 * between the handler runs again, and the caller takes the first answer.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, RetryPolicy, Topic } from "waybill"
 *
 * class NoSuchItem extends Schema.TaggedError<NoSuchItem>()("NoSuchItem", { item: Schema.String }) {}
 * class DatabaseDown extends Schema.TaggedError<DatabaseDown>()("DatabaseDown", {}) {}
 *
 * const Quote = Topic.request(Topic.make("quotes", { payload: Schema.Struct({ item: Schema.String }) }), {
 *   success: Schema.Struct({ cents: Schema.Int }),
 *   error: NoSuchItem
 * })
 *
 * const prices = (item: string) =>
 *   item === "tea" ? Effect.succeed({ cents: 250 })
 *     : item === "" ? Effect.fail(new DatabaseDown())
 *     : Effect.fail(new NoSuchItem({ item }))
 *
 * const Quotes = Consumer.make(Quote, { group: "quotes", concurrency: 8 }).pipe(
 *   Consumer.respond(Quote, ({ item }) => prices(item)),
 *   Consumer.onFailure({ DatabaseDown: Consumer.retry(RetryPolicy.standard) }),
 *   Consumer.layer
 * )
 * ```
 */
export const respond =
  <
    P,
    A,
    E,
    On,
    RepliesOn,
    RD,
    RE,
    ME,
    H extends Effect.Effect<A, unknown, unknown> | Generator<Effect.Effect<unknown, unknown, unknown>, A, never>
  >(
    topic: RequestTopic<P, A, E, On, RepliesOn, RD, RE, ME>,
    handler: (payload: NoInfer<P>, delivery: Delivery) => H
  ) =>
  <RS, ES>(
    source: Decoding<P, RS, ES>
  ): Consumer<void, ES | Exclude<Effect.Error<HandlerEffect<H>>, E>, Required<H> | RepliesOn | RS, P> => {
    if (source.topic !== topic)
      throw new Error(`respond is for topic ${topic.name}, its consumer for ${source.topic.name}`)
    const { answering, deadLettered } = responder(topic)
    const consumer = makeConsumer<
      void,
      ES | Exclude<Effect.Error<HandlerEffect<H>>, E>,
      Required<H> | RepliesOn | RS,
      P
    >({
      source,
      routes: Routing.none,
      handle: one(
        source,
        (payload, delivery) =>
          answering(
            delivery,
            Effect.suspend(() => effectOf(handler(payload, delivery)) as HandlerEffect<H>)
          ),
        "anything"
      )
    })
    return onDeadLetter(consumer, deadLettered)
  }

/** One item of a batch. */
interface Item<out P> {
  readonly payload: P
  readonly delivery: Delivery
}

/**
 * Handles up to `size` deliveries together in a scope of their own, waiting at most `within` for a batch to fill. The
 * handler returns one `Result` per item, in the same order, so a bad item is retried or dead-lettered alone. A
 * failure of the handler itself fails every item. Items that cannot be decoded never reach it.
 *
 * @example
 * ```ts
 * import { Effect, Result, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Metric = Topic.make("metrics", { payload: Schema.Struct({ name: Schema.String, value: Schema.Finite }) })
 *
 * const Store = Consumer.make(Metric, { group: "store" }).pipe(
 *   Consumer.processBatch(100, "50 millis", (items) => Effect.succeed(items.map(() => Result.void))),
 *   Consumer.layer
 * )
 * ```
 */
export const processBatch =
  <
    P,
    H extends
      | Effect.Effect<ReadonlyArray<Result.Result<unknown, unknown>>, unknown, unknown>
      | Generator<Effect.Effect<unknown, unknown, unknown>, ReadonlyArray<Result.Result<unknown, unknown>>, never>
  >(
    size: number,
    within: Duration.Input,
    handler: (items: Arr.NonEmptyReadonlyArray<Item<P>>) => H
  ) =>
  <RS, ES>(
    source: Decoding<P, RS, ES>
  ): Consumer<
    OfResult<Results<H>[number]>["success"],
    Effect.Error<HandlerEffect<H>> | ES | OfResult<Results<H>[number]>["failure"],
    Required<H> | RS,
    P
  > => {
    wholeOf("size", size)
    const longest = durationOf("within", within)
    return makeConsumer({
      source,
      routes: Routing.none,
      handle: {
        _tag: "Batch",
        size,
        within: longest,
        run: Effect.fnUntraced(function* (deliveries: ReadonlyArray<Delivery>, limit: Limit = identity) {
          const exits: Array<Exit.Exit<unknown, unknown>> = []
          const items: Array<Item<P>> = []
          const places: Array<number> = []
          for (let i = 0; i < deliveries.length; i++) {
            const delivery = deliveries[i]!
            const decoded = yield* Effect.exit(source.decode(delivery))
            exits.push(decoded)
            if (Exit.isSuccess(decoded)) {
              places.push(i)
              items.push({ payload: decoded.value, delivery })
            }
          }
          if (items.length > 0) {
            // Not empty: just checked.
            const handled = yield* Effect.exit(
              limit(Effect.suspend(() => effectOf(handler(items as unknown as Arr.NonEmptyReadonlyArray<Item<P>>))))
            )
            for (let i = 0; i < items.length; i++) {
              // Guaranteed by the handler's type.
              exits[places[i]!] = Exit.isFailure(handled) ? handled : outcomeOf((handled.value as Results<H>)[i])
            }
          }
          return exits
        })
      }
    })
  }

type Results<H> = Extract<Effect.Success<HandlerEffect<H>>, ReadonlyArray<Result.Result<unknown, unknown>>>

/** A handler that always fails or never ends has no results to infer from. */
type OfResult<R> = [R] extends [never]
  ? { readonly success: never; readonly failure: never }
  : R extends Result.Result<infer A, infer E>
    ? { readonly success: A; readonly failure: E }
    : never

const outcomeOf = <A, E>(result: Result.Result<A, E> | undefined): Exit.Exit<A, E> =>
  result === undefined
    ? Exit.die(new Error("the batch handler returned fewer results than it was given items"))
    : result._tag === "Success"
      ? Exit.succeed(result.success)
      : Exit.fail(result.failure)

const timedOut = "HandlerTimeout"

/** The handler was interrupted because it ran longer than its `Consumer.timeout`. */
export class HandlerTimeout extends Schema.TaggedError<HandlerTimeout>("waybill/HandlerTimeout")(timedOut, {
  millis: Schema.Number
}) {
  override get message(): string {
    return `the handler took longer than ${this.millis} ms`
  }
}

/**
 * Interrupts a handler that runs longer than this. `HandlerTimeout` is then a failure like any other and needs a route. A
 * duration of zero throws.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.Struct({ file: Schema.String }) })
 *
 * const Shrink = Consumer.make(Thumbnail, { group: "shrink" }).pipe(
 *   Consumer.process(({ file }) => Effect.log(`shrinking ${file}`)),
 *   Consumer.timeout("30 seconds"),
 *   Consumer.onFailure({ HandlerTimeout: Consumer.deadLetter("TooLarge") }),
 *   Consumer.layer
 * )
 * ```
 */
export const timeout: {
  (duration: Duration.Input): <A, E, R, P>(self: Consumer<A, E, R, P>) => Consumer<A, E | HandlerTimeout, R, P>
  <A, E, R, P>(self: Consumer<A, E, R, P>, duration: Duration.Input): Consumer<A, E | HandlerTimeout, R, P>
} = dual(
  2,
  <A, E, R, P>(self: Consumer<A, E, R, P>, duration: Duration.Input): Consumer<A, E | HandlerTimeout, R, P> => {
    const { handle } = self
    const millis = millisOf("timeout", duration)
    const limit: Limit = (effect) =>
      Effect.timeoutOrElse(effect, { duration: millis, orElse: () => Effect.fail(new HandlerTimeout({ millis })) })
    if (handle._tag === "One") {
      return makeConsumer({
        ...self,
        handle: { ...handle, run: (delivery: Delivery) => limit(handle.run(delivery)) }
      })
    }
    return makeConsumer({
      ...self,
      handle: {
        ...handle,
        run: (deliveries: ReadonlyArray<Delivery>, outer: Limit = identity) =>
          handle.run(deliveries, (effect) => outer(limit(effect)))
      }
    })
  }
)

/**
 * Runs `f` before the handler of a message that follows missed ones, for example to reload what they would have told.
 * It runs for every such delivery, retries included, and has to handle its own failures.
 *
 * @example
 * ```ts
 * import { Console, Effect, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Price = Topic.make("prices", { payload: Schema.Struct({ cents: Schema.Int }), guarantee: "at-most-once" })
 *
 * const Ticker = Consumer.make(Price, { group: "ticker" }).pipe(
 *   Consumer.process(({ cents }) => Console.log(cents)),
 *   Consumer.onGap((gap) => Console.log(`missed ${gap.missed ?? "some"} between ${gap.after} and ${gap.before}`)),
 *   Consumer.layer
 * )
 * ```
 */
export const onGap: {
  <R2>(
    f: (gap: Gap) => Effect.Effect<unknown, never, R2>
  ): <A, E, R, P>(self: Consumer<A, E, R, P>) => Consumer<A, E, R | R2, P>
  <A, E, R, P, R2>(
    self: Consumer<A, E, R, P>,
    f: (gap: Gap) => Effect.Effect<unknown, never, R2>
  ): Consumer<A, E, R | R2, P>
} = dual(
  2,
  <A, E, R, P, R2>(
    self: Consumer<A, E, R, P>,
    f: (gap: Gap) => Effect.Effect<unknown, never, R2>
  ): Consumer<A, E, R | R2, P> => {
    const { handle } = self
    if (handle._tag === "One") {
      return makeConsumer({
        ...self,
        handle: {
          ...handle,
          run: (delivery: Delivery) =>
            delivery.gap === undefined ? handle.run(delivery) : Effect.andThen(f(delivery.gap), handle.run(delivery))
        }
      })
    }
    return makeConsumer({
      ...self,
      handle: {
        ...handle,
        run: (deliveries: ReadonlyArray<Delivery>, limit?: Limit) => {
          const gaps = deliveries.flatMap(({ gap }) => (gap === undefined ? [] : [gap]))
          return Effect.andThen(Effect.forEach(gaps, f, { discard: true }), handle.run(deliveries, limit))
        }
      }
    })
  }
)

/**
 * Gives failures their routes, by tag. A tag without a row stays in `E` and keeps the consumer from running; a row
 * for a tag that cannot happen does not compile. A row may depend on the failure.
 *
 * @example
 * ```ts
 * import { Effect, Schedule, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * class Busy extends Schema.TaggedError<Busy>()("Busy", { retryAfterSeconds: Schema.Number }) {}
 * class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}
 *
 * const Payment = Topic.make("payments", { payload: Schema.Struct({ cents: Schema.Int }) })
 * const backoff = Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 5 }))
 *
 * const Charge = Consumer.make(Payment, { group: "charge" }).pipe(
 *   Consumer.process(({ cents }) => cents > 100 ? Effect.fail(new Declined({ code: "limit" })) : Effect.fail(new Busy({ retryAfterSeconds: 2 }))),
 *   Consumer.onFailure({
 *     Busy: (error) => Consumer.retry(backoff, { after: `${error.retryAfterSeconds} seconds` }),
 *     Declined: (error) => Consumer.deadLetter(error.code)
 *   }),
 *   Consumer.layer
 * )
 * ```
 */
export const onFailure: {
  <E, const Rows extends RowsOf<E, Rows>>(
    rows: Rows
  ): <A, R, P>(self: Consumer<A, E, R, P>) => Consumer<A, Exclude<E, { readonly _tag: keyof Rows }>, R, P>
  <A, E, R, P, const Rows extends RowsOf<E, Rows>>(
    self: Consumer<A, E, R, P>,
    rows: Rows
  ): Consumer<A, Exclude<E, { readonly _tag: keyof Rows }>, R, P>
} = dual(
  2,
  <A, E, R, P, const Rows extends RowsOf<E, Rows>>(
    self: Consumer<A, E, R, P>,
    rows: Rows
  ): Consumer<A, Exclude<E, { readonly _tag: keyof Rows }>, R, P> =>
    makeConsumer({
      ...self,
      routes: {
        ...self.routes,
        // Type-checked against the table: at run time a row only ever meets failures with its tag.
        rows: new Map([...self.routes.rows, ...(Object.entries(rows) as Array<[string, Routing.Row<unknown>]>)])
      }
    })
)

/** Rows only for failures that can happen. */
type RowsOf<E, Rows> = Routing.Table<E> & { readonly [Tag in Exclude<keyof Rows, Routing.Tags<E>>]: never }

/**
 * The route of every failure that has none yet, untagged ones included.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, RetryPolicy, Topic } from "waybill"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.Struct({ file: Schema.String }) })
 *
 * const Shrink = Consumer.make(Thumbnail, { group: "shrink" }).pipe(
 *   Consumer.process(({ file }) => Effect.fail(`no such file: ${file}`)),
 *   Consumer.orElse(Consumer.retry(RetryPolicy.standard)),
 *   Consumer.layer
 * )
 * ```
 */
export const orElse: {
  <E>(row: Routing.Row<E>): <A, R, P>(self: Consumer<A, E, R, P>) => Consumer<A, never, R, P>
  <A, E, R, P>(self: Consumer<A, E, R, P>, row: Routing.Row<NoInfer<E>>): Consumer<A, never, R, P>
} = dual(2, <A, E, R, P>(self: Consumer<A, E, R, P>, row: Routing.Row<E>): Consumer<A, never, R, P> => {
  // At run time the row only meets failures of the consumer it was given to.
  const erased = row as Routing.Row<unknown>
  const { fallback, rows } = self.routes
  const routes: Routing.Routes =
    fallback === undefined
      ? { rows, fallback: erased }
      : // An earlier fallback keeps its failures; only a timeout can have been added since.
        { rows: new Map([...rows, [timedOut, erased]]), fallback }
  return makeConsumer({ ...self, routes })
})

/**
 * Runs `f` for every message of the group that dies: when its handler or its retry policy gives it up, when it cannot be decoded,
 * when its commit is refused, and when it takes down its consumers, whichever consumer of the group found that.
 *
 * It runs at least once for each of them, however often processes are killed, and usually once: again if the process dies
 * or stalls for longer than the lease before it could confirm. Failures are retried by `retry`, by default
 * `RetryPolicy.standard`, and each run has a scope of its own. Once the policy has ended, or if `f` dies, the event
 * `DeadLetterUnhandled` reports it, and `f` is not run for that dead letter again.
 *
 * The first consumer with a hook begins with messages that die after it has joined. From then on the group remembers where it
 * was, also while no consumer runs. A dead letter that was redriven, discarded or dropped by the cap before its turn is passed
 * over. Up to 16 run at a time in each process.
 *
 * @example
 * ```ts
 * import { Effect, Result, Schedule, Schema } from "effect"
 * import { Consumer, RetryPolicy, Topic } from "waybill"
 *
 * const Invoice = Topic.make("invoices", { payload: Schema.Struct({ customer: Schema.String }) })
 * const often = Schedule.spaced("1 minute").pipe(Schedule.upTo({ times: 60 }))
 *
 * const Send = Consumer.make(Invoice, { group: "send" }).pipe(
 *   Consumer.process(({ customer }) => Effect.fail(`no address: ${customer}`)),
 *   Consumer.orElse(Consumer.retry(RetryPolicy.standard)),
 *   Consumer.onDeadLetter(
 *     ({ id, payload, reason }) =>
 *       Effect.log(`${Result.isSuccess(payload) ? payload.success.customer : id} gets no invoice: ${reason}`),
 *     { retry: often }
 *   ),
 *   Consumer.layer
 * )
 * ```
 */
export const onDeadLetter: {
  <P, E2, R2>(
    f: (letter: DeadLetters.Decoded<P>) => Effect.Effect<unknown, E2, R2>,
    options?: HookOptions<E2>
  ): <A, E, R>(self: Consumer<A, E, R, P>) => Consumer<A, E, R | Exclude<R2, Scope.Scope>, P>
  <A, E, R, P, E2, R2>(
    self: Consumer<A, E, R, P>,
    f: (letter: DeadLetters.Decoded<NoInfer<P>>) => Effect.Effect<unknown, E2, R2>,
    options?: HookOptions<E2>
  ): Consumer<A, E, R | Exclude<R2, Scope.Scope>, P>
} = dual(
  (args) => isConsumer(args[0]),
  <A, E, R, P, E2, R2>(
    self: Consumer<A, E, R, P>,
    f: (letter: DeadLetters.Decoded<P>) => Effect.Effect<unknown, E2, R2>,
    { retry = RetryPolicy.standard }: HookOptions<E2> = {}
  ): Consumer<A, E, R | Exclude<R2, Scope.Scope>, P> => {
    const hook = (letter: DeadLetters.Decoded<P>) => Effect.retry(Effect.scoped(Effect.suspend(() => f(letter))), retry)
    const { hooks } = self
    // At run time the hook only meets letters of the consumer it was given to.
    const deadLettered = [
      ...hooks.deadLettered,
      hook as (letter: DeadLetters.Decoded<unknown>) => ReturnType<typeof hook>
    ]
    return makeConsumer({ ...self, hooks: { ...hooks, deadLettered } })
  }
)

interface HookOptions<in E> {
  readonly retry?: RetryPolicy.RetryPolicy<E> | undefined
}

/**
 * Runs `f` for every delivery of this consumer that has ended, once the store has confirmed it: acked, waiting for its retry,
 * dead-lettered, released by a shutdown, or `Stale`.
 *
 * For counters and progress, and not for what must not be missed: it is run at most once, and not if the process dies before.
 * Use `onDeadLetter` for dead letters. Further settlements wait for it, up to `concurrency` run at a time, and it has
 * to handle its own failures.
 *
 * @example
 * ```ts
 * import { Effect, Metric, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.Struct({ file: Schema.String }) })
 * const done = Metric.counter("thumbnails_done")
 *
 * const Shrink = Consumer.make(Thumbnail, { group: "shrink" }).pipe(
 *   Consumer.process(({ file }) => Effect.log(`shrinking ${file}`)),
 *   Consumer.onSettled(({ settlement }) => settlement._tag === "Ack" ? Metric.update(done, 1) : Effect.void),
 *   Consumer.layer
 * )
 * ```
 */
export const onSettled: {
  <A, R2>(
    f: (outcome: Outcome<A>) => Effect.Effect<unknown, never, R2>
  ): <E, R, P>(self: Consumer<A, E, R, P>) => Consumer<A, E, R | R2, P>
  <A, E, R, P, R2>(
    self: Consumer<A, E, R, P>,
    f: (outcome: Outcome<NoInfer<A>>) => Effect.Effect<unknown, never, R2>
  ): Consumer<A, E, R | R2, P>
} = dual(
  2,
  <A, E, R, P, R2>(
    self: Consumer<A, E, R, P>,
    f: (outcome: Outcome<A>) => Effect.Effect<unknown, never, R2>
  ): Consumer<A, E, R | R2, P> => {
    const { hooks } = self
    // The values come from this consumer's handler, which returns A.
    const hook = (outcome: Outcome<unknown>) => Effect.suspend(() => f(outcome as Outcome<A>))
    return makeConsumer({ ...self, hooks: { ...hooks, settled: [...hooks.settled, hook] } })
  }
)

/**
 * Route: try again after the policy's next delay, or dead-letter once the policy has ended. `after` is a lower bound for
 * this one delay, such as a server's Retry-After.
 *
 * @example
 * ```ts
 * import { Schedule } from "effect"
 * import { Consumer } from "waybill"
 *
 // Once a minute for an hour, then a dead letter.
 * const patient = Consumer.retry(Schedule.spaced("1 minute").pipe(Schedule.upTo({ times: 60 })))
 * const asTold = Consumer.retry(Schedule.exponential("1 second").pipe(Schedule.upTo({ times: 5 })), { after: "30 seconds" })
 * ```
 */
export const retry = <E = unknown>(
  policy: RetryPolicy.RetryPolicy<E>,
  options?: { readonly after?: Duration.Input | undefined }
): Routing.Route<E> => ({
  _tag: "Retry",
  policy,
  after: options?.after === undefined ? undefined : finiteOf("after", options.after)
})

/**
 * Route: dead-letter at once. The reason is a short word to filter by; by default, and when empty, the failure's tag.
 *
 * @example
 * ```ts
 * import { Consumer } from "waybill"
 *
 * const byItsTag = Consumer.deadLetter()
 * const byAWord = Consumer.deadLetter("over-limit")
 * ```
 */
export const deadLetter = (reason?: string): Routing.Route<unknown> => ({ _tag: "DeadLetter", reason })

/**
 * Route: the failure is acceptable and the message is done.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * class AlreadyGone extends Schema.TaggedError<AlreadyGone>()("AlreadyGone", {}) {}
 *
 * const Removal = Topic.make("removals", { payload: Schema.String })
 *
 * const Remove = Consumer.make(Removal, { group: "remove" }).pipe(
 *   Consumer.process(() => Effect.fail(new AlreadyGone())),
 *   Consumer.onFailure({ AlreadyGone: Consumer.acknowledge }),
 *   Consumer.layer
 * )
 * ```
 */
export const acknowledge: Routing.Route<unknown> = { _tag: "Ack" }

/** How one delivery ended. */
export interface Outcome<out A> {
  readonly delivery: Delivery
  readonly settlement: Settlement
  /** `Stale` when the lease had moved on and nothing changed. */
  readonly settled: "Settled" | "Stale"
  /** What the handler returned, if it succeeded. */
  readonly value: Option.Option<A>
}

const programOf = <A, R>(
  { handle, hooks, routes, source: { decodeDeadLetter, options, topic } }: Consumer<A, never, R>,
  context: Context.Context<never>,
  records: boolean
): Effect.Effect<Program, TransportError> => {
  const { guarantee = topic.on.guarantee } = options
  const transport =
    find(context, topic.on) ??
    // If less than the topic's promise is enough, another default will do.
    (topic.on === defaultName(topic.on.guarantee) ? find(context, defaultName(guarantee)) : undefined)
  if (transport === undefined) return Effect.fail(notProvided(context, topic.on, "receive", topic.name))
  if (options.only !== undefined && transport.filters !== true) return Effect.fail(noFilter(topic.name))
  const program = (redelivery: Duration.Duration | undefined): Program => ({
    transport,
    concurrency: options.concurrency ?? 1,
    prefetch: options.prefetch ?? 1024,
    prefetchBytes: options.prefetchBytes ?? 64 * 1024 * 1024,
    routes,
    // The workers inherit the context of the fiber that runs them, whose type is R.
    handle: traced(handle as Handle, records, options.trace ?? "link"),
    ...programHooks(hooks, decodeDeadLetter, options.concurrency ?? 1),
    subscription: {
      topic: topic.name,
      group: options.group,
      start: DateTime.isDateTime(options.start)
        ? { at: options.start.epochMilliseconds }
        : (options.start ?? "earliest"),
      only: options.only && filterOf(options.only),
      lease: Duration.fromInputUnsafe(options.lease ?? "15 seconds"),
      maxDeliveries: options.maxDeliveries ?? 5,
      shutdown: Duration.fromInputUnsafe(options.shutdown ?? "20 seconds"),
      leaseLost: options.leaseLost ?? "interrupt",
      redelivery,
      inOrder: (options.concurrency ?? 1) === 1
    }
  })
  return handle._tag === "One" && handle.returns === "commit"
    ? Effect.map(Routing.longestRetry(routes), program)
    : Effect.sync(() => program(undefined))
}

const programHooks = (
  { deadLettered, settled }: Hooks,
  decode: Source<unknown, unknown>["decodeDeadLetter"],
  concurrency: number
) => ({
  deadLettered:
    deadLettered.length === 0
      ? undefined
      : // The hooks inherit the context of the fiber that runs the consumer, whose type is R.
        (letter: DeadLetter) =>
          decode(letter).pipe(
            Effect.flatMap((decoded) => Effect.forEach(deadLettered, (hook) => Effect.exit(hook(decoded)))),
            Effect.flatMap((exits) => Exit.asVoidAll(exits))
          ) as Effect.Effect<unknown, unknown>,
  settled:
    settled.length === 0
      ? undefined
      : (outcomes: ReadonlyArray<Outcome<unknown>>) =>
          Effect.forEach(
            outcomes,
            (outcome) =>
              Effect.forEach(settled, (hook) => Effect.catchCause(hook(outcome), logUnsettled), { discard: true }),
            { concurrency, discard: true }
          ) as Effect.Effect<void>
})

const logUnsettled = (cause: Cause.Cause<never>) => Effect.logError("Consumer.onSettled died", cause)

const filterOf = ({ types, ...filter }: NonNullable<Source<unknown, unknown>["options"]["only"]>): Filter =>
  types === undefined ? filter : { ...filter, headers: { ...filter.headers, type: types } }

const noFilter = (topic: string) =>
  new TransportError({
    operation: "receive",
    topic,
    reason: new NotOffered({
      feature: "filters",
      detail:
        "this layer gives a message to one group, or does not store it. Leave `only` out, or use streams or keyspace"
    })
  })

/** Checked once rather than per message: the workers have the tracer of the fiber that runs them. */
const runTraced = <A, R>(self: Consumer<A, never, R>, ...rest: Rest) =>
  Effect.flatMap(
    Effect.withFiber((fiber) => programOf(self, fiber.context, Tracing.records(fiber))),
    (program) => runProgram(program, ...rest)
  )

type Rest = Parameters<typeof runProgram> extends [Program, ...infer Others] ? Others : never

const traced = (handle: Handle, records: boolean, relation: Tracing.Relation): Handle => {
  if (handle._tag === "Batch") {
    if (!records) return handle
    return {
      ...handle,
      run: (deliveries: ReadonlyArray<Delivery>) =>
        Arr.isReadonlyArrayNonEmpty(deliveries)
          ? Tracing.attemptedBatch(handle.run(deliveries), deliveries)
          : handle.run(deliveries)
    }
  }
  if (records) {
    return {
      ...handle,
      run: (delivery: Delivery) =>
        Tracing.attempted(
          Effect.suspend(() => handle.run(delivery)),
          delivery,
          relation
        )
    }
  }
  return {
    ...handle,
    run: (delivery: Delivery) => {
      const handled = handle.run(delivery)
      if (delivery.headers["traceparent"] === undefined) return handled
      // No span is recorded, but what the handler publishes still belongs to the same trace.
      const creation = Tracing.creation(delivery.headers)
      return creation === undefined ? handled : Effect.withParentSpan(handled, creation)
    }
  }
}

/**
 * Consumes until interrupted. Lost connections are waited for with backoff, and reported in the log and as lifecycle
 * events. Anything that does not pass by itself (a key of another type, a missing permission, a wrong password) fails
 * with a `TransportError` that names the key or the command.
 *
 * Interruption drains: nothing new is taken, running handlers get `shutdown` to finish, and the rest is interrupted
 * and released without counting the attempt. All of it takes at most `shutdown` plus 10 seconds, even when the server
 * is unreachable.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.Struct({ file: Schema.String }) })
 *
 // Ends the program on a permanent failure, such as a wrong password.
 * const program = Consumer.make(Thumbnail, { group: "shrink" }).pipe(
 *   Consumer.process(({ file }) => Effect.log(`shrinking ${file}`)),
 *   Consumer.run
 * )
 * ```
 */
export const run = <A, R>(self: Consumer<A, never, R>): Effect.Effect<never, TransportError, R> =>
  runTraced(self, Effect.void, undefined)

/**
 * `run` as a stream of outcomes, each emitted after its delivery was settled. Reading slowly slows the consumer down;
 * ending the stream stops it as `run` does.
 *
 * More is settled than is read: after `Stream.take(n)`, up to `2 * (bufferSize + concurrency + prefetch)` deliveries
 * more, or with batches, `size` times the concurrency. The stream reads a whole buffer at a time, so two may be full;
 * what has been settled and waits for room, and what is held when the stream ends, are each at most what a consumer
 * holds. To come close to `n`, make all three small.
 *
 * @example
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const firstTen = Consumer.make(Greeting, { group: "sampler", prefetch: 0, bufferSize: 1 }).pipe(
 *   Consumer.process((name) => Effect.succeed(name.length)),
 *   Consumer.stream,
 *   Stream.take(10),
 *   Stream.runCollect
 * )
 * ```
 */
export const stream = <A, R>(self: Consumer<A, never, R>): Stream.Stream<Outcome<A>, TransportError, R> =>
  Stream.callback<Outcome<A>, TransportError, R>(
    (queue) =>
      runTraced(
        self,
        Effect.void,
        // The values come from this consumer's handler, which returns A.
        (outcomes) => Queue.offerAll(queue, outcomes as Arr.NonEmptyReadonlyArray<Outcome<A>>)
      ),
    { bufferSize: self.source.options.bufferSize ?? 256, strategy: "suspend" }
  )

/** A delivery that the stream settles. Each of the four ways to do so returns once the outcome is stored. */
export interface Pulled<out P> {
  readonly payload: P
  readonly delivery: Delivery
  /**
   * The message is done. `Stale`, here and below, means that the lease had moved on or the stream had ended, and
   * nothing changed. Only the first settlement counts; a later one of another kind is `Stale` too.
   */
  readonly ack: Effect.Effect<"Settled" | "Stale">
  /**
   * Failed for now: the message comes back after the delay and the attempt counts. `cause` is kept with it for people
   * to read.
   */
  readonly retry: (delay: Duration.Input, cause?: string) => Effect.Effect<"Settled" | "Stale">
  /** Failed for good: moved to the dead letters. `reason` is a short word to filter by, `cause` is for people to read. */
  readonly deadLetter: (reason: string, cause?: string) => Effect.Effect<"Settled" | "Stale">
  /** Handed back without counting the attempt. */
  readonly release: Effect.Effect<"Settled" | "Stale">
}

/** How many unsettled deliveries a stream may have. */
const mostPulled = 256

/**
 * The deliveries of a group as a stream, unsettled, for `Stream` operators that group, throttle, window or join before
 * settling. Messages that the topic's schema rejects become dead letters and are not emitted.
 *
 * At most `concurrency` deliveries, 256 by default, are emitted and unsettled at a time, and `prefetch` more wait in this
 * process. An operator that collects more than `concurrency` before settling any waits forever. Leases are renewed however
 * long that takes; settling after a lease was lost is `Stale`.
 *
 * When the stream ends or is interrupted, unsettled deliveries are released without counting the attempt. When it
 * fails or dies, the deliveries it had pulled count as failed attempts: they come back after the delays of
 * `RetryPolicy.standard`, and become dead letters once those have ended.
 *
 * Fails as `run` does. Throws on options that `make` rejects.
 *
 * @example
 * ```ts
 * import { Console, Effect, Schema, Stream } from "effect"
 * import { Consumer, Topic } from "waybill"
 *
 * const Reading = Topic.make("readings", { payload: Schema.Struct({ celsius: Schema.Number }) })
 *
 // Stores a hundred at a time, or whatever arrived within a second, and then acknowledges them.
 * const program = Consumer.deliveries(Reading, { group: "averages" }).pipe(
 *   Stream.groupedWithin(100, "1 second"),
 *   Stream.mapEffect((readings) =>
 *     Effect.gen(function* () {
 *       yield* Console.log(readings.map(({ payload }) => payload.celsius))
 *       yield* Effect.forEach(readings, ({ ack }) => ack, { concurrency: "unbounded", discard: true })
 *     })
 *   ),
 *   Stream.runDrain
 * )
 * ```
 */
export const deliveries = <
  P,
  On,
  RD,
  RE,
  E,
  G extends Included<GuaranteeOf<On>> = GuaranteeOf<On> & Included<GuaranteeOf<On>>
>(
  topic: Topic<P, On, RD, RE, E>,
  options: Options<G, LeaseLost, TagOf<P>>
): Stream.Stream<Pulled<P>, TransportError, RD | Enough<On, G>> => {
  const source = make(topic, { ...options, concurrency: options.concurrency ?? mostPulled })
  return Stream.unwrap(
    Effect.gen(function* () {
      const scope = yield* Effect.scope
      const queue = yield* Queue.unbounded<PulledDelivery<P>, TransportError>()
      const pulled = new PulledDeliveries(queue)
      const consumer = makeConsumer<Told, never, RD | Enough<On, G>, P>({
        source,
        routes: { ...Routing.none, fallback: retry(RetryPolicy.standard) },
        handle: {
          _tag: "One",
          returns: "settlement",
          run: (delivery) => Effect.flatMap(source.decode(delivery), (payload) => pulled.handle(payload, delivery))
        }
      })
      yield* runTraced(consumer, Effect.void, pulled.observe).pipe(
        Effect.onExit((exit) => {
          pulled.stop()
          return Exit.isFailure(exit) ? Queue.failCause(queue, exit.cause) : Effect.void
        }),
        Effect.forkIn(scope)
      )
      // Before the consumer stops, which waits for unsettled deliveries.
      yield* Scope.addFinalizerExit(scope, (exit) => Effect.sync(() => pulled.end(exit)))
      return Stream.fromPull(Effect.succeed(Effect.map(pulled.next, Arr.of<Pulled<P>>)))
    })
  )
}

/**
 * `run` in the background for as long as the layer lives. Building it joins the group, and fails as `run` would. Once it is
 * up, a permanent failure, or a bug in a transport, is logged, reported as `ConsumerFailing` with `permanent: true`, and
 * retried every 30 seconds, so that granting the missing permission is enough. Use `run` to stop the program instead.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisStreams } from "waybill/redis"
 *
 * const Thumbnail = Topic.make("thumbnails", { payload: Schema.Struct({ file: Schema.String }) })
 *
 * const Shrink = Consumer.make(Thumbnail, { group: "shrink" }).pipe(
 *   Consumer.process(({ file }) => Effect.log(`shrinking ${file}`)),
 *   Consumer.layer
 * )
 *
 * const program = Layer.launch(
 *   Shrink.pipe(Layer.provide(RedisStreams.layer()), Layer.provide(IoRedis.layerUrl("redis://127.0.0.1:6379")))
 * )
 * ```
 */
export const layer = <A, R>(self: Consumer<A, never, R>): Layer.Layer<never, TransportError, R> =>
  Layer.effectDiscard(inBackground((started) => runTraced(self, started, undefined)))
