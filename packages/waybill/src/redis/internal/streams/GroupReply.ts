/**
 * Replies of XREADGROUP, read off the socket at a fraction of the cost of the client's decoder, which makes a buffer and then a
 * string of every part of every entry. Falls back to ioredis for anything unexpected; this is only an
 * optimisation.
 *
 * @module
 */
import type { Redis } from "ioredis"

/** For each stream its key and its entries: the id, and alternating field names and values. */
export type GroupReply = ReadonlyArray<
  readonly [key: string, entries: ReadonlyArray<readonly [id: string, fields: ReadonlyArray<string>]>]
>

/**
 * The reply to the XREADGROUP that `send` sends on this client. Nothing else may be under way on its connection until then.
 * Of a reply much larger than `bytes`, only the first entries of about that size are kept, and `cut` is called.
 */
export const readGroup = async (
  client: Redis,
  send: () => Promise<GroupReply | null>,
  bytes = Infinity,
  cut: () => void = () => {}
): Promise<GroupReply | null> => {
  const tap = tapOf(client)
  if (tap === undefined) return send()
  tap.expect(bytes)
  const reply = await send()
  const taken = tap.take()
  if (taken === undefined) return reply
  if (taken.cut) cut()
  return taken.reply
}

/** A client lives as long as its socket. */
const taps = new WeakMap<Redis, Tap | undefined>()

const tapOf = (client: Redis): Tap | undefined => {
  if (!taps.has(client)) taps.set(client, tapInto(client.stream))
  return taps.get(client)
}

type Listener = (chunk: Buffer) => void

const tapInto = (stream: Redis["stream"]): Tap | undefined => {
  const listeners = stream.listeners("data")
  // The client's decoder, without another listener that would have to see every byte as well.
  if (listeners.length !== 1) return undefined
  const decoder = listeners[0] as Listener // what listens to "data" takes chunks
  const tap = new Tap(decoder)
  stream.prependListener("data", tap.listener)
  stream.removeListener("data", decoder)
  return tap
}

/** What the client sees instead of a reply that was taken: nothing to read. */
const nothing = Buffer.from("_\r\n")

class Tap {
  readonly #decoder: Listener
  #expecting = false
  #bytes = Infinity
  #parser: Parser | undefined
  #read: Parser | undefined

  constructor(decoder: Listener) {
    this.#decoder = decoder
  }

  /** The next bytes begin a reply of XREADGROUP, or an error. */
  expect(bytes: number): void {
    this.#expecting = true
    this.#bytes = bytes
    this.#read = undefined
  }

  take(): Parser | undefined {
    const read = this.#read
    this.#expecting = false
    this.#read = undefined
    return read
  }

  readonly listener: Listener = (chunk) => {
    if (this.#parser === undefined) {
      const begins = this.#expecting && chunk[0] === map
      this.#expecting = false
      if (!begins) return this.#decoder(chunk)
      this.#parser = new Parser(this.#bytes)
    }
    const parser = this.#parser
    const rest = parser.write(chunk)
    if (rest === "more") return
    this.#parser = undefined
    if (rest === "odd") {
      for (const seen of parser.chunks) this.#decoder(seen)
    } else {
      this.#read = parser
      this.#decoder(nothing)
      if (rest < chunk.length) this.#decoder(chunk.subarray(rest))
    }
  }
}

/** The first byte of each kind of part. */
const map = 37 // %
const array = 42 // *
const blob = 36 // $
const cr = 13

/** The part is incomplete so far. */
const more = -1
/** Not a part that a reply of XREADGROUP has in this place. */
const odd = -2

const none = Buffer.alloc(0)

const payload = Buffer.from("payload")

/** Reads one reply in as many chunks as it arrives in. */
class Parser {
  /** Everything seen so far, for the client in case this is something else; empty once that is too much to keep. */
  chunks: Array<Buffer> = []
  readonly reply: Array<[key: string, entries: Array<[id: string, fields: Array<string>]>]> = []
  /** The data being read, and the position. */
  #data: Buffer = none
  #at = 0
  /** Where the current part begins. */
  #begin = 0
  /** The least size of that part, if it is incomplete. */
  #needed = 0
  /** Its pieces so far: they are joined once, when all of them are there, and nothing else is copied. */
  #pieces: Array<Buffer> = []
  #gathered = 0
  /** How many streams the reply has, how many entries of the current one remain, and how many names and values of the current entry. */
  #streams = more
  #entries = 0
  #fields = 0
  #inStream: Array<[id: string, fields: Array<string>]> = []
  #inEntry: Array<string> = []
  readonly #bytes: number
  #kept = 0
  /** There was more than is kept: the entries from here on are read and dropped. */
  cut = false

