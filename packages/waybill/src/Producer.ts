/**
 * Publishing: once it succeeds, the message is in the store, once per id within the transport's window. A payload that does
 * not fit the topic's schema or size limit fails before anything is sent.
 *
 * @module
 */
import * as Arr from "effect/Array"
import type * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import type * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Sink from "effect/Sink"
import type { Publication } from "./Commit.ts"
import { partsOf, unitsOf } from "./internal/Budget.ts"
import { noHeaders, replyTo, replyWithin } from "./internal/Headers.ts"
import * as Instruments from "./internal/Instruments.ts"
import { durabilities, finiteOf, millisOf, oneOf } from "./internal/Limits.ts"
import { safe } from "./internal/SafeText.ts"
import * as Tracing from "./internal/Tracing.ts"
import { uniqueOf, unoffered } from "./internal/Uniqueness.ts"
import type { Body, Due, Durability, Headers, Outgoing, Priority, Receipt, Unique } from "./Message.ts"
import { Replies } from "./Replies.ts"
import { InvalidPayload, PayloadTooLarge, type RequestTopic, type Topic } from "./Topic.ts"
import { find, NotOffered, notProvided, type Transport, TransportError } from "./Transport.ts"

/** The most messages that `publishAll` stores in one step, all or none. A longer call is stored in parts. */
export const maxAtomicMessages = 1000

/**
 * The most bytes that `publishAll` stores in one step, counted in UTF-8 over body, headers, id and key of each message. A
 * larger call is stored in parts of at least one message.
 */
export const maxAtomicBytes = 1_048_576

export interface Options {
  /**
   * The message id, and the key for de-duplication: publishing it again stores nothing and returns `Duplicate`, for as long as
   * `unique` says: by default within the transport's window (10 minutes unless the layer sets another). Without it the transport
   * assigns an id.
   */
  readonly id?: string | undefined
  /**
   * For how long the message has its id to itself; the topic's choice by default. Without an id it has no effect, or fails with
   * `InvalidPayload` if messages of an id become one (`Topic.debounce`). `NotOffered` if the layer cannot keep it.
   */
  readonly unique?: Unique | undefined
  /**
   * What publishing waits for; the layer's choice by default, and otherwise `stored`. With `replicated` it fails with `NotReplicated`
   * and with `fsynced` with `NotFsynced` if that is not confirmed within the layer's `publishTimeout`: the message is stored, and may
   * be lost. `NotOffered` if the server cannot confirm it, or nothing is stored. In memory there is nothing to wait for.
   */
  readonly durability?: Durability | undefined
  readonly headers?: Headers | undefined
  /** How long to delay delivery, by the store's clock. */
  readonly delay?: Duration.Input | undefined
  /** The instant before which it is not delivered, by the store's clock. Ignored when `delay` is given. */
  readonly at?: DateTime.DateTime | undefined
  /**
   * For layers that order by priority (`RedisLists.layer({ order: "priority" })`); on others it fails with `NotOffered`. It
   * travels as the header `priority`, and defaults to `normal` if that header is absent too.
   */
  readonly priority?: Priority | undefined
}

/**
 * Publishes one message. Concurrent calls share round trips.
 *
 * Fails with `InvalidPayload` or `PayloadTooLarge` before anything is sent, or with `TransportError`. If its reason is
 * `Disconnected` with `ambiguous: true`, the message may be stored, and publishing it again under the same id is safe.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const program = Effect.gen(function*() {
 *   const receipt = yield* Producer.publish(Greeting, "hello", { id: "greeting-1", delay: "5 seconds" })
 *   yield* Effect.log(receipt._tag) // "Stored", and "Duplicate" the second time
 * })
 * ```
 */
