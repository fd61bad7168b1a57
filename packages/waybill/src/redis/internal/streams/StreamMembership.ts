/**
 * What a member says to the server on streams: there is a native group of the topic's stream and one of the group's retry
 * stream, each delivery has a lease, and messages that all groups have settled are trimmed.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { textOf } from "../../../internal/Filter.ts"
import type { KeptLimits } from "../../../internal/Limits.ts"
import type { Reason, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Dedicated } from "../connection/Connection.ts"
import { type Call, calling } from "../connection/ScriptReply.ts"
import { type BeatArgs, groupGone } from "../group/Beat.ts"
import {
  type Beat,
  type GroupReceiver,
  type Joined,
  make as makeReceiver,
  type Membership,
  type ReceiverOptions
} from "../group/GroupReceiver.ts"
import { precedes } from "../wire/Fields.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import { Claims } from "./Claims.ts"
import * as DeliveryScripts from "./DeliveryScripts.ts"
import * as GroupScripts from "./GroupScripts.ts"
import { Reader } from "./Reader.ts"
import { receiptOf, type StreamHandle } from "./StreamDelivery.ts"
import { StreamSettling } from "./StreamSettling.ts"
import { limitsText } from "./StreamStorage.ts"

export interface MembershipOptions extends ReceiverOptions {
  readonly dedicated: Dedicated
  /** Calls `heard` with the milliseconds until there may be something to bring in or to take over. */
  readonly hear: (heard: (millis: number) => void) => Effect.Effect<void, never, Scope.Scope>
  readonly committer: (consumer: string) => Committer<StreamHandle>
  /** The limits of the stream; without them, messages that all groups have settled are trimmed. */
  readonly retention: KeptLimits | undefined
}

/** The most that one script hands back. */
const leaveLimit = 500
/** How many of its deliveries a consumer reports when the group was lost. */
const heldLimit = 1000

/** Joins the group; leaves it when the scope closes. */
export const make = (
  options: MembershipOptions
): Effect.Effect<GroupReceiver<StreamHandle>, TransportError, Scope.Scope> =>
  makeReceiver(options, (receiver) => new StreamMembership(options, receiver))

class StreamMembership implements Membership<StreamHandle> {
  readonly renews = true
  readonly fetcher: Reader
  readonly settling: StreamSettling
  readonly #options: MembershipOptions
  readonly #call: Call<TopicKeys & GroupKeys>
  readonly #receiver: GroupReceiver<StreamHandle>
  readonly #claims: Claims
  readonly #what: "settled" | "history" | "newest"
  readonly #limits: string
  /** How often to trim what has become too old, ms. */
  readonly #agingMillis: number
  #settledSince = false
  #trimmedAt = -Infinity

