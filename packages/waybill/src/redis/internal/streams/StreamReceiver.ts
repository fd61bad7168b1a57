/**
 * A member of a group: reads for as long as somebody asks, keeps what it has given out, takes over what others left
 * behind, and hands back what is unsettled when it leaves.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Delivery } from "../../../Delivery.ts"
import type { Lifecycle } from "../../../Lifecycle.ts"
import * as Settlement from "../../../Settlement.ts"
import type { Reason, Recall, Receiver, Settled, Subscription, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Connection } from "../connection/Connection.ts"
import type { Script } from "../connection/Script.ts"
import { evaluate, wire } from "../connection/ScriptReply.ts"
import type { InFlight } from "../group/InFlight.ts"
import { Membership } from "../group/Membership.ts"
import { precedes } from "../wire/Fields.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import { Claims } from "./Claims.ts"
import * as DeliveryScripts from "./DeliveryScripts.ts"
import { groupGone, isGroupGone } from "./GroupGone.ts"
import * as GroupScripts from "./GroupScripts.ts"
import { Reader } from "./Reader.ts"
import { Settler } from "./Settler.ts"
import type { StreamDelivery } from "./StreamDelivery.ts"

export interface ReceiverOptions {
  readonly commands: Connection
  readonly dedicated: (role: string) => Effect.Effect<Connection, never, Scope.Scope>
  /** Calls `heard` with the milliseconds until there may be something to bring in or to take over. */
  readonly hear: (heard: (millis: number) => void) => Effect.Effect<void, never, Scope.Scope>
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

/** How much one script may move, renew, hand back or cut off. */
const moveLimit = 500
const renewLimit = 200
const leaveLimit = 500
const trimLimit = 20_000
/** Of so many of what it holds a consumer tells when the group was lost. */
const heldLimit = 1000

