/**
 * A message as one text, for a channel or a key. Anything another program put there becomes a message too: text without our
 * beginning is a payload, and a malformed text with our beginning gets a body that no topic decodes.
 *
 * Ours begins with a line of metadata, unless there is nothing but the payload:
 *
 * ```
 * waybill:1 {"producer":"k3j9x2","n":17,"at":1795447473548}
 * {"id":"o-1","cents":1200}
 * ```
 *
 * @module
 */
import { noHeaders } from "../../../internal/Headers.ts"
import type { Body, Headers } from "../../../Message.ts"
import { bodyOf, isHeaders } from "./Fields.ts"

/** A message, and its number among its producer's messages. */
export interface Envelope {
  readonly id: string | undefined
  readonly body: Body
  readonly headers: Headers
  readonly key: string | undefined
  readonly version: number
  /** When it was published, by the producer's clock. */
  readonly at: number | undefined
  readonly producer: string | undefined
  /** Counts the messages of this producer, from 1. */
  readonly number: number | undefined
  /** How often it was delivered before it was sent again. */
  readonly fence: number | undefined
  /** The topic it was published to, if its place does not tell. */
  readonly topic: string | undefined
}

/** The contents of the line besides the payload, all optional. */
export type Line = { readonly [Name in Exclude<keyof Envelope, "body">]?: Envelope[Name] | undefined }

/** The beginning of the first line: Waybill, and the version of the line. */
export const marker = "waybill:1 "

/** The text of a message. */
export const seal = (body: string, { at, fence, headers, id, key, number, producer, topic, version }: Line): string => {
  let line = ""
  if (producer !== undefined && number !== undefined) line = `,"producer":${JSON.stringify(producer)},"n":${number}`
  if (at !== undefined) line += `,"at":${at}`
  if (id !== undefined) line += `,"id":${JSON.stringify(id)}`
  if (key !== undefined) line += `,"key":${JSON.stringify(key)}`
  if (version !== undefined && version !== 1) line += `,"v":${version}`
  if (fence !== undefined) line += `,"fence":${fence}`
  if (topic !== undefined) line += `,"topic":${JSON.stringify(topic)}`
  for (const _ in headers) {
    line += `,"headers":${JSON.stringify(headers)}`
    break
  }
  // A payload that looks like a line of ours needs one before it.
  if (line === "" && !body.startsWith(marker)) return body
  return `${marker}{${line.slice(1)}}\n${body}`
}

/** The message in a text. Never throws. */
export const open = (bytes: Buffer): Envelope => {
  const text = bytes.toString()
  if (!text.startsWith(marker)) return plain(text.includes("\uFFFD") ? bodyOf(bytes) : text)
  const end = text.indexOf("\n")
  const line = lineOf(end < 0 ? text.slice(marker.length) : text.slice(marker.length, end))
  if (line === undefined) return plain(new Uint8Array(bytes))
  const body = end < 0 ? "" : text.slice(end + 1)
  return {
    id: line.id,
    // The line is what JSON.parse accepts, but it may have more bytes than characters.
    body: body.includes("\uFFFD") ? bodyOf(bytes.subarray(bytes.indexOf(10) + 1)) : body,
    headers: line.headers === undefined ? noHeaders : Object.freeze(line.headers),
    key: line.key,
    version: line.version ?? 1,
    at: line.at,
    producer: line.producer,
    number: line.number,
    fence: line.fence,
    topic: line.topic
  }
}

const plain = (body: Body): Envelope => ({
  id: undefined,
  body,
  headers: noHeaders,
  key: undefined,
  version: 1,
  at: undefined,
  producer: undefined,
  number: undefined,
  fence: undefined,
  topic: undefined
})

/** The usual line of a message on a channel: taking it apart like this costs a third of parsing it as JSON. */
const usual = /^\{"producer":"([\w-]+)","n":(\d{1,15}),"at":(\d{1,15})\}$/

const lineOf = (json: string): Line | undefined => {
  const match = usual.exec(json)
  if (match !== null) return { producer: match[1], number: Number(match[2]), at: Number(match[3]) }
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch {
    return undefined
  }
  if (!isSound(parsed)) return undefined
  const { at, fence, headers, id, key, n, producer, topic, v } = parsed
  return { at, fence, headers, id, key, number: n, producer, topic, version: v }
}

/** As it is written. */
interface Sound extends Omit<Line, "number" | "version"> {
  readonly n?: number
  readonly v?: number
}

/** Whether every field is absent or valid; other fields are ignored. */
const isSound = (line: unknown): line is Sound => {
  if (typeof line !== "object" || line === null || Array.isArray(line)) return false
  const { at, fence, headers, id, key, n, producer, topic, v }: { readonly [Name in keyof Sound]?: unknown } = line
  return (
    (id === undefined || (isText(id) && id !== "")) &&
    (key === undefined || isText(key)) &&
    (producer === undefined || isText(producer)) &&
    (at === undefined || isWhole(at)) &&
    (n === undefined || isWhole(n)) &&
    (v === undefined || isWhole(v)) &&
    (fence === undefined || isWhole(fence)) &&
    (topic === undefined || isText(topic)) &&
    (headers === undefined || isHeaders(headers))
  )
}

const isText = (value: unknown): boolean => typeof value === "string"
const isWhole = (value: unknown): boolean => Number.isSafeInteger(value) && Number(value) >= 0