  constructor(bytes: number) {
    this.#bytes = bytes
  }

  /** Where in the chunk the reply ended, if it did. */
  write(chunk: Buffer): number | "more" | "odd" {
    if (!this.cut) this.chunks.push(chunk)
    let from = 0
    while (true) {
      const begun = this.#gathered > 0
      if (begun) {
        // Only as much of the chunk as the part lacks.
        const piece = chunk.subarray(from, from + this.#needed - this.#gathered)
        this.#pieces.push(piece)
        this.#gathered += piece.length
        from += piece.length
        if (this.#gathered < this.#needed) return "more"
        this.#data = Buffer.concat(this.#pieces, this.#gathered)
        this.#at = 0
      } else {
        this.#data = chunk
        this.#at = from
      }
      this.#needed = 0
      const outcome = this.#read()
      if (outcome === odd) return "odd"
      if (outcome !== more) return begun ? from - (this.#data.length - this.#at) : this.#at
      const rest = this.#data.subarray(this.#at)
      this.#pieces = rest.length === 0 ? [] : [rest]
      this.#gathered = rest.length
      this.#needed = Math.max(this.#needed, rest.length + 1)
      if (!begun || from === chunk.length) return "more"
    }
  }

  #read(): number {
    if (this.#streams === more) {
      const streams = this.#size(map)
      if (streams < 0) return streams
      this.#streams = streams
    }
    while (true) {
      // Progress is kept: an entry of very many fields is not started over with every chunk.
      this.#begin = this.#at
      let outcome: number
      if (this.#fields > 0) outcome = this.#field()
      else if (this.#entries > 0) outcome = this.#entry()
      else if (this.reply.length < this.#streams) outcome = this.#stream()
      else return this.#at
      if (outcome < 0) {
        this.#at = this.#begin
        return outcome
      }
    }
  }

  #stream(): number {
    const key = this.#text()
    if (typeof key !== "string") return key
    const size = this.#size(array)
    if (size < 0) return size
    this.#inStream = []
    this.reply.push([key, this.#inStream])
    this.#entries = size
    return size
  }

  #entry(): number {
    const parts = this.#size(array)
    if (parts !== 2) return parts < 0 ? parts : odd
    const id = this.#text()
    if (typeof id !== "string") return id
    const size = this.#size(array)
    if (size < 0) return size
    if (this.#kept > this.#bytes) {
      this.cut = true
      this.chunks = []
    }
    this.#inEntry = []
    if (!this.cut) this.#inStream.push([id, this.#inEntry])
    this.#entries--
    this.#fields = size
    return size
  }

  #field(): number {
    const text = this.#text()
    if (typeof text !== "string") return text
    if (!this.cut) {
      this.#inEntry.push(text)
      this.#kept += text.length
    }
    return --this.#fields
  }

  /** The number after this character. */
  #size(character: number): number {
    const data = this.#data
    let at = this.#at
    if (at === data.length) return more
    if (data[at] !== character) return odd
    let size = 0
    while (++at < data.length) {
      const byte = data[at]! // within bounds
      if (byte === cr) {
        if (at + 1 === data.length) return more
        this.#at = at + 2
        return size
      }
      if (byte < 48 || byte > 57) return odd
      size = size * 10 + byte - 48
    }
    return more
  }

  #text(): string | number {
    const size = this.#size(blob)
    if (size < 0) return size
    const data = this.#data
    const from = this.#at
    const to = from + size
    if (to + 2 > data.length) {
      this.#needed = to + 2 - this.#begin
      return more
    }
    this.#at = to + 2
    if (this.cut) return ""
    return isPayload(data, from, size) ? "payload" : data.toString("utf8", from, to)
  }
}

/** The name that every entry has is not a new string each time. */
const isPayload = (data: Buffer, from: number, size: number): boolean => {
  if (size !== payload.length) return false
  for (let i = 0; i < size; i++) if (data[from + i] !== payload[i]) return false
  return true
}
