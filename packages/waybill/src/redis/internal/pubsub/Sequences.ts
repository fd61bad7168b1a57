/**
 * Detects missing messages: each producer numbers its messages on a channel, so a skipped number is a message that never
 * arrived. What numbers cannot tell after a lost connection is a range of unknown size.
 *
 * @module
 */
import type { MissingRange } from "../../../internal/Inbox.ts"
import type { Envelope } from "../wire/Envelope.ts"

interface Last {
  number: number
  id: string
}

/** One channel, as far as it was heard. */
class Heard {
  readonly producers = new Map<string, Last>()
  /** How many interruptions there had been at the last message. */
  interruptions: number
  /** Producers that were never heard may have sent something while no subscriber listened. */
  uncertain = false
  lastId: string | undefined

  constructor(interruptions: number) {
    this.interruptions = interruptions
  }
}

/** How many are remembered; a forgotten one counts as new. */
const mostProducers = 10_000
const mostChannels = 10_000

export class Sequences {
  readonly #channels = new Map<string, Heard>()
  #interruptions = 0
  #channel = ""
  #heard: Heard | undefined
  #producer = ""
  #last: Last | undefined

  /** Messages sent between now and the last one may be lost. */
  interrupt(): void {
    this.#interruptions++
  }

  /** Records an arrived message; returns what is missing before it. */
  follow(channel: string, { number, producer }: Envelope, id: string): MissingRange | undefined {
    let heard = this.#heard
    if (heard === undefined || channel !== this.#channel) heard = this.#listenTo(channel)
    const resumed = heard.interruptions !== this.#interruptions
    if (resumed) {
      heard.interruptions = this.#interruptions
      heard.uncertain = true
    }
    const before = heard.lastId
    heard.lastId = id
    let told = resumed
    if (producer !== undefined && number !== undefined) {
      const last = producer === this.#producer && this.#last !== undefined ? this.#last : this.#find(heard, producer)
      if (last !== undefined) {
        const missed = number - last.number - 1
        const after = last.id
        if (missed >= 0) {
          last.number = number
          last.id = id
        }
        if (missed > 0) return { missed, after, reason: "disconnected" }
      } else {
        remember(heard.producers, producer, { number, id }, mostProducers)
        told ||= number > 1
      }
    }
    if (!heard.uncertain || !told) return undefined
    heard.uncertain = false
    return { missed: undefined, after: before, reason: "disconnected" }
  }

  #listenTo(channel: string): Heard {
    let heard = this.#channels.get(channel)
    // Nothing was expected of a channel that appears for the first time, until the connection was lost.
    if (heard === undefined) remember(this.#channels, channel, (heard = new Heard(0)), mostChannels)
    this.#channel = channel
    this.#heard = heard
    this.#last = undefined
    return heard
  }

  #find(heard: Heard, producer: string): Last | undefined {
    this.#producer = producer
    return (this.#last = heard.producers.get(producer))
  }
}

const remember = <A>(map: Map<string, A>, key: string, value: A, most: number): void => {
  if (map.size >= most) for (const oldest of map.keys()) return void (map.delete(oldest), map.set(key, value))
  map.set(key, value)
}
