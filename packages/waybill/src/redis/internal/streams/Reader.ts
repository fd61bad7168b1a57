/**
 * Reads what is new from the topic's stream and the group's retry stream, for as long as somebody waits, on a connection
 * of its own, because a read waits on the server. What is ours and unknown to us is found before the next read.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Reason } from "../../../Transport.ts"
import type { Connection } from "../connection/Connection.ts"
import { Condition } from "../group/Condition.ts"
import { hurryMillis, survivable } from "../group/Heartbeat.ts"
import type { Membership } from "../group/Membership.ts"
import { precedes } from "../wire/Fields.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import type { Claims } from "./Claims.ts"
import { isGroupGone } from "./GroupGone.ts"
import { type GroupReply, readGroup } from "./GroupReply.ts"
import { isDoubtful, StreamDelivery } from "./StreamDelivery.ts"

export interface ReaderOptions {
  readonly commands: Connection
  readonly dedicated: (role: string) => Effect.Effect<Connection, never, Scope.Scope>
  readonly topic: string
  readonly group: string
  readonly keys: TopicKeys
  readonly membership: Membership<StreamDelivery>
  readonly claims: Claims
  /** Hands back deliveries that no handler was given. */
  readonly putBack: (deliveries: ReadonlyArray<StreamDelivery>) => Effect.Effect<void>
  /** The group is gone, by what a read says: makes sure that it exists. */
  readonly rejoin: Effect.Effect<void, Reason>
}

/** How long one read waits on the server. Short enough to notice a dead connection soon. */
const blockMillis = 2000
/** What the network may add to that. */
const graceMillis = 3000
/** About how much a read may bring: what a slow network carries within its deadline. */
const readUnits = 4 * 1024 * 1024
/** Who leaves does not wait longer for a read that is on its way. */
const longestRead = 500

export class Reader {
  readonly #options: ReaderOptions
  readonly #retry: string
  readonly #over = new Condition()
  #connection: Connection | undefined
  #reading = false
  /** How many entries a read may bring, by the size of the last ones. */
  #limit = Infinity
  /** The last entry that a read has brought from each stream. */
  readonly #last: [string, string] = ["0-0", "0-0"]

  constructor(options: ReaderOptions) {
    this.#options = options
    this.#retry = options.keys.group(options.group).retry
  }

  /** Opens the connection, and answers what reads on it. */
  get open(): Effect.Effect<Effect.Effect<never>, never, Scope.Scope> {
    const { dedicated, group, topic } = this.#options
    return Effect.map(dedicated(`reader:${topic}:${group}`), (connection) => {
      this.#connection = connection
      return this.#read(connection)
    })
  }

  /** Takes in what is ours by the server's list and unknown to us, whether somebody waits or not. */
  compare(): void {
    const { claims, membership } = this.#options
    claims.unsure = true
    membership.worker.signal()
  }

