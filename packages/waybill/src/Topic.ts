/**
 * A topic is a name and a schema: pure data, shared by producers and consumers. A payload that does not fit the
 * schema is never published, and one that arrives invalid never reaches a handler.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import { Inspector } from "./Inspector.ts"
import { bytesOf } from "./internal/Budget.ts"
import { millisOf, oneOf, shown, wholeOf } from "./internal/Limits.ts"
import { isName } from "./internal/Name.ts"
import { safe, safeLines } from "./internal/SafeText.ts"
import { uniqueOf } from "./internal/Uniqueness.ts"
import type { Body, Coalescing, Unique } from "./Message.ts"
import { defaultName, type Guarantee, type Name, type Needs, type Transport } from "./Transport.ts"

export interface Topic<
  in out Payload,
  out On = Needs<"at-least-once">,
  out DecodingServices = never,
  out EncodingServices = never,
  out MigrationError = never
> {
  readonly name: string
  /** The transport it lives on: the program's default for its guarantee, or a named one. */
  readonly on: Name<On>
  /** The newest version of the payload that this program reads. */
  readonly version: number
  /** The version that it publishes; travels with every message. */
  readonly writes: number
  /** The most bytes a message may have in UTF-8: body, headers, id and key together. */
  readonly maxBytes: number
  /** Travels as the header `type`, if it has several types of messages. */
  readonly type?: ((payload: Payload) => string) | undefined
  /** For how long a message has its id to itself, unless its publisher says otherwise. */
  readonly unique: Unique
  /** Messages with the same key must stay in order, where the transport supports it. */
  readonly key: (payload: Payload) => string | undefined
  /** Encodes to JSON text, checked against the schema and the size limit. */
  readonly encode: (payload: Payload) => Effect.Effect<string, InvalidPayload | PayloadTooLarge, EncodingServices>
  /** Reads a body of that version, of the newest by default; an older one through its own schema, and then migrated. */
  readonly decode: (
    body: Body,
    version?: number
  ) => Effect.Effect<Payload, DecodeFailure | MigrationError, DecodingServices>
}

/** The part of a topic that inspection needs. */
export interface Inspected<out Payload, out On, out DecodingServices = never> {
  readonly name: string
  readonly on: Effect.Effect<Pick<Transport, "inspector">, never, On>
  readonly decode: (body: Body, version?: number) => Effect.Effect<Payload, unknown, DecodingServices>
}

/**
 * A topic of which a tool knows only the name: bodies are shown as they are, on the transport of `Inspector`.
 *
 * @example
 * ```ts
 * import { DeadLetters, Topic } from "waybill"
 *
 * const program = DeadLetters.redrive(Topic.byName("payments"), "charge")
 * ```
 */
export const byName = (name: string): Inspected<Body, Inspector> => ({
  name,
  on: Effect.map(Inspector, (inspector) => ({ inspector })),
  decode: Exit.succeed
})

/** The parts of a message that a producer chooses. */
const Part = Schema.Literals(["body", "headers", "id", "key"]).pipe(
  Schema.withConstructorDefault(Effect.succeed("body" as const))
)

/** The value does not fit the topic's schema, or a part of its message is not well-formed text. Nothing was sent. */
export class InvalidPayload extends Schema.TaggedError<InvalidPayload>("waybill/InvalidPayload")("InvalidPayload", {
  topic: Schema.String,
  /** The part of the message that is invalid; `body` by default. */
  part: Part,
  issue: Schema.String
}) {
  override get message(): string {
    return safeLines(
      this.part === "body"
        ? `the payload does not fit the schema of topic ${this.topic}: ${this.issue}`
        : `invalid ${this.part} of a message for topic ${this.topic}: ${this.issue}`
    )
  }
}

