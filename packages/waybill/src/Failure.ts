/**
 * A handler's failure as data that outlives the process: kept with the message, and bounded in size.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { isSmall, jsonOf, type Names, nameOf, read } from "./internal/Outline.ts"

export interface Failure {
  /** The failure's `_tag`, or else the name of the error, such as `TypeError`, or else `Failure`. */
  readonly tag: string
  /** At most 1000 characters. */
  readonly message: string
  /**
   * The other fields of the failure, as JSON of at most about 4 KiB: encoded by its schema when it is a
   * `Schema.TaggedError`, otherwise its own properties, truncated. `Redacted` values stay redacted.
   */
  readonly fields: Schema.JsonObject
}

/** An attempt that did not end with an ack. Truncated to 200 bytes in all. */
export interface FailedAttempt {
  /** The number of the attempt, from 1. */
  readonly attempt: number
  /** When it ended, in milliseconds since the epoch by the store's clock. */
  readonly endedAt: number
  readonly consumer: string
  /**
   * The failure's tag; `ConsumerDied` when the consumer died or stalled; the dead letter's reason when no handler
   * failed.
   */
  readonly tag: string
  readonly message: string
}

/** As kept with a retry: without the fields. */
export type Said = Omit<Failure, "fields">

const maxTag = 200
const maxMessage = 1000
const maxFields = 4096

/** The failure that decides how a delivery ends: the first defect, or else the first typed failure. */
const valueOf = (cause: Cause.Cause<unknown>): Option.Option<unknown> => {
  const defect = cause.reasons.find(Cause.isDieReason)
  return defect === undefined ? Cause.findErrorOption(cause) : Option.some(defect.defect)
}

/** The tag and message of a cause, on one line. Never throws. */
export const said = (cause: Cause.Cause<unknown>): Said => {
  const value = valueOf(cause)
  if (Option.isNone(value)) return { tag: "Interrupted", message: "" }
  return { tag: tagOf(value.value), message: messageOf(value.value) }
}

/** The failure in full. */
export const of = (cause: Cause.Cause<unknown>): Failure => {
  const value = valueOf(cause)
  return { ...said(cause), fields: Option.isSome(value) ? fieldsOf(value.value) : {} }
}

const tagOf = (value: unknown): string => {
  try {
    if (typeof value !== "object" || value === null) return "Failure"
    const tag = "_tag" in value && typeof value._tag === "string" ? value._tag : undefined
    return (tag ?? (value instanceof Error ? nameOf(value) : "Failure")).slice(0, maxTag).toWellFormed()
  } catch {
    return "Failure"
  }
}

const messageOf = (value: unknown): string => {
  try {
    if (typeof value !== "object" || value === null) return cut(String(value))
    // A class may compute its message from all that it holds, however large.
    const message = isSmall(value, new WeakMap()) && "message" in value ? value.message : read(value, "message")
    return typeof message === "string" ? cut(message) : ""
  } catch {
    return ""
  }
}

const cut = (text: string): string => text.slice(0, maxMessage).toWellFormed()

const fieldsOf = (value: unknown): Schema.JsonObject => {
  try {
    if (typeof value !== "object" || value === null) return {}
    const encoded = encodedBySchema(value)
    const text = encoded === undefined ? undefined : JSON.stringify(encoded)
    const json: unknown =
      text !== undefined && text.length <= maxFields ? JSON.parse(text) : jsonOf(encoded ?? value, maxFields)
    if (!Predicate.isObject(json)) return {}
    const { _tag, message: _, ...fields } = json as Schema.JsonObject // made of JSON
    return fields
  } catch {
    return {}
  }
}

type Encode = (value: unknown) => Exit.Exit<unknown, unknown>

const encoders = new WeakMap<Function, Encode>()

/** Undefined if it has no schema, or one that cannot encode it here. */
const encodedBySchema = (value: object): object | undefined => {
  const names: Names = new WeakMap()
  // Encoding would reveal what is redacted.
  if (!isSmall(value, names, Redacted.isRedacted)) return undefined
  const { constructor } = value
  if (typeof constructor !== "function" || !Schema.isSchema(constructor)) return undefined
  let encode = encoders.get(constructor)
  if (encode === undefined) {
    // The services its schema may need are not available here; without them it is not encoded by schema.
    encode = Schema.encodeUnknownExit(Schema.toCodecJson(constructor as unknown as Schema.Codec<unknown>))
    encoders.set(constructor, encode)
  }
  const exit = encode(value)
  return Exit.isSuccess(exit) && Predicate.isObject(exit.value) ? exit.value : undefined
}
