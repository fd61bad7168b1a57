/**
 * A member of a group: reads for as long as somebody asks, keeps what it has given out, takes over what others left
 * behind, and hands back what is unsettled when it leaves. Whatever the server and the network do, it goes on.
 *
 * Two fibers do the work. The reader waits on a connection of its own for what is new. The keeper beats: it says that
 * this consumer lives, renews leases, moves what is due, and looks for work that nobody does.
 *
 * @module
 */
import { hostname } from "node:os"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Clock from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Delivery } from "../../../Delivery.ts"
import type { Lifecycle } from "../../../Lifecycle.ts"
import * as Settlement from "../../../Settlement.ts"
import {
  Disconnected,
  type Reason,
  type Receiver,
  Rejected,
  type Settled,
  type Subscription,
  TransportError
} from "../../../Transport.ts"
import { evaluate, wire } from "../Answer.ts"
import type { Committer } from "../Committer.ts"
import type { Connection } from "../Connection.ts"
import { millisOf } from "../Entry.ts"
import { Holdings } from "../Holdings.ts"
import type { GroupKeys, TopicKeys } from "../Keys.ts"
import type { Script } from "../Script.ts"
import * as DeliveryScripts from "./DeliveryScripts.ts"
import { type GroupReply, readGroup } from "./GroupReply.ts"
import * as GroupScripts from "./GroupScripts.ts"
import { Settler } from "./Settler.ts"
import { isDoubtful, type Source, StreamDelivery } from "./StreamDelivery.ts"

export interface ReceiverOptions {
  readonly commands: Connection
  readonly dedicated: (role: string) => Effect.Effect<Connection, never, Scope.Scope>
  readonly topic: string
  readonly keys: TopicKeys
  readonly subscription: Subscription
  readonly lifecycle: Lifecycle
  readonly clock: Clock.Clock
  readonly deadLetters: { readonly maxCount: number; readonly maxAgeMillis: number }
  readonly committer: (consumer: string) => Committer<StreamDelivery>
  readonly pollMillis: number
  /** Whether what all groups have settled is cut off. */
  readonly trims: boolean
  /** Runs after the group was joined: the topic is in the store. */
  readonly opened: Effect.Effect<void>
}

/** How long one read waits on the server. Short enough to notice a dead connection soon. */
const blockMillis = 2000
/** What the network may add to that. */
const graceMillis = 3000
/** About how much a read may bring: what a slow network carries within its deadline. */
const readUnits = 4 * 1024 * 1024
/** How much one script may move, renew, take over or hand back. */
const moveLimit = 500
const renewLimit = 200
const claimLimit = 500
const leaveLimit = 500
const trimLimit = 20_000
/** How soon a beat is repeated that somebody waits for. */
const hurryMillis = 50
/** Who pauses a group does not wait longer for a receiver of its process. */
const longestLook = 1000
/** Leaving takes no longer, however long a shutdown may take. */
const longestLeave = 3000

/** An entry as the claim script tells it. */
type Claimed = readonly [
  source: Source,
  entry: string,
  count: number,
  released: number,
  fields: ReadonlyArray<string>,
  owner: string
]

