/**
 * A message that a consumer has claimed.
 *
 * @module
 */
import { isAscii } from "node:buffer"
import type { Gap } from "../../../Gap.ts"
import { noHeaders } from "../../../internal/Headers.ts"
import type { Body, Headers } from "../../../Message.ts"
import type { Carrying, Held } from "../group/InFlight.ts"
import { millisOf } from "../wire/Fields.ts"
import { read } from "../wire/PackedMessage.ts"
import { fresh, read as readTally, type Tally } from "../wire/Tally.ts"

/** What is kept of it until it is settled. Always of this shape, in this order: tens of thousands are made per second. */
export class ClaimedHandle implements Held {
  readonly id: string
  readonly publishedAt: number
  readonly attempt: number
  readonly fence: number
  /** Its member in the consumer's processing set: the id and, except for the first delivery, `#` and the fence. */
  readonly receipt: string
  readonly tally: Tally
  renewedAt: number
  readonly takenAt: number
  /** Of a message with an id of its own, if such ids may belong to their messages alone: where it is stored. */
  readonly first: string | undefined
  holder: object | undefined = undefined
  before: this | undefined = undefined
  after: this | undefined = undefined
  settling = false

  constructor(
    id: string,
    publishedAt: number,
    attempt: number,
    fence: number,
    receipt: string,
    tally: Tally,
    first: string | undefined,
    now: number
  ) {
    this.id = id
    this.publishedAt = publishedAt
    this.attempt = attempt
    this.fence = fence
    this.receipt = receipt
    this.tally = tally
    this.renewedAt = now
    this.takenAt = now
    this.first = first
  }
}

/** Always of this shape, in this order, as well. */
export class ClaimedDelivery implements Carrying<ClaimedHandle> {
  readonly handle: ClaimedHandle
  readonly topic: string
  readonly group: string
  readonly id: string
  readonly body: Body
  readonly headers: Headers
  readonly key: string | undefined
  readonly version: number
  readonly publishedAt: number
  readonly attempt: number
  readonly failures: Tally["failures"]
  readonly fence: number
  readonly receipt: string
  gap: Gap | undefined = undefined

  /** `records` from `from` to `to` is what is stored; `text` is the same as text, if all of it is ASCII. */
  constructor(
    topic: string,
    group: string,
    member: string,
    attempt: number,
    tally: Tally,
    records: Buffer,
    text: string | undefined,
    from: number,
    to: number,
    guards: boolean,
    now: number
  ) {
    this.topic = topic
    this.group = group
    const hash = member.lastIndexOf("#")
    const entry = hash < 0 ? member : member.slice(0, hash)
    if (text !== undefined && records[from] === plain) {
      this.id = entry
      this.body = text.slice(from + 1, to)
      this.headers = noHeaders
      this.key = undefined
      this.version = 1
      this.publishedAt = millisOf(entry)
    } else {
      const reading = read(records, text, from, to)
      this.id = reading.id ?? entry
      this.body = reading.body
      this.headers = reading.headers ?? noHeaders
      this.key = reading.key
      this.version = reading.version ?? 1
      this.publishedAt = reading.publishedAt ?? millisOf(entry)
    }
    this.attempt = attempt
    this.failures = tally.failures
    this.fence = hash < 0 ? 1 : Number(member.slice(hash + 1))
    this.receipt = member
    this.handle = new ClaimedHandle(
      this.id,
      this.publishedAt,
      attempt,
      this.fence,
      member,
      tally,
      guards && this.id !== entry ? entry : undefined,
      now
    )
  }
}

/** A delivery whose record came separately. */
export const loneDelivery = (topic: string, group: string, member: string, attempt: number, record: Buffer, now = 0) =>
  new ClaimedDelivery(topic, group, member, attempt, fresh, record, undefined, 0, record.length, false, now)

/** The reply of the take script, as bytes: a whole batch is a few strings, and the records are cut out of one of them. */
type TakeReply = Readonly<Record<"members" | "lengths" | "attempts" | "records" | "tallies", Buffer>> & {
  readonly guards: boolean
}

/** The deliveries in a reply that is `OK`. */
export const deliveriesOf = (
  { attempts, guards, lengths, members, records, tallies }: TakeReply,
  topic: string,
  group: string,
  now: number
): ReadonlyArray<ClaimedDelivery> => {
  if (members.length === 0) return []
  const names = members.toString("utf8").split(" ")
  const sizes = lengths.toString("latin1").split(" ")
  const before = attempts.length === 0 ? [] : attempts.toString("latin1").split(" ")
  const noted = tallies.length === 0 ? [] : tallies.toString("utf8").split(" ")
  const text = isAscii(records) ? records.toString("latin1") : undefined
  const taken: Array<ClaimedDelivery> = []
  let from = 0
  for (let i = 0; i < names.length; i++) {
    const to = from + Number(sizes[i])
    const attempt = i < before.length ? Number(before[i]) : 1
    const name = names[i] as string // within bounds
    const tally = i < noted.length ? (readTally(noted[i]) ?? fresh) : fresh
    taken.push(new ClaimedDelivery(topic, group, name, attempt, tally, records, text, from, to, guards, now))
    from = to
  }
  return taken
}

/** The first byte of a record that is only a payload. */
const plain = 48