/** Joins the group; leaves it when the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: ReceiverOptions
): Effect.fn.Return<StreamReceiver, TransportError, Scope.Scope> {
  const member = new StreamReceiver(options)
  yield* Effect.acquireRelease(member.start, () => member.stop)
  return member
})

export class StreamReceiver implements Receiver {
  readonly consumer: string
  readonly #options: ReceiverOptions
  readonly #keys: GroupKeys
  readonly #membership: Membership<StreamDelivery>
  readonly #inFlight: InFlight<StreamDelivery>
  readonly #claims: Claims
  readonly #reader: Reader
  readonly #settler: Settler
  readonly #joining = Semaphore.makeUnsafe(1)
  #settledSince = false
  #renewedAt = -Infinity
  #trimmedAt = -Infinity

  constructor(options: ReceiverOptions) {
    this.#options = options
    const { commands, committer, deadLetters, keys, subscription, topic } = options
    const { group } = subscription
    const mine = keys.group(group)
    this.#keys = mine
    const membership = new Membership<StreamDelivery>({
      ...options,
      keys: mine,
      work: Effect.suspend(() => Effect.andThen(Effect.forkScoped(this.#hear), this.#reader.open)),
      join: this.#join(false),
      beat: this.#beat,
      repair: (reason) => (isGroupGone(reason) ? this.#join(true) : Effect.fail(reason)),
      eager: () => this.#claims.pending && this.#inFlight.demand > 0,
      demanded: () => this.#demanded(),
      halted: Effect.suspend(() => this.#reader.unblock),
      idle: Effect.suspend(() => this.#reader.idle),
      end: (worker) => this.#reader.end(worker),
      handBackBegun: (deliveries) => this.#settler.handBackBegun(deliveries),
      handBack: this.#handBack
    })
    const { consumer, inFlight } = membership
    this.consumer = consumer
    this.#membership = membership
    this.#inFlight = inFlight
    const claims = new Claims({ ...options, membership })
    this.#claims = claims
    const putBack = (deliveries: ReadonlyArray<StreamDelivery>) => {
      const [first, ...others] = deliveries.map((delivery) => [delivery, Settlement.release] as const)
      return first === undefined ? Effect.void : Effect.ignore(this.#settler.settle([first, ...others]))
    }
    this.#reader = new Reader({ ...options, group, membership, claims, putBack, rejoin: this.#join(true) })
    this.#settler = new Settler({
      commands,
      topic,
      group,
      consumer,
      stream: keys.stream,
      wake: keys.wake,
      keys: mine,
      inFlight,
      deadLetters,
      delayed: (millis) => this.expect(millis),
      settled: () => {
        this.#settledSince = true
        claims.settled()
      },
      dropped: (count) => membership.dropped(count),
      released: () => {
        claims.returned = true
        if (inFlight.demand > 0) this.#demanded()
      },
      committer: committer(consumer)
    })
  }

  take(max: number, bytes?: number): Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError> {
    return this.#inFlight.take(max, bytes)
  }

  settle(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement.Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return this.#settler.settle(settlements)
  }

  get lost(): Effect.Effect<NonEmptyReadonlyArray<Delivery>> {
    return this.#inFlight.lost
  }

  get recalled(): Effect.Effect<Recall> {
    return this.#membership.recalls.next
  }

  /** A message of the topic will be due in so many milliseconds. */
  expect(millis: number): void {
    this.#membership.heartbeat.expect(millis)
  }

  /** Looks at once whether the group is paused; returns when it knows, or soon. */
  get look(): Effect.Effect<void> {
    return this.#membership.heartbeat.look
  }

  /** Stands still or goes on, like a process that is stopped: nothing is read or renewed meanwhile. */
  setSilent(silent: boolean): Effect.Effect<void> {
    return this.#membership.setSilent(silent)
  }

  get start(): Effect.Effect<void, TransportError> {
    return this.#membership.start
  }

  readonly stop: Effect.Effect<void> = Effect.suspend(() => {
    this.#settler.close()
    return this.#membership.stop
  })

  get #group(): string {
    return this.#options.subscription.group
  }

  #eval<A extends ReadonlyArray<unknown>>(
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> {
    const { commands, topic } = this.#options
    return evaluate<A>(commands, { topic, pattern: GroupScripts.pattern }, script, keys, args)
  }

  /** A hint: joining does not wait for it. What was announced before is found by the look that follows. */
  get #hear(): Effect.Effect<void, never, Scope.Scope> {
    const hear = this.#options.hear((millis) => this.expect(millis))
    return Effect.andThen(
      hear,
      Effect.sync(() => this.expect(0))
    )
  }

  #demanded(): void {
    const { heartbeat, worker } = this.#membership
    if (this.#inFlight.buffered > 0) heartbeat.verify = true
    if (heartbeat.verify || this.#claims.pending) heartbeat.wake()
    worker.signal()
  }

  // --- joining ---------------------------------------------------------------------------------------------------

  /** Makes sure that the group exists. `again`: it did, and something says that it does no more. */
  #join(again: boolean): Effect.Effect<void, Reason> {
    return this.#joining.withPermits(1)(
      Effect.gen({ self: this }, function* () {
        const { keys, lifecycle, opened, subscription, topic } = this.#options
        const mine = this.#keys
        const membership = this.#membership
        const sentAt = membership.now()
        const held = this.#inFlight
          .all()
          .filter(({ detached }) => !detached)
          .slice(0, heldLimit)
        const [, main, retry, known, from, firstMain, firstRetry, paused] = yield* this.#eval<
          [string, 0 | 1 | 2, 0 | 1 | 2, 0 | 1, string, string, string, 0 | 1]
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
            membership.leaseMillis,
            again ? 1 : 0,
            GroupScripts.nobody,
            held.length,
            ...held.flatMap(({ count, entry, source }) => [source, entry, count]),
            ...this.#settler.last
          ]
        )
        this.#inFlight.beatAt = sentAt
        // A read does not ask: it must not begin before this is known.
        yield* membership.setPaused(paused === 1)
        if (!again || main > 0) yield* opened
        if (again) {
          // Entries that are not ours in the group as it is now are found out by asking, and those without an owner are there to be taken.
          membership.heartbeat.verify = true
          this.#claims.returned = true
          membership.heartbeat.expect(0)
          membership.worker.signal()
        }
        if (known === 0 || main + retry === 0) return
        yield* lifecycle.report({ _tag: "GroupRecreated", topic, group: this.#group, from })
        const lost: Array<StreamDelivery> = []
        for (const delivery of this.#inFlight.all()) {
          const [made, first] = delivery.source === 0 ? [main, firstMain] : [retry, firstRetry]
          if (made === 0) continue
          // Of what is not in the stream this is the last copy: it is worked on to the end. What is, is delivered again,
          // unless the group has it still.
          if (first === "" || precedes(delivery.entry, first)) delivery.detached = true
          else if (made === 1) lost.push(delivery)
        }
        yield* membership.lose(lost)
      })
    )
  }

  // --- keeping ---------------------------------------------------------------------------------------------------

  /** Answers whether there is more to do at once. */
  readonly #beat: Effect.Effect<boolean, Reason> = Effect.gen({ self: this }, function* () {
    const { deadLetters, keys, pollMillis } = this.#options
    const mine = this.#keys
    const membership = this.#membership
    const { heartbeat, leaseMillis, now } = membership
    const sentAt = now()
    const age = this.#inFlight.age()
    const [tag, alive, paused, more, next, cut, dropped, held] = yield* this.#eval<
      [string, 0 | 1, 0 | 1, 0 | 1, number, number, number, number]
    >(
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
        mine.waitingBodies,
        mine.dead,
        keys.meta
      ],
      [
        this.#group,
        this.consumer,
        leaseMillis,
        moveLimit,
        age === undefined ? "" : Math.round(age),
        deadLetters.maxCount,
        deadLetters.maxAgeMillis,
        membership.quiet ? 1 : 0
      ]
    )
    if (tag === "NOGROUP") return yield* Effect.fail(groupGone)
    if (next >= 0) heartbeat.expect(next)
    if (alive === 0 || membership.differs(held, sentAt)) heartbeat.verify = true
    yield* membership.truncated(cut)
    yield* membership.dropped(dropped)
    yield* membership.setPaused(paused === 1)
    if (heartbeat.verify || sentAt - this.#renewedAt >= leaseMillis / 3) yield* this.#renew()
    this.#inFlight.beatAt = sentAt
    this.#inFlight.handOut()
    // A take that waits now may have waited for what was in the buffer until a moment ago.
    if (this.#inFlight.demand > 0) this.#demanded()
    if (more === 1) return true

    const [first, ...others] = membership.unclaimed
    if (first !== undefined) {
      yield* Effect.ignore(this.#settler.settle([first, ...others]))
      if (membership.quiet) heartbeat.expect(0)
    }
    const wanted = membership.paused ? 0 : this.#inFlight.wanted(Math.min(pollMillis, leaseMillis / 3))
    if (wanted > 0) yield* this.#claims.takeOver(wanted)
    if (this.#settledSince && now() - this.#trimmedAt >= pollMillis) {
      this.#settledSince = false
      this.#trimmedAt = now()
      if (yield* this.#trim()) {
        this.#settledSince = true
        this.#trimmedAt = -Infinity
      }
    }
    return false
  })

  /** Whether there is more to cut off. */
  #trim(): Effect.Effect<boolean, Reason> {
    const { keys, trims } = this.#options
    return Effect.map(
      this.#eval<[string, number]>(
        GroupScripts.trim,
        [keys.stream, this.#keys.retry, keys.groups],
        [trimLimit, trims ? 1 : 0]
      ),
      ([, more]) => more === 1
    )
  }

  /** Asks for every delivery that is held for long, or for every one, whether it is still ours; then the reader asks which others are. */
  #renew(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { keys } = this.#options
      const membership = this.#membership
      const { heartbeat, leaseMillis, now } = membership
      const everything = heartbeat.verify
      heartbeat.verify = false
      if (everything) this.#reader.compare()
      this.#renewedAt = now()
      const limit = now() - leaseMillis / 3
      const candidates: Array<StreamDelivery> = []
      for (const delivery of this.#inFlight.all()) {
        if (delivery.detached || (!everything && (delivery.settling || delivery.renewedAt > limit))) continue
        candidates.push(delivery)
      }
      for (let i = 0; i < candidates.length; i += renewLimit) {
        const some = candidates.slice(i, i + renewLimit)
        const sentAt = now()
        const [tag, told] = yield* this.#eval<[string, string]>(
          DeliveryScripts.renew,
          [keys.stream, this.#keys.retry],
          [this.#group, this.consumer, ...some.flatMap(({ count, entry, source }) => [source, entry, count])]
        )
        if (tag === "NOGROUP") return yield* Effect.fail(groupGone)
        yield* membership.renewed(some, sentAt, (index) => told[index] === "O")
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (this.#membership.heartbeat.verify = true))))
  }

  // --- leaving ---------------------------------------------------------------------------------------------------

  readonly #handBack: Effect.Effect<boolean, Reason> = Effect.gen({ self: this }, function* () {
    const { keys } = this.#options
    const mine = this.#keys
    const [, more] = yield* this.#eval<[string, 0 | 1]>(
      GroupScripts.leave,
      [keys.stream, mine.retry, mine.consumers, mine.released, mine.state, keys.wake],
      [this.#group, this.consumer, GroupScripts.nobody, leaveLimit]
    )
    if (more === 1) return true
    if (this.#settledSince) yield* Effect.ignore(this.#trim())
    return false
  })
}