/** The message is larger than the topic allows. Nothing was sent. Store the data elsewhere and publish a reference. */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>("waybill/PayloadTooLarge")("PayloadTooLarge", {
  topic: Schema.String,
  /** The largest part of the message; `body` by default. */
  part: Part,
  /** The size of all parts together. */
  bytes: Schema.Int,
  limit: Schema.Int
}) {
  override get message(): string {
    return safe(
      `the message for topic ${this.topic} has ${this.bytes} bytes, most of them in its ${this.part}, but the limit is ` +
        `${this.limit}; raise maxBytes of the topic, or publish a reference to it`
    )
  }
}

/** The received body is not a payload of this topic. Always becomes a dead letter with its raw bytes. */
export class DecodeFailure extends Schema.TaggedError<DecodeFailure>("waybill/DecodeFailure")("DecodeFailure", {
  topic: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return safeLines(`invalid payload of topic ${this.topic}: ${this.issue}`)
  }
}

/** 1 MiB: hardly noticeable to a Redis server. */
const defaultMaxBytes = 1_048_576

/** An older version of a payload: its schema, and how it becomes the current one. Made by `from`. */
export interface Older<out P, out E = never, out RD = never, out RE = never> {
  readonly payload: Schema.Constraint & { readonly EncodingServices: RE }
  readonly upgrade: (older: never) => Effect.Effect<P, E, RD>
  readonly downgrade?: ((current: never) => unknown) | undefined
}

/** An older version that can be published too. */
export interface Writable<out P, out E, out RD, out RE, in Current> extends Older<P, E, RD, RE> {
  readonly downgrade: (current: Current) => unknown
}

/**
 * An older version of a payload, for `from` of `make`: its schema, and an effect that makes the current payload of it. A failure
 * of that effect is a failure of the consumer like one of its handler, and needs a route. A `DecodeFailure` makes a dead letter.
 *
 * With `downgrade`, a pure function the other way, the version can be published as well: see `write` of `make`.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Topic } from "waybill"
 *
 * const V1 = Schema.Struct({ name: Schema.String })
 * const V2 = Schema.Struct({ first: Schema.String, last: Schema.String })
 *
 * const Signup = Topic.make("signups", {
 *   version: 2,
 *   payload: V2,
 *   from: {
 *     1: Topic.from(
 *       V1,
 *       ({ name }) => Effect.succeed({ first: name, last: "" }),
 *       ({ first, last }: typeof V2.Type) => ({ name: `${first} ${last}` })
 *     )
 *   },
 *   write: 1 // until no consumer of version 1 is left
 * })
 * ```
 */
export const from: {
  <S extends Schema.Constraint, H extends Effect.Effect<unknown, unknown, unknown>>(
    payload: S,
    upgrade: (older: S["Type"]) => H
  ): Older<Effect.Success<H>, Effect.Error<H>, Effect.Services<H> | S["DecodingServices"]>
  <S extends Schema.Constraint, H extends Effect.Effect<unknown, unknown, unknown>, Current>(
    payload: S,
    upgrade: (older: S["Type"]) => H,
    downgrade: (current: Current) => S["Type"]
  ): Writable<
    Effect.Success<H>,
    Effect.Error<H>,
    Effect.Services<H> | S["DecodingServices"],
    S["EncodingServices"],
    Current
  >
} = (payload: Schema.Constraint, upgrade: unknown, downgrade?: unknown): never =>
  // Each signature says what it is of.
  ({ payload, upgrade, downgrade }) as never

type Versions<P> = Readonly<Record<number, Older<P, unknown, unknown, unknown>>>

/** The versions among them that can be published. */
type WritableOf<P, F> = {
  [V in keyof F]: F[V] extends { readonly downgrade: (current: P) => unknown } ? Extract<V, number> : never
}[keyof F]

type MigrationErrorOf<F> = {
  [V in keyof F]: F[V] extends Older<unknown, infer E, unknown, unknown> ? E : never
}[keyof F]

type DecodingOf<F> = {
  [V in keyof F]: F[V] extends Older<unknown, unknown, infer R, unknown> ? R : never
}[keyof F]

