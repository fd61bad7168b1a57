/**
 * A commit describes, as data, the outcome a handler wants: writes and messages that are applied together with the ack
 * of its delivery, all of them exactly once or none at all.
 *
 * Writes go to records: named values beside the topic, read back with `Records`. Topics whose names agree up to the first
 * slash share their records: `ledger/transfers` and `ledger/reports` write to the same `balances`.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import { sizeOf, Sized } from "./internal/CommitSize.ts"
import { shown } from "./internal/Limits.ts"
import { isName } from "./internal/Name.ts"
import { safe, safeLines } from "./internal/SafeText.ts"
import type { Outgoing } from "./Message.ts"

/** The type of a record's value, as Redis names it. */
export type RecordType = "string" | "hash" | "set" | "zset" | "list"

/** One write to one record. */
export interface Write {
  readonly key: string
  readonly type: RecordType
  /** The Redis command, with the arguments that follow the key. */
  readonly command: string
  readonly args: ReadonlyArray<string | number>
}

/** A message for a topic whose name agrees with that of the consumed topic up to the first slash. */
export interface Publication {
  readonly topic: string
  /** The name of the transport that the topic is on, which must be that of the consumed topic. */
  readonly on?: Context.Key<unknown, unknown> | undefined
  readonly message: Outgoing
}

/**
 * What one record, or one field or member of it, must hold for a commit to be applied. It is made by `is` of a record, or by
 * `Records.observe`.
 */
export interface Condition {
  readonly key: string
  readonly type: RecordType
  /** The command in Redis that reads it, with the arguments that follow the key. */
  readonly command: Lookup<unknown>["command"]
  readonly args: ReadonlyArray<string | number>
  /** The reply as text; `null` when there must be none. */
  readonly expected: string | null
  /** Also holds if the record is absent. */
  readonly orAbsent?: boolean | undefined
}

/**
 * `C` is `Condition` when there are conditions, which the consumer then needs a route for, and otherwise `never`.
 */
export interface Commit<out C extends Condition = never> {
  readonly writes: ReadonlyArray<Write>
  readonly messages: ReadonlyArray<Publication>
  readonly conditions: ReadonlyArray<C>
}

/**
 * A condition did not hold, so nothing was applied. The handler runs again if its route retries. `field` is that of a hash,
 * or the member of a set.
 */
export class ConditionFailed extends Schema.TaggedError<ConditionFailed>("waybill/ConditionFailed")("ConditionFailed", {
  key: Schema.String,
  field: Schema.optionalKey(Schema.String)
}) {
  override get message(): string {
    const place = this.field === undefined ? this.key : `${this.field} in ${this.key}`
    return safeLines(`the record ${place} does not hold what the commit requires`)
  }
}

/** A question about one record. `A` is the type of the result, `E` the error for a result that cannot be read. */
export interface Query<out A, out E = never> {
  readonly key: string
  readonly type: RecordType
  /** The Redis command, with the arguments that follow the key. */
  readonly command: string
  readonly args: ReadonlyArray<string | number>
  readonly decode: (reply: Reply) => Exit.Exit<A, E>
}

/** A query for a single value, which a condition can be about. */
export interface Lookup<out A, out E = never> extends Query<A, E> {
  readonly command: "GET" | "HGET" | "SISMEMBER"
}

/** A store's reply to a query, in the form Redis gives it. */
export type Reply = string | number | null | ReadonlyArray<string>

/** The most conditions, writes and messages one commit may have, and the most arguments one write may have. */
const maxParts = 1000

/** The most characters one commit may have, counting the arguments of its writes and conditions and every part of its messages. */
const maxUnits = 16 * 1024 * 1024

/**
 * Combines writes and messages into one commit, applied in this order, writes first. An empty commit only marks the
 * message as done.
 *
 * With conditions, it is applied only if all of them hold at that moment. If one does not, nothing is applied, and the handler
 * fails with `ConditionFailed`, which needs a route and runs the handler again if that route retries.
 *
 * Throws on more than 1,000 conditions, writes and messages, more than 1,000 arguments to one write, or more than 16 Mi
 * characters in all: the server does nothing else while it applies a commit.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Consumer, Topic } from "waybill"
 *
 * const Transfer = Topic.make("ledger/transfers", {
 *   payload: Schema.Struct({ from: Schema.String, to: Schema.String, cents: Schema.Int }),
 *   guarantee: "transactional"
 * })
 * const balances = Commit.hash("balances")
 *
 * const Ledger = Consumer.make(Transfer, { group: "ledger" }).pipe(
 *   Consumer.transactional(({ cents, from, to }) =>
 *     Effect.succeed(Commit.make({ writes: [balances.increment(from, -cents), balances.increment(to, cents)] }))
 *   ),
 *   Consumer.layer
 * )
 * ```
 */
