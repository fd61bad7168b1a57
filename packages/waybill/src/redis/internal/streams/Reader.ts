/**
 * Reads new messages from the topic's stream and the group's retry stream, while there is demand, on a connection of its own,
 * because a read waits on the server. Deliveries that are ours but unknown to us are found before the next read.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { textOf, wants } from "../../../internal/Filter.ts"
import type { Filter, Message } from "../../../Message.ts"
import type { Reason } from "../../../Transport.ts"
import type { Connection, Dedicated } from "../connection/Connection.ts"
import { groupGone } from "../group/Beat.ts"
import type { Fetching } from "../group/GroupReceiver.ts"
import { hurryMillis } from "../group/Heartbeat.ts"
import { precedes } from "../wire/Fields.ts"
import type { Claims, StreamBelonging } from "./Claims.ts"
import { type GroupReply, readGroup } from "./GroupReply.ts"
import { select } from "./Selection.ts"
import { isDoubtful, StreamDelivery } from "./StreamDelivery.ts"

export interface ReaderOptions extends StreamBelonging {
  readonly dedicated: Dedicated
  readonly claims: Claims
}

/** How long one read waits on the server. Short enough to notice a dead connection soon. */
const blockMillis = 2000
/** The most that the network may add to that. */
const graceMillis = 3000
/** About how much a read may bring: what a slow network carries within its deadline. */
const readUnits = 4 * 1024 * 1024

/** For how long messages that a group does not want count as its lag, at most. */
const unpassedMillis = 1000

/** Whether the script may find that the group wants it. */
const mayWant = (only: Filter | undefined, fields: ReadonlyArray<string>): boolean => {
  const named = new Map<string, string>()
  for (let i = 0; i + 1 < fields.length; i += 2) named.set(fields[i]!, fields[i + 1]!) // within bounds
  if (!named.has("payload")) return true
  try {
    const headers: unknown = JSON.parse(named.get("headers") ?? "{}")
    if (typeof headers !== "object" || headers === null) return true
    return wants(only, { headers: headers as Message["headers"], key: named.get("key") }) // compared with strings only
  } catch {
    return true
  }
}

export class Reader implements Fetching {
  readonly #options: ReaderOptions
  #connection: Connection | undefined
  calling = false
  /** How many entries a read may bring, by the size of the last ones. */
  limit = Infinity
  /** A read waits on the server until there is something. */
  readonly promising = true
  /** The last entry that a read has brought from each stream. */
  readonly #last: [string, string] = ["0-0", "0-0"]

  constructor(options: ReaderOptions) {
    this.#options = options
  }

  get unsure(): boolean {
    return this.#options.claims.unsure
  }

  set unsure(unsure: boolean) {
    this.#options.claims.unsure = unsure
  }

  get pending(): boolean {
    return this.#options.claims.pending
  }

  get open(): Effect.Effect<void, never, Scope.Scope> {
    const { dedicated, keys, subscription, topic } = this.#options
    return Effect.map(dedicated(`reader:${topic}:${subscription.group}`, keys.stream), (connection) => {
      this.#connection = connection
    })
  }

  readonly unblock: Effect.Effect<void> = Effect.suspend(() =>
    this.calling && this.#connection !== undefined ? this.#connection.unblock : Effect.void
  )

