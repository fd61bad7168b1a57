/**
 * A member of a group, from joining until it has left: fetches while there is demand, tracks the deliveries it has given out, sends
 * heartbeats, and hands back unsettled deliveries when it leaves. It survives anything the server and the network do; only
 * leaving is limited, to the time of the shutdown. The pattern's `Membership` decides what is said to the server.
 *
 * Three fibers do the work: the worker fetches new messages, the heartbeat is sent, and the watch ends handlers whose lease is no
 * longer certain, by the clock of this process, whether or not the server can be asked.
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
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Delivery } from "../../../Delivery.ts"
import { logFailures } from "../../../internal/FailureLog.ts"
import { textOf } from "../../../internal/Filter.ts"
import { Freezable } from "../../../internal/Freezable.ts"
import type { DeadLetterCap } from "../../../internal/Limits.ts"
import { everything, Recalls } from "../../../internal/Recalls.ts"
import { Wakeup } from "../../../internal/Wakeup.ts"
import type { Lifecycle } from "../../../Lifecycle.ts"
import * as Settlement from "../../../Settlement.ts"
import {
  Disconnected,
  type Ending,
  type Reason,
  type Recall,
  type Receiver,
  type Settled,
  type Subscription,
  TransportError
} from "../../../Transport.ts"
import type { Commands } from "../connection/Connection.ts"
import type { Call } from "../connection/ScriptReply.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import { type BeatArgs, type Beaten, isGroupGone } from "./Beat.ts"
import { Heartbeat, hurryMillis, survivable } from "./Heartbeat.ts"
import { type Carrying, type Held, InFlight } from "./InFlight.ts"
import { Settler } from "./Settler.ts"
import type { Settling } from "./Settling.ts"
import { Unclaimed } from "./Unclaimed.ts"

export interface ReceiverOptions {
  readonly commands: Commands
  readonly topic: string
  readonly keys: TopicKeys
  readonly subscription: Subscription
  readonly deadLetters: DeadLetterCap
  readonly lifecycle: Lifecycle
  readonly clock: Clock.Clock
  readonly pollMillis: number
  /** Runs after the group was joined: the topic exists in the store. */
  readonly opened: Effect.Effect<void>
}

/** Shared by the parts of a membership. */
export interface Belonging<H extends Held, Keys extends TopicKeys> extends ReceiverOptions {
  readonly keys: Keys
  readonly receiver: GroupReceiver<H>
  /** Runs scripts with these keys. */
  readonly call: Call<Keys>
}

/** What a pattern says to the server as a member of a group. */
export interface Membership<H extends Held> {
  readonly fetcher: Fetching
  readonly settling: Settling<H>
  /** Whether the lease of each delivery is renewed separately; otherwise all of them live as long as the heartbeat. */
  readonly renews: boolean
  /** Subscribes to notifications, and opens what fetching needs. */
  readonly open: Effect.Effect<void, never, Scope.Scope>
  /** Makes sure that the group exists. `again`: it existed, but seems to be gone. */
  readonly join: (again: boolean) => Effect.Effect<Joined<H>, Reason>
  /** Sends a heartbeat and brings in what is due. Fails with `groupGone` if there is no group. */
  readonly beat: (args: BeatArgs) => Effect.Effect<Beat, Reason>
  /** Checks and renews the ownership of each. */
  readonly renew: (handles: ReadonlyArray<H>) => Effect.Effect<(index: number) => boolean, Reason>
  /** Hands these to others as attempts, where they are still ours: handlers have had them. */
  readonly handBackBegun: (handles: ReadonlyArray<H>) => Effect.Effect<void, Reason>
  /** Hands some of the consumer's deliveries to others; returns whether there are more. */
  readonly leave: Effect.Effect<boolean, Reason>
}

export interface Joined<H extends Held> {
  readonly paused?: boolean
  /** The topic may be new in the store. */
  readonly isNew: boolean
  /** Where a lost group begins again. */
  readonly from?: string | undefined
  /** The deliveries lost with it. */
  readonly lost: ReadonlyArray<H>
}