export const publish = <P, On, RD, RE>(
  topic: Topic<P, On, RD, RE, unknown>,
  payload: NoInfer<P>,
  options?: Options
): Effect.Effect<Receipt, InvalidPayload | PayloadTooLarge | TransportError, On | RE> =>
  // No generators on this path: they would cost as much as all other work for a message.
  Effect.contextWith((context: Context.Context<never>) => {
    const transport = find(context, topic.on)
    if (transport === undefined) return Effect.fail(notProvided(context, topic.on, "publish", topic.name))
    const given = givenBy(options)
    const priority = options?.priority
    const durability = durabilityOf(options)
    const publishEncoded = (
      body: string
    ): Effect.Effect<Receipt, InvalidPayload | PayloadTooLarge | TransportError> => {
      const message = outgoing(topic, payload, body, given)
      const problem = problemOf(topic, message)
      if (problem !== undefined) return Effect.fail(problem)
      const refused = refusalOf(transport, topic.name, message, priority, durability)
      if (refused !== undefined) return Effect.fail(refused)
      return Effect.map(
        sending(topic, 1, message.id, (trace, context) =>
          send(transport, topic, [traced(message, trace)], durability, context)
        ),
        // The port returns one receipt per message.
        (receipts) => receipts[0]!
      )
    }
    const encoded = topic.encode(payload)
    return Exit.isExit(encoded) && Exit.isSuccess(encoded)
      ? publishEncoded(encoded.value as string) // isExit cannot know what the Exit holds
      : Effect.flatMap(encoded, publishEncoded)
  })

/**
 * Publishes all payloads, in order. `options` gives each payload its id, headers or due time.
 *
 * Up to 1,000 messages (`maxAtomicMessages`) of 1 MiB in all (`maxAtomicBytes`) are stored in one step: all of them
 * or, on failure, none. A longer call is stored in parts of at most 250 messages, one after the other and each
 * exactly once. When it fails, `stored` in the `TransportError` says how many messages from the start of the call are
 * stored; a part whose reply was lost (`Disconnected` with `ambiguous: true`) may be stored as well. A message that
 * is invalid or too large fails the call before anything is sent, wherever it stands.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Ticket = Topic.make("tickets", { payload: Schema.Struct({ number: Schema.Int }) })
 *
 * const program = Producer.publishAll(Ticket, [{ number: 1 }, { number: 2 }], (ticket) => ({ id: `ticket-${ticket.number}` }))
 * ```
 */
export const publishAll = Effect.fnUntraced(function* <P, On, RD, RE>(
  topic: Topic<P, On, RD, RE, unknown>,
  payloads: ReadonlyArray<NoInfer<P>>,
  options?: (payload: NoInfer<P>, index: number) => Options
): Effect.fn.Return<ReadonlyArray<Receipt>, InvalidPayload | PayloadTooLarge | TransportError, On | RE> {
  const context = yield* Effect.context<never>()
  const transport = find(context, topic.on)
  if (transport === undefined) return yield* Effect.fail(notProvided(context, topic.on, "publish", topic.name))
  const messages: Array<Outgoing> = []
  // A copy: encoding many yields to other fibers, which may change the array.
  const all = payloads.slice()
  let durability: Durability | undefined
  for (let i = 0; i < all.length; i++) {
    // i is within bounds; P may itself be undefined, so no other check can tell.
    const payload = all[i] as P
    const chosen = options?.(payload, i)
    const given = givenBy(chosen)
    const priority = chosen?.priority
    const message = outgoing(topic, payload, yield* topic.encode(payload), given)
    const problem = problemOf(topic, message)
    if (problem !== undefined) return yield* Effect.fail(problem)
    durability = strongest(durability, durabilityOf(chosen))
    const refused = refusalOf(transport, topic.name, message, priority, durability)
    if (refused !== undefined) return yield* Effect.fail(refused)
    messages.push(message)
  }
  if (!Arr.isReadonlyArrayNonEmpty(messages)) return []
  const parts = inParts(messages)
  return yield* sending(topic, all.length, undefined, (trace, context) =>
    sendAll(transport, topic, parts, durability, trace, context)
  )
})

/**
 * A sink that publishes its input, one chunk of the stream at a time and in order, as `publishAll` does. Its result
 * is the number of messages. `options` gives each payload its id, headers or due time. When it fails, the chunks
 * before the current one are stored.
 *
 * @example
 * ```ts
 * import { Schema, Stream } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Line = Topic.make("lines", { payload: Schema.String })
 *
 * const program = Stream.make("first", "second").pipe(Stream.run(Producer.sink(Line)))
 * ```
 */
