/**
 * What a member says to the server if the group records ownership itself: everything a consumer holds lives as long as its
 * heartbeat, and live consumers give the deliveries of dead ones to others.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { textOf } from "../../../internal/Filter.ts"
import * as Settlement from "../../../Settlement.ts"
import type { Reason, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import { calling } from "../connection/ScriptReply.ts"
import { type BeatArgs, groupGone } from "../group/Beat.ts"
import {
  type Beat,
  type Belonging,
  type GroupReceiver,
  type Joined,
  make as makeReceiver,
  type Membership,
  type ReceiverOptions
} from "../group/GroupReceiver.ts"
import { type ClaimsKeys, claimsKeys } from "../wire/Keys.ts"
import { type ClaimedHandle, loneDelivery } from "./ClaimedDelivery.ts"
import * as ClaimsSettling from "./ClaimsSettling.ts"
import { Fetcher } from "./Fetcher.ts"
import type { BoundSource } from "./Scripts.ts"

export interface MembershipOptions extends ReceiverOptions {
  readonly source: BoundSource
  /** Only for a pattern that applies commits. */
  readonly committer?: ((consumer: string) => Committer<ClaimedHandle>) | undefined
}

/** The most that one script hands back. */
const vacateLimit = 500

/** Joins the group; leaves it when the scope closes. */
export const make = (
  options: MembershipOptions
): Effect.Effect<GroupReceiver<ClaimedHandle>, TransportError, Scope.Scope> =>
  makeReceiver(options, (receiver) => new ClaimsMembership(options, receiver))

class ClaimsMembership implements Membership<ClaimedHandle> {
  readonly renews = false
  readonly fetcher: Fetcher
  readonly settling: ClaimsSettling.ClaimsSettling
  readonly #options: MembershipOptions
  readonly #belonging: Belonging<ClaimedHandle, ClaimsKeys>
  readonly #receiver: GroupReceiver<ClaimedHandle>

  constructor(options: MembershipOptions, receiver: GroupReceiver<ClaimedHandle>) {
    this.#options = options
    this.#receiver = receiver
    const { commands, committer, source, subscription, topic } = options
    const keys = claimsKeys(options.keys, subscription.group, receiver.consumer)
    const call = calling(commands, { topic, pattern: source.pattern }, keys)
    const belonging = { ...options, keys, receiver, call }
    this.#belonging = belonging
    this.settling = ClaimsSettling.make({
      ...belonging,
      script: source.scripts.settle,
      committer: committer?.(receiver.consumer),
      settled: (millis) => {
        this.fetcher.settled()
        this.#heard(millis)
      }
    })
    const { settling } = this
    this.fetcher = new Fetcher({ ...belonging, settling })
  }

  get open(): Effect.Effect<void, never, Scope.Scope> {
    return this.#options.source.listen(
      (millis, urgency) => this.#heard(millis, urgency),
      (reason) => this.#receiver.fail(reason)
    )
  }

  /** Something may be available in that many milliseconds. */
  #heard(millis: number, urgency = Infinity): void {
    const { urgencyOf } = this.#options.source
    if (urgencyOf !== undefined && urgency < Infinity && !this.#receiver.paused) {
      this.#receiver.recalls.stir(urgency, urgencyOf)
    }
    if (millis > 0) this.#receiver.expect(millis)
    else this.fetcher.wake()
  }

  join(again: boolean): Effect.Effect<Joined<ClaimedHandle>, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { source, subscription } = this.#options
      const { consumer, inFlight, leaseMillis } = this.#receiver
      const { known } = yield* this.#belonging.call(source.scripts.join, {
        group: subscription.group,
        consumer,
        // Another start was refused.
        start: !again && subscription.start === "latest" ? "latest" : "earliest",
        lease: leaseMillis,
        setting: source.setting,
        only: textOf(subscription.only)
      })
      const isNew = !known
      // What it had given us was lost with it, or is available to all.
      return again && isNew ? { isNew, from: "earliest", lost: inFlight.all() } : { isNew, lost: [] }
    })
  }

  beat(args: BeatArgs): Effect.Effect<Beat, Reason> {
    return Effect.flatMap(this.#belonging.call(this.#options.source.scripts.beat, args), (reply) => {
      if (reply._tag === "NOGROUP") return Effect.fail(groupGone)
      const { alive, backlog, dead, paused, urgency } = reply
      // It was not checked while paused.
      if (!paused && (backlog > 0 || this.#receiver.paused)) this.#heard(0, urgency || undefined)
      // A consumer whose own heartbeat had expired knows of an outage that may have affected all: live ones get a beat to say so.
      const rest = alive && dead.length > 0 ? this.#vacate("dead", dead) : Effect.succeed(false)
      return Effect.succeed({ ...reply, rest })
    })
  }

  renew(handles: ReadonlyArray<ClaimedHandle>): Effect.Effect<(index: number) => boolean, Reason> {
    const key = this.#belonging.keys.processing
    const receipts = handles.map(({ receipt }) => receipt)
    return Effect.map(
      this.#options.commands.run("smismember", key, (client) => client.smismember(key, receipts)),
      (told) => (index) => told[index] === 1
    )
  }

  handBackBegun(handles: ReadonlyArray<ClaimedHandle>): Effect.Effect<void, Reason> {
    return this.settling.handBack(handles.map(({ receipt }) => ["U", receipt]))
  }

  get leave(): Effect.Effect<boolean, Reason> {
    return this.#vacate("leave", [this.#receiver.consumer])
  }

  /** Hands the deliveries of these consumers to others; returns whether there are more. */
  #vacate(how: "leave" | "dead", consumers: ReadonlyArray<string>): Effect.Effect<boolean, Reason> {
    const { deadLetters, keys, lifecycle, subscription, source, topic } = this.#options
    const { group } = subscription
    const receiver = this.#receiver
    return Effect.gen({ self: this }, function* () {
      const { cancelled, deadLettered, dropped, from, more, moved } = yield* this.#belonging.call(
        source.scripts.vacate,
        {
          how,
          group: this.#options.subscription.group,
          limit: vacateLimit,
          most: subscription.maxDeliveries,
          ...deadLetters
        },
        { keys: consumers.map(keys.group(group).processing), args: consumers }
      )
      if (from.length > 0) yield* lifecycle.report({ _tag: "Claimed", topic, group, from, count: moved })
      const crashed = Settlement.deadLetter("CrashLoop", "delivered too often to consumers that died or stalled")
      for (const [letters, settlement] of [
        [deadLettered, crashed],
        [cancelled, Settlement.cancelled]
      ] as const) {
        const deliveries = letters.map(({ attempts, member, record }) =>
          loneDelivery(topic, group, member, attempts, Buffer.from(record), receiver.now())
        )
        yield* receiver.deadLettered(deliveries, () => settlement)
      }
      yield* receiver.dropped(dropped)
      if (moved > 0) this.fetcher.wake()
      return more
    })
  }
}
