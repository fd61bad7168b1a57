/**
 * The place of a receiver in its group, from joining until it has left. Whatever the server and the network do, it goes
 * on; only leaving has an end, within the time that the shutdown may take.
 *
 * Three fibers do the work: the worker fetches what is new, as its pattern does it, the heartbeat is sent, and the watch ends
 * what runs under a lease that is not sure any more, by the clock of this process, whether the server can be asked or not.
 *
 * @module
 */
import { hostname } from "node:os"
import type * as Clock from "effect/Clock"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import { everything, Recalls } from "../../../internal/Recalls.ts"
import type { Lifecycle } from "../../../Lifecycle.ts"
import * as Settlement from "../../../Settlement.ts"
import { Disconnected, type Reason, type Subscription, TransportError } from "../../../Transport.ts"
import type { Connection } from "../connection/Connection.ts"
import type { GroupKeys } from "../wire/Keys.ts"
import { Condition } from "./Condition.ts"
import { hurryMillis, Heartbeat, type HeartbeatOptions } from "./Heartbeat.ts"
import { type Held, InFlight } from "./InFlight.ts"

export interface MembershipOptions<D extends Held> extends Pick<
  HeartbeatOptions,
  "pollMillis" | "beat" | "repair" | "eager"
> {
  readonly commands: Connection
  readonly topic: string
  readonly keys: GroupKeys
  readonly subscription: Subscription
  readonly lifecycle: Lifecycle
  readonly clock: Clock.Clock
  /** Opens what the worker needs, and answers what the worker does. */
  readonly work: Effect.Effect<Effect.Effect<never>, never, Scope.Scope>
  readonly join: Effect.Effect<void, Reason>
  /** Somebody waits for more than there is. */
  readonly demanded: () => void
  /** Nothing new may be taken from now on, until the worker is woken. */
  readonly halted: Effect.Effect<void>
  /** Returns when nothing that was asked for before it was halted is on its way any more. */
  readonly idle: Effect.Effect<void>
  /** Makes sure that nothing is given to this consumer after what is handed back. */
  readonly end: (worker: Fiber.Fiber<unknown>) => Effect.Effect<void>
  /** Gives these to others, as attempts, where they are still ours: handlers have had them. */
  readonly handBackBegun: (deliveries: ReadonlyArray<D>) => Effect.Effect<void, Reason>
  /** Gives to others some of what this consumer holds; answers whether there is more of it. */
  readonly handBack: Effect.Effect<boolean, Reason>
}

/** Leaving takes no longer, however long a shutdown may take. */
const longestLeave = 3000

export class Membership<D extends Held> {
  readonly consumer = `${hostname()}-${process.pid}-${SecureRandom.uuidV4Unsafe().slice(0, 8)}`
  readonly leaseMillis: number
  readonly inFlight: InFlight<D>
  /** What was lost by our own clock, and may still be ours by the server's set, by receipt. */
  readonly unheard = new Map<string, D>()
  /** Where the worker waits. */
  readonly worker = new Condition()
  readonly heartbeat: Heartbeat
  /** What the consumer is asked to give back unbegun. */
  readonly recalls = new Recalls()
  readonly #options: MembershipOptions<D>
  readonly #startedAt: bigint
  readonly #scope = Scope.makeUnsafe()
  #fibers: readonly [worker: Fiber.Fiber<unknown>, ...others: ReadonlyArray<Fiber.Fiber<unknown>>] | undefined
  #paused = false
  /** It is paused, and nothing begins here any more. */
  #quiet = false
  #quieting: Fiber.Fiber<unknown> | undefined
  #silent = false
  #stopping = false
  #countedAt = -Infinity