export const sink = <P, On, RD, RE>(
  topic: Topic<P, On, RD, RE, unknown>,
  options?: (payload: NoInfer<P>) => Options
): Sink.Sink<number, P, never, InvalidPayload | PayloadTooLarge | TransportError, On | RE> =>
  Sink.foldArray(
    () => 0,
    () => true,
    (count, payloads: ReadonlyArray<P>) =>
      Effect.map(publishAll(topic, payloads, options), (receipts) => count + receipts.length)
  )

/**
 * A message for a commit: published when the commit is applied, and otherwise not at all. The names of its topic and of the
 * consumed one must agree up to the first slash; otherwise the consumed message becomes a dead letter, `CommitRejected`. A
 * second message of the same id within the window is left out.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Consumer, Producer, Topic } from "waybill"
 *
 * const Order = Topic.make("shop/orders", { payload: Schema.Struct({ id: Schema.String }), guarantee: "transactional" })
 * const Invoice = Topic.make("shop/invoices", { payload: Schema.String })
 *
 * const Billing = Consumer.make(Order, { group: "billing" }).pipe(
 *   Consumer.transactional(({ id }) =>
 *     Effect.map(Producer.message(Invoice, `invoice for ${id}`), (invoice) => Commit.make({ messages: [invoice] }))
 *   ),
 *   Consumer.orElse(Consumer.deadLetter()),
 *   Consumer.layer
 * )
 * ```
 */
export const message = Effect.fnUntraced(function* <P, On, RD, RE>(
  topic: Topic<P, On, RD, RE, unknown>,
  payload: NoInfer<P>,
  options?: Omit<Options, "durability">
): Effect.fn.Return<Publication, InvalidPayload | PayloadTooLarge, RE> {
  const given = givenBy(options)
  const message = outgoing(topic, payload, yield* topic.encode(payload), given)
  const problem = problemOf(topic, message)
  if (problem !== undefined) return yield* Effect.fail(problem)
  const trace = yield* Effect.withFiber((fiber) => Effect.succeed(Tracing.traceparent(fiber.cache.span)))
  return { topic: topic.name, on: topic.on, message: traced(message, trace) }
})

/** A request has no answer, and may or may not have been handled. */
export class Unanswered extends Schema.TaggedError<Unanswered>("waybill/Unanswered")("Unanswered", {
  topic: Schema.String,
  /** The id of its message; undefined if the store had not confirmed it by the deadline. */
  id: Schema.optional(Schema.String),
  /**
   * `TimedOut`: none came before the deadline. `DeadLettered`: its message became a dead letter. `InvalidReply`: the answer does
   * not fit the schema of this process.
   */
  why: Schema.Literals(["TimedOut", "DeadLettered", "InvalidReply"]),
  /** The reason of the dead letter, the problem of the answer, or the time waited. */
  detail: Schema.String
}) {
  override get message(): string {
    const request = this.id === undefined ? "a request" : `request ${this.id}`
    return safe(`${request} on topic ${this.topic} has no answer: ${this.why}, ${this.detail}`)
  }
}

export interface RequestOptions extends Pick<Options, "headers" | "priority"> {
  /** How long to wait for the answer, from the call on; handling the request is worthwhile until then. 30 s by default. */
  readonly timeout?: Duration.Input | undefined
}