type EncodingOf<F> = {
  [V in keyof F]: F[V] extends Writable<unknown, unknown, unknown, infer R, never> ? R : never
}[keyof F]

type Options<S extends Schema.Constraint, F extends Versions<S["Type"]>, V extends number> = {
  readonly payload: S
  readonly key?: (payload: S["Type"]) => string | undefined
  readonly maxBytes?: number
  readonly unique?: Unique
} & (
  | { readonly version: V; readonly from?: F; readonly write?: NoInfer<V | WritableOf<S["Type"], F>> }
  // Of a first version there is none older.
  | { readonly version?: never; readonly from?: never; readonly write?: never }
)

const describe = SchemaIssue.makeFormatterDefault()

/**
 * Defines a topic.
 *
 * - `payload`: its JSON form is `Schema.toCodecJson(payload)`, so dates, bigints and options survive.
 * - `key`: messages with the same key must stay in order, where the transport supports it. None by default.
 * - `version`: the version of the schema, 1 by default. A message of a newer version is set aside until a consumer of its
 *   group reads it, and never becomes a dead letter for its version.
 * - `from`: the older versions that are still read, made by `Topic.from`. Without it, older messages are read with `payload`; with
 *   it, a version that is not listed is a dead letter.
 * - `write`: the version to publish, `version` by default. During a rolling deploy it is the older one, whose `Topic.from` has a
 *   `downgrade`, until every consumer reads the newer one.
 * - `guarantee`: what the topic needs, `at-least-once` by default. It lives on the program's default transport for that.
 * - `on`: the name of its transport, in a program with several. The topic then needs what the name promises.
 * - `maxBytes`: the most UTF-8 bytes of a message's encoded payload, headers, id and key together; 1 MiB by default.
 * - `unique`: for how long a message has its id to itself. `window`, the default: for the window of the transport. `until-settled`:
 *   until every group has settled it, so that one message of an id is waiting, in a handler or between attempts at a time.
 *   `until-taken`: until a consumer has been given it; only for queues, elsewhere publishing fails with `NotOffered`.
 *   `Topic.debounce`, `Topic.throttle` and `Topic.latest`: until it begins, and what is published meanwhile becomes one message.
 *
 * Throws on an invalid name (empty, longer than 200 characters, or with white space, braces or half of a surrogate
 * pair) and on versions that do not fit together: those are bugs.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Topic } from "waybill"
 *
 * const OrderPlaced = Topic.make("orders.placed", {
 *   payload: Schema.Struct({ id: Schema.String, placedAt: Schema.Date }),
 *   key: (order) => order.id
 * })
 * ```
 */
