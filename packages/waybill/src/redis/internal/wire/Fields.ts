/**
 * Reading data from Redis: bytes become text only if they are text, and nothing that another program wrote makes this
 * throw.
 *
 * @module
 */
import type { Failure } from "../../../Failure.ts"
import type { Body, Headers, Message } from "../../../Message.ts"

/** Alternating field names and values, as Redis stores them. */
export type Fields = ReadonlyArray<string>

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Text if the bytes are text, otherwise the bytes. */
export const bodyOf = (bytes: Uint8Array): Body => {
  try {
    return utf8.decode(bytes)
  } catch {
    return bytes
  }
}

/** Headers are a JSON object of strings. */
export const headersOf = (json: string): Headers | undefined => {
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch {
    return undefined
  }
  return isHeaders(parsed) ? Object.freeze(parsed) : undefined
}

export const isHeaders = (value: unknown): value is Headers =>
  typeof value === "object" &&
  value !== null &&
  !Array.isArray(value) &&
  Object.values(value).every((each) => typeof each === "string")

export const wholeOf = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined

/** A failure as it is stored. */
export const failureText = (failure: Failure | undefined): string =>
  failure === undefined ? "" : JSON.stringify({ tag: failure.tag, message: failure.message, fields: failure.fields })

/** The fields of an equal message. */
export const fieldsOf = ({
  body,
  headers,
  key,
  version
}: Pick<Message, "body" | "headers" | "key" | "version">): Array<string | Uint8Array> => {
  const fields: Array<string | Uint8Array> = ["payload", body]
  if (Object.keys(headers).length > 0) fields.push("headers", JSON.stringify(headers))
  if (key !== undefined) fields.push("key", key)
  if (version !== 1) fields.push("v", String(version))
  return fields
}

let lastPrefix = "no id"
let lastMillis = 0

/** The milliseconds in the id of a stream entry. */
export const millisOf = (entry: string): number => {
  // Many messages are published in the same millisecond, and parsing it each time is a twentieth of what a message costs.
  if (entry.startsWith(lastPrefix)) return lastMillis
  const end = entry.indexOf("-")
  if (end < 1) return Number.NaN
  lastPrefix = entry.slice(0, end + 1)
  lastMillis = Number(entry.slice(0, end))
  return lastMillis
}

/** The order of stream ids, as far as numbers can tell. */
export const precedes = (a: string, b: string): boolean => {
  const [x, y] = [millisOf(a), millisOf(b)]
  return x !== y ? x < y : Number(a.slice(a.indexOf("-") + 1)) < Number(b.slice(b.indexOf("-") + 1))
}
