/**
 * A member of a group, from joining until it has left: fetches for as long as somebody asks, keeps what it has given out, says
 * that it lives, and hands back what is unsettled when it leaves. Whatever the server and the network do, it goes on; only
 * leaving has an end, within the time that the shutdown may take. What is said to the server is up to the pattern's `Membership`.
 *
 * Three fibers do the work: the worker fetches what is new, the heartbeat is sent, and the watch ends what runs under a lease
 * that is not sure any more, by the clock of this process, whether the server can be asked or not.
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
import type { Connection } from "../connection/Connection.ts"
import type { Call } from "../connection/ScriptReply.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import type { BeatArgs, Beaten } from "./Beat.ts"
import { isGroupGone } from "./GroupGone.ts"
import { Heartbeat, hurryMillis, survivable } from "./Heartbeat.ts"
import { type Carrying, type Held, InFlight } from "./InFlight.ts"
import { Settler } from "./Settler.ts"
import type { Settling } from "./Settling.ts"

export interface ReceiverOptions {
  readonly commands: Connection
  readonly topic: string
  readonly keys: TopicKeys
  readonly subscription: Subscription
  readonly deadLetters: DeadLetterCap
  readonly lifecycle: Lifecycle
  readonly clock: Clock.Clock
  readonly pollMillis: number
  /** Runs after the group was joined: the topic is in the store. */
  readonly opened: Effect.Effect<void>
}

/** What the parts of a membership share. */
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
  /** The lease of each delivery is renewed by itself; otherwise all of them live as long as the heartbeat. */
  readonly renews: boolean
  /** Listens for what others bring, and opens what is fetched with. */
  readonly open: Effect.Effect<void, never, Scope.Scope>
  /** Makes sure that the group exists. `again`: it did, and something says that it does no more. */
  readonly join: (again: boolean) => Effect.Effect<Joined<H>, Reason>
  /** Says that the consumer lives, and brings in what is due. Fails with `groupGone` when there is no group. */
  readonly beat: (args: BeatArgs) => Effect.Effect<Beat, Reason>
  /** Asks of each, and renews it, whether it is still the consumer's. */
  readonly renew: (handles: ReadonlyArray<H>) => Effect.Effect<(index: number) => boolean, Reason>
  /** Gives these to others, as attempts, where they are still ours: handlers have had them. */
  readonly handBackBegun: (handles: ReadonlyArray<H>) => Effect.Effect<void, Reason>
  /** Gives to others some of what the consumer holds; returns whether there is more of it. */
  readonly leave: Effect.Effect<boolean, Reason>
}

export interface Joined<H extends Held> {
  readonly paused?: boolean
  /** The topic may be new in the store. */
  readonly isNew: boolean
  /** From where a group that had been lost begins again. */
  readonly from?: string | undefined
  /** What went with it. */
  readonly lost: ReadonlyArray<H>
}

export interface Beat extends Beaten {
  /** How many messages were gone before anybody saw them. */
  readonly truncated?: number
  /** What is done once all of this is known; returns whether there is more of it to do at once. */
  readonly rest: Effect.Effect<boolean, Reason>
}

/** Fetches what is new, and what is the consumer's without its knowing. */
export interface Fetching {
  /** How many one call may bring. */
  limit: number
  /** There may be something to fetch. */
  readonly promising: boolean
  /** The server may have more for the consumer's than it knows of: fetched before anything else, whether somebody waits or not. */
  unsure: boolean
  /** There may be something that a beat brings. */
  readonly pending: boolean
  /** A call is on its way that may give something to the consumer. */
  readonly calling: boolean
  /** Fetches at most so many, once. */
  readonly fetch: (max: number) => Effect.Effect<void, Reason>
  /** Ends a call that waits on the server; nothing is fetched by it. */
  readonly unblock: Effect.Effect<void>
}

