/**
 * A stream entry as a delivery. Whatever the entry holds, it becomes one: what cannot be read as a message gets a body
 * that no topic decodes, and so ends in the dead letters with all its fields.
 *
 * @module
 */
import { noHeaders } from "../../../internal/Headers.ts"
import type { Body, Headers } from "../../../Message.ts"
import type { Held } from "../group/InFlight.ts"
import { bodyOf, type Fields, headersOf, millisOf, wholeOf } from "../wire/Fields.ts"
import { fresh, read, type Tally, unknown } from "../wire/Tally.ts"

/** Where an entry lies: in the topic's stream, or in the group's retry stream. */
export type Source = 0 | 1

/** Always in this shape, in this order: tens of thousands a second are made. */
export class StreamDelivery implements Held {
  readonly topic: string
  readonly group: string
  readonly source: Source
  /** Id of the stream entry. */
  readonly entry: string
  /** How often the entry has been delivered, this time included: with the owner it decides whose the delivery is. */
  readonly count: number
  id: string
  body: Body
  headers: Headers
  key: string | undefined
  version: number
  publishedAt: number
  attempt: number
  fence: number
  /** With the fence it names the delivery. Made of nothing new: one string less for each message. */
  readonly receipt: string
  renewedAt: number
  readonly takenAt: number
  holder: object | undefined = undefined
  before: this | undefined = undefined
  after: this | undefined = undefined
  /** It is being settled: if the server says it is no longer ours, that may be our own doing. */
  settling = false
  /** The group was lost, and the entry with it; what is here is all there is. */
  detached = false
  tally: Tally = fresh

  constructor(
    topic: string,
    group: string,
    source: Source,
    entry: string,
    count: number,
    released: number,
    fields: Fields,
    now: number
  ) {
    this.topic = topic
    this.group = group
    this.source = source
    this.entry = entry
    this.count = count
    this.id = entry
    this.body = ""
    this.headers = noHeaders
    this.key = undefined
    this.version = 1
    this.publishedAt = 0
    this.attempt = count - released
    this.fence = count
    this.receipt = source === 0 ? entry : `retry:${entry}`
    this.renewedAt = now
    this.takenAt = now
    if (fields.length === 2 && fields[0] === "payload" && source === 0) {
      this.body = fields[1] as string // length is 2
      this.publishedAt = millisOf(entry)
    } else {
      this.#read(source, fields)
    }
    const died = count - released - 1
    if (died > 0) this.tally = { ...this.tally, deaths: this.tally.deaths + died }
  }

  get failures(): Tally["failures"] {
    return this.tally.failures
  }

  /**
   * Puts the bytes of the entry, field names and values in turn, in place of a text that may have lost some. When the
   * entry is gone meanwhile, the text is all there is.
   */
  useBytes(fields: ReadonlyArray<Uint8Array> | undefined): void {
    if (fields === undefined) return
    for (let i = 0; i + 1 < fields.length; i += 2) {
      const value = fields[i + 1]
      if (String(fields[i]) === "payload" && value !== undefined) {
        this.body = typeof this.body === "string" ? bodyOf(value) : value
      }
    }
  }

  /** Reads what the envelope says; anything that it should not say makes the body undecodable. */
  #read(source: Source, fields: Fields): void {
    let start = 0
    let sound = fields.length % 2 === 0
    let payload: string | undefined
    let publishedAt = ""
    if (source === 1 && fields[0] === "id" && fields[2] === "at" && fields[4] === "attempt" && fields[6] === "fence") {
      start = 8
      this.id = fields[1] ?? this.id
      publishedAt = fields[3] ?? ""
      this.attempt += wholeOf(fields[5]) ?? 0
      this.fence += wholeOf(fields[7]) ?? 0
      const tally = fields[8] === "tally" ? read(fields[9]) : undefined
      if (tally !== undefined) {
        start = 10
        this.tally = tally
      } else if (fields[5] !== "0") {
        this.tally = unknown
      }
    }
    for (let i = start; i + 1 < fields.length; i += 2) {
      const value = fields[i + 1] as string // i + 1 is within bounds
      switch (fields[i]) {
        case "payload":
          payload = value
          break
        case "id":
          if (start === 0 && value !== "") this.id = value
          break
        case "at":
          if (start === 0) publishedAt = value
          break
        case "key":
          this.key = value
          break
        case "v": {
          const version = wholeOf(value)
          if (version === undefined) sound = false
          else this.version = version
          break
        }
        case "headers": {
          const headers = headersOf(value)
          if (headers === undefined) sound = false
          else this.headers = headers
          break
        }
      }
    }
    const at = wholeOf(publishedAt)
    if (at === undefined && publishedAt !== "") sound = false
    this.publishedAt = at ?? millisOf(this.entry)
    this.body = payload === undefined ? new Uint8Array(0) : sound ? payload : new TextEncoder().encode(payload)
  }
}

/** The fields that make an equal message: for an entry that is no longer there to be copied. */
export const fieldsOf = (delivery: StreamDelivery): Array<string | Uint8Array> => {
  const fields: Array<string | Uint8Array> = ["payload", delivery.body]
  if (Object.keys(delivery.headers).length > 0) fields.push("headers", JSON.stringify(delivery.headers))
  if (delivery.key !== undefined) fields.push("key", delivery.key)
  if (delivery.version !== 1) fields.push("v", String(delivery.version))
  return fields
}

/**
 * Decoding bytes as text turns what is not UTF-8 into this character; only then the bytes are worth another look. Or
 * when the body was made undecodable for another reason: its bytes were never seen.
 */
export const isDoubtful = (body: Body): boolean =>
  typeof body === "string" ? body.includes("\uFFFD") : body.length > 0