export const make: {
  <
    S extends Schema.Constraint,
    G extends Guarantee = "at-least-once",
    const F extends Versions<S["Type"]> = {},
    const V extends number = number
  >(
    name: string,
    options: Options<S, F, V> & { readonly guarantee?: G; readonly on?: never }
  ): Made<S, F, Needs<G>>
  <S extends Schema.Constraint, On, const F extends Versions<S["Type"]> = {}, const V extends number = number>(
    name: string,
    options: Options<S, F, V> & { readonly on: Name<On>; readonly guarantee?: never }
  ): Made<S, F, On>
} = <S extends Schema.Constraint, On, F extends Versions<S["Type"]>>(
  name: string,
  options: Options<S, F, number> & { readonly on?: Name<On>; readonly guarantee?: Guarantee }
): Made<S, F, On> => {
  if (!isName(name)) {
    throw new Error(`invalid topic name ${shown(name)}: use 1 to 200 characters without white space or braces`)
  }
  const guarantee = options.guarantee ?? "at-least-once"
  oneOf("guarantee", guarantee, ["at-most-once", "at-least-once", "transactional"])
  if (options.on !== undefined && options.guarantee !== undefined) {
    throw new Error(`topic ${name} is on ${options.on.key}, whose name sets the guarantee: leave guarantee out`)
  }
  const { maxBytes = defaultMaxBytes, version = 1 } = options
  const unique = uniqueOf(options.unique ?? "window")
  wholeOf("version", version)
  wholeOf("maxBytes", maxBytes)
  const current = codingOf(name, options.payload, maxBytes)
  const { from, write = version } = options
  const readers = new Map<number, (body: Body) => Effect.Effect<S["Type"], unknown, unknown>>()
  let { encode } = current
  for (const [key, { downgrade, payload, upgrade }] of Object.entries(from ?? {})) {
    const number = wholeOf("a version in from", Number(key), 1, version - 1)
    const older = codingOf(name, payload, maxBytes)
    // What its schema decodes is what `upgrade` takes, by the type of `from`; likewise for `downgrade`.
    readers.set(number, (body) => Effect.flatMap(older.decode(body), upgrade as (older: unknown) => Upgraded<S>))
    if (number !== write || downgrade === undefined) continue
    encode = (payload) => Effect.suspend(() => older.encode((downgrade as (current: unknown) => unknown)(payload)))
  }
  if (write !== version && encode === current.encode) {
    throw new Error(`topic ${name} cannot write version ${write}: from has no downgrade for it`)
  }
  const decode = (body: Body, given: number = version): Effect.Effect<S["Type"], unknown, unknown> => {
    if (given === version || (from === undefined && given < version)) return current.decode(body)
    const reader = readers.get(given)
    if (reader !== undefined) return reader(body)
    const known = [...readers.keys(), version].join(", ")
    return Exit.fail(new DecodeFailure({ topic: name, issue: `version ${given} is none of those read here: ${known}` }))
  }
  // The types of what `from` has are those of its schemas and effects.
  return {
    name,
    // Without a name, On is the default one of the guarantee.
    on: options.on ?? (defaultName(guarantee) as Name<unknown> as Name<On>),
    version,
    writes: write,
    maxBytes,
    type: options.payload.ast.annotations?.[typed] === true ? ({ _tag }: { readonly _tag: string }) => _tag : undefined,
    unique,
    key: options.key ?? (() => undefined),
    encode,
    decode
  } as Topic<S["Type"], On, unknown, unknown, unknown> as Made<S, F, On>
}

type Upgraded<S extends Schema.Constraint> = Effect.Effect<S["Type"], unknown, unknown>

type Made<S extends Schema.Constraint, F, On> = Topic<
  S["Type"],
  On,
  S["DecodingServices"] | DecodingOf<F>,
  S["EncodingServices"] | EncodingOf<F>,
  MigrationErrorOf<F>
>

/**
 * The payload of a topic with several types of messages, each under its `_tag`. `Consumer.dispatch` gives each type its handler. The
 * tag also travels as the header `type`, which replaces one that the publisher gives, and a group may filter by it: see `only` of
 * `Consumer.make`. A type that is added makes a new `version`: older consumers then set its messages aside instead of
 * dead-lettering them.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Topic } from "waybill"
 *
 * const OrderPlaced = Schema.TaggedStruct("OrderPlaced", { id: Schema.String, cents: Schema.Int })
 * const OrderCancelled = Schema.TaggedStruct("OrderCancelled", { id: Schema.String })
 *
 * const Orders = Topic.make("orders", { payload: Topic.union({ OrderPlaced, OrderCancelled }) })
 * ```
 */
export const union = <const Types extends TypesOf<Types>>(
  types: Types
): Schema.Union<ReadonlyArray<Types[keyof Types]>> =>
  Schema.Union<ReadonlyArray<Types[keyof Types]>>(Object.values(types)).annotate({ [typed]: true })

/** Topics of schemas with this annotation say which type a message is of. It outlives further annotations and checks. */
const typed = "~waybill/Topic/union"