/**
 * Publishes a request and waits for its answer, from whatever process handles it: what the handler returned, or the failure
 * of the topic's `error` that it failed with. Without an answer it fails with `Unanswered`.
 *
 * The deadline counts from the call, and holds while the store cannot be reached. An interruption ends the request within a second.
 *
 * The message is stored, retried and dead-lettered like any other of its topic. Its deadline travels with it: a request
 * whose deadline has passed is not begun, and a handler that is running then is interrupted. When the caller is interrupted,
 * or at the deadline, a request that no handler has begun is removed; one that is running when the caller is interrupted
 * is cancelled, as by `Inspector.cancel`. Both only if the topic has one group.
 *
 * Answers are not stored: one that is sent while this process has lost its connection is missed, and the request times out.
 * Handlers may run more than once, as always.
 *
 * Needs `Replies.layer`, and a transport for the topic of replies that sends to every subscriber; on others it fails with
 * `NotOffered`.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * class NoSuchItem extends Schema.TaggedError<NoSuchItem>()("NoSuchItem", { item: Schema.String }) {}
 *
 * const Quote = Topic.request(Topic.make("quotes", { payload: Schema.Struct({ item: Schema.String }) }), {
 *   success: Schema.Struct({ cents: Schema.Int }),
 *   error: NoSuchItem
 * })
 *
 * const program = Producer.request(Quote, { item: "tea" }, { timeout: "5 seconds" }).pipe(
 *   Effect.map(({ cents }) => `tea costs ${cents} cents`),
 *   Effect.catchTags({
 *     NoSuchItem: ({ item }) => Effect.succeed(`no ${item} today`),
 *     Unanswered: ({ why }) => Effect.succeed(`ask again later: ${why}`)
 *   })
 * )
 * ```
 */
export const request = Effect.fn("Producer.request")(function* <P, A, E, On, RepliesOn, RD, RE, ME>(
  topic: RequestTopic<P, A, E, On, RepliesOn, RD, RE, ME>,
  payload: NoInfer<P>,
  { headers, priority, timeout = "30 seconds" }: RequestOptions = {}
): Effect.fn.Return<
  A,
  E | Unanswered | InvalidPayload | PayloadTooLarge | TransportError,
  On | RepliesOn | RE | Replies
> {
  const millis = millisOf("timeout", timeout)
  let id: string | undefined
  const unanswered = (why: Unanswered["why"], detail: string) => new Unanswered({ topic: topic.name, id, why, detail })
  const timedOut = Effect.suspend(() => unanswered("TimedOut", `after ${millis} ms`))
  const replies = yield* Replies
  const [subscribing, waiting] = yield* replies
    .to(topic.replies)
    .pipe(Effect.timeoutOrElse({ duration: millis, orElse: () => timedOut }), Effect.timed)
  const left = Math.max(1, millis - Math.floor(Duration.toMillis(subscribing)))
  const number = yield* Effect.sync(() => SecureRandom.uuidV4Unsafe())
  const answered = yield* Deferred.make<Body>()
  const own = { ...headers, [replyTo]: number, [replyWithin]: String(left) }
  const context = yield* Effect.context<never>()
  const ask = Effect.fnUntraced(function* (restore: <X, F, R>(wait: Effect.Effect<X, F, R>) => Effect.Effect<X, F, R>) {
    waiting.set(number, (body) => Deferred.doneUnsafe(answered, Exit.succeed(body)))
    // It continues without its caller: only with its id can the message be taken back.
    const publishing = yield* Effect.forkDetach(publish(topic, payload, { headers: own, priority }), {
      startImmediately: true
    })
    const withdrawing = (interrupted: boolean) =>
      Effect.forkDetach(
        Effect.flatMap(Fiber.await(publishing), (exit) =>
          Exit.isSuccess(exit) ? withdraw(find(context, topic.on), topic.name, exit.value.id, interrupted) : Effect.void
        ),
        { startImmediately: true }
      )
    const body = yield* Fiber.join(publishing).pipe(
      Effect.tap((receipt) => Effect.sync(() => (id = receipt.id))),
      Effect.andThen(Deferred.await(answered)),
      Effect.timeoutOrElse({ duration: left, orElse: () => Effect.andThen(withdrawing(false), timedOut) }),
      restore,
      Effect.onInterrupt(() => Effect.flatMap(withdrawing(true), briefly))
    )
    const reply = yield* Effect.mapError(topic.replies.decode(body), ({ issue }) => unanswered("InvalidReply", issue))
    switch (reply._tag) {
      case "Success":
        return reply.value
      case "Failure":
        return yield* Effect.fail(reply.error)
      case "DeadLettered":
        return yield* unanswered("DeadLettered", reply.reason)
    }
  })
  return yield* Effect.ensuring(
    Effect.uninterruptibleMask(ask),
    Effect.sync(() => waiting.delete(number))
  )
})

