/**
 * A stream entry as a delivery. Whatever the entry holds, it becomes one: an entry that cannot be read as a message gets a body
 * that no topic decodes, and so becomes a dead letter with all its fields.
 *
 * @module
 */
import { noHeaders } from "../../../internal/Headers.ts"
import type { Body, Headers } from "../../../Message.ts"
import type { Carrying, Held } from "../group/InFlight.ts"
import { bodyOf, type Fields, headersOf, millisOf, wholeOf } from "../wire/Fields.ts"
import { fresh, read as readTally, type Tally, unknown } from "../wire/Tally.ts"

/** The place of an entry: the topic's stream, or the group's retry stream. */
export type Source = 0 | 1

export const receiptOf = (source: Source, entry: string): string => (source === 0 ? entry : `retry:${entry}`)

/** What is kept of a delivery until it is settled. Always of this shape, in this order: tens of thousands are made per second. */
export class StreamHandle implements Held {
  readonly source: Source
  /** Id of the stream entry. */
  readonly entry: string
  /** How often the entry has been delivered, including this time: with the owner it determines ownership of the delivery. */
  readonly count: number
  id: string
  publishedAt: number
  attempt: number
  fence: number
  /** Reuses an existing string: one less per message. */
  readonly receipt: string
  renewedAt: number
  readonly takenAt: number
  holder: object | undefined = undefined
  before: this | undefined = undefined
  after: this | undefined = undefined
  settling = false
  /** The group was lost with the entry; this is the only copy. */
  detached = false
  tally: Tally = fresh
  /** The first entry of a message that has its id to itself. */
  first: string | undefined = undefined

  constructor(source: Source, entry: string, count: number, released: number, now: number) {
    this.source = source
    this.entry = entry
    this.count = count
    this.id = entry
    this.publishedAt = millisOf(entry)
    this.attempt = count - released
    this.fence = count
    this.receipt = receiptOf(source, entry)
    this.renewedAt = now
    this.takenAt = now
  }
}

/** Always of this shape, in this order, as well. */
export class StreamDelivery implements Carrying<StreamHandle> {
  readonly handle: StreamHandle
  readonly topic: string
  readonly group: string
  readonly id: string
  body: Body
  headers: Headers
  key: string | undefined
  version: number
  readonly publishedAt: number
  readonly attempt: number
  readonly failures: Tally["failures"]
  readonly fence: number
  readonly receipt: string

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
    const handle = new StreamHandle(source, entry, count, released, now)
    const isPlain = fields.length === 2 && fields[0] === "payload" && source === 0
    const reading = isPlain ? undefined : read(handle, fields)
    const died = count - released - 1
    if (died > 0) handle.tally = { ...handle.tally, deaths: handle.tally.deaths + died }
    this.handle = handle
    this.topic = topic
    this.group = group
    this.id = handle.id
    this.body = reading === undefined ? (fields[1] as string) : reading.body // plain: there are two
    this.headers = reading?.headers ?? noHeaders
    this.key = reading?.key
    this.version = reading?.version ?? 1
    this.publishedAt = handle.publishedAt
    this.attempt = handle.attempt
    this.failures = handle.tally.failures
    this.fence = handle.fence
    this.receipt = handle.receipt
  }

  /**
   * Replaces a text that may have lost some bytes by the bytes of the entry, alternating field names and values. If the
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
}

/** Reads the envelope; anything it should not contain makes the body undecodable. */
const read = (handle: StreamHandle, fields: Fields) => {
  let start = 0
  let sound = fields.length % 2 === 0
  let payload: string | undefined
  let key: string | undefined
  let version = 1
  let headers = noHeaders
  let publishedAt = ""
  if (
    handle.source === 1 &&
    fields[0] === "id" &&
    fields[2] === "at" &&
    fields[4] === "attempt" &&
    fields[6] === "fence"
  ) {
    start = 8
    handle.id = fields[1] ?? handle.id
    publishedAt = fields[3] ?? ""
    handle.attempt += wholeOf(fields[5]) ?? 0
    handle.fence += wholeOf(fields[7]) ?? 0
    const tally = fields[8] === "tally" ? readTally(fields[9]) : undefined
    if (tally !== undefined) {
      start = 10
      handle.tally = tally
    } else if (fields[5] !== "0") {
      handle.tally = unknown
    }
  }
  for (let i = start; i + 1 < fields.length; i += 2) {
    const value = fields[i + 1] as string // i + 1 is within bounds
    switch (fields[i]) {
      case "payload":
        payload = value
        break
      case "id":
        if (start === 0 && value !== "") handle.id = value
        break
      case "at":
        if (start === 0) publishedAt = value
        break
      case "key":
        key = value
        break
      case "unique":
        handle.first = handle.source === 0 ? handle.entry : value
        break
      case "v": {
        const found = wholeOf(value)
        if (found === undefined) sound = false
        else version = found
        break
      }
      case "headers": {
        const found = headersOf(value)
        if (found === undefined) sound = false
        else headers = found
        break
      }
    }
  }
  const at = wholeOf(publishedAt)
  if (at === undefined && publishedAt !== "") sound = false
  handle.publishedAt = at ?? millisOf(handle.entry)
  const body: Body = payload === undefined ? new Uint8Array(0) : sound ? payload : new TextEncoder().encode(payload)
  return { body, headers, key, version }
}

/**
 * Decoding bytes as text turns invalid UTF-8 into this character; only then the bytes are read again. Or if the body was made
 * undecodable for another reason: its bytes were never seen.
 */
export const isDoubtful = (body: Body): boolean =>
  typeof body === "string" ? body.includes("\uFFFD") : body.length > 0

/** An entry as it was inspected. */
export const deliveryOf = (
  topic: string,
  group: string,
  source: Source,
  entry: string,
  count: number,
  released: number,
  fields: ReadonlyArray<Uint8Array>
): StreamDelivery => {
  const delivery = new StreamDelivery(topic, group, source, entry, count, released, fields.map(String), 0)
  delivery.useBytes(fields)
  return delivery
}