/** Leaving takes no longer, however long a shutdown may take. */
const longestLeave = 3000
/** Who leaves does not wait longer for a call that is on its way. */
const longestFetch = 500
/** How many messages one beat moves. */
const moveLimit = 500
/** How many deliveries are renewed by one call. */
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
  /** What was lost by our own clock, and may still be ours by the server's set, by receipt. */
  readonly unheard = new Map<string, H>()
  /** What the consumer is asked to give back unbegun. */
  readonly recalls = new Recalls()
  readonly #options: ReceiverOptions
  readonly #membership: Membership<H>
  readonly #settler: Settler<H>
  readonly #heartbeat: Heartbeat
  readonly #startedAt: bigint
  readonly #scope = Scope.makeUnsafe()
  readonly #joining = Semaphore.makeUnsafe(1)
  /** Where the worker waits, and where others wait for it. */
  readonly #worker = new Wakeup(() => this.#busy)
  readonly #over = new Wakeup(() => !this.#membership.fetcher.calling)
  #fibers: readonly [worker: Fiber.Fiber<unknown>, ...others: ReadonlyArray<Fiber.Fiber<unknown>>] | undefined
  #paused = false
  /** It is paused, and nothing begins here any more. */
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
      dropped: (count) => this.dropped(count)
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

  /** Milliseconds since the receiver was made, whatever is done to the wall clock. Small and whole: such numbers cost nothing to keep. */
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

  get recalled(): Effect.Effect<Recall> {
    return this.recalls.next
  }

  get paused(): boolean {
    return this.#paused
  }

  /** It is paused, nothing begins any more, and what had not begun went back: the beat tells the server. */
  get quiet(): boolean {
    return this.#quiet && this.inFlight.buffered === 0
  }

  /** Nothing new may be taken. */
  get halted(): boolean {
    return this.#paused || this.#frozen || this.#stopping
  }

  /** Somebody waits for what is new, and may have it. */
  get wanting(): boolean {
    return this.inFlight.demand > 0 && this.inFlight.buffered === 0 && !this.halted
  }

  /** A message of the topic will be due in so many milliseconds. */
  expect(millis: number): void {
    this.#heartbeat.expect(millis)
  }

  /** Looks at once whether the group is paused; returns when it knows, or soon. */
  get look(): Effect.Effect<void> {
    return this.#heartbeat.look
  }

  /** There may be something to fetch. */
  wake(): void {
    this.#worker.notify()
  }

  /** There may be something that a beat brings. */
  hurry(): void {
    this.#heartbeat.wake()
  }

  /** The next beat asks whose the deliveries are before anything else. */
  doubt(): void {
    this.#heartbeat.verify = true
    this.#heartbeat.wake()
  }

  #failureOf(reason: Reason): TransportError {
    return new TransportError({ operation: "receive", topic: this.#options.topic, reason })
  }

  /** Those who wait learn of it. */
  fail(reason: Reason): void {
    this.inFlight.fail(this.#failureOf(reason))
  }

  /** Stands still or goes on, like a process that is stopped: nothing is taken or renewed meanwhile. */
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

  /** A beat must not wait for this: it takes as long as the store takes to have everything back. */
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

  /** Somebody waits for more than there is. */
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
      // Perhaps it was more than the network brings in time.
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
    // A connection that was lost is being made again, and the next call waits for it. Only when that takes too long are
    // those told who wait: they would back off, further with each loss, while messages arrive.
    if (reason._tag === "Disconnected" && reason.ambiguous) return Effect.void
    return Effect.sync(() => this.fail(reason))
  }

  // --- what became of deliveries ---------------------------------------------------------------------------------

  /** These are no longer ours; whoever was given them learns of it. */
  #lose(handles: ReadonlyArray<H>): Effect.Effect<void> {
    if (handles.length === 0) return Effect.void
    const lost = this.inFlight.lose(handles)
    const { lifecycle, topic } = this.#options
    return lost.length === 0
      ? Effect.void
      : lifecycle.report({ _tag: "LeaseLost", topic, group: this.#group, deliveries: lost })
  }

  /** Until leaving. Woken late, it finds out at once: then this process stood still, and others may have gone on. */
  readonly #watch: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const goesOn = this.#options.subscription.leaseLost === "continue"
    while (true) {
      const left = this.inFlight.sureFor()
      yield* Effect.sleep(left > 0 ? left : this.leaseMillis / 20)
      if (this.#frozen || this.inFlight.sureFor() > 0) continue
      if (goesOn) {
        // What has begun goes on, and nothing else begins until the server has answered.
        yield* this.recalls.ask(everything)
        continue
      }
      // Of what is being settled the server decides, and nothing that lies here is given to a caller until it has answered.
      const taken = this.inFlight.taken().filter(({ detached, settling }) => detached !== true && !settling)
      if (taken.length === 0) continue
      // If the server calls them ours when it is back, they are handed back.
      for (const handle of taken) this.unheard.set(handle.receipt, handle)
      this.#heartbeat.verify = true
      yield* this.#lose(taken)
    }
  })

  /** Too many consumers had died with them: no handler has seen them, so no settlement tells of them. */
  deadLettered(deliveries: ReadonlyArray<Carrying<H>>, cause: (handle: H) => string): Effect.Effect<void> {
    if (deliveries.length === 0) return Effect.void
    const { lifecycle, topic } = this.#options
    const group = this.#group
    const letters = deliveries.map(
      (delivery) => [delivery, Settlement.deadLetter("CrashLoop", cause(delivery.handle))] as const
    )
    return Effect.andThen(
      logFailures(topic, group, letters),
      Effect.sync(() => {
        for (const [delivery, settlement] of letters) {
          lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement, stale: false })
        }
      })
    )
  }

  /** So many messages were gone before anybody saw them. */
  truncated(count: number): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    return count === 0 ? Effect.void : lifecycle.report({ _tag: "Truncated", topic, group: this.#group, count })
  }

  /** The cap dropped so many dead letters. */
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
    // Another server may have taken the place of the one that we knew, and have missed what that did last.
    yield* Scope.provide(
      this.#options.commands.each(() => this.doubt()),
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
        // What waits on the server does not ask: it must not begin before this is known.
        if (paused !== undefined) yield* this.#setPaused(paused)
        if (!again || isNew) yield* opened
        if (again) {
          // Deliveries that are not ours in the group as it is now are found out by asking.
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
    const { alive, dropped, held, more, next, paused, rest, truncated } = yield* this.#membership.beat({
      group: this.#group,
      consumer: this.consumer,
      lease: this.leaseMillis,
      limit: moveLimit,
      age: age === undefined ? "" : Math.round(age),
      ...this.#options.deadLetters,
      quiet: this.quiet ? 1 : 0
    })
    if (next >= 0) this.expect(next)
    if (!alive || this.#differs(held, sentAt)) heartbeat.verify = true
    yield* this.truncated(truncated ?? 0)
    yield* this.dropped(dropped)
    yield* this.#setPaused(paused)
    if (heartbeat.verify || (this.#membership.renews && sentAt - this.#renewedAt >= this.leaseMillis / 3)) {
      yield* this.#renew
    }
    this.inFlight.beatAt = sentAt
    this.inFlight.handOut()
    // A take that waits now may have waited for what was in the buffer until a moment ago.
    if (this.inFlight.demand > 0) this.#demanded()
    if (more) return true
    // What was fetched for somebody who no longer asks: others could have it.
    const unclaimed = this.#paused ? this.inFlight.empty() : this.inFlight.unclaimed(this.leaseMillis / 3)
    yield* this.release(unclaimed)
    if (unclaimed.length > 0 && this.quiet) this.expect(0)
    return yield* rest
  })

  /**
   * Whether the server counts more or fewer deliveries as ours than we know of: looked at once a lease. What is on its way
   * differs too, and costs a closer look that finds nothing.
   */
  #differs(count: number, now: number): boolean {
    if (now - this.#countedAt < this.leaseMillis) return false
    this.#countedAt = now
    return this.inFlight.all().reduce((held, { detached }) => (detached === true ? held : held + 1), 0) !== count
  }

  /** Asks for every delivery that is held for long, or for every one, whether it is still ours; then the worker asks which others are. */
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
          // What is being settled may have left by our own hand, and what was settled meanwhile has.
          else if (!handle.settling && this.inFlight.find(handle) === handle) lost.push(handle)
        })
        yield* this.#lose(lost)
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (this.#heartbeat.verify = true))))
  }

  // --- leaving ---------------------------------------------------------------------------------------------------

  /** Never takes longer than the shutdown may: what could not be handed back is claimed by others after the lease. */
  readonly stop: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    this.#settler.close()
    this.#stopping = true
    const limit = Math.min(longestLeave, Duration.toMillis(this.#options.subscription.shutdown))
    // A fiber of its own: the fiber that closes the scope may be interrupted, and then timeouts do not work.
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
      // Nothing is given to us after what is handed back. Interrupting a read that still waits destroys its connection.
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
        // It cannot hand back what it holds, but the others need not wait for its heartbeat to run out.
        const key = keys.group(this.#group).consumers
        return yield* Effect.ignore(commands.run("zadd", key, (client) => client.zadd(key, 0, this.consumer)))
      } else {
        yield* Effect.sleep(hurryMillis)
      }
    }
  })
}

const stopped = new Disconnected({ ambiguous: false, cause: new Error("the receiver is closed") })