/**
 * Ends a request whose caller no longer waits: it is removed if no handler has begun with it, and otherwise cancelled, if
 * the caller is interrupted; at its deadline the handler is interrupted anyway. Not if it is a dead letter, nor if the
 * topic has other groups: it is theirs as well.
 */
const withdraw = (
  transport: Transport | undefined,
  topic: string,
  id: string,
  interrupted: boolean
): Effect.Effect<void> => {
  if (transport === undefined) return Effect.void
  const { inspector } = transport
  return inspector.message(topic, id).pipe(
    Effect.flatMap((found): Effect.Effect<unknown, TransportError> => {
      const groups = Option.match(found, { onNone: () => undefined, onSome: ({ groups }) => groups })
      if (groups === undefined || groups.length > 1) return Effect.void
      switch (groups[0]?._tag) {
        case undefined:
        case "Ready":
        case "Waiting":
          return inspector.removeMessage(topic, id)
        case "Pending":
          return interrupted ? inspector.cancel(topic, id) : Effect.void
        default:
          return Effect.void
      }
    }),
    Effect.ignore
  )
}

/** Waits a little for it: the process may be about to end. A fiber of its own, in which the timeout works. */
const briefly = (fiber: Fiber.Fiber<unknown>): Effect.Effect<void> =>
  Effect.asVoid(
    Effect.flatMap(Effect.forkDetach(Effect.timeoutOption(Fiber.await(fiber), withdrawal)), (wait) => Fiber.await(wait))
  )

/** The longest that an interruption waits. */
const withdrawal = Duration.seconds(1)

/**
 * Gives `send` the `traceparent` for the messages: that of a new span if spans are recorded, otherwise that of the
 * surrounding one. If nothing records, no span is made.
 */
const sending = (
  topic: { readonly name: string },
  count: number,
  id: string | undefined,
  send: (
    trace: string | undefined,
    context: Context.Context<never>
  ) => Effect.Effect<ReadonlyArray<Receipt>, TransportError>
): Effect.Effect<ReadonlyArray<Receipt>, TransportError> =>
  Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => {
    const { context } = fiber
    if (!Tracing.records(fiber)) return send(Tracing.traceparent(fiber.cache.span), context)
    return Effect.useSpan(`send ${topic.name}`, Tracing.sent(topic.name, count, id), (span) =>
      send(Tracing.traceparent(span), context).pipe(
        Effect.tap((receipts) => Effect.sync(() => Tracing.stored(span, receipts))),
        Effect.tapError((error) => Effect.sync(() => span.attribute("error.type", error.reason._tag))),
        Effect.withParentSpan(span)
      )
    )
  })

/** Why the transport cannot keep an option. */
const refusalOf = (
  transport: Transport,
  topic: string,
  message: Outgoing,
  priority: Options["priority"],
  durability: Durability | undefined
): TransportError | undefined => {
  const refused =
    priority !== undefined && transport.priorities !== true
      ? {
          feature: "priorities",
          detail: "this layer does not order by priority. Leave it out, or use a layer with the order `priority`"
        }
      : durability !== undefined && durability !== "stored" && transport.durable !== true
        ? {
            feature: `durability: "${durability}"`,
            detail: "this layer cannot wait for replicas or disks. Leave it out"
          }
        : unoffered(message, transport.unique)
  return refused && new TransportError({ operation: "publish", topic, reason: new NotOffered(refused) })
}

const durabilityOf = (options: Options | undefined): Durability | undefined =>
  options?.durability === undefined ? undefined : oneOf("durability", options.durability, durabilities)

/** That of a call with messages of both. */
const strongest = (one: Durability | undefined, other: Durability | undefined): Durability | undefined => {
  if (one === undefined || one === "stored" || one === other) return other ?? one
  if (other === undefined || other === "stored") return one
  throw new Error("durability must be the same for all messages of a call")
}

/** The options a producer gives besides the payload. */
type Given = Pick<Outgoing, "id" | "headers" | "due" | "unique">

const nothing: Given = { id: undefined, headers: noHeaders, due: undefined, unique: undefined }