export function make(parts: Parts<never>): Commit
export function make(parts: Parts<Condition>): Commit<Condition>
export function make<C extends Condition>({ conditions = none, messages = none, writes = none }: Parts<C>): Commit<C> {
  const parts = conditions.length + writes.length + messages.length
  if (parts > maxParts) {
    throw new Error(`a commit takes at most ${maxParts} conditions, writes and messages, got ${parts}`)
  }
  for (const { args, command, key } of writes) {
    if (args.length > maxParts) {
      throw new Error(
        `${command} of ${key} takes at most ${maxParts} arguments, got ${args.length}: split it into several writes`
      )
    }
  }
  const commit = new Made(conditions, writes, messages)
  const units = sizeOf(commit)
  if (units > maxUnits) throw new Error(`a commit takes at most ${maxUnits} characters, got ${units}`)
  for (const { message, topic } of messages) {
    if (typeof topic !== "string" || typeof message.body !== "string")
      throw new Error("invalid message in a commit: make it with Producer.message")
  }
  for (const { command, key, type } of writes) {
    if (typeof command !== "string" || typeof key !== "string" || !recordTypes.includes(type)) {
      throw new Error("invalid write in a commit: make it with a record, such as Commit.hash")
    }
  }
  for (const { args, command, expected, key, type } of conditions) {
    const lookup = lookups.get(command)
    const comparable = expected === null || typeof expected === "string"
    if (lookup?.type !== type || lookup.args !== args.length || typeof key !== "string" || !comparable) {
      throw new Error("invalid condition in a commit: make it with a record, or with Records.observe")
    }
  }
  return commit
}

interface Parts<C extends Condition> {
  readonly conditions?: ReadonlyArray<C>
  readonly writes?: ReadonlyArray<Write>
  readonly messages?: ReadonlyArray<Publication>
}

/** The result of `make`. It copies its arguments, so callers may keep using their arrays. */
class Made<C extends Condition> extends Sized implements Commit<C> {
  readonly conditions: ReadonlyArray<C>
  readonly writes: ReadonlyArray<Write>
  readonly messages: ReadonlyArray<Publication>

  constructor(conditions: ReadonlyArray<C>, writes: ReadonlyArray<Write>, messages: ReadonlyArray<Publication>) {
    super({ conditions, writes, messages })
    this.conditions = conditions.slice()
    this.writes = writes.slice()
    this.messages = messages.slice()
  }
}

const recordTypes: ReadonlyArray<RecordType> = ["string", "hash", "set", "zset", "list"]

/** The type of record that each command of a condition reads, and how many arguments it has after the key. */
const lookups: ReadonlyMap<Condition["command"], { readonly type: RecordType; readonly args: number }> = new Map([
  ["GET", { type: "string", args: 0 }],
  ["HGET", { type: "hash", args: 1 }],
  ["SISMEMBER", { type: "set", args: 1 }]
])

const none: ReadonlyArray<never> = []

/** An integer, 0 before the first write. */
export interface Counter {
  readonly add: (amount: number) => Write
  readonly set: (value: number) => Write
  readonly clear: Write
  readonly value: Lookup<number>
  /** Requires this value, which is 0 before the first write. */
  readonly is: (value: number) => Condition
}

/**
 * A number that grows and shrinks: `add` of two commits adds up, in whichever order they are applied. Amounts and
 * values must be safe integers; anything else throws.
 *
 * @example
 * ```ts
 * import { Commit } from "waybill"
 *
 * const handled = Commit.counter("handled")
 * const one = Commit.make({ writes: [handled.add(1)] })
 * ```
 */
export const counter = (name: string): Counter => {
  const write = writing(name, "string")
  const value: Lookup<number> = {
    key: name,
    type: "string",
    command: "GET",
    args: none,
    decode: (reply) => Exit.succeed(Number(reply ?? 0))
  }
  return {
    add: (amount) => write("INCRBY", [whole(amount)]),
    set: (value) => write("SET", [whole(value)]),
    clear: write("DEL", none),
    value,
    is: (expected) => ({ ...holding(value, String(whole(expected))), orAbsent: expected === 0 })
  }
}