  constructor(options: MembershipOptions<D>) {
    this.#options = options
    this.#startedAt = options.clock.monotonicTimeNanosUnsafe()
    this.leaseMillis = Duration.toMillis(options.subscription.lease)
    const { leaseMillis, now } = this
    const { beat, demanded, eager, pollMillis, repair } = options
    this.inFlight = new InFlight<D>({ now, leaseMillis, demanded, paused: () => this.#paused })
    this.heartbeat = new Heartbeat({
      now,
      pollMillis,
      leaseMillis,
      beat,
      repair,
      still: () => this.#silent || this.#stopping,
      eager,
      succeeded: () => this.inFlight.recover(),
      failed: (reason) => this.fail(reason)
    })
  }

  get #group(): string {
    return this.#options.subscription.group
  }

  /** Milliseconds since the receiver was made, whatever is done to the wall clock. Small and whole: such numbers cost nothing to keep. */
  readonly now = (): number => Number((this.#options.clock.monotonicTimeNanosUnsafe() - this.#startedAt) / 1_000_000n)

  /** How often a message may be delivered to consumers that die on it. */
  get maxDeliveries(): number {
    return this.#options.subscription.maxDeliveries
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
    return this.#paused || this.#silent || this.#stopping
  }

  /** Somebody waits for what is new, and may have it. */
  get wanting(): boolean {
    return this.inFlight.demand > 0 && this.inFlight.buffered === 0 && !this.halted
  }

  failureOf(reason: Reason): TransportError {
    return new TransportError({ operation: "receive", topic: this.#options.topic, reason })
  }

  /** Those who wait learn of it. */
  fail(reason: Reason): void {
    this.inFlight.fail(this.failureOf(reason))
  }

  /** Stands still or goes on, like a process that is stopped: nothing is taken or renewed meanwhile. */
  readonly setSilent = (silent: boolean): Effect.Effect<void> =>
    Effect.suspend(() => {
      this.#silent = silent
      if (!silent) {
        this.heartbeat.verify = true
        this.heartbeat.wake()
      }
      return this.#turned(silent)
    })

  setPaused(paused: boolean): Effect.Effect<void> {
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
    yield* this.#options.idle
    yield* this.recalls.ask(everything)
    this.#quiet = true
    this.heartbeat.expect(0)
  })

  #turned(halted: boolean): Effect.Effect<void> {
    return halted ? this.#options.halted : Effect.sync(() => this.worker.signal())
  }

  // --- what became of deliveries ---------------------------------------------------------------------------------

  /** These are no longer ours; whoever was given them learns of it. */
  lose(deliveries: ReadonlyArray<D>): Effect.Effect<void> {
    if (deliveries.length === 0) return Effect.void
    const lost = this.inFlight.lose(deliveries)
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
      if (this.#silent || this.inFlight.sureFor() > 0) continue
      if (goesOn) {
        // What has begun goes on, and nothing else begins until the server has answered.
        yield* this.recalls.ask(everything)
        continue
      }
      // Of what is being settled the server decides, and nothing that lies here is given to a caller until it has answered.
      const taken = this.inFlight.taken().filter(({ detached, settling }) => detached !== true && !settling)
      if (taken.length === 0) continue
      // If the server calls them ours when it is back, they are handed back.
      for (const delivery of taken) this.unheard.set(delivery.receipt, delivery)
      this.heartbeat.verify = true
      yield* this.lose(taken)
    }
  })

  /**
   * Whether the server counts more or fewer deliveries as ours than we know of: looked at once a lease. What is on its way
   * differs too, and costs a closer look that finds nothing.
   */
  differs(count: number, now: number): boolean {
    if (now - this.#countedAt < this.leaseMillis) return false
    this.#countedAt = now
    return this.inFlight.all().reduce((held, { detached }) => (detached === true ? held : held + 1), 0) !== count
  }

  /** The server says of each that is held whether it is still ours. */
  renewed(asked: ReadonlyArray<D>, sentAt: number, isOurs: (index: number) => boolean): Effect.Effect<void> {
    const lost: Array<D> = []
    asked.forEach((delivery, index) => {
      if (isOurs(index)) delivery.renewedAt = sentAt
      // What is being settled may have left by our own hand, and what was settled meanwhile has.
      else if (!delivery.settling && this.inFlight.find(delivery) === delivery) lost.push(delivery)
    })
    return this.lose(lost)
  }

  /** What was fetched for somebody who no longer asks: others could have it. */
  get unclaimed(): ReadonlyArray<readonly [D, Settlement.Settlement]> {
    const unclaimed = this.#paused ? this.inFlight.empty() : this.inFlight.unclaimed(this.leaseMillis / 3)
    return unclaimed.map((delivery) => [delivery, Settlement.release] as const)
  }

  /** Too many consumers had died with them: no handler has seen them, so no settlement tells of them. */
  buried(deliveries: ReadonlyArray<D>, cause: (delivery: D) => string): Effect.Effect<void> {
    if (deliveries.length === 0) return Effect.void
    const { lifecycle, topic } = this.#options
    const group = this.#group
    return Effect.andThen(
      Effect.logWarning("DeadLettered", { topic, group, reasons: { CrashLoop: deliveries.length } }),
      Effect.sync(() => {
        for (const delivery of deliveries) {
          const settlement = Settlement.deadLetter("CrashLoop", cause(delivery))
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

  // --- coming, staying, leaving ----------------------------------------------------------------------------------

  readonly start: Effect.Effect<void, TransportError> = Effect.gen({ self: this }, function* () {
    const { join, work } = this.#options
    const worker = yield* Scope.provide(work, this.#scope)
    const result = yield* Effect.result(join)
    if (Result.isFailure(result)) {
      yield* Scope.close(this.#scope, Exit.void)
      return yield* Effect.fail(this.failureOf(result.failure))
    }
    // Another server may have taken the place of the one that we knew, and have missed what that did last.
    yield* Scope.provide(
      this.#options.commands.each(() => {
        this.heartbeat.verify = true
        this.heartbeat.wake()
      }),
      this.#scope
    )
    this.#fibers = [
      yield* Effect.forkDetach(worker),
      yield* Effect.forkDetach(this.heartbeat.run),
      yield* Effect.forkDetach(this.#watch)
    ]
  })

  /** Never takes longer than the shutdown may: what could not be handed back is claimed by others after the lease. */
  readonly stop: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
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
    const { commands, end, handBack, handBackBegun, keys } = this.#options
    if (this.#fibers !== undefined) {
      const [worker, ...others] = this.#fibers
      yield* Fiber.interruptAll(others)
      if (this.#quieting !== undefined) yield* Fiber.interrupt(this.#quieting)
      yield* end(worker)
    }
    while (true) {
      const begun = [...this.unheard.values(), ...this.inFlight.unsettled].filter(({ detached }) => detached !== true)
      const answer = yield* Effect.result(
        begun.length === 0 ? handBack : Effect.andThen(handBackBegun(begun), handBack)
      )
      if (Result.isSuccess(answer)) {
        if (!answer.success) return
      } else if (answer.failure.permanent) {
        // It cannot hand back what it holds, but the others need not wait for its heartbeat to run out.
        const key = keys.consumers
        return yield* Effect.ignore(commands.run("zadd", (client) => client.zadd(key, 0, this.consumer)))
      } else {
        yield* Effect.sleep(hurryMillis)
      }
    }
  })
}

const stopped = new Disconnected({ ambiguous: false, cause: new Error("the receiver is closed") })
