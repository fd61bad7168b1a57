/**
 * A topic is a name and a schema: pure data, shared by producers and consumers. A payload that does not fit the
 * schema is never published, and one that arrives invalid never reaches a handler.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import { Inspector } from "./Inspector.ts"
import { bytesOf } from "./internal/Budget.ts"
import { oneOf, shown, wholeOf } from "./internal/Limits.ts"
import { isName } from "./internal/Name.ts"
import { safe, safeLines } from "./internal/SafeText.ts"
import type { Body } from "./Message.ts"
import { defaultName, type Guarantee, type Name, type Needs, type Transport } from "./Transport.ts"

export interface Topic<
  in out Payload,
  out On = Needs<"at-least-once">,
  out DecodingServices = never,
  out EncodingServices = never
> {
  readonly name: string
  /** The transport it lives on: the program's default for its guarantee, or a named one. */
  readonly on: Name<On>
  /** Version of the payload's schema; travels with every message. */
  readonly version: number
  /** The most bytes a message may have in UTF-8: body, headers, id and key together. */
  readonly maxBytes: number
  /** Messages with the same key must stay in order, where the transport supports it. */
  readonly key: (payload: Payload) => string | undefined
  /** Encodes to JSON text, checked against the schema and the size limit. */
  readonly encode: (payload: Payload) => Effect.Effect<string, InvalidPayload | PayloadTooLarge, EncodingServices>
  readonly decode: (body: Body) => Effect.Effect<Payload, DecodeFailure, DecodingServices>
}

/** The part of a topic that inspection needs. */
export interface Inspected<out Payload, out On, out DecodingServices = never> {
  readonly name: string
  readonly on: Effect.Effect<Pick<Transport, "inspector">, never, On>
  readonly decode: (body: Body) => Effect.Effect<Payload, DecodeFailure, DecodingServices>
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

interface Options<S extends Schema.Constraint> {
  readonly payload: S
  readonly key?: (payload: S["Type"]) => string | undefined
  readonly version?: number
  readonly maxBytes?: number
}

const describe = SchemaIssue.makeFormatterDefault()

/**
 * Defines a topic.
 *
 * - `payload`: its JSON form is `Schema.toCodecJson(payload)`, so dates, bigints and options survive.
 * - `key`: messages with the same key must stay in order, where the transport supports it. None by default.
 * - `version`: the version of the schema, 1 by default.
 * - `guarantee`: what the topic needs, `at-least-once` by default. It lives on the program's default transport for that.
 * - `on`: the name of its transport, in a program with several. The topic then needs what the name promises.
 * - `maxBytes`: the most UTF-8 bytes of a message's encoded payload, headers, id and key together; 1 MiB by default.
 *
 * Throws on an invalid name (empty, longer than 200 characters, or with white space, braces or half of a surrogate
 * pair): that is a bug.
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
  <S extends Schema.Constraint, G extends Guarantee = "at-least-once">(
    name: string,
    options: Options<S> & { readonly guarantee?: G; readonly on?: never }
  ): Topic<S["Type"], Needs<G>, S["DecodingServices"], S["EncodingServices"]>
  <S extends Schema.Constraint, On>(
    name: string,
    options: Options<S> & { readonly on: Name<On>; readonly guarantee?: never }
  ): Topic<S["Type"], On, S["DecodingServices"], S["EncodingServices"]>
} = <S extends Schema.Constraint, On>(
  name: string,
  options: Options<S> & { readonly on?: Name<On>; readonly guarantee?: Guarantee }
): Topic<S["Type"], On, S["DecodingServices"], S["EncodingServices"]> => {
  if (!isName(name)) {
    throw new Error(`invalid topic name ${shown(name)}: use 1 to 200 characters without white space or braces`)
  }
  const guarantee = options.guarantee ?? "at-least-once"
  oneOf("guarantee", guarantee, ["at-most-once", "at-least-once", "transactional"])
  if (options.on !== undefined && options.guarantee !== undefined) {
    throw new Error(`topic ${name} is on ${options.on.key}, whose name sets the guarantee: leave guarantee out`)
  }
  wholeOf("version", options.version ?? 1)
  wholeOf("maxBytes", options.maxBytes ?? defaultMaxBytes)
  const codec = Schema.toCodecJson(options.payload)
  // Compiled where the platform allows it, interpreted elsewhere: the same results at a quarter of the cost.
  const fromParsed = Schema.make<typeof codec>(takenAsJson(codec.ast))
  SchemaJITCompiler.enable(fromParsed.ast)
  SchemaJITCompiler.enable(Schema.flip(codec).ast)
  const encodeUnknown = SchemaParser.encodeUnknownEffect(codec)
  const decodeUnknown = SchemaParser.decodeUnknownEffect(fromParsed)
  const limit = options.maxBytes ?? defaultMaxBytes

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
    name,
    // Without a name, On is the default one of the guarantee.
    on: options.on ?? (defaultName(guarantee) as Name<unknown> as Name<On>),
    version: options.version ?? 1,
    maxBytes: limit,
    key: options.key ?? (() => undefined),
    encode: (payload) => {
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
    decode: (body) => {
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