/** A text, or undefined. */
export interface Text {
  /**
   * With `ttl` it disappears after that time by the store's clock. Without, it stays, and an earlier `ttl` no longer
   * applies.
   */
  readonly set: (value: string, options?: { readonly ttl?: Duration.Input | undefined }) => Write
  readonly clear: Write
  readonly value: Lookup<string | undefined>
  /** Requires this text; `undefined` requires that there is none. */
  readonly is: (value: string | undefined) => Condition
}

/**
 * A text that is written as a whole, permanently or for a limited time.
 *
 * @example
 * ```ts
 * import { Commit } from "waybill"
 *
 * const seen = Commit.text("last-seen/ada")
 * const now = Commit.make({ writes: [seen.set("Berlin", { ttl: "1 hour" })] })
 * ```
 */
export const text = (name: string): Text => {
  const write = writing(name, "string")
  const value: Lookup<string | undefined> = {
    key: name,
    type: "string",
    command: "GET",
    args: none,
    decode: (reply) => Exit.succeed(reply === null ? undefined : String(reply))
  }
  return {
    set: (value, options) => write("SET", options?.ttl === undefined ? [value] : [value, "PX", millis(options.ttl)]),
    clear: write("DEL", none),
    value,
    is: (expected) => holding(value, expected)
  }
}

/** A value with a schema, or undefined. */
export interface Value<in out A> {
  /**
   * With `ttl` it disappears after that time by the store's clock. Without, it stays, and an earlier `ttl` no longer
   * applies.
   */
  readonly set: (value: A, options?: { readonly ttl?: Duration.Input | undefined }) => Write
  readonly clear: Write
  readonly value: Lookup<A | undefined, InvalidRecord>
  /**
   * Requires this value, in its JSON form by the schema; `undefined` requires that there is none. To compare with what a read
   * returned, however it was written, use `Records.observe`.
   */
  readonly is: (value: A | undefined) => Condition
}

/** The content of a record does not fit its schema: another build or another program wrote it. */
export class InvalidRecord extends Schema.TaggedError<InvalidRecord>("waybill/InvalidRecord")("InvalidRecord", {
  key: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return safeLines(`the record ${this.key} does not fit its schema: ${this.issue}`)
  }
}

/**
 * A value that is written as a whole and read back as it was: its JSON form is `Schema.toCodecJson(schema)`. Writing
 * a value that does not fit the schema throws, because that is a bug. Reading one that another program wrote may fail
 * with `InvalidRecord`.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Records, Topic } from "waybill"
 *
 * const Signup = Topic.make("users/signups", { payload: Schema.String, guarantee: "transactional" })
 * const last = Commit.value("last-signup", Schema.Struct({ name: Schema.String, at: Schema.Date }))
 *
 * const commit = Commit.make({ writes: [last.set({ name: "ada", at: new Date(0) })] })
 * const year = Effect.map(Records.read(Signup, last.value), (signup) => signup?.at.getFullYear())
 * ```
 */
export const value = <A, I>(name: string, schema: Schema.Codec<A, I>): Value<A> => {
  const { clear, is, set, value } = text(name)
  const { decode, encode } = codecOf(name, schema)
  return {
    set: (value, options) => set(encode(value), options),
    clear,
    value: { ...value, decode: (reply) => (reply === null ? Exit.succeed(undefined) : decode(reply)) },
    is: (expected) => is(expected === undefined ? undefined : encode(expected))
  }
}

/** Values with a schema, by field. */
export interface Values<in out A> {
  readonly set: (field: string, value: A) => Write
  readonly remove: (field: string, ...more: ReadonlyArray<string>) => Write
  readonly clear: Write
  readonly get: (field: string) => Lookup<A | undefined, InvalidRecord>
  readonly all: Query<ReadonlyMap<string, A>, InvalidRecord>
  /** Requires this value in the field, compared as `is` of `value` does. */
  readonly is: (field: string, value: A | undefined) => Condition
}

/**
 * Values with a schema by field, such as a profile for each user. Otherwise the same as `value`.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Commit } from "waybill"
 *
 * const profiles = Commit.values("profiles", Schema.Struct({ born: Schema.Int }))
 * const commit = Commit.make({ writes: [profiles.set("ada", { born: 1815 })] })
 * ```
 */
