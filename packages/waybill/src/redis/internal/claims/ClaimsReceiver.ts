/**
 * A member of a group: takes for as long as somebody asks, keeps what it has given out, frees what dead consumers held,
 * and hands back what is unsettled when it leaves.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Delivery } from "../../../Delivery.ts"
import type { DeadLetterCap } from "../../../internal/Limits.ts"
import type { Lifecycle } from "../../../Lifecycle.ts"
import type { Settlement } from "../../../Settlement.ts"
import type { Reason, Recall, Receiver, Settled, Subscription, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Connection } from "../connection/Connection.ts"
import type { Script } from "../connection/Script.ts"
import { evaluate, wire } from "../connection/ScriptReply.ts"
import type { InFlight } from "../group/InFlight.ts"
import { Membership } from "../group/Membership.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import type { BoundSource } from "./BoundSource.ts"
import { ClaimedDelivery } from "./ClaimedDelivery.ts"
import { ClaimsSettler } from "./ClaimsSettler.ts"
import { Fetcher } from "./Fetcher.ts"

export interface ReceiverOptions {
  readonly commands: Connection
  readonly topic: string
  readonly keys: TopicKeys
  readonly source: BoundSource
  readonly subscription: Subscription
  readonly lifecycle: Lifecycle
  readonly clock: Clock.Clock
  readonly deadLetters: DeadLetterCap
  /** Of a pattern that applies commits. */
  readonly committer?: ((consumer: string) => Committer<ClaimedDelivery>) | undefined
  readonly pollMillis: number
  /** Runs after the group was joined: the topic is in the store. */
  readonly opened: Effect.Effect<void>
}

/** How much one script may move or hand back, and of how much one command asks. */
const moveLimit = 500
const vacateLimit = 500
const verifyLimit = 1000

/** A dead letter as the script tells it. */
type Buried = readonly [member: string, attempts: number, record: string]