  fetch(max: number): Effect.Effect<void, Reason> {
    const { claims, receiver, subscription } = this.#options
    const connection = this.#connection
    return Effect.gen({ self: this }, function* () {
      if (connection === undefined) return
      if (claims.unsure) {
        const { unheard } = receiver
        // Deliveries lost from here on are checked the next time.
        const lost = [...unheard.keys()]
        yield* claims.adoptUnknown(
          (source, entry) =>
            !precedes(this.#last[source], entry) || unheard.has(source === 0 ? entry : `retry:${entry}`)
        )
        // Some are left for the next time.
        if (claims.unsure) return yield* Effect.sleep(hurryMillis)
        for (const receipt of lost) unheard.delete(receipt)
        claims.unsure = unheard.size > 0
        return
      }
      // Messages that came back precede new ones.
      if (claims.pending) {
        yield* claims.takeOver(receiver.inFlight.demand)
        if (!receiver.wanting) return
      }
      this.calling = true
      const reply = yield* (
        subscription.only === undefined ? this.#wait(connection, max) : this.#select(connection, max)
      ).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            this.calling = false
            // The server may have delivered something that the reply did not bring.
            if (Exit.isFailure(exit)) claims.unsure = true
          })
        ),
        // The read is about two keys and the reply about one of them; the beat tells which.
        Effect.catchIf(
          (reason) => reason._tag === "WrongKeyType",
          () => {
            receiver.expect(0)
            return Effect.as(Effect.sleep(hurryMillis), null)
          }
        )
      )
      if (reply !== null) yield* this.#receive(reply)
    })
  }

  /** Reads what there is, or waits for it on the server. */
  #wait(connection: Connection, max: number): Effect.Effect<GroupReply | null, Reason> {
    const { keys } = this.#options
    return connection.run("xreadgroup", [keys.stream, keys.retry], (client) => this.#read(client, max), {
      deadline: blockMillis + graceMillis
    })
  }

  /** For a group with a filter: the server selects, and a read that takes nothing waits for more. */
  #select(connection: Connection, max: number): Effect.Effect<GroupReply | null, Reason> {
    const { call, keys, receiver, subscription } = this.#options
    const { group, only } = subscription
    const { retry, stream } = keys
    return Effect.gen({ self: this }, function* () {
      if (receiver.halted) return null
      const bytes = Math.min(readUnits, Math.max(1, receiver.inFlight.demandBytes))
      const args = { group, consumer: receiver.consumer, only: textOf(only), max: Math.min(max, 1000), bytes }
      const reply = yield* call(select, args)
      if (reply._tag === "NOGROUP") return yield* Effect.fail(groupGone)
      const { entries, last, lastRetry } = reply
      if (entries.length === 0 && last !== "") yield* this.#await(connection, last, lastRetry)
      return ([stream, retry] as const).flatMap((key, source) => {
        const found = entries.filter((entry) => entry.source === source)
        return found.length === 0 ? [] : [[key, found.map(({ entry, fields }) => [entry, fields] as const)] as const]
      })
    })
  }

  /**
   * Waits for something that the group may want. The few messages of a quiet topic that it does not want are seen here, which costs the
   * server less than the script; the script passes them soon.
   */
  #await(connection: Connection, last: string, lastRetry: string): Effect.Effect<void, Reason> {
    const { keys, receiver, subscription } = this.#options
    const { retry, stream } = keys
    return Effect.gen({ self: this }, function* () {
      let at = last
      let until = Infinity
      while (!receiver.halted) {
        const millis = Math.min(blockMillis, Math.ceil(until - receiver.now()))
        if (millis <= 0) return
        // Two at once are the beginning of more.
        const wait = ["COUNT", 2, "BLOCK", millis, "STREAMS", stream, retry, at, lastRetry] as const
        const reply = yield* connection.run("xread", [stream, retry], (client) => client.xread(...wait), {
          deadline: millis + graceMillis
        })
        const [[key, entries] = ["", []], more] = reply ?? []
        const [entry, next] = entries
        if (entry === undefined || next !== undefined || more !== undefined || key !== stream) return
        if (mayWant(subscription.only, entry[1])) return
        at = entry[0]
        until = Math.min(until, receiver.now() + unpassedMillis)
      }
    })
  }

  #read(client: Redis, max: number): Promise<GroupReply | null> {
    const { claims, keys, receiver, subscription } = this.#options
    // It was halted while this waited for a connection.
    if (receiver.halted) return Promise.resolve(null)
    const { retry, stream } = keys
    const from = [subscription.group, receiver.consumer] as const
    const send = () =>
      client.xreadgroup("GROUP", ...from, "COUNT", max, "BLOCK", blockMillis, "STREAMS", stream, retry, ">", ">")
    return readGroup(
      client,
      send as () => Promise<GroupReply | null>, // the shape of the reply in this client's default mapping
      Math.max(readUnits, receiver.inFlight.demandBytes),
      () => (claims.unsure = true)
    )
  }

  #receive(reply: GroupReply): Effect.Effect<void> {
    const { claims, keys, receiver, subscription, topic } = this.#options
    const { group } = subscription
    const now = receiver.now()
    const deliveries: Array<StreamDelivery> = []
    let doubtful = false
    let units = 0
    for (const [key, entries] of reply) {
      const source = key === keys.stream ? 0 : 1
      this.#last[source] = entries.at(-1)?.[0] ?? this.#last[source]
      for (const [entry, fields] of entries) {
        const delivery = new StreamDelivery(topic, group, source, entry, 1, 0, fields, now)
        deliveries.push(delivery)
        units += delivery.body.length
        doubtful ||= isDoubtful(delivery.body)
      }
    }
    if (units > 0) this.limit = Math.max(1, Math.floor((readUnits * deliveries.length) / units))
    const add = (deliveries: ReadonlyArray<StreamDelivery>) => {
      receiver.inFlight.add(deliveries, !claims.returned)
      // Older ones were handed back while this was under way, and come first.
      return claims.returned ? receiver.release(deliveries) : Effect.void
    }
    return doubtful ? Effect.flatMap(claims.exact(deliveries), add) : add(deliveries)
  }
}