export interface Beat extends Beaten {
  /** How many messages were gone before any consumer saw them. */
  readonly truncated?: number
  /** The receipts of its deliveries that an operator has cancelled: told again until they are settled. */
  readonly cancelled?: ReadonlyArray<string>
  /** What to do once all of this is known; returns whether there is more to do at once. */
  readonly rest: Effect.Effect<boolean, Reason>
}

/** Fetches new messages, and those that belong to the consumer without its knowledge. */
export interface Fetching {
  /** How many one call may bring. */
  limit: number
  /** There may be something to fetch. */
  readonly promising: boolean
  /** The consumer may own more than it knows of: this is fetched before anything else, even without demand. */
  unsure: boolean
  /** A beat may bring something in. */
  readonly pending: boolean
  /** A call is under way that may give something to the consumer. */
  readonly calling: boolean
  /** Fetches at most that many, once. */
  readonly fetch: (max: number) => Effect.Effect<void, Reason>
  /** Ends a call that waits on the server, without a result. */
  readonly unblock: Effect.Effect<void>
}

/** Leaving takes no longer, however long a shutdown may take. */
const longestLeave = 3000
/** Leaving waits no longer for a call that is under way. */
const longestFetch = 500
/** How many messages one beat moves. */
const moveLimit = 500
/** How many deliveries one call renews. */
const renewLimit = 200

/** Joins the group; leaves it when the scope closes. */
export const make = Effect.fnUntraced(function* <H extends Held>(
  options: ReceiverOptions,
  membership: (receiver: GroupReceiver<H>) => Membership<H>
): Effect.fn.Return<GroupReceiver<H>, TransportError, Scope.Scope> {
  const receiver = new GroupReceiver(options, membership)
  yield* Effect.acquireRelease(receiver.start, () => receiver.stop)
  return receiver
})

export class GroupReceiver<H extends Held> implements Receiver, Freezable {
  readonly consumer = `${hostname()}-${process.pid}-${SecureRandom.uuidV4Unsafe().slice(0, 8)}`
  readonly leaseMillis: number
  readonly inFlight: InFlight<H>
  /** Lost by our own clock, but possibly still ours on the server; by receipt. */
  readonly unheard = new Map<string, H>()
  /** Requests to give back deliveries that have not begun. */
  readonly recalls = new Recalls()
  readonly #options: ReceiverOptions
  readonly #membership: Membership<H>
  readonly #settler: Settler<H>
  readonly #heartbeat: Heartbeat
  readonly #startedAt: bigint
  readonly #only: string
  readonly #unclaimed = new Unclaimed()
  readonly #scope = Scope.makeUnsafe()
  readonly #joining = Semaphore.makeUnsafe(1)
  /** Where the worker waits, and where others wait for it. */
  readonly #worker = new Wakeup(() => this.#busy)
  readonly #over = new Wakeup(() => !this.#membership.fetcher.calling)
  #fibers: readonly [worker: Fiber.Fiber<unknown>, ...others: ReadonlyArray<Fiber.Fiber<unknown>>] | undefined
  #paused = false
  /** Paused, and nothing begins here any more. */
  #quiet = false
  #quieting: Fiber.Fiber<unknown> | undefined
  #frozen = false
  #stopping = false
  #countedAt = -Infinity
  #renewedAt = -Infinity