  /** Ends a read that waits on the server, from another connection; nothing is delivered by it. */
  readonly unblock: Effect.Effect<void> = Effect.suspend(() =>
    this.#reading && this.#connection !== undefined
      ? Effect.flatMap(this.#connection.clientId, (id) =>
          id === undefined
            ? Effect.void
            : Effect.ignore(
                this.#options.commands.run("client|unblock", (client) => client.client("UNBLOCK", id), {
                  deadline: 1000
                })
              )
        )
      : Effect.void
  )

  /** Waits until no read is on its way. */
  get idle(): Effect.Effect<void> {
    return this.#over.until(() => !this.#reading)
  }

  /** Nothing is delivered to us after this: interrupting a read that still waits destroys its connection. */
  end(fiber: Fiber.Fiber<unknown>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      yield* this.unblock
      yield* Effect.timeoutOption(this.idle, longestRead)
      yield* Fiber.interrupt(fiber)
    })
  }

  #read(connection: Connection): Effect.Effect<never> {
    const { claims, membership } = this.#options
    const busy = () => membership.wanting || (claims.unsure && !membership.halted)
    return Effect.gen({ self: this }, function* () {
      while (true) {
        if (!busy()) {
          yield* membership.worker.until(busy)
          continue
        }
        const count = Math.min(membership.inFlight.demand, this.#limit)
        const result = yield* Effect.result(survivable(this.#readOnce(connection, count)))
        if (Result.isFailure(result)) {
          // Perhaps it was more than the network brings in time.
          this.#limit = Math.max(1, count >> 1)
          yield* this.#readFailed(result.failure)
          if (!membership.wanting) yield* Effect.sleep(hurryMillis)
        }
      }
    })
  }

  #readOnce(connection: Connection, count: number): Effect.Effect<void, Reason> {
    const { claims, group, keys, membership } = this.#options
    return Effect.gen({ self: this }, function* () {
      if (claims.unsure) {
        const { unheard } = membership
        // What is lost from here on, the server is asked about the next time.
        const lost = [...unheard.keys()]
        yield* claims.adoptUnknown(
          (source, entry) =>
            !precedes(this.#last[source], entry) || unheard.has(source === 0 ? entry : `retry:${entry}`)
        )
        // Some of it is left for the next time.
        if (claims.unsure) return yield* Effect.sleep(hurryMillis)
        for (const receipt of lost) unheard.delete(receipt)
        claims.unsure = unheard.size > 0
        return
      }
      // What came back goes before what is new.
      if (claims.pending) {
        yield* claims.takeOver(membership.inFlight.demand)
        if (!membership.wanting) return
      }
      this.#reading = true
      const reply = yield* connection
        .run(
          "xreadgroup",
          (client) =>
            membership.halted
              ? Promise.resolve(null) // it was halted while this waited for a connection
              : readGroup(
                  client,
                  () =>
                    client.xreadgroup(
                      "GROUP",
                      group,
                      membership.consumer,
                      "COUNT",
                      count,
                      "BLOCK",
                      blockMillis,
                      "STREAMS",
                      keys.stream,
                      this.#retry,
                      ">",
                      ">"
                    ) as Promise<GroupReply | null>, // the shape of the reply in this client's default mapping
                  Math.max(readUnits, membership.inFlight.demandBytes),
                  () => (claims.unsure = true)
                ),
          { deadline: blockMillis + graceMillis, key: `${keys.stream} or ${this.#retry}` }
        )
        .pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              this.#reading = false
              // The server may have delivered something that the answer did not bring.
              if (Exit.isFailure(exit)) claims.unsure = true
              this.#over.signal()
            })
          )
        )
      if (reply !== null) yield* this.#receive(reply)
    })
  }

  #receive(reply: GroupReply): Effect.Effect<void> {
    const { claims, group, keys, membership, topic } = this.#options
    const now = membership.now()
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
    if (units > 0) this.#limit = Math.max(1, Math.floor((readUnits * deliveries.length) / units))
    const add = (deliveries: ReadonlyArray<StreamDelivery>) => {
      membership.inFlight.add(deliveries, !claims.returned)
      // Older ones were handed back while this was on its way, and come first.
      return claims.returned ? this.#options.putBack(deliveries) : Effect.void
    }
    return doubtful ? Effect.flatMap(claims.exact(deliveries), add) : add(deliveries)
  }

  #readFailed(reason: Reason): Effect.Effect<void> {
    const { membership, rejoin } = this.#options
    if (isGroupGone(reason)) {
      return Effect.flatMap(Effect.result(rejoin), (result) =>
        Effect.sync(() => {
          if (Result.isFailure(result)) membership.fail(result.failure)
        })
      )
    }
    if (reason._tag === "WrongKeyType") {
      // The read is about two keys and the answer about one of them; the beat tells which.
      return Effect.andThen(
        Effect.sync(() => membership.heartbeat.expect(0)),
        Effect.sleep(hurryMillis)
      )
    }
    // A connection that was lost is being made again, and the next read waits for it. Only when that takes too long are
    // those told who wait: they would back off, further with each loss, while messages arrive.
    if (reason._tag === "Disconnected" && reason.ambiguous) return Effect.void
    return Effect.sync(() => membership.fail(reason))
  }
}