export const values = <A, I>(name: string, schema: Schema.Codec<A, I>): Values<A> => {
  const { all, clear, get, is, remove, set } = hash(name)
  const { decode, encode } = codecOf(name, schema)
  const decodeAll = (found: ReadonlyMap<string, string>) => {
    const decoded = new Map<string, A>()
    for (const [field, text] of found) {
      const value = decode(text)
      if (Exit.isFailure(value)) return Exit.failCause(value.cause)
      decoded.set(field, value.value)
    }
    return Exit.succeed<ReadonlyMap<string, A>>(decoded)
  }
  return {
    set: (field, value) => set(field, encode(value)),
    remove,
    clear,
    get: (field) => ({
      ...get(field),
      decode: (reply) => (reply === null ? Exit.succeed(undefined) : decode(reply))
    }),
    all: { ...all, decode: (reply) => decodeAll(new Map(pairs(reply))) },
    is: (field, expected) => is(field, expected === undefined ? undefined : encode(expected))
  }
}

const codecOf = <A, I>(key: string, schema: Schema.Codec<A, I>) => {
  const codec = Schema.fromJsonString(Schema.toCodecJson(schema))
  const decode = Schema.decodeUnknownExit(codec)
  return {
    encode: Schema.encodeSync(codec),
    decode: (reply: Reply): Exit.Exit<A, InvalidRecord> =>
      Exit.mapError(decode(reply), ({ message }) => new InvalidRecord({ key, issue: message }))
  }
}

/** Values by field. */
export interface Hash {
  readonly set: (field: string, value: string | number) => Write
  /** Adds to the number in the field, which starts at 0. */
  readonly increment: (field: string, amount: number) => Write
  readonly remove: (field: string, ...more: ReadonlyArray<string>) => Write
  readonly clear: Write
  readonly get: (field: string) => Lookup<string | undefined>
  readonly all: Query<ReadonlyMap<string, string>>
  /** Requires this value in the field; `undefined` requires that the field is missing. */
  readonly is: (field: string, value: string | number | undefined) => Condition
}

/**
 * Values by field, such as a balance for each account.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Commit, Records, Topic } from "waybill"
 *
 * const Transfer = Topic.make("ledger/transfers", { payload: Schema.String, guarantee: "transactional" })
 * const balances = Commit.hash("balances")
 * const deposit = Commit.make({ writes: [balances.increment("ada", 500)] })
 * const cents = Records.read(Transfer, balances.get("ada"))
 * ```
 */
export const hash = (name: string): Hash => {
  const write = writing(name, "hash")
  const get = (field: string): Lookup<string | undefined> => ({
    key: name,
    type: "hash",
    command: "HGET",
    args: [sound("HGET", name, field)],
    decode: (reply) => Exit.succeed(reply === null ? undefined : String(reply))
  })
  return {
    set: (field, value) => write("HSET", [field, value]),
    increment: (field, amount) => write("HINCRBY", [field, whole(amount)]),
    remove: (field, ...more) => write("HDEL", [field, ...more]),
    clear: write("DEL", none),
    get,
    all: {
      key: name,
      type: "hash",
      command: "HGETALL",
      args: none,
      decode: (reply) => Exit.succeed(new Map(pairs(reply)))
    },
    is: (field, value) => holding(get(field), value)
  }
}

/** Unique members. */
export interface Members {
  readonly add: (member: string, ...more: ReadonlyArray<string>) => Write
  readonly remove: (member: string, ...more: ReadonlyArray<string>) => Write
  readonly clear: Write
  readonly has: (member: string) => Lookup<boolean>
  readonly all: Query<ReadonlySet<string>>
  /** Requires that the member is present, or with `false` that it is not. */
  readonly is: (member: string, present: boolean) => Condition
}

/**
 * Unique members.
 *
 * @example
 * ```ts
 * import { Commit } from "waybill"
 *
 * const customers = Commit.set("customers")
 * const welcome = Commit.make({ writes: [customers.add("ada", "grace")] })
 * ```
 */
export const set = (name: string): Members => {
  const write = writing(name, "set")
  const has = (member: string): Lookup<boolean> => ({
    key: name,
    type: "set",
    command: "SISMEMBER",
    args: [sound("SISMEMBER", name, member)],
    decode: (reply) => Exit.succeed(reply === 1)
  })
  return {
    add: (member, ...more) => write("SADD", [member, ...more]),
    remove: (member, ...more) => write("SREM", [member, ...more]),
    clear: write("DEL", none),
    has,
    all: {
      key: name,
      type: "set",
      command: "SMEMBERS",
      args: none,
      decode: (reply) => Exit.succeed(new Set(texts(reply)))
    },
    is: (member, present) => holding(has(member), present ? 1 : 0)
  }
}

/** Members, each with a score. */
export interface Scores {
  readonly set: (member: string, score: number) => Write
  readonly increment: (member: string, amount: number) => Write
  readonly remove: (member: string, ...more: ReadonlyArray<string>) => Write
  readonly clear: Write
  /** Lowest score first. */
  readonly all: Query<ReadonlyMap<string, number>>
}