  constructor(options: MembershipOptions, receiver: GroupReceiver<StreamHandle>) {
    this.#options = options
    this.#receiver = receiver
    const { commands, committer, pollMillis, retention, subscription, topic } = options
    this.#what = retention === undefined ? "settled" : retention.keep === "newest" ? "newest" : "history"
    this.#limits = retention === undefined ? "" : limitsText(retention)
    const { maxAgeMillis = Infinity } = retention ?? {}
    this.#agingMillis = maxAgeMillis < Infinity ? Math.max(pollMillis, Math.min(60_000, maxAgeMillis / 10)) : Infinity
    const { consumer, inFlight } = receiver
    const keys = { ...options.keys, ...options.keys.group(subscription.group) }
    this.#call = calling(commands, { topic, pattern: GroupScripts.pattern }, keys)
    const belonging = { ...options, keys, receiver, call: this.#call }
    const claims = new Claims(belonging)
    this.#claims = claims
    this.fetcher = new Reader({ ...belonging, claims })
    this.settling = new StreamSettling({
      ...belonging,
      committer: committer(consumer),
      settled: (millis) => {
        if (millis < Infinity) receiver.expect(millis)
        this.#settledSince = true
        claims.settled()
      },
      released: () => {
        claims.returned = true
        if (inFlight.demand > 0) {
          receiver.hurry()
          receiver.wake()
        }
      }
    })
  }

  /** Notifications are hints: joining does not wait for the subscription. Earlier ones are covered by the check that follows. */
  get open(): Effect.Effect<void, never, Scope.Scope> {
    const { hear } = this.#options
    const receiver = this.#receiver
    const heard = hear((millis) => receiver.expect(millis))
    return Effect.andThen(
      Effect.forkScoped(
        Effect.andThen(
          heard,
          Effect.sync(() => receiver.expect(0))
        )
      ),
      this.fetcher.open
    )
  }

  join(again: boolean): Effect.Effect<Joined<StreamHandle>, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { subscription } = this.#options
      const { consumer, inFlight, leaseMillis } = this.#receiver
      const held = inFlight
        .all()
        .filter(({ detached }) => !detached)
        .slice(0, heldLimit)
      const { firstMain, firstOnRetry, from, known, main, onRetry, paused } = yield* this.#call(
        GroupScripts.join,
        {
          group: subscription.group,
          consumer,
          start: GroupScripts.startOf(subscription.start),
          lease: leaseMillis,
          again: again ? 1 : 0,
          maxLength: this.#what === "newest" ? this.#limits : "",
          history: this.#what === "history" ? this.#limits : "",
          only: textOf(subscription.only),
          holds: held.length
        },
        { args: [...held.flatMap(({ count, entry, source }) => [source, entry, count]), ...this.settling.last] }
      )
      const isLost = known && main + onRetry > 0
      const lost: Array<StreamHandle> = []
      for (const handle of isLost ? inFlight.all() : []) {
        const [made, first] = handle.source === 0 ? [main, firstMain] : [onRetry, firstOnRetry]
        if (made === 0) continue
        // This is the last copy of a message that is not in the stream: it is handled to the end. Others are delivered again,
        // unless the group still has them.
        if (first === "" || precedes(handle.entry, first)) handle.detached = true
        else if (made === 1) lost.push(handle)
      }
      // Entries without an owner may be taken.
      if (again) this.#claims.returned = true
      return { paused, isNew: main > 0, from: isLost ? from : undefined, lost }
    })
  }

  beat(args: BeatArgs): Effect.Effect<Beat, Reason> {
    return Effect.flatMap(this.#call(GroupScripts.beat, args), (reply) =>
      reply._tag === "NOGROUP"
        ? Effect.fail(groupGone)
        : Effect.succeed({
            ...reply,
            cancelled: reply.cancelled.map((of) => receiptOf(of.startsWith("1") ? 1 : 0, of.slice(1))),
            rest: this.#rest(reply.claims)
          })
    )
  }

  /** Takes over what is without a consumer, and trims what all groups have settled. */
  readonly #rest = Effect.fnUntraced({ self: this }, function* (claims: boolean): Effect.fn.Return<boolean, Reason> {
    const { pollMillis } = this.#options
    const { inFlight, leaseMillis, now, paused } = this.#receiver
    const wanted = paused ? 0 : inFlight.wanted(Math.min(pollMillis, leaseMillis / 3))
    if (claims && wanted > 0) yield* this.#claims.takeOver(wanted)
    const since = now() - this.#trimmedAt
    if ((this.#settledSince && since >= pollMillis) || since > this.#agingMillis) {
      this.#settledSince = false
      this.#trimmedAt = now()
      if (yield* this.#trim) {
        this.#settledSince = true
        this.#trimmedAt = -Infinity
      }
    }
    return false
  })

  /** Whether there is more to trim. */
  get #trim(): Effect.Effect<boolean, Reason> {
    const args = { most: GroupScripts.trimLimit, what: this.#what, limits: this.#limits }
    return Effect.map(this.#call(GroupScripts.trim, args), ({ more }) => more)
  }

  renew(handles: ReadonlyArray<StreamHandle>): Effect.Effect<(index: number) => boolean, Reason> {
    const { group } = this.#options.subscription
    const args = handles.flatMap(({ count, entry, source }) => [source, entry, count])
    return Effect.flatMap(
      this.#call(DeliveryScripts.renew, { group, consumer: this.#receiver.consumer }, { args }),
      (reply) =>
        reply._tag === "NOGROUP"
          ? Effect.fail(groupGone)
          : Effect.succeed((index: number) => reply.answers[index] === "O")
    )
  }

  handBackBegun(handles: ReadonlyArray<StreamHandle>): Effect.Effect<void, Reason> {
    return this.settling.handBackBegun(handles)
  }

  readonly leave: Effect.Effect<boolean, Reason> = Effect.gen({ self: this }, function* () {
    const { more } = yield* this.#call(GroupScripts.leave, {
      group: this.#options.subscription.group,
      consumer: this.#receiver.consumer,
      limit: leaveLimit
    })
    if (more) return true
    if (this.#settledSince) yield* Effect.ignore(this.#trim)
    return false
  })
}
