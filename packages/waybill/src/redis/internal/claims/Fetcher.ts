/**
 * Takes messages that came back and new ones, when there is demand and something may be available. Deliveries that are ours on the
 * server but unknown to us are handed back before the next take: the reply that gave them to us was lost, or the
 * settlement that had ended them.
 *
 * @module
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { textOf } from "../../../internal/Filter.ts"
import type { Reason } from "../../../Transport.ts"
import type { Belonging, Fetching } from "../group/GroupReceiver.ts"
import { hurryMillis } from "../group/Heartbeat.ts"
import { suspectsAmong } from "../group/Suspecting.ts"
import type { ClaimsKeys } from "../wire/Keys.ts"
import { type ClaimedHandle, deliveriesOf } from "./ClaimedDelivery.ts"
import type { ClaimsSettling } from "./ClaimsSettling.ts"
import { Gaps } from "./Gaps.ts"
import type { BoundSource } from "./Scripts.ts"

export interface FetcherOptions extends Belonging<ClaimedHandle, ClaimsKeys> {
  readonly source: BoundSource
  readonly settling: ClaimsSettling
}

/** The most that one script hands out, besides a limit in bytes: what a slow network carries within its deadline. */
const takeLimit = 1000
const takeBytes = 4 * 1024 * 1024

export class Fetcher implements Fetching {
  readonly #options: FetcherOptions
  readonly #only: string
  readonly #gaps = new Gaps()
  limit = takeLimit
  /** Something may be available that was not there at the last check. */
  promising = true
  unsure = false
  readonly pending = false
  calling = false
  /** The reply of a take was lost: no handler has seen what it gave us. */
  #replyLost = false
  /** Held deliveries that more than one consumer had died with. */
  #suspects: ReadonlyArray<ClaimedHandle> = []

  constructor(options: FetcherOptions) {
    this.#options = options
    this.#only = textOf(options.subscription.only)
  }

  /** Something may be available. */
  wake(): void {
    this.promising = true
    this.#options.receiver.wake()
  }

  /** A delivery ended: if it was a suspect, more may be available. */
  settled(): void {
    if (this.#suspects.length === 0) return
    const held = this.#suspects.filter(this.#holds)
    if (held.length === this.#suspects.length) return
    this.#suspects = held
    this.wake()
  }

  /** No take waits on the server, and the script refuses those that arrive after we have left. */
  readonly unblock = Effect.void

  fetch(max: number): Effect.Effect<void, Reason> {
    return this.unsure
      ? this.#handBackUnknown
      : Effect.onError(this.#take(max), () => Effect.sync(() => (this.promising = true)))
  }

  #take(count: number): Effect.Effect<void, Reason> {
    const { call, lifecycle, receiver, source, subscription, topic } = this.#options
    const { group } = subscription
    const { consumer } = receiver
    return Effect.gen({ self: this }, function* () {
      const asked = this.#replyLost
      if (asked) yield* this.#handBackUnknown
      // Whatever becomes available from now on may be too late for this take.
      this.promising = false
      this.calling = true
      const now = receiver.now()
      const bytes = Math.max(1, Math.min(takeBytes, receiver.inFlight.demandBytes))
      this.#suspects = this.#suspects.filter(this.#holds)
      const reply = yield* call(source.scripts.take, {
        group: subscription.group,
        consumer,
        max: count,
        unsure: asked ? 1 : 0,
        only: this.#only,
        ...suspectsAmong(this.#suspects, subscription),
        bytes
      }).pipe(
        Effect.onError((cause) =>
          Effect.sync(() => {
            if (!wasNeverSent(cause)) this.#replyLost = true
          })
        ),
        Effect.ensuring(Effect.sync(() => (this.calling = false)))
      )
      if (reply._tag === "EXPIRED") {
        this.promising = true
        receiver.doubt()
        return yield* Effect.sleep(hurryMillis)
      }
      // The heartbeat notices when the pause is over.
      if (reply._tag === "PAUSED") return receiver.expect(0)
      const { gone, holes, more, records, suspects } = reply
      const taken = deliveriesOf(reply, topic, group, now)
      const missed = this.#gaps.count(gone)
      if (more || taken.length + missed >= count || records.length >= bytes) this.promising = true
      if (source.expires) {
        for (const gap of this.#gaps.note(taken, missed, holes.toString("latin1"))) {
          yield* lifecycle.report({ _tag: "Gap", topic, group, consumer, gap })
        }
      } else {
        yield* receiver.truncated(missed)
      }
      if (taken.length === 0) return
      this.limit = takeLimit
      receiver.inFlight.add(taken)
      if (suspects > 0) this.#suspects = [...this.#suspects, ...taken.slice(0, suspects).map(({ handle }) => handle)]
    })
  }

  readonly #holds = (handle: ClaimedHandle): boolean => this.#options.receiver.inFlight.find(handle) === handle

  /** Hands back deliveries unknown to us. One in a lost reply is not an attempt: no handler has seen it. */
  get #handBackUnknown(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { commands, keys, receiver, settling } = this.#options
      const { inFlight, unheard } = receiver
      const key = keys.processing
      // Deliveries lost from here on are checked the next time.
      const lost = [...unheard.keys()]
      const members = yield* commands.run("smembers", key, (client) => client.smembers(key))
      const op = (member: string) => (this.#replyLost && !unheard.has(member) ? "L" : "U")
      const known = new Set(inFlight.all().map(({ receipt }) => receipt))
      const unknown = members.filter((member) => !known.has(member))
      yield* settling.handBack(unknown.map((member) => [op(member), member] as const))
      for (const member of lost) unheard.delete(member)
      this.#replyLost = false
      this.unsure = unheard.size > 0
      if (unknown.length > 0) this.wake()
    })
  }
}

/** It had no effect on the server. */
const wasNeverSent = (cause: Cause.Cause<Reason>): boolean =>
  cause.reasons.every(
    (reason) => reason._tag === "Fail" && reason.error._tag === "Disconnected" && !reason.error.ambiguous
  )
