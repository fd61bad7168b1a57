/**
 * What a member of a group says to the server where the group keeps by itself who has what: whatever a consumer holds lives as
 * long as its heartbeat, and what dead consumers held is given to others by those who live.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { DeadLetterCap } from "../../../internal/Limits.ts"
import type { Reason, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Script } from "../connection/Script.ts"
import { evaluate, wire } from "../connection/ScriptReply.ts"
import { groupGone } from "../group/GroupGone.ts"
import {
  type Beat,
  type GroupReceiver,
  type Joined,
  make as makeReceiver,
  type Membership,
  type ReceiverOptions,
  type Settling
} from "../group/GroupReceiver.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import type { BoundSource } from "./BoundSource.ts"
import { ClaimedDelivery } from "./ClaimedDelivery.ts"
import { ClaimsSettler } from "./ClaimsSettler.ts"
import { Fetcher } from "./Fetcher.ts"

export interface MembershipOptions extends Omit<ReceiverOptions, "pattern" | "keys"> {
  readonly keys: TopicKeys
  readonly source: BoundSource
  readonly deadLetters: DeadLetterCap
  /** Of a pattern that applies commits. */
  readonly committer?: ((consumer: string) => Committer<ClaimedDelivery>) | undefined
}

/** How much one script may move or hand back. */
const moveLimit = 500
const vacateLimit = 500

/** A dead letter as the script tells it. */
type Buried = readonly [member: string, attempts: number, record: string]

/** Joins the group; leaves it when the scope closes. */
export const make = (
  options: MembershipOptions
): Effect.Effect<GroupReceiver<ClaimedDelivery>, TransportError, Scope.Scope> => {
  const keys = options.keys.group(options.subscription.group)
  return makeReceiver(
    { ...options, pattern: options.source.pattern, keys },
    (receiver) => new ClaimsMembership(options, keys, receiver)
  )
}

class ClaimsMembership implements Membership<ClaimedDelivery> {
  readonly renews = false
  readonly fetcher: Fetcher
  readonly settler: Settling<ClaimedDelivery>
  readonly #options: MembershipOptions
  readonly #keys: GroupKeys
  readonly #receiver: GroupReceiver<ClaimedDelivery>

  constructor(options: MembershipOptions, keys: GroupKeys, receiver: GroupReceiver<ClaimedDelivery>) {
    this.#options = options
    this.#keys = keys
    this.#receiver = receiver
    const { commands, committer, deadLetters, source, topic } = options
    const { consumer, inFlight } = receiver
    const settleKeys = [
      ...source.keys,
      keys.processing(consumer),
      keys.returned,
      keys.suspects,
      keys.marks,
      keys.waiting,
      keys.dead,
      keys.state,
      options.keys.wake
    ]
    const fetcher = new Fetcher({ ...options, keys, receiver, settleKeys })
    this.fetcher = fetcher
    const settler = new ClaimsSettler({
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
        this.#heard(millis)
      },
      committer: committer?.(consumer),
      dropped: (count) => receiver.dropped(count)
    })
    this.settler = {
      settle: (settlements) => settler.settle(settlements),
      handBackBegun: (deliveries) => fetcher.handBackBegun(deliveries),
      close: () => settler.close()
    }
  }

  get open(): Effect.Effect<void, never, Scope.Scope> {
    return this.#options.source.listen(
      (millis, urgency) => this.#heard(millis, urgency),
      (reason) => this.#receiver.fail(reason)
    )
  }

  /** Something may be there to take in so many milliseconds. */
  #heard(millis: number, urgency = Infinity): void {
    const { urgencyOf } = this.#options.source
    if (urgencyOf !== undefined && urgency < Infinity && !this.#receiver.paused) {
      this.#receiver.recalls.stir(urgency, urgencyOf)
    }
    if (millis > 0) this.#receiver.expect(millis)
    else this.fetcher.wake()
  }

  join(again: boolean): Effect.Effect<Joined<ClaimedDelivery>, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { keys, source, subscription } = this.#options
      const mine = this.#keys
      const { consumer, inFlight, leaseMillis } = this.#receiver
      const { group, start } = subscription
      const [, known] = yield* this.#eval<[string, 0 | 1]>(
        source.scripts.join,
        [
          keys.meta,
          keys.groups,
          mine.consumers,
          mine.state,
          mine.processing(consumer),
          mine.returned,
          mine.suspects,
          mine.marks,
          mine.waiting,
          mine.dead
        ],
        [source.pattern, wire, group, consumer, again ? "earliest" : start, leaseMillis]
      )
      const isNew = known === 0
      // What it had given us went with it, or is there for everybody.
      return again && isNew ? { isNew, from: "earliest", lost: inFlight.all() } : { isNew, lost: [] }
    })
  }

  readonly beat: Effect.Effect<Beat, Reason> = Effect.gen({ self: this }, function* () {
    const { deadLetters, keys, source, subscription } = this.#options
    const mine = this.#keys
    const receiver = this.#receiver
    const { consumer, inFlight, leaseMillis } = receiver
    const age = inFlight.age()
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
        mine.processing(consumer)
      ],
      [
        subscription.group,
        consumer,
        leaseMillis,
        moveLimit,
        age === undefined ? "" : Math.round(age),
        deadLetters.maxCount,
        deadLetters.maxAgeMillis,
        receiver.quiet ? 1 : 0
      ]
    )
    if (tag === "NOGROUP") return yield* Effect.fail(groupGone)
    // It was not looked at while it was paused.
    if (paused === 0 && (backlog > 0 || receiver.paused)) this.#heard(0, urgency || undefined)
    return {
      alive: alive === 1,
      paused: paused === 1,
      more: more === 1,
      next,
      held,
      dropped,
      truncated: 0,
      // Whose own heartbeat had run out knows of an outage that may have met all of them: those who live get a beat to say so.
      rest: alive === 1 && dead.length > 0 ? this.#vacate("dead", dead) : Effect.succeed(false)
    }
  })

  renew(deliveries: ReadonlyArray<ClaimedDelivery>): Effect.Effect<(index: number) => boolean, Reason> {
    const key = this.#keys.processing(this.#receiver.consumer)
    const receipts = deliveries.map(({ receipt }) => receipt)
    return Effect.map(
      this.#options.commands.run("smismember", (client) => client.smismember(key, receipts), { key }),
      (told) => (index) => told[index] === 1
    )
  }

  get leave(): Effect.Effect<boolean, Reason> {
    return this.#vacate("leave", [this.#receiver.consumer])
  }

  /** Gives to others what these consumers hold; returns whether there is more of it. */
  #vacate(how: "leave" | "dead", consumers: ReadonlyArray<string>): Effect.Effect<boolean, Reason> {
    const { deadLetters, keys, lifecycle, subscription, source, topic } = this.#options
    const { group } = subscription
    const mine = this.#keys
    const receiver = this.#receiver
    return Effect.gen({ self: this }, function* () {
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
      const deadLettered = buried.map(([member, attempts, record]) => {
        const bytes = Buffer.from(record)
        return new ClaimedDelivery(topic, group, member, attempts, bytes, undefined, 0, bytes.length, receiver.now())
      })
      yield* receiver.buried(deadLettered, () => "delivered too often to consumers that died or stalled")
      yield* receiver.dropped(dropped)
      if (moved > 0) this.fetcher.wake()
      return more === 1
    })
  }

  #eval<A extends ReadonlyArray<unknown>>(
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> {
    const { commands, source, topic } = this.#options
    return evaluate<A>(commands, { topic, pattern: source.pattern }, script, [...source.keys, ...keys], args)
  }
}