/** Schemas by the tags of what they decode. */
type TypesOf<Types> = {
  readonly [Tag in keyof Types]: Schema.Constraint & { readonly Type: { readonly _tag: Tag } }
}

/** How payloads of one schema travel. */
const codingOf = <S extends Schema.Constraint>(name: string, payload: S, limit: number) => {
  const codec = Schema.toCodecJson(payload)
  // Compiled where the platform allows it, interpreted elsewhere: the same results at a quarter of the cost.
  const fromParsed = Schema.make<typeof codec>(takenAsJson(codec.ast))
  SchemaJITCompiler.enable(fromParsed.ast)
  SchemaJITCompiler.enable(Schema.flip(codec).ast)
  const encodeUnknown = SchemaParser.encodeUnknownEffect(codec)
  const decodeUnknown = SchemaParser.decodeUnknownEffect(fromParsed)

  const toText = (json: unknown): Effect.Effect<string, InvalidPayload | PayloadTooLarge> => {
    let text: string
    try {
      text = JSON.stringify(json)
    } catch (defect) {
      if (isTooDeep(defect)) return Exit.fail(new InvalidPayload({ topic: name, issue: tooDeep }))
      throw defect
    }
    // A UTF-16 unit becomes at most three bytes, so most payloads need no counting.
    if (text.length * 3 <= limit) return Exit.succeed(text)
    const bytes = bytesOf(text)
    return bytes <= limit ? Exit.succeed(text) : Exit.fail(new PayloadTooLarge({ topic: name, bytes, limit }))
  }
  const undecodable = (issue: string) => new DecodeFailure({ topic: name, issue })

  return {
    encode: (payload: unknown): Effect.Effect<string, InvalidPayload | PayloadTooLarge, S["EncodingServices"]> => {
      let encoded: ReturnType<typeof encodeUnknown>
      try {
        encoded = encodeUnknown(payload)
      } catch (defect) {
        encoded = Exit.die(defect)
      }
      // Most schemas are synchronous: the result is already an Exit, and no fiber has to interpret it.
      if (Exit.isExit(encoded) && Exit.isSuccess(encoded)) return toText(encoded.value)
      return Effect.mapError(encoded, (issue) => new InvalidPayload({ topic: name, issue: described(issue) })).pipe(
        Effect.flatMap(toText),
        catchTooDeep((issue) => new InvalidPayload({ topic: name, issue }))
      )
    },
    decode: (body: Body): Effect.Effect<S["Type"], DecodeFailure, S["DecodingServices"]> => {
      if (typeof body !== "string") return Exit.fail(undecodable("the body is not UTF-8 text"))
      let json: unknown
      try {
        json = JSON.parse(body)
      } catch (error) {
        return Exit.fail(undecodable(String(error)))
      }
      let decoded: ReturnType<typeof decodeUnknown>
      try {
        decoded = decodeUnknown(json)
      } catch (defect) {
        decoded = Exit.die(defect)
      }
      // isExit cannot know that this Exit holds the effect's own result.
      if (Exit.isExit(decoded) && Exit.isSuccess(decoded)) return decoded as Exit.Exit<S["Type"]>
      return catchTooDeep(undecodable)(Effect.mapError(decoded, (issue) => undecodable(described(issue))))
    }
  }
}

/** How a request was answered. */
export type Reply<A, E> =
  | { readonly _tag: "Success"; readonly value: A }
  | { readonly _tag: "Failure"; readonly error: E }
  /** Its message became a dead letter, with this reason. */
  | { readonly _tag: "DeadLettered"; readonly reason: string }

/** A topic whose messages are answered. */
export interface RequestTopic<
  in out Payload,
  in out A,
  in out E,
  out On = Needs<"at-least-once">,
  out RepliesOn = Needs<"at-most-once">,
  out DecodingServices = never,
  out EncodingServices = never,
  out MigrationError = never
