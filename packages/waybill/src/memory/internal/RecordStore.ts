/**
 * Records in memory: the few Redis commands that commits and their readers use, with the same replies and errors.
 *
 * @module
 */
import type { Exit } from "effect/Exit"
import type { Condition, Query, RecordType, Reply, Write } from "../../Commit.ts"

type Value =
  | { readonly type: "string"; readonly value: string; readonly expiresAt: number }
  | { readonly type: "hash"; readonly value: Map<string, string> }
  | { readonly type: "set"; readonly value: Set<string> }
  | { readonly type: "zset"; readonly value: Map<string, number> }
  | { readonly type: "list"; readonly value: Array<string> }

type Of<T extends RecordType> = Extract<Value, { readonly type: T }>["value"]

export class RecordStore {
  readonly #values = new Map<string, Value>()

  /** Why the command may not be run, if that is known beforehand. */
  objection({ key, type }: Condition | Write, now: number): string | undefined {
    const found = this.#at(key, now)
    return found === undefined || found.type === type ? undefined : `the record is not a ${type}`
  }

  /** Makes the write. Returns the error if it failed, in which case nothing has changed. */
  write(write: Write, now: number): string | undefined {
    const { command, key } = write
    const args = write.args.map(String)
    const [first = "", second = "0"] = args
    const found = this.#at(key, now)
    if (command === "DEL") {
      this.#values.delete(key)
      return undefined
    }
    if (found !== undefined && found.type !== write.type) return wrongType
    switch (command) {
      case "SET":
        this.#values.set(key, {
          type: "string",
          value: first,
          expiresAt: args[1] === "PX" ? now + Number(args[2]) : Infinity
        })
        return undefined
      case "INCRBY": {
        const { expiresAt, value } = found?.type === "string" ? found : { expiresAt: Infinity, value: "0" }
        const sum = added(value, first)
        if (sum === undefined) return "ERR value is not an integer or out of range"
        this.#values.set(key, { type: "string", value: sum, expiresAt })
        return undefined
      }
      case "HSET": {
        const hash = this.#open(key, "hash", now, new Map())
        for (let i = 0; i + 1 < args.length; i += 2) hash.set(args[i]!, args[i + 1]!)
        return undefined
      }
      case "HINCRBY": {
        const before = found?.type === "hash" ? found.value.get(first) : undefined
        const sum = added(before ?? "0", second)
        if (sum === undefined) return "ERR hash value is not an integer"
        this.#open(key, "hash", now, new Map()).set(first, sum)
        return undefined
      }
      case "HDEL":
      case "SREM":
      case "ZREM":
        if (found?.type === "hash" || found?.type === "set" || found?.type === "zset") {
          for (const member of args) found.value.delete(member)
          if (found.value.size === 0) this.#values.delete(key)
        }
        return undefined
      case "SADD": {
        const members = this.#open(key, "set", now, new Set())
        for (const member of args) members.add(member)
        return undefined
      }
      case "ZADD":
        this.#open(key, "zset", now, new Map()).set(second, scoreOf(first))
        return undefined
      case "ZINCRBY": {
        const before = found?.type === "zset" ? (found.value.get(second) ?? 0) : 0
        const sum = before + scoreOf(first)
        if (Number.isNaN(sum)) return "ERR resulting score is not a number (NaN)"
        this.#open(key, "zset", now, new Map()).set(second, sum)
        return undefined
      }
      case "RPUSH":
        this.#open(key, "list", now, []).push(...args)
        return undefined
      case "LPUSH":
        this.#open(key, "list", now, []).unshift(...args.toReversed())
        return undefined
      case "LTRIM": {
        if (found?.type !== "list") return undefined
        const kept = rangeOf(found.value, Number(first), Number(second))
        if (kept.length === 0) this.#values.delete(key)
        else found.value.splice(0, found.value.length, ...kept)
        return undefined
      }
      default:
        return `ERR unknown command '${command}'`
    }
  }

  /** The result of the query, or undefined if the record is of another type. */
  ask<A, E>({ args, command, decode, key, type }: Query<A, E>, now: number): Exit<A, E> | undefined {
    const found = this.#at(key, now)
    if (found !== undefined && found.type !== type) return undefined
    return decode(replyOf(command, args.map(String), found))
  }

  /** Whether the condition holds. The record is of its type, or missing. */
  holds({ args, command, expected, key, orAbsent }: Condition, now: number): boolean {
    const reply = replyOf(command, args.map(String), this.#at(key, now))
    return reply === null ? expected === null || orAbsent === true : String(reply) === expected
  }

  #at(key: string, now: number): Value | undefined {
    const found = this.#values.get(key)
    if (found?.type !== "string" || found.expiresAt > now) return found
    this.#values.delete(key)
    return undefined
  }

  /** The value under the key, which is known to be of this type or missing. */
  #open<T extends Exclude<RecordType, "string">>(key: string, type: T, now: number, empty: Of<T>): Of<T> {
    const found = this.#at(key, now)
    if (found !== undefined) return found.value as Of<T>
    // The type parameter ties the two together.
    this.#values.set(key, { type, value: empty } as unknown as Value)
    return empty
  }
}

const wrongType = "WRONGTYPE Operation against a key holding the wrong kind of value"

const replyOf = (command: string, args: ReadonlyArray<string>, found: Value | undefined): Reply => {
  const [first = ""] = args
  if (found === undefined) {
    return command === "GET" || command === "HGET" ? null : command === "SISMEMBER" ? 0 : []
  }
  switch (found.type) {
    case "string":
      return found.value
    case "hash":
      return command === "HGET" ? (found.value.get(first) ?? null) : [...found.value].flat()
    case "set":
      return command === "SISMEMBER" ? Number(found.value.has(first)) : [...found.value]
    case "zset":
      return [...found.value]
        .sort(([a, x], [b, y]) => (x === y ? (a < b ? -1 : 1) : x - y))
        .flatMap(([member, score]) => [member, String(score).replace("Infinity", "inf")])
    case "list":
      return rangeOf(found.value, Number(first), Number(args[1]))
  }
}

/** Redis counts in 64 bits, and only accepts numbers in the form in which it writes them. */
const added = (value: string, amount: string): string | undefined => {
  if (!/^(?:0|-?[1-9]\d{0,18})$/.test(value)) return undefined
  const sum = BigInt(value) + BigInt(amount)
  return BigInt.asIntN(64, sum) === sum ? String(sum) : undefined
}

const scoreOf = (text: string): number => (text === "+inf" ? Infinity : text === "-inf" ? -Infinity : Number(text))

/** From `start` to `stop`, both included; negative ones are counted from the end. */
const rangeOf = (list: ReadonlyArray<string>, start: number, stop: number): Array<string> =>
  list.slice(start, stop === -1 ? undefined : stop + 1)