/**
 * Members ordered by score, such as a ranking. Scores may have fractions; NaN throws.
 *
 * @example
 * ```ts
 * import { Commit } from "waybill"
 *
 * const ranking = Commit.sortedSet("ranking")
 * const goal = Commit.make({ writes: [ranking.increment("ada", 1)] })
 * ```
 */
export const sortedSet = (name: string): Scores => {
  const write = writing(name, "zset")
  return {
    set: (member, value) => write("ZADD", [score(value), member]),
    increment: (member, amount) => write("ZINCRBY", [score(amount), member]),
    remove: (member, ...more) => write("ZREM", [member, ...more]),
    clear: write("DEL", none),
    all: {
      key: name,
      type: "zset",
      command: "ZRANGE",
      args: [0, -1, "WITHSCORES"],
      decode: (reply) => Exit.succeed(new Map(pairs(reply).map(([member, value]) => [member, scoreOf(value)])))
    }
  }
}

/** Texts in order. */
export interface List {
  readonly append: (item: string, ...more: ReadonlyArray<string>) => Write
  readonly prepend: (item: string) => Write
  /** Keeps the last `count` and drops the rest. */
  readonly keepLast: (count: number) => Write
  readonly clear: Write
  readonly all: Query<ReadonlyArray<string>>
}

/**
 * Texts in the order they were written, such as the last ten events of an account.
 *
 * @example
 * ```ts
 * import { Commit } from "waybill"
 *
 * const events = Commit.list("events/ada")
 * const paid = Commit.make({ writes: [events.append("paid"), events.keepLast(10)] })
 * ```
 */
export const list = (name: string): List => {
  const write = writing(name, "list")
  return {
    append: (item, ...more) => write("RPUSH", [item, ...more]),
    prepend: (item) => write("LPUSH", [item]),
    keepLast: (count) => {
      if (!(Number.isSafeInteger(count) && count > 0))
        throw new Error(`keepLast must be an integer >= 1, got ${shown(count)}`)
      return write("LTRIM", [-count, -1])
    },
    clear: write("DEL", none),
    all: { key: name, type: "list", command: "LRANGE", args: [0, -1], decode: (reply) => Exit.succeed(texts(reply)) }
  }
}

const writing = (key: string, type: RecordType) => {
  if (!isName(key)) {
    throw new Error(`invalid record name ${shown(key)}: use 1 to 200 characters without white space or braces`)
  }
  return (command: string, args: ReadonlyArray<string | number>): Write => ({
    key,
    type,
    command,
    args: args.map((arg) => sound(command, key, arg))
  })
}

const holding = (
  { args, command, key, type }: Lookup<unknown, unknown>,
  expected: string | number | undefined
): Condition => ({
  key,
  type,
  command,
  args,
  expected: expected === undefined ? null : String(sound(command, key, expected))
})

/** Half of a surrogate pair would become a different text in the store, and only text can be stored. */
const sound = (command: string, key: string, arg: string | number): string | number => {
  if (typeof arg === "number" || (typeof arg === "string" && arg.isWellFormed())) return arg
  throw new Error(safe(`${command} of ${key}: arguments must be well-formed strings or numbers`))
}

const whole = (amount: number): number => {
  if (!Number.isSafeInteger(amount)) throw new Error(`an amount must be a safe integer, got ${shown(amount)}`)
  return amount
}

const millis = (input: Duration.Input): number => {
  const ttl = Math.ceil(Duration.toMillis(Duration.fromInputUnsafe(input)))
  if (!(ttl > 0 && ttl <= longestTtl)) throw new Error("ttl must be longer than 0 and end within a thousand years")
  return ttl
}

const longestTtl = 1000 * 365 * 24 * 60 * 60 * 1000

/** Redis has its own spelling of infinity. */
const score = (value: number): string | number => {
  if (Number.isNaN(value)) throw new Error("a score must be a number, got NaN")
  return value === Infinity ? "+inf" : value === -Infinity ? "-inf" : value
}

const scoreOf = (value: string): number => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : Number(value))

const texts = (reply: Reply): ReadonlyArray<string> => (typeof reply === "object" && reply !== null ? reply : none)

const pairs = (reply: Reply): Array<readonly [string, string]> => {
  const flat = texts(reply)
  const found: Array<readonly [string, string]> = []
  for (let i = 0; i + 1 < flat.length; i += 2) found.push([flat[i]!, flat[i + 1]!])
  return found
}