/** Read once when the call begins: the caller may keep using its objects. */
const givenBy = (options: Options | undefined): Given => {
  if (options === undefined) return nothing
  const { headers = noHeaders, id, priority, unique } = options
  if (unique !== undefined) uniqueOf(unique)
  if (priority !== undefined) oneOf("priority", priority, ["high", "normal", "low"])
  return {
    id,
    headers:
      // Anything but a record is kept as is, so that `issueOf` refuses it: a copy would look like no headers.
      (priority === undefined && headers === noHeaders) || !isRecord(headers)
        ? headers
        : Object.freeze(priority === undefined ? { ...headers } : { ...headers, priority }),
    due: dueOf(options),
    unique
  }
}

/** Maps and arrays are not records: their entries are not properties. */
const isRecord = (headers: unknown): boolean =>
  typeof headers === "object" && headers !== null && !(Symbol.iterator in headers)

const outgoing = <P, On, RD, RE>(
  topic: Topic<P, On, RD, RE, unknown>,
  payload: P,
  body: string,
  { due, headers, id, unique = topic.unique }: Given
): Outgoing => {
  const message: Outgoing = {
    id,
    body,
    headers:
      topic.type === undefined || !isRecord(headers)
        ? headers
        : Object.freeze({ ...headers, type: topic.type(payload) }),
    key: topic.key(payload),
    version: topic.writes,
    due
  }
  // The window is what an id has without it.
  if (unique === "window") return message
  if (typeof unique === "string") return id === undefined ? message : { ...message, unique }
  const delayed = due === undefined && !Duration.isZero(unique.delay)
  return { ...message, unique, due: delayed ? { _tag: "After", delay: unique.delay } : due }
}

/** Adds the publisher's trace context unless the headers have one. It is ours, and does not count towards the size. */
const traced = (message: Outgoing, trace: string | undefined): Outgoing =>
  trace === undefined || "traceparent" in message.headers
    ? message
    : { ...message, headers: Object.freeze({ ...message.headers, traceparent: trace }) }

/** Why the message may not be sent, if it may not. */
const problemOf = (
  topic: Pick<Topic<unknown>, "name" | "maxBytes">,
  message: Outgoing
): InvalidPayload | PayloadTooLarge | undefined => {
  const { headers, id, key, unique } = message
  const wrong = id === undefined && typeof unique === "object" ? idless : issueOf(id, headers, key)
  if (wrong !== undefined) return new InvalidPayload({ topic: topic.name, ...wrong })
  // A UTF-16 unit becomes at most three bytes, so most messages need no counting.
  if (unitsOf(message) * 3 <= topic.maxBytes) return undefined
  const parts = partsOf(message)
  const bytes = parts.body + parts.headers + parts.id + parts.key
  if (bytes <= topic.maxBytes) return undefined
  let part: keyof typeof parts = "body"
  for (const other of ["headers", "id", "key"] as const) if (parts[other] > parts[part]) part = other
  return new PayloadTooLarge({ topic: topic.name, part, bytes, limit: topic.maxBytes })
}

const idless = { part: "id", issue: "must be given: messages of the same id become one" } as const

/** The types say that these are all strings; JavaScript does not, and half of a surrogate pair would change on the way. */
const issueOf = (
  id: unknown,
  headers: Readonly<Record<string, unknown>>,
  key: unknown
): Pick<InvalidPayload, "part" | "issue"> | undefined => {
  if (id !== undefined) {
    const issue = id === "" ? "must not be empty" : textIssue(id)
    if (issue !== undefined) return { part: "id", issue }
  }
  if (key !== undefined) {
    const issue = textIssue(key)
    if (issue !== undefined) return { part: "key", issue }
  }
  if (headers === noHeaders) return undefined
  if (!isRecord(headers)) return { part: "headers", issue: "expected an object of strings" }
  for (const name in headers) {
    const issue = textIssue(headers[name])
    if (issue !== undefined) return { part: "headers", issue: `the value of "${name.toWellFormed()}": ${issue}` }
    if (!name.isWellFormed()) return { part: "headers", issue: `the name "${name.toWellFormed()}": ${illFormed}` }
  }
  return undefined
}