> extends Topic<Payload, On, DecodingServices, EncodingServices, MigrationError> {
  /** Where the answers travel: `<name>.replies`. */
  readonly replies: Topic<Reply<A, E>, RepliesOn>
  /** Whether it is one of the failures that the topic declares. */
  readonly isError: (failure: unknown) => failure is E
}

/**
 * A topic whose messages are answered: `Producer.request` asks, `Consumer.respond` answers. `success` is the schema of the answer
 * and `error` that of the failures that are answers too; without it there are none. Neither may need services.
 *
 * Answers travel on a second topic, `<name>.replies`, to all processes that wait for some. It needs a transport that sends
 * each message to every subscriber, as pub/sub does: that of the name `repliesOn`, by default the program's transport for
 * `at-most-once`.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Topic } from "waybill"
 *
 * class NoSuchItem extends Schema.TaggedError<NoSuchItem>()("NoSuchItem", { item: Schema.String }) {}
 *
 * const Quote = Topic.request(Topic.make("quotes", { payload: Schema.Struct({ item: Schema.String }) }), {
 *   success: Schema.Struct({ cents: Schema.Int }),
 *   error: NoSuchItem
 * })
 * ```
 */
export const request = <P, On, RD, RE, ME, A, E = never, RepliesOn = Needs<"at-most-once">>(
  topic: Topic<P, On, RD, RE, ME>,
  options: {
    readonly success: Schema.Codec<A, unknown>
    readonly error?: Schema.Codec<E, unknown>
    readonly repliesOn?: Name<RepliesOn>
  }
): RequestTopic<P, A, E, On, RepliesOn, RD, RE, ME> => {
  const { error: failure = Schema.Never, repliesOn, success } = options
  const payload = Schema.Union([
    Schema.TaggedStruct("Success", { value: success }),
    Schema.TaggedStruct("Failure", { error: failure }),
    Schema.TaggedStruct("DeadLettered", { reason: Schema.String })
  ])
  return {
    ...topic,
    // The union above is a Reply; without a name, RepliesOn is the default one.
    replies: make(`${topic.name}.replies`, {
      payload,
      on: repliesOn ?? (defaultName("at-most-once") as Name<unknown> as Name<RepliesOn>)
    }) as Topic<unknown, RepliesOn> as Topic<Reply<A, E>, RepliesOn>,
    // Without a schema, E is never.
    isError: Schema.is(failure) as (failure: unknown) => failure is E
  }
}

/**
 * For `unique`: messages of an id become one, with the last payload, as long as no consumer has been given the first. The time at
 * which it is due stays.
 *
 * Queues replace messages that are delayed or ready. Streams and keyspace replace them only while they are delayed, so publishing one
 * there without a `delay` or `at` fails with `NotOffered`. The receipt is `Replaced`, and `Stored` for the first of them.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Topic } from "waybill"
 *
 * // A queue holds one message for each account, with its newest balance.
 * const Balance = Topic.make("balances", {
 *   payload: Schema.Struct({ account: Schema.String, cents: Schema.Int }),
 *   unique: Topic.latest
 * })
 * ```
 */
export const latest: Coalescing = {
  _tag: "Coalescing",
  keep: "last",
  delay: Duration.zero,
  limit: Duration.zero
}

/**
 * For `unique`: messages of an id become one, with the last payload, until none has followed for as long as `quiet`. It is delivered
 * then, and at the latest after `limit`, counted from the first of them; without a limit it waits for as long as they keep coming.
 *
 * A message with a `delay` or `at` of its own is due then instead, but not after the limit either: `delay: 0` delivers at once. What is
 * published once the message is due begins a new one, although a queue still replaces the message until a consumer has been given
 * it. The receipt is `Replaced`, and `Stored` for the first of them. Throws on a duration of zero: that is a bug.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Saved = Topic.make("documents.saved", {
 *   payload: Schema.Struct({ id: Schema.String, revision: Schema.Int }),
 *   unique: Topic.debounce("5 seconds", { limit: "1 minute" })
 * })
 *
 * const program = Producer.publish(Saved, { id: "d-1", revision: 7 }, { id: "d-1" })
 * ```
 */