  constructor(options: ReceiverOptions, membership: (receiver: GroupReceiver<H>) => Membership<H>) {
    this.#options = options
    const { clock, pollMillis, subscription } = options
    this.#startedAt = clock.monotonicTimeNanosUnsafe()
    const leaseMillis = Duration.toMillis(subscription.lease)
    this.leaseMillis = leaseMillis
    this.#only = textOf(subscription.only)
    const { now } = this
    this.inFlight = new InFlight<H>({
      now,
      leaseMillis,
      demanded: () => this.#demanded(),
      paused: () => this.#paused
    })
    this.#membership = membership(this)
    this.#settler = new Settler({
      topic: options.topic,
      consumer: this.consumer,
      inFlight: this.inFlight,
      settling: this.#membership.settling,
      callsAtATime: subscription.inOrder === true ? 1 : 2,
      deadLettered: (deliveries) => this.deadLettered(deliveries, () => Settlement.cancelled),
      dropped: (count) => this.dropped(count),
      setAside: (millis) => this.#heartbeat.goLast(millis)
    })
    this.#heartbeat = new Heartbeat({
      now,
      pollMillis,
      leaseMillis,
      beat: this.#beat,
      repair: (reason) => (isGroupGone(reason) ? this.#join(true) : Effect.fail(reason)),
      still: () => this.#frozen || this.#stopping,
      eager: () => this.#membership.fetcher.pending && this.inFlight.demand > 0,
      succeeded: () => this.inFlight.recover(),
      failed: (reason) => this.fail(reason)
    })
  }

  get #group(): string {
    return this.#options.subscription.group
  }

  /** Milliseconds since the receiver was made, unaffected by changes of the wall clock. Small integers, which cost nothing to keep. */
  readonly now = (): number => Number((this.#options.clock.monotonicTimeNanosUnsafe() - this.#startedAt) / 1_000_000n)

  take(max: number, bytes?: number): Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError> {
    return this.inFlight.take(max, bytes)
  }

  settle(endings: NonEmptyReadonlyArray<Ending>): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return this.#settler.settle(endings)
  }

  /** Hands back deliveries that no handler was given. */
  release(deliveries: ReadonlyArray<Carrying<H>>): Effect.Effect<void> {
    const [first, ...others] = deliveries.map((delivery) => [delivery, Settlement.release] as const)
    return first === undefined ? Effect.void : Effect.ignore(this.settle([first, ...others]))
  }

  get lost(): Effect.Effect<NonEmptyReadonlyArray<H>> {
    return this.inFlight.lost
  }

  get cancelled(): Effect.Effect<NonEmptyReadonlyArray<H>> {
    return this.inFlight.cancelled
  }

  get recalled(): Effect.Effect<Recall> {
    return this.recalls.next
  }

  get unclaimed(): Effect.Effect<void> {
    return this.#unclaimed.wait
  }

  get paused(): boolean {
    return this.#paused
  }

  /** Paused, nothing begins any more, and what had not begun was handed back: the beat tells the server. */
  get quiet(): boolean {
    return this.#quiet && this.inFlight.buffered === 0
  }

  /** Nothing new may be taken. */
  get halted(): boolean {
    return this.#paused || this.#frozen || this.#stopping
  }

  /** There is unmet demand, and it may be met. */
  get wanting(): boolean {
    return this.inFlight.demand > 0 && this.inFlight.buffered === 0 && !this.halted
  }

  /** A message of the topic will be due in that many milliseconds. */
  expect(millis: number): void {
    this.#heartbeat.expect(millis)
  }

  /** Checks at once whether the group is paused; returns when it knows, or soon. */
  get refresh(): Effect.Effect<void> {
    return this.#heartbeat.refresh
  }

  /** There may be something to fetch. */
  wake(): void {
    this.#worker.notify()
  }

  /** A beat may bring something in. */
  hurry(): void {
    this.#heartbeat.wake()
  }

  /** The next beat checks the ownership of deliveries before anything else. */
  doubt(): void {
    this.#heartbeat.verify = true
    this.#heartbeat.wake()
  }

  #failureOf(reason: Reason): TransportError {
    return new TransportError({ operation: "receive", topic: this.#options.topic, reason })
  }

  /** Fails the waiting takes. */
  fail(reason: Reason): void {
    this.inFlight.fail(this.#failureOf(reason))
  }

  /** Freezes or continues, like a process that is stopped: nothing is taken or renewed meanwhile. */
  readonly [Freezable] = (frozen: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      this.#frozen = frozen
      if (!frozen) this.doubt()
      return this.#turned(frozen)
    })

  #setPaused(paused: boolean): Effect.Effect<void> {
    if (paused === this.#paused) return Effect.void
    return Effect.gen({ self: this }, function* () {
      this.#paused = paused
      this.#quiet = false
      if (this.#quieting !== undefined) yield* Fiber.interrupt(this.#quieting)
      this.#quieting = paused ? yield* Effect.forkDetach(this.#quieten) : undefined
      const { lifecycle, topic } = this.#options
      yield* this.#turned(paused)
      this.inFlight.handOut()
      yield* lifecycle.report({ _tag: paused ? "ConsumerPaused" : "ConsumerResumed", topic, group: this.#group })
    })
  }

  /** A beat must not wait for this: it takes as long as the store needs to get everything back. */
  readonly #quieten: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    yield* this.#over.wait
    yield* this.recalls.ask(everything)
    this.#quiet = true
    this.expect(0)
  })

  #turned(halted: boolean): Effect.Effect<void> {
    return halted ? this.#membership.fetcher.unblock : Effect.sync(() => this.wake())
  }

  // --- fetching --------------------------------------------------------------------------------------------------

  /** There is more demand than supply. */
  #demanded(): void {
    const heartbeat = this.#heartbeat
    if (this.inFlight.buffered > 0) heartbeat.verify = true
    if (heartbeat.verify || this.#membership.fetcher.pending) heartbeat.wake()
    this.wake()
  }

  /** There is something to fetch, and it may be fetched. */
  get #busy(): boolean {
    const { fetcher } = this.#membership
    return (fetcher.unsure && !this.halted) || (fetcher.promising && this.wanting)
  }

  readonly #fetch: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const { fetcher } = this.#membership
    while (true) {
      if (!this.#busy) {
        yield* this.#worker.wait
        continue
      }
      const count = Math.min(this.inFlight.demand, fetcher.limit)
      const result = yield* Effect.result(survivable(fetcher.fetch(count)))
      this.#over.notify()
      if (Result.isSuccess(result)) continue
      // Perhaps it was more than the network can carry in time.
      fetcher.limit = Math.max(1, count >> 1)
      yield* this.#fetchFailed(result.failure)
      if (!this.wanting) yield* Effect.sleep(hurryMillis)
    }
  })

  #fetchFailed(reason: Reason): Effect.Effect<void> {
    if (isGroupGone(reason)) {
      return Effect.map(Effect.result(this.#join(true)), (result) => {
        if (Result.isFailure(result)) this.fail(result.failure)
      })
    }
    // A lost connection is being restored, and the next call waits for it. Only when that takes too long do waiting takes
    // fail: they would back off, further with each loss, while messages arrive.
    if (reason._tag === "Disconnected" && reason.ambiguous) return Effect.void
    return Effect.sync(() => this.fail(reason))
  }

  // --- what became of deliveries ---------------------------------------------------------------------------------

  /** These are no longer ours; their handlers learn of it. */
  #lose(handles: ReadonlyArray<H>): Effect.Effect<void> {
    if (handles.length === 0) return Effect.void
    const lost = this.inFlight.lose(handles)
    const { lifecycle, topic } = this.#options
    return lost.length === 0
      ? Effect.void
      : lifecycle.report({ _tag: "LeaseLost", topic, group: this.#group, deliveries: lost })
  }

  /** Runs until leaving. Waking late, it notices at once that this process stood still and others may have taken over. */
  readonly #watch: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const goesOn = this.#options.subscription.leaseLost === "continue"
    while (true) {
      const left = this.inFlight.sureFor()
      yield* Effect.sleep(left > 0 ? left : this.leaseMillis / 20)
      if (this.#frozen || this.inFlight.sureFor() > 0) continue
      if (goesOn) {
        // Running handlers continue, and nothing else begins until the server has replied.
        yield* this.recalls.ask(everything)
        continue
      }
      // The server decides about those being settled, and nothing in the buffer is given out until it has replied.
      const taken = this.inFlight.taken().filter(({ detached, settling }) => detached !== true && !settling)
      if (taken.length === 0) continue
      // If the server still calls them ours when it is back, they are handed back.
      for (const handle of taken) this.unheard.set(handle.receipt, handle)
      this.#heartbeat.verify = true
      yield* this.#lose(taken)
    }
  })

  /** Dead letters that no handler has seen, so no settlement reports them. */
  deadLettered<D extends Delivery>(
    deliveries: ReadonlyArray<D>,
    settlementOf: (delivery: D) => Settlement.DeadLetter
  ): Effect.Effect<void> {
    if (deliveries.length === 0) return Effect.void
    const { lifecycle, topic } = this.#options
    const group = this.#group
    const letters = deliveries.map((delivery) => [delivery, settlementOf(delivery)] as const)
    return Effect.andThen(
      logFailures(topic, group, letters),
      Effect.sync(() => {
        for (const [delivery, settlement] of letters) {
          lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement, stale: false })
        }
      })
    )
  }

  /** That many messages were gone before any consumer saw them. */
  truncated(count: number): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    return count === 0 ? Effect.void : lifecycle.report({ _tag: "Truncated", topic, group: this.#group, count })
  }

  /** The cap dropped that many dead letters. */
  dropped(count: number): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    return count === 0
      ? Effect.void
      : lifecycle.report({ _tag: "DeadLettersDropped", topic, group: this.#group, count })
  }

  // --- coming ----------------------------------------------------------------------------------------------------

  readonly start: Effect.Effect<void, TransportError> = Effect.gen({ self: this }, function* () {
    yield* Scope.provide(this.#membership.open, this.#scope)
    const result = yield* Effect.result(this.#join(false))
    if (Result.isFailure(result)) {
      yield* Scope.close(this.#scope, Exit.void)
      return yield* Effect.fail(this.#failureOf(result.failure))
    }
    // A different server may have taken over, and may have missed the last operations of the previous one.
    yield* Scope.provide(
      this.#options.commands.eachServer(this.#options.keys.stream, () => this.doubt()),
      this.#scope
    )
    this.#fibers = [
      yield* Effect.forkDetach(this.#fetch),
      yield* Effect.forkDetach(this.#heartbeat.run),
      yield* Effect.forkDetach(this.#watch)
    ]
  })

  #join(again: boolean): Effect.Effect<void, Reason> {
    return this.#joining.withPermits(1)(
      Effect.gen({ self: this }, function* () {
        const { lifecycle, opened, topic } = this.#options
        const sentAt = this.now()
        const { from, isNew, lost, paused } = yield* this.#membership.join(again)
        this.inFlight.beatAt = sentAt
        // A read that waits on the server does not check this itself: it must not begin before this is known.
        if (paused !== undefined) yield* this.#setPaused(paused)
        if (!again || isNew) yield* opened
        if (again) {
          // Deliveries that are no longer ours in the present group are found by asking.
          this.#heartbeat.verify = true
          this.expect(0)
          this.wake()
        }
        if (from === undefined) return
        yield* lifecycle.report({ _tag: "GroupRecreated", topic, group: this.#group, from })
        yield* this.#lose(lost)
      })
    )
  }

  // --- staying ---------------------------------------------------------------------------------------------------

  /** Returns whether there is more to do at once. */
  readonly #beat: Effect.Effect<boolean, Reason> = Effect.gen({ self: this }, function* () {
    const heartbeat = this.#heartbeat
    const sentAt = this.now()
    const age = this.inFlight.age()
    const reply = yield* this.#membership.beat({
      group: this.#group,
      consumer: this.consumer,
      lease: this.leaseMillis,
      limit: moveLimit,
      age: age === undefined ? "" : Math.round(age),
      ...this.#options.deadLetters,
      quiet: this.quiet ? 1 : 0,
      only: this.#only,
      hooks: this.#unclaimed.asked
    })
    const { alive, cancelled, dropped, held, more, next, paused, rest, truncated } = reply
    this.#unclaimed.tell(reply.unclaimed)
    if (next >= 0) this.expect(next)
    if (cancelled !== undefined && cancelled.length > 0) this.inFlight.cancel(new Set(cancelled))
    if (!alive || this.#differs(held, sentAt)) heartbeat.verify = true
    yield* this.truncated(truncated ?? 0)
    yield* this.dropped(dropped)
    yield* this.#setPaused(paused)
    if (heartbeat.verify || (this.#membership.renews && sentAt - this.#renewedAt >= this.leaseMillis / 3)) {
      yield* this.#renew
    }
    this.inFlight.beatAt = sentAt
    this.inFlight.handOut()
    // A take that waits now may have missed what was in the buffer until a moment ago.
    if (this.inFlight.demand > 0) this.#demanded()
    if (more) return true
    // Fetched for a take that is gone: others could have it.
    const unclaimed = this.#paused ? this.inFlight.empty() : this.inFlight.unclaimed(this.leaseMillis / 3)
    yield* this.release(unclaimed)
    if (unclaimed.length > 0 && this.quiet) this.expect(0)
    return yield* rest
  })

  /**
   * Whether the server attributes more or fewer deliveries to us than we know of, checked once a lease. Calls under way cause
   * differences too, at the cost of a closer check that finds nothing.
   */
  #differs(count: number, now: number): boolean {
    if (now - this.#countedAt < this.leaseMillis) return false
    this.#countedAt = now
    return this.inFlight.all().reduce((held, { detached }) => (detached === true ? held : held + 1), 0) !== count
  }

  /** Checks the ownership of long-held deliveries, or of all; then the worker asks for others that are ours. */
  get #renew(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const everything = this.#heartbeat.verify
      this.#heartbeat.verify = false
      if (everything) {
        this.#membership.fetcher.unsure = true
        this.wake()
      }
      this.#renewedAt = this.now()
      const limit = this.now() - this.leaseMillis / 3
      const asked = this.inFlight
        .all()
        .filter(
          ({ detached, renewedAt, settling }) => detached !== true && (everything || (!settling && renewedAt <= limit))
        )
      for (let i = 0; i < asked.length; i += renewLimit) {
        const some = asked.slice(i, i + renewLimit)
        const sentAt = this.now()
        const isOurs = yield* this.#membership.renew(some)
        const lost: Array<H> = []
        some.forEach((handle, index) => {
          if (isOurs(index)) handle.renewedAt = sentAt
          // Those being settled may have left through our own doing, and those settled meanwhile have.
          else if (!handle.settling && this.inFlight.find(handle) === handle) lost.push(handle)
        })
        yield* this.#lose(lost)
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (this.#heartbeat.verify = true))))
  }

  // --- leaving ---------------------------------------------------------------------------------------------------

  /** Never takes longer than the shutdown may: anything not handed back is claimed by others after the lease. */
  readonly stop: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    this.#settler.close()
    this.#stopping = true
    const limit = Math.min(longestLeave, Duration.toMillis(this.#options.subscription.shutdown))
    // A fiber of its own: the one that closes the scope may be interrupted, and then timeouts do not work.
    const leaving = yield* Effect.forkDetach(Effect.timeoutOption(this.#leave, limit))
    yield* Fiber.await(leaving)
    this.fail(stopped)
    const fibers = this.#fibers ?? []
    yield* Fiber.await(yield* Effect.forkDetach(Effect.timeoutOption(Fiber.interruptAll(fibers), limit)))
    yield* Scope.close(this.#scope, Exit.void)
  })

  readonly #leave: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const { commands, keys } = this.#options
    const { fetcher, leave } = this.#membership
    if (this.#fibers !== undefined) {
      const [worker, ...others] = this.#fibers
      yield* Fiber.interruptAll(others)
      if (this.#quieting !== undefined) yield* Fiber.interrupt(this.#quieting)
      // Nothing is given to us after handing back. Interrupting a waiting read would destroy its connection.
      yield* fetcher.unblock
      yield* Effect.timeoutOption(this.#over.wait, longestFetch)
      yield* Fiber.interrupt(worker)
    }
    while (true) {
      const begun = [...this.unheard.values(), ...this.inFlight.unsettled].filter(({ detached }) => detached !== true)
      const answer = yield* Effect.result(
        begun.length === 0 ? leave : Effect.andThen(this.#membership.handBackBegun(begun), leave)
      )
      if (Result.isSuccess(answer)) {
        if (!answer.success) return
      } else if (answer.failure.permanent) {
        // It cannot hand back its deliveries, but others need not wait for its heartbeat to expire.
        const key = keys.group(this.#group).consumers
        return yield* Effect.ignore(commands.run("zadd", key, (client) => client.zadd(key, 0, this.consumer)))
      } else {
        yield* Effect.sleep(hurryMillis)
      }
    }
  })
}

const stopped = new Disconnected({ ambiguous: false, cause: new Error("the receiver is closed") })