const illFormed = "half of a surrogate pair is not text"

const textIssue = (text: unknown): string | undefined =>
  typeof text !== "string" ? `expected a string, got ${typeof text}` : text.isWellFormed() ? undefined : illFormed

const bytesIn = (message: Outgoing): number => {
  const { body, headers, id, key } = partsOf(message)
  return body + headers + id + key
}

const instantOf = (epochMillis: number): number => {
  if (!Number.isFinite(epochMillis)) throw new Error(`at must be an instant, got ${epochMillis}`)
  return epochMillis
}

const dueOf = (options: Options): Due | undefined =>
  options.delay !== undefined
    ? { _tag: "After", delay: finiteOf("delay", options.delay) }
    : options.at !== undefined
      ? { _tag: "At", epochMillis: instantOf(options.at.epochMilliseconds) }
      : undefined

/** The size of a part when a call is split anyway: small enough that other callers, served in between, hardly wait. */
const partMessages = 250

/** Whether the messages are stored in one step. */
const isAtomic = (messages: ReadonlyArray<Outgoing>): boolean => {
  if (messages.length > maxAtomicMessages) return false
  let units = 0
  for (const message of messages) units += unitsOf(message)
  // A UTF-16 unit becomes at most three bytes, so most calls need no counting.
  if (units * 3 <= maxAtomicBytes) return true
  let bytes = 0
  for (const message of messages) bytes += bytesIn(message)
  return bytes <= maxAtomicBytes
}

const inParts = (messages: Arr.NonEmptyReadonlyArray<Outgoing>): ReadonlyArray<Arr.NonEmptyReadonlyArray<Outgoing>> => {
  if (isAtomic(messages)) return [messages]
  const parts: Array<Arr.NonEmptyArray<Outgoing>> = []
  let part: Array<Outgoing> = []
  let bytes = 0
  for (const message of messages) {
    const size = bytesIn(message)
    if (part.length === 0 || part.length === partMessages || bytes + size > maxAtomicBytes) {
      const first: Arr.NonEmptyArray<Outgoing> = [message]
      parts.push(first)
      part = first
      bytes = size
    } else {
      part.push(message)
      bytes += size
    }
  }
  return parts
}

/** Sends one part after the other. A failure says how many messages were stored before it. */
const sendAll = Effect.fnUntraced(function* (
  transport: Transport,
  topic: { readonly name: string },
  parts: ReadonlyArray<Arr.NonEmptyReadonlyArray<Outgoing>>,
  durability: Durability | undefined,
  trace: string | undefined,
  context: Context.Context<never>
) {
  const stored: Array<Receipt> = []
  for (const part of parts) {
    const messages = trace === undefined ? part : Arr.map(part, (message) => traced(message, trace))
    const receipts = yield* Effect.mapError(
      send(transport, topic, messages, durability, context),
      ({ operation, reason, topic }) => {
        const isStored = reason._tag === "NotReplicated" || reason._tag === "NotFsynced"
        return new TransportError({ operation, topic, reason, stored: stored.length + (isStored ? part.length : 0) })
      }
    )
    if (parts.length === 1) return receipts
    for (const receipt of receipts) stored.push(receipt)
  }
  return stored
})

const send = (
  transport: Transport,
  topic: { readonly name: string },
  messages: Arr.NonEmptyReadonlyArray<Outgoing>,
  durability: Durability | undefined,
  context: Context.Context<never>
): Effect.Effect<ReadonlyArray<Receipt>, TransportError> =>
  Effect.map(transport.publish(topic.name, messages, durability), (receipts) => {
    // Most calls have one outcome.
    for (let from = 0, to = 0; from < receipts.length; from = to) {
      const { _tag } = receipts[from]!
      while (to < receipts.length && receipts[to]!._tag === _tag) to++
      Instruments.publishedTo(topic.name, _tag, context).updateUnsafe(to - from, context)
    }
    if (transport.lifecycle.active)
      transport.lifecycle.emit({ _tag: "Published", topic: topic.name, messages, receipts })
    return receipts
  })