export const debounce = (quiet: Duration.Input, options: { readonly limit?: Duration.Input } = {}): Coalescing => ({
  _tag: "Coalescing",
  keep: "last",
  delay: Duration.millis(millisOf("quiet", quiet)),
  limit: options.limit === undefined ? Duration.infinity : Duration.millis(millisOf("limit", options.limit))
})

/**
 * For `unique`: at most one message of an id in each `interval`. It is delivered that long after the first that was published, and
 * those that follow meanwhile become part of it: it has the payload of the last or, with `keep: "first"`, of the first of them.
 *
 * The receipt is `Stored` for the first of them, then `Replaced` or, with `keep: "first"`, `Duplicate`. Throws on a duration of
 * zero: that is a bug.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Progress = Topic.make("progress", { payload: Schema.Struct({ job: Schema.String, percent: Schema.Int }) })
 *
 * const report = (job: string, percent: number) =>
 *   Producer.publish(Progress, { job, percent }, { id: job, unique: Topic.throttle("10 seconds") })
 * ```
 */
export const throttle = (
  interval: Duration.Input,
  options: { readonly keep?: Coalescing["keep"] } = {}
): Coalescing => ({
  _tag: "Coalescing",
  keep: oneOf("keep", options.keep ?? "last", ["first", "last"]),
  delay: Duration.millis(millisOf("interval", interval)),
  limit: Duration.zero
})

const tooDeep = "it is nested too deeply"

/** Stack overflow. A defect may be anything, and may throw when it is inspected. */
const isTooDeep = (defect: unknown): boolean => {
  try {
    return defect instanceof RangeError && defect.message.includes("call stack")
  } catch {
    return false
  }
}

const catchTooDeep =
  <E2>(refuse: (issue: string) => E2) =>
  <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E | E2, R> =>
    Effect.catchDefect(self, (defect) => (isTooDeep(defect) ? Effect.fail(refuse(tooDeep)) : Effect.die(defect)))

const described = (issue: SchemaIssue.Issue): string => {
  try {
    return describe(issue)
  } catch (defect) {
    if (isTooDeep(defect)) return tooDeep
    throw defect
  }
}

/**
 * The schema to apply to the result of `JSON.parse`. That is JSON already, and checking every node of a large payload
 * for it costs half as much as parsing it.
 */
const takenAsJson = (ast: SchemaAST.AST): SchemaAST.AST => {
  if (isAnyJson(ast)) return new SchemaAST.Unknown(undefined, undefined, undefined, ast.context)
  if (!SchemaAST.isObjects(ast) || ast.encoding !== undefined) return ast
  const { annotations, checks, context, encoding, encodingChecks, indexSignatures, propertySignatures } = ast
  return new SchemaAST.Objects(
    propertySignatures.map(({ name, type }) => new SchemaAST.PropertySignature(name, takenAsJson(type))),
    indexSignatures.map(({ parameter, type }) => new SchemaAST.IndexSignature(parameter, takenAsJson(type))),
    annotations,
    checks,
    encoding,
    context,
    encodingChecks
  )
}

// Declared by its source, though not by its type.
const json = Schema.Json.ast as SchemaAST.Declaration

/** `Schema.Json`, and `Schema.Unknown` as encoded in a JSON codec. */
const isAnyJson = (ast: SchemaAST.AST): boolean => {
  if (ast.checks !== undefined) return false
  if (SchemaAST.isDeclaration(ast)) return ast.encoding === undefined && ast.run === json.run
  if (!SchemaAST.isUnknown(ast) || ast.encoding?.length !== 1) return false
  // Not empty: just checked.
  return isAnyJson(ast.encoding[0]!.to)
}