/** Joins the group; leaves it when the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: ReceiverOptions
): Effect.fn.Return<StreamReceiver, TransportError, Scope.Scope> {
  const member = new StreamReceiver(options)
  yield* Effect.acquireRelease(member.start, () => member.stop)
  return member
})

export class StreamReceiver implements Receiver {
  readonly consumer = `${hostname()}-${process.pid}-${SecureRandom.uuidV4Unsafe().slice(0, 8)}`
  readonly #options: ReceiverOptions
  readonly #startedAt: bigint
  readonly #keys: GroupKeys
  readonly #leaseMillis: number
  readonly #holdings: Holdings<StreamDelivery>
  readonly #settler: Settler
  readonly #joining = Semaphore.makeUnsafe(1)
  /** What one claim has been given and does not hold yet would look unknown to another. */
  readonly #claiming = Semaphore.makeUnsafe(1)
  readonly #readerScope = Scope.makeUnsafe()
  #reader: Connection | undefined
  #fibers: ReadonlyArray<Fiber.Fiber<unknown>> = []
  #reading = false
  #tellRead: (() => void) | undefined
  #wakeReader: (() => void) | undefined
  #wakeKeeper: (() => void) | undefined
  /** Something may have been delivered to us without our learning of it. */
  #unsure = false
  /** The keeper has to ask whose the deliveries are before anything else. */
  #verify = false
  #paused = false
  #silent = false
  #stopping = false
  /** How many entries a read may bring, by the size of the last ones. */
  #readLimit = Infinity
  /** The last delivery taken over that more than one consumer had died with. */
  #suspect: StreamDelivery | undefined
  /** The last claim took all it could. */
  #moreToClaim = false
  #settledSince = false
  /** How many beats have begun, and who waits for the end of one that begins after theirs. */
  #beats = 0
  readonly #looks = new Set<{ readonly after: number; readonly done: () => void }>()
  #dueAt = Infinity
  #renewedAt = -Infinity
  #scannedAt = -Infinity
  #trimmedAt = -Infinity

  constructor(options: ReceiverOptions) {
    this.#options = options
    this.#startedAt = options.clock.monotonicTimeNanosUnsafe()
    const { commands, deadLetters, keys, subscription } = options
    const { group } = subscription
    this.#keys = keys.group(group)
    this.#leaseMillis = Duration.toMillis(subscription.lease)
    this.#holdings = new Holdings<StreamDelivery>({
      now: this.#now,
      leaseMillis: this.#leaseMillis,
      demanded: () => this.#demanded()
    })
    this.#settler = new Settler({
      commands,
      topic: options.topic,
      group,
      consumer: this.consumer,
      stream: keys.stream,
      keys: this.#keys,
      holdings: this.#holdings,
      deadLetters,
      delayed: (millis) => this.expect(millis),
      settled: () => {
        this.#settledSince = true
        if (this.#suspect !== undefined && !this.#holdsSuspect) {
          this.#suspect = undefined
          this.#moreToClaim = true
          this.#wakeKeeper?.()
        }
      },
      dropped: (count) => this.#dropped(count),
      committer: options.committer(this.consumer)
    })
  }

  take(max: number): Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError> {
    return this.#holdings.take(max)
  }

  settle(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement.Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return this.#settler.settle(settlements)
  }

  get lost(): Effect.Effect<NonEmptyReadonlyArray<Delivery>> {
    return this.#holdings.lost
  }

  /** A message of the topic will be due in so many milliseconds. */
  expect(millis: number): void {
    const dueAt = this.#now() + Math.max(0, millis)
    if (dueAt >= this.#dueAt) return
    this.#dueAt = dueAt
    this.#wakeKeeper?.()
  }

  /** Looks at once whether the group is paused; returns when it knows, or soon. */
  readonly look: Effect.Effect<void> = Effect.asVoid(
    Effect.timeoutOption(
      Effect.callback<void>((resume) => {
        const look = { after: this.#beats, done: () => resume(Effect.void) }
        this.#looks.add(look)
        this.expect(0)
        return Effect.sync(() => this.#looks.delete(look))
      }),
      longestLook
    )
  )

  /** Stands still or goes on, like a process that is stopped: nothing is read or renewed meanwhile. */
  readonly setSilent = (silent: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      this.#silent = silent
      this.#verify = true
      this.#wakeKeeper?.()
      return silent ? this.#unblock : Effect.sync(() => this.#wakeReader?.())
    })

  readonly start: Effect.Effect<void, TransportError> = Effect.gen({ self: this }, function* () {
    const { dedicated, topic } = this.#options
    this.#reader = yield* Scope.provide(dedicated(`reader:${topic}:${this.#group}`), this.#readerScope)
    const result = yield* Effect.result(this.#join(false))
    if (Result.isFailure(result)) {
      yield* Scope.close(this.#readerScope, Exit.void)
      return yield* this.#failure(result.failure)
    }
    this.#fibers = [yield* Effect.forkDetach(this.#read(this.#reader)), yield* Effect.forkDetach(this.#keep)]
  })

  /** Never takes longer than the shutdown may: what could not be handed back is claimed by others after the lease. */
  readonly stop: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    this.#stopping = true
    this.#settler.close()
    const limit = Math.min(longestLeave, Duration.toMillis(this.#options.subscription.shutdown))
    // A fiber of its own: whoever closes the scope may be interrupted, and then timeouts do not work.
    const leaving = yield* Effect.forkDetach(Effect.timeoutOption(this.#leave, limit))
    yield* Fiber.await(leaving)
    this.#holdings.fail(this.#failureOf(stopped))
    yield* Fiber.await(yield* Effect.forkDetach(Effect.timeoutOption(Fiber.interruptAll(this.#fibers), limit)))
    yield* Scope.close(this.#readerScope, Exit.void)
  })

  /** Nothing new may be taken. */
  get #halted(): boolean {
    return this.#paused || this.#silent || this.#stopping
  }

  get #group(): string {
    return this.#options.subscription.group
  }

  /** Milliseconds since the receiver was made, whatever is done to the wall clock. Small and whole: such numbers cost nothing to keep. */
  readonly #now = (): number => Number((this.#options.clock.monotonicTimeNanosUnsafe() - this.#startedAt) / 1_000_000n)

  #failureOf(reason: Reason): TransportError {
    return new TransportError({ operation: "receive", topic: this.#options.topic, reason })
  }

  #failure(reason: Reason): Exit.Exit<never, TransportError> {
    return Exit.fail(this.#failureOf(reason))
  }

  #eval<A extends ReadonlyArray<unknown>>(
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> {
    const { commands, topic } = this.#options
    return evaluate<A>(commands, { topic, pattern: GroupScripts.pattern }, script, keys, args)
  }

  #demanded(): void {
    if (this.#holdings.buffered > 0) this.#verify = true
    if (this.#verify || this.#moreToClaim) this.#wakeKeeper?.()
    this.#wakeReader?.()
  }

  // --- joining ---------------------------------------------------------------------------------------------------

  /** Makes sure that the group exists. `again`: it did, and something says that it does no more. */
  #join(again: boolean): Effect.Effect<void, Reason> {
    return this.#joining.withPermits(1)(
      Effect.gen({ self: this }, function* () {
        const { keys, lifecycle, opened, subscription, topic } = this.#options
        const mine = this.#keys
        const sentAt = this.#now()
        const [, main, retry, known, from, firstMain, firstRetry] = yield* this.#eval<
          [string, 0 | 1, 0 | 1, 0 | 1, string, string, string]
        >(
          GroupScripts.join,
          [
            keys.stream,
            mine.retry,
            keys.meta,
            keys.groups,
            mine.consumers,
            mine.state,
            mine.released,
            mine.waiting,
            mine.waitingBodies,
            mine.dead
          ],
          [
            GroupScripts.pattern,
            wire,
            this.#group,
            this.consumer,
            subscription.start === "earliest" ? "0" : "$",
            this.#leaseMillis,
            again ? 1 : 0
          ]
        )
        this.#holdings.beatAt = sentAt
        if (!again || main === 1) yield* opened
        if (known === 0 || main + retry === 0) return
        yield* lifecycle.report({ _tag: "GroupRecreated", topic, group: this.#group, from })
        const lost: Array<StreamDelivery> = []
        for (const delivery of this.#holdings.all()) {
          const [made, first] = delivery.source === 0 ? [main, firstMain] : [retry, firstRetry]
          if (made === 0) continue
          // What is still in the stream is delivered again. Of what is not, this is the last copy: it is worked on to the end.
          if (first !== "" && !precedes(delivery.entry, first)) lost.push(delivery)
          else delivery.detached = true
        }
        yield* this.#lose(lost)
      })
    )
  }

  // --- reading ---------------------------------------------------------------------------------------------------

  #read(connection: Connection): Effect.Effect<never> {
    return Effect.gen({ self: this }, function* () {
      while (true) {
        if (!this.#mayRead) {
          yield* this.#idle()
          continue
        }
        const count = Math.min(this.#holdings.demand, this.#readLimit)
        const result = yield* Effect.result(survivable(this.#readOnce(connection, count)))
        if (Result.isFailure(result)) {
          // Perhaps it was more than the network brings in time.
          this.#readLimit = Math.max(1, count >> 1)
          yield* this.#readFailed(result.failure)
        }
      }
    })
  }

  #readOnce(connection: Connection, count: number): Effect.Effect<void, Reason> {
    const { keys } = this.#options
    return Effect.gen({ self: this }, function* () {
      if (this.#unsure) {
        yield* this.#adoptUnknown()
        if (this.#holdings.demand === 0) return
      }
      this.#reading = true
      const reply = yield* connection
        .run(
          "xreadgroup",
          (client) =>
            this.#halted
              ? Promise.resolve(null) // it was halted while this waited for a connection
              : readGroup(
                  client,
                  () =>
                    client.xreadgroup(
                      "GROUP",
                      this.#group,
                      this.consumer,
                      "COUNT",
                      count,
                      "BLOCK",
                      blockMillis,
                      "STREAMS",
                      keys.stream,
                      this.#keys.retry,
                      ">",
                      ">"
                    ) as Promise<GroupReply | null> // the shape of the reply in this client's default mapping
                ),
          { deadline: blockMillis + graceMillis, key: `${keys.stream} or ${this.#keys.retry}` }
        )
        .pipe(
          Effect.onExit((exit) =>
            Effect.sync(() => {
              this.#reading = false
              // The server may have delivered something that the answer did not bring.
              if (Exit.isFailure(exit)) this.#unsure = true
              this.#tellRead?.()
            })
          )
        )
      if (reply !== null) yield* this.#receive(reply)
    })
  }

  get #mayRead(): boolean {
    return this.#holdings.demand > 0 && this.#holdings.buffered === 0 && !this.#halted
  }

  #idle(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      // Somebody may have asked since the reader looked, and found nobody to wake.
      if (this.#mayRead) return resume(Effect.void)
      this.#wakeReader = () => {
        this.#wakeReader = undefined
        resume(Effect.void)
      }
      return Effect.sync(() => {
        this.#wakeReader = undefined
      })
    })
  }

  #receive(reply: GroupReply): Effect.Effect<void> {
    const { keys, topic } = this.#options
    const now = this.#now()
    const deliveries: Array<StreamDelivery> = []
    let doubtful = false
    let units = 0
    for (const [key, entries] of reply) {
      const source = key === keys.stream ? 0 : 1
      for (const [entry, fields] of entries) {
        const delivery = new StreamDelivery(topic, this.#group, source, entry, 1, 0, fields, now)
        deliveries.push(delivery)
        units += delivery.body.length
        doubtful ||= isDoubtful(delivery.body)
      }
    }
    if (units > 0) this.#readLimit = Math.max(1, Math.floor((readUnits * deliveries.length) / units))
    if (doubtful) return Effect.map(this.#exact(deliveries), (exact) => this.#holdings.add(exact))
    this.#holdings.add(deliveries)
    return Effect.void
  }

  /** Reads again, as bytes, what did not look like text. What cannot be read now is found again later as unknown. */
  #exact(deliveries: ReadonlyArray<StreamDelivery>): Effect.Effect<ReadonlyArray<StreamDelivery>> {
    const { commands, keys } = this.#options
    return Effect.gen({ self: this }, function* () {
      const exact: Array<StreamDelivery> = []
      for (const delivery of deliveries) {
        if (isDoubtful(delivery.body)) {
          const key = delivery.source === 0 ? keys.stream : this.#keys.retry
          const { entry } = delivery
          const result = yield* Effect.result(
            commands.run("xrange", (client) => client.xrangeBuffer(key, entry, entry), { key })
          )
          if (Result.isFailure(result)) {
            this.#unsure = true
            continue
          }
          delivery.useBytes(result.success[0]?.[1])
        }
        exact.push(delivery)
      }
      return exact
    })
  }

  #readFailed(reason: Reason): Effect.Effect<void> {
    if (isGroupGone(reason)) {
      return Effect.flatMap(Effect.result(this.#join(true)), (result) =>
        Effect.sync(() => {
          if (Result.isFailure(result)) this.#holdings.fail(this.#failureOf(result.failure))
        })
      )
    }
    if (reason._tag === "WrongKeyType") {
      // The read is about two keys and the answer about one of them; the beat tells which.
      return Effect.andThen(
        Effect.sync(() => this.expect(0)),
        Effect.sleep(hurryMillis)
      )
    }
    // A connection that was lost is being made again, and the next read waits for it. Only when that takes too long are
    // those told who wait: they would back off, further with each loss, while messages arrive.
    if (reason._tag === "Disconnected" && reason.ambiguous) return Effect.void
    return Effect.sync(() => this.#holdings.fail(this.#failureOf(reason)))
  }

  /** Finds what was delivered to us by an answer that never came. Runs in the reader: no read is on its way meanwhile. */
  #adoptUnknown(): Effect.Effect<void, Reason> {
    const adopt = Effect.gen({ self: this }, function* () {
      const { commands, keys } = this.#options
      const unknown: Array<readonly [Source, string]> = []
      for (const source of [0, 1] as const) {
        const key = source === 0 ? keys.stream : this.#keys.retry
        const held = this.#entries(source)
        let from = "-"
        while (true) {
          const page = yield* commands
            .run(
              "xpending",
              (client) =>
                client.xpending(key, this.#group, from, "+", 1000, this.consumer) as Promise<ReadonlyArray<[string]>>, // one row an entry, its id first
              { key }
            )
            .pipe(Effect.catchIf(isGroupGone, () => Effect.succeed([])))
          for (const [entry] of page) if (!held.has(entry)) unknown.push([source, entry])
          const last = page.at(-1)
          if (last === undefined || page.length < 1000) break
          from = `(${last[0]}`
        }
      }
      this.#unsure = false
      for (let i = 0; i < unknown.length; i += claimLimit) {
        yield* this.#claim(0, unknown.slice(i, i + claimLimit))
      }
    })
    return Effect.onError(this.#claiming.withPermits(1)(adopt), () => Effect.sync(() => (this.#unsure = true)))
  }

  // --- keeping ---------------------------------------------------------------------------------------------------

  /** Beats until the receiver stops. A beat that fails is followed by the next. */
  readonly #keep: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    while (true) {
      if (!this.#silent && !this.#stopping) {
        const beat = ++this.#beats
        const result = yield* Effect.result(survivable(this.#beat))
        for (const look of this.#looks) {
          if (look.after < beat && this.#looks.delete(look)) look.done()
        }
        if (Result.isSuccess(result)) {
          this.#holdings.recover()
          if (result.success) continue
        } else if (isGroupGone(result.failure)) {
          const joined = yield* Effect.result(this.#join(true))
          if (Result.isSuccess(joined)) continue
          if (joined.failure.permanent) this.#holdings.fail(this.#failureOf(joined.failure))
        } else if (result.failure.permanent) {
          this.#holdings.fail(this.#failureOf(result.failure))
        }
      }
      yield* this.#pause()
    }
  })

  /** Until something is due, but at most for the poll interval: others may have brought what we do not know of. */
  #pause(): Effect.Effect<void> {
    return Effect.flatMap(Random.nextBetween(0.75, 1), (spread) => {
      const most = Math.min(this.#options.pollMillis * spread, this.#leaseMillis / 3)
      // Somebody waits, or asked while nobody listened.
      const hurry = this.#verify ? hurryMillis : this.#moreToClaim && this.#holdings.demand > 0 ? 0 : Infinity
      const wait = Math.max(1, Math.min(most, hurry, this.#dueAt - this.#now()))
      return Effect.asVoid(
        Effect.timeoutOption(
          Effect.callback<void>((resume) => {
            this.#wakeKeeper = () => {
              this.#wakeKeeper = undefined
              resume(Effect.void)
            }
            return Effect.sync(() => {
              this.#wakeKeeper = undefined
            })
          }),
          wait
        )
      )
    })
  }

  /** Answers whether there is more to do at once. */
  readonly #beat: Effect.Effect<boolean, Reason> = Effect.gen({ self: this }, function* () {
    const { keys, lifecycle, topic } = this.#options
    const mine = this.#keys
    const sentAt = this.#now()
    const age = this.#holdings.age()
    this.#dueAt = Infinity
    const [tag, alive, paused, more, next, cut] = yield* this.#eval<[string, 0 | 1, 0 | 1, 0 | 1, number, number]>(
      GroupScripts.beat,
      [
        keys.stream,
        mine.retry,
        mine.consumers,
        mine.state,
        mine.released,
        keys.delayed,
        keys.delayedBodies,
        mine.waiting,
        mine.waitingBodies
      ],
      [this.#group, this.consumer, this.#leaseMillis, moveLimit, age === undefined ? "" : Math.round(age)]
    )
    if (tag === "NOGROUP") return yield* Effect.fail(groupGone)
    if (next >= 0) this.#dueAt = Math.min(this.#dueAt, this.#now() + next)
    if (alive === 0) this.#verify = true
    if (cut > 0) yield* lifecycle.report({ _tag: "Truncated", topic, group: this.#group, count: cut })
    if ((paused === 1) !== this.#paused) yield* this.#setPaused(paused === 1)
    if (this.#verify || sentAt - this.#renewedAt >= this.#leaseMillis / 3) yield* this.#renew()
    this.#holdings.beatAt = sentAt
    this.#holdings.handOut()
    // Whoever waits now may have waited for what was in the buffer until a moment ago.
    if (this.#holdings.demand > 0) this.#demanded()
    if (more === 1) return true

    yield* this.#handBackUnclaimed()
    const wanted = this.#paused ? 0 : this.#holdings.wanted(Math.min(this.#options.pollMillis, this.#leaseMillis / 3))
    if (wanted > 0) {
      const scan = this.#now() - this.#scannedAt >= this.#leaseMillis / 3 ? this.#scan() : nothingUnknown
      yield* this.#claiming.withPermits(1)(
        Effect.flatMap(scan, (unknown) => this.#claim(Math.min(claimLimit, wanted), unknown))
      )
    }
    if (this.#settledSince && this.#now() - this.#trimmedAt >= this.#options.pollMillis) {
      this.#settledSince = false
      this.#trimmedAt = this.#now()
      const removed = yield* this.#trim()
      if (removed >= trimLimit) {
        this.#settledSince = true
        this.#trimmedAt = -Infinity
      }
    }
    return false
  })

  #trim(): Effect.Effect<number, Reason> {
    const { keys, trims } = this.#options
    return Effect.map(
      this.#eval<[string, number]>(
        GroupScripts.trim,
        [keys.stream, this.#keys.retry, keys.groups],
        [trimLimit, trims ? 1 : 0]
      ),
      ([, removed]) => removed
    )
  }

  #setPaused(paused: boolean): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    this.#paused = paused
    return Effect.andThen(
      paused ? this.#unblock : Effect.sync(() => this.#wakeReader?.()),
      lifecycle.report({ _tag: paused ? "ConsumerPaused" : "ConsumerResumed", topic, group: this.#group })
    )
  }

  /** Asks for every delivery that is held for long, or for every one, whether it is still ours. */
  #renew(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { keys } = this.#options
      const everything = this.#verify
      this.#verify = false
      this.#renewedAt = this.#now()
      const limit = this.#now() - this.#leaseMillis / 3
      const candidates: Array<StreamDelivery> = []
      for (const delivery of this.#holdings.all()) {
        if (delivery.detached || (!everything && (delivery.settling || delivery.renewedAt > limit))) continue
        candidates.push(delivery)
      }
      for (let i = 0; i < candidates.length; i += renewLimit) {
        const some = candidates.slice(i, i + renewLimit)
        const sentAt = this.#now()
        const [, told] = yield* this.#eval<[string, string]>(
          DeliveryScripts.renew,
          [keys.stream, this.#keys.retry],
          [this.#group, this.consumer, ...some.flatMap(({ count, entry, source }) => [source, entry, count])]
        )
        const lost: Array<StreamDelivery> = []
        some.forEach((delivery, index) => {
          if (told[index] === "O") delivery.renewedAt = sentAt
          // What is being settled may have left by our own hand, and what was settled meanwhile has.
          else if (!delivery.settling && this.#holdings.find(delivery) === delivery) lost.push(delivery)
        })
        yield* this.#lose(lost)
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (this.#verify = true))))
  }

  #lose(deliveries: ReadonlyArray<StreamDelivery>): Effect.Effect<void> {
    if (deliveries.length === 0) return Effect.void
    const lost = this.#holdings.lose(deliveries)
    const { lifecycle, topic } = this.#options
    return lost.length === 0
      ? Effect.void
      : lifecycle.report({ _tag: "LeaseLost", topic, group: this.#group, deliveries: lost })
  }

  /** Gives back what was read for somebody who no longer asks. */
  #handBackUnclaimed(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const [first, ...others] = this.#holdings
        .unclaimed(this.#leaseMillis / 3)
        .map((delivery) => [delivery, Settlement.release] as const)
      return first === undefined ? Effect.void : Effect.ignore(this.#settler.settle([first, ...others]))
    })
  }

  /** The ids of the entries that are held from one stream. */
  #entries(source: Source): ReadonlySet<string> {
    const entries = new Set<string>()
    for (const delivery of this.#holdings.all()) if (delivery.source === source) entries.add(delivery.entry)
    return entries
  }

  /** Finds entries that are ours by the server's list and that we neither hold nor have renewed for a lease. */
  #scan(): Effect.Effect<ReadonlyArray<readonly [Source, string]>, Reason> {
    const { commands, keys } = this.#options
    this.#scannedAt = this.#now()
    const idle = Math.ceil(this.#leaseMillis)
    return Effect.gen({ self: this }, function* () {
      const found: Array<readonly [Source, string]> = []
      for (const source of [0, 1] as const) {
        const key = source === 0 ? keys.stream : this.#keys.retry
        const page = yield* commands.run(
          "xpending",
          (client) =>
            client.xpending(key, this.#group, "IDLE", idle, "-", "+", claimLimit, this.consumer) as Promise<
              ReadonlyArray<[string]>
            >, // one row an entry, its id first
          { key }
        )
        const held = this.#entries(source)
        for (const [entry] of page) if (!held.has(entry)) found.push([source, entry])
      }
      return found
    })
  }

  /** Takes over at most `max` deliveries, and those named. */
  #claim(max: number, unknown: ReadonlyArray<readonly [Source, string]>): Effect.Effect<void, Reason> {
    const { deadLetters, keys, lifecycle, subscription, topic } = this.#options
    const group = this.#group
    return Effect.gen({ self: this }, function* () {
      const mine = this.#keys
      const now = this.#now()
      const [tag, taken, buried, gone, dropped, more] = yield* this.#eval<
        [string, ReadonlyArray<Claimed>, ReadonlyArray<Claimed>, number, number, 0 | 1]
      >(
        DeliveryScripts.claim,
        [keys.stream, mine.retry, mine.consumers, mine.released, mine.dead, mine.state],
        [
          group,
          this.consumer,
          GroupScripts.nobody,
          max,
          subscription.maxDeliveries,
          deadLetters.maxCount,
          deadLetters.maxAgeMillis,
          Math.ceil(this.#leaseMillis),
          this.#holdsSuspect ? 0 : 1,
          ...unknown.flat()
        ]
      )
      if (tag !== "OK") {
        this.#moreToClaim = false
        // The next beat revives us; what was named is found again.
        if (unknown.length > 0) this.#unsure = true
        return
      }
      const from = new Set<string>()
      let count = 0
      const toDelivery = ([source, entry, times, released, fields, owner]: Claimed) => {
        if (owner !== GroupScripts.nobody && owner !== this.consumer) from.add(owner)
        return new StreamDelivery(topic, group, source, entry, times, released, fields, now)
      }
      const deliveries = taken.map(toDelivery)
      const suspect = taken.findIndex(([, , times, released, , owner]) => from.has(owner) && times - released > 2)
      if (suspect >= 0) this.#suspect = deliveries[suspect]
      // A call stops when it has gathered much: the rest of what was named is looked for again.
      if (taken.length + buried.length + gone < unknown.length) this.#unsure = true
      for (const claimed of taken) if (from.has(claimed[5])) count++
      const graves = buried.map(toDelivery)
      this.#holdings.add(yield* this.#exact(deliveries))
      // With a suspect in hand there is no hurry: its end wakes the keeper.
      this.#moreToClaim = max > 0 && (taken.length >= max || (more === 1 && !this.#holdsSuspect))
      if (from.size > 0) yield* lifecycle.report({ _tag: "Claimed", topic, group, from: [...from], count })
      if (graves.length > 0)
        yield* Effect.logWarning("DeadLettered", { topic, group, reasons: { CrashLoop: graves.length } })
      for (const delivery of graves) {
        // Nobody settles what nobody has seen, so nobody else tells of it.
        const settlement = Settlement.deadLetter(
          "CrashLoop",
          `delivered ${delivery.count} times to consumers that died or stalled`
        )
        lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement, stale: false })
      }
      yield* this.#truncated(gone)
      if (dropped > 0) yield* this.#dropped(dropped)
    })
  }

  get #holdsSuspect(): boolean {
    return this.#suspect !== undefined && this.#holdings.find(this.#suspect) === this.#suspect
  }

  #truncated(count: number): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    return count === 0 ? Effect.void : lifecycle.report({ _tag: "Truncated", topic, group: this.#group, count })
  }

  #dropped(count: number): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    return lifecycle.report({ _tag: "DeadLettersDropped", topic, group: this.#group, count })
  }

  // --- leaving ---------------------------------------------------------------------------------------------------

  /** Ends a read that waits on the server, from another connection; nothing is delivered by it. */
  readonly #unblock: Effect.Effect<void> = Effect.suspend(() =>
    this.#reading && this.#reader !== undefined
      ? Effect.flatMap(this.#reader.clientId, (id) =>
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

  readonly #leave: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const [reader, keeper] = this.#fibers
    if (keeper !== undefined) yield* Fiber.interrupt(keeper)
    yield* this.#unblock
    yield* Effect.timeoutOption(
      Effect.callback<void>((resume) => {
        if (!this.#reading) return resume(Effect.void)
        this.#tellRead = () => resume(Effect.void)
      }),
      500
    )
    // Interrupting a read that still waits destroys its connection: nothing is delivered to us after that.
    if (reader !== undefined) yield* Fiber.interrupt(reader)
    const { keys } = this.#options
    const mine = this.#keys
    let more = 1
    while (more === 1) {
      const answer = yield* Effect.result(
        this.#eval<[string, 0 | 1]>(
          GroupScripts.leave,
          [keys.stream, mine.retry, mine.consumers, mine.released, mine.state],
          [this.#group, this.consumer, GroupScripts.nobody, leaveLimit]
        )
      )
      if (Result.isSuccess(answer)) more = answer.success[1]
      else if (answer.failure.permanent) {
        // It cannot hand back what it holds, but the others need not wait for its heartbeat to run out.
        return yield* Effect.ignore(
          this.#options.commands.run("zadd", (client) => client.zadd(mine.consumers, 0, this.consumer))
        )
      } else yield* Effect.sleep(hurryMillis)
    }
    if (this.#settledSince) yield* Effect.ignore(this.#trim())
  })
}

const stopped = new Disconnected({ ambiguous: false, cause: new Error("the receiver is closed") })

/** A bug of ours must be heard by whoever waits, and must not end the fiber that everything hangs on. */
const survivable = <A>(self: Effect.Effect<A, Reason>): Effect.Effect<A, Reason> =>
  Effect.catchDefect(self, (defect) => Effect.fail(new Rejected({ command: "waybill", detail: String(defect) })))

const nothingUnknown = Effect.succeed<ReadonlyArray<readonly [Source, string]>>([])

const groupGone = new Rejected({ command: "xreadgroup", detail: "NOGROUP the group does not exist" })

/** A blocked read is woken with UNBLOCKED when its stream is deleted; everything else says NOGROUP. */
const isGroupGone = (reason: Reason): boolean =>
  (reason._tag === "Rejected" && reason.detail.includes("NOGROUP")) ||
  (reason._tag === "Refused" && reason.code === "UNBLOCKED")

/** The order of stream ids, as far as numbers can tell. */
const precedes = (a: string, b: string): boolean => {
  const [x, y] = [millisOf(a), millisOf(b)]
  return x !== y ? x < y : Number(a.slice(a.indexOf("-") + 1)) < Number(b.slice(b.indexOf("-") + 1))
}