/** Joins the group; leaves it when the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: ReceiverOptions
): Effect.fn.Return<ClaimsReceiver, TransportError, Scope.Scope> {
  const member = new ClaimsReceiver(options)
  yield* Effect.acquireRelease(member.start, () => member.stop)
  return member
})

export class ClaimsReceiver implements Receiver {
  readonly consumer: string
  readonly #options: ReceiverOptions
  readonly #keys: GroupKeys
  readonly #membership: Membership<ClaimedDelivery>
  readonly #inFlight: InFlight<ClaimedDelivery>
  readonly #fetcher: Fetcher
  readonly #settler: ClaimsSettler

  constructor(options: ReceiverOptions) {
    this.#options = options
    const { commands, committer, deadLetters, keys, subscription, source, topic } = options
    const { group } = subscription
    const mine = keys.group(group)
    this.#keys = mine
    const membership = new Membership<ClaimedDelivery>({
      ...options,
      keys: mine,
      work: Effect.suspend(() =>
        Effect.as(
          source.listen(
            (millis, urgency) => this.wake(millis, urgency),
            (reason) => membership.fail(reason)
          ),
          this.#fetcher.run
        )
      ),
      join: this.#join(false),
      beat: this.#beat,
      repair: Effect.fail,
      eager: () => false,
      demanded: () => this.#demanded(),
      halted: Effect.void,
      idle: Effect.suspend(() => this.#fetcher.idle),
      end: () => this.#fetcher.end,
      handBackBegun: (deliveries) => this.#fetcher.handBackBegun(deliveries),
      handBack: Effect.suspend(() => this.#vacate("leave", [this.consumer]))
    })
    const { consumer, inFlight } = membership
    this.consumer = consumer
    this.#membership = membership
    this.#inFlight = inFlight
    const settleKeys = [
      ...source.keys,
      mine.processing(consumer),
      mine.returned,
      mine.suspects,
      mine.marks,
      mine.waiting,
      mine.dead,
      mine.state,
      keys.wake
    ]
    const fetcher = new Fetcher({ ...options, group, keys: mine, membership, settleKeys })
    this.#fetcher = fetcher
    this.#settler = new ClaimsSettler({
      commands,
      topic,
      pattern: source.pattern,
      consumer,
      script: source.scripts.settle,
      keys: settleKeys,
      inFlight,
      deadLetters,
      settled: (millis) => {
        fetcher.settled()
        this.wake(millis)
      },
      committer: committer?.(consumer),
      dropped: (count) => membership.dropped(count)
    })
  }

  take(max: number, bytes?: number): Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError> {
    return this.#inFlight.take(max, bytes)
  }

  settle(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return this.#settler.settle(settlements)
  }

  get lost(): Effect.Effect<NonEmptyReadonlyArray<Delivery>> {
    return this.#inFlight.lost
  }

  get recalled(): Effect.Effect<Recall> {
    return this.#membership.recalls.next
  }

  /** Something may be there to take in so many milliseconds. */
  wake(millis: number, urgency = Infinity): void {
    const { urgencyOf } = this.#options.source
    if (urgencyOf !== undefined && urgency < Infinity && !this.#membership.paused) {
      this.#membership.recalls.stir(urgency, urgencyOf)
    }
    if (millis > 0) this.expect(millis)
    else this.#fetcher.wake()
  }

  /** A message of the topic will be due in so many milliseconds. */
  expect(millis: number): void {
    this.#membership.heartbeat.expect(millis)
  }

  /** Looks at once whether the group is paused; returns when it knows, or soon. */
  get look(): Effect.Effect<void> {
    return this.#membership.heartbeat.look
  }

  /** Stands still or goes on, like a process that is stopped: nothing is taken or renewed meanwhile. */
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
    const { commands, source, topic } = this.#options
    return evaluate<A>(commands, { topic, pattern: source.pattern }, script, [...source.keys, ...keys], args)
  }

  #demanded(): void {
    const { heartbeat, worker } = this.#membership
    if (this.#inFlight.buffered > 0) {
      heartbeat.verify = true
      heartbeat.wake()
    }
    worker.signal()
  }

  // --- joining ---------------------------------------------------------------------------------------------------

  /** Makes sure that the group exists. `again`: it did, and something says that it does no more. */
  #join(again: boolean): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { keys, lifecycle, opened, subscription, source, topic } = this.#options
      const mine = this.#keys
      const membership = this.#membership
      const sentAt = membership.now()
      const [, known] = yield* this.#eval<[string, 0 | 1]>(
        source.scripts.join,
        [
          keys.meta,
          keys.groups,
          mine.consumers,
          mine.state,
          mine.processing(this.consumer),
          mine.returned,
          mine.suspects,
          mine.marks,
          mine.waiting,
          mine.dead
        ],
        [
          source.pattern,
          wire,
          this.#group,
          this.consumer,
          again ? "earliest" : subscription.start,
          membership.leaseMillis
        ]
      )
      this.#inFlight.beatAt = sentAt
      if (!again || known === 0) yield* opened
      if (!again || known === 1) return
      yield* lifecycle.report({ _tag: "GroupRecreated", topic, group: this.#group, from: "earliest" })
      // What it had given us went with it, or is there for everybody.
      yield* membership.lose(this.#inFlight.all())
    })
  }

  // --- keeping ---------------------------------------------------------------------------------------------------

  /** Answers whether there is more to do at once. */
  readonly #beat: Effect.Effect<boolean, Reason> = Effect.gen({ self: this }, function* () {
    const { deadLetters, keys, source } = this.#options
    const mine = this.#keys
    const membership = this.#membership
    const { heartbeat } = membership
    const sentAt = membership.now()
    const age = this.#inFlight.age()
    const [tag, alive, paused, more, next, backlog, dead, dropped, held, urgency] = yield* this.#eval<
      [string, 0 | 1, 0 | 1, 0 | 1, number, number, ReadonlyArray<string>, number, number, number]
    >(
      source.scripts.beat,
      [
        keys.groups,
        mine.consumers,
        mine.state,
        mine.waiting,
        mine.returned,
        mine.suspects,
        mine.marks,
        mine.dead,
        keys.wake,
        mine.processing(this.consumer)
      ],
      [
        this.#group,
        this.consumer,
        membership.leaseMillis,
        moveLimit,
        age === undefined ? "" : Math.round(age),
        deadLetters.maxCount,
        deadLetters.maxAgeMillis,
        membership.quiet ? 1 : 0
      ]
    )
    if (tag === "NOGROUP") {
      yield* this.#join(true)
      return true
    }
    if (next >= 0) heartbeat.expect(next)
    if (alive === 0 || membership.differs(held, sentAt)) heartbeat.verify = true
    yield* membership.dropped(dropped)
    // It was not looked at while it was paused.
    if (paused === 0 && membership.paused) this.wake(0)
    yield* membership.setPaused(paused === 1)
    if (heartbeat.verify) yield* this.#ask()
    this.#inFlight.beatAt = sentAt
    this.#inFlight.handOut()
    if (backlog > 0) this.wake(0, urgency || undefined)
    if (more === 1) return true
    const [first, ...others] = membership.unclaimed
    if (first !== undefined) {
      yield* Effect.ignore(this.#settler.settle([first, ...others]))
      if (membership.quiet) heartbeat.expect(0)
    }
    // Whose own heartbeat had run out knows of an outage that may have met all of them: those who live get a beat to say so.
    return alive === 1 && dead.length > 0 ? yield* this.#vacate("dead", dead) : false
  })

  /** Asks of every delivery whether it is still ours, and has the fetcher ask which others are. */
  #ask(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { commands } = this.#options
      const membership = this.#membership
      const key = this.#keys.processing(this.consumer)
      membership.heartbeat.verify = false
      this.#fetcher.compare()
      const held = this.#inFlight.all().filter(({ settling }) => !settling)
      for (let i = 0; i < held.length; i += verifyLimit) {
        const some = held.slice(i, i + verifyLimit)
        const sentAt = membership.now()
        const told = yield* commands.run(
          "smismember",
          (client) =>
            client.smismember(
              key,
              some.map(({ receipt }) => receipt)
            ),
          { key }
        )
        yield* membership.renewed(some, sentAt, (index) => told[index] === 1)
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (this.#membership.heartbeat.verify = true))))
  }

  /** Gives to others what these consumers hold; answers whether there is more of it. */
  #vacate(how: "leave" | "dead", consumers: ReadonlyArray<string>): Effect.Effect<boolean, Reason> {
    const { deadLetters, keys, lifecycle, subscription, source, topic } = this.#options
    const group = this.#group
    return Effect.gen({ self: this }, function* () {
      const mine = this.#keys
      const membership = this.#membership
      const [, moved, from, buried, dropped, more] = yield* this.#eval<
        [string, number, ReadonlyArray<string>, ReadonlyArray<Buried>, number, 0 | 1]
      >(
        source.scripts.vacate,
        [
          mine.consumers,
          mine.state,
          mine.returned,
          mine.suspects,
          mine.marks,
          mine.dead,
          keys.wake,
          ...consumers.map(mine.processing)
        ],
        [how, vacateLimit, subscription.maxDeliveries, deadLetters.maxCount, deadLetters.maxAgeMillis, ...consumers]
      )
      if (from.length > 0) yield* lifecycle.report({ _tag: "Claimed", topic, group, from, count: moved })
      const graves = buried.map(([member, attempts, record]) => {
        const bytes = Buffer.from(record)
        return new ClaimedDelivery(topic, group, member, attempts, bytes, undefined, 0, bytes.length, membership.now())
      })
      yield* membership.buried(graves, () => "delivered too often to consumers that died or stalled")
      yield* membership.dropped(dropped)
      if (moved > 0) this.wake(0)
      return more === 1
    })
  }
}
