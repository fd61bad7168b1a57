/**
 * A member of a group: takes for as long as somebody asks, keeps what it has given out, and hands back what is unsettled
 * when it leaves. Whatever the server and the network do, it goes on.
 *
 * Two fibers do the work. The taker takes when somebody asks and something may be there. The keeper beats: it says that
 * this consumer lives, brings in what is due, looks whether there is work, and frees what dead consumers held.
 *
 * @module
 */
import { isAscii } from "node:buffer"
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
import type { Delivery } from "../../../Delivery.ts"
import type { Gap } from "../../../Gap.ts"
import type { DeadLetterCap } from "../../../internal/Limits.ts"
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
import { evaluate, problemOf, wire } from "../Answer.ts"
import type { Committer } from "../Committer.ts"
import type { Connection } from "../Connection.ts"
import { Holdings } from "../Holdings.ts"
import type { GroupKeys, TopicKeys } from "../Keys.ts"
import type { Script } from "../Script.ts"
import { CustodyDelivery } from "./CustodyDelivery.ts"
import { CustodySettler } from "./CustodySettler.ts"
import type { Supply } from "./Supply.ts"

export interface ReceiverOptions {
  readonly commands: Connection
  readonly topic: string
  readonly keys: TopicKeys
  readonly supply: Supply
  readonly subscription: Subscription
  readonly lifecycle: Lifecycle
  readonly clock: Clock.Clock
  readonly deadLetters: DeadLetterCap
  /** Of a pattern that applies commits. */
  readonly committer?: ((consumer: string) => Committer<CustodyDelivery>) | undefined
  readonly pollMillis: number
  /** Runs after the group was joined: the topic is in the store. */
  readonly opened: Effect.Effect<void>
}

/** How many one script may hand out, and about how many bytes: what a slow network carries within its deadline. */
const takeLimit = 1000
const takeBytes = 4 * 1024 * 1024
/** How much one script may move or hand back. */
const moveLimit = 500
const vacateLimit = 500
const verifyLimit = 1000
/** How soon a beat is repeated that somebody waits for, and a take that failed. */
const hurryMillis = 50
/** Who pauses a group does not wait longer for a receiver of its process. */
const longestLook = 1000
/** Leaving takes no longer, however long a shutdown may take. */
const longestLeave = 3000

/** A dead letter as the script tells it. */
type Buried = readonly [member: string, attempts: number, record: string]

/** Joins the group; leaves it when the scope closes. */
export const make = Effect.fnUntraced(function* (
  options: ReceiverOptions
): Effect.fn.Return<CustodyReceiver, TransportError, Scope.Scope> {
  const member = new CustodyReceiver(options)
  yield* Effect.acquireRelease(member.start, () => member.stop)
  return member
})

export class CustodyReceiver implements Receiver {
  readonly consumer = `${hostname()}-${process.pid}-${SecureRandom.uuidV4Unsafe().slice(0, 8)}`
  readonly #options: ReceiverOptions
  readonly #startedAt: bigint
  readonly #keys: GroupKeys
  readonly #leaseMillis: number
  readonly #holdings: Holdings<CustodyDelivery>
  readonly #settler: CustodySettler
  readonly #listening = Scope.makeUnsafe()
  #fibers: ReadonlyArray<Fiber.Fiber<unknown>> = []
  #taking = false
  #tellTaken: (() => void) | undefined
  #wakeTaker: (() => void) | undefined
  #wakeKeeper: (() => void) | undefined
  /** Something may be there that was not there when we looked last. */
  #promising = true
  /** Something may have been given to us without our learning of it. */
  #unsure = false
  /** The keeper has to ask whose the deliveries are before anything else. */
  #verify = false
  #paused = false
  #silent = false
  #stopping = false
  /** How many a take may bring, by the size of the last ones. */
  #takeLimit = takeLimit
  /** The last delivery that more than one consumer had died with. */
  #suspect: CustodyDelivery | undefined
  /** How many beats have begun, and who waits for the end of one that begins after theirs. */
  #beats = 0
  readonly #looks = new Set<{ readonly after: number; readonly done: () => void }>()
  #dueAt = Infinity
  /** How many messages were gone when their turn came, as far as we were told, and of how many no delivery has told. */
  #gone = 0
  #missed = 0
  #lastId: string | undefined

  constructor(options: ReceiverOptions) {
    this.#options = options
    this.#startedAt = options.clock.monotonicTimeNanosUnsafe()
    const { commands, deadLetters, keys, subscription, supply, topic } = options
    const mine = keys.group(subscription.group)
    this.#keys = mine
    this.#leaseMillis = Duration.toMillis(subscription.lease)
    this.#holdings = new Holdings<CustodyDelivery>({
      now: this.#now,
      leaseMillis: this.#leaseMillis,
      demanded: () => this.#demanded()
    })
    this.#settler = new CustodySettler({
      commands,
      topic,
      pattern: supply.pattern,
      consumer: this.consumer,
      script: supply.scripts.settle,
      keys: [
        ...supply.keys,
        mine.processing(this.consumer),
        mine.returned,
        mine.suspects,
        mine.marks,
        mine.waiting,
        mine.dead,
        mine.state,
        keys.wake
      ],
      holdings: this.#holdings,
      deadLetters,
      settled: (millis) => {
        if (this.#suspect !== undefined && !this.#holdsSuspect) {
          this.#suspect = undefined
          this.wake(0)
        }
        this.wake(millis)
      },
      committer: options.committer?.(this.consumer),
      dropped: (count) => this.#dropped(count)
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

  /** Something may be there to take in so many milliseconds. */
  wake(millis: number): void {
    if (millis > 0) return this.expect(millis)
    this.#promising = true
    this.#wakeTaker?.()
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

  /** Stands still or goes on, like a process that is stopped: nothing is taken or renewed meanwhile. */
  readonly setSilent = (silent: boolean): Effect.Effect<void> =>
    Effect.sync(() => {
      this.#silent = silent
      this.#verify = true
      this.#wakeKeeper?.()
      this.#wakeTaker?.()
    })

  readonly start: Effect.Effect<void, TransportError> = Effect.gen({ self: this }, function* () {
    yield* Scope.provide(
      this.#options.supply.listen(
        (millis) => this.wake(millis),
        (reason) => this.#holdings.fail(this.#failureOf(reason))
      ),
      this.#listening
    )
    const result = yield* Effect.result(this.#join(false))
    if (Result.isFailure(result)) {
      yield* Scope.close(this.#listening, Exit.void)
      return yield* Effect.fail(this.#failureOf(result.failure))
    }
    this.#fibers = [yield* Effect.forkDetach(this.#takeOn), yield* Effect.forkDetach(this.#keep)]
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
    yield* Scope.close(this.#listening, Exit.void)
  })

  get #group(): string {
    return this.#options.subscription.group
  }

  /** Milliseconds since the receiver was made, whatever is done to the wall clock. Small and whole: such numbers cost nothing to keep. */
  readonly #now = (): number => Number((this.#options.clock.monotonicTimeNanosUnsafe() - this.#startedAt) / 1_000_000n)

  #failureOf(reason: Reason): TransportError {
    return new TransportError({ operation: "receive", topic: this.#options.topic, reason })
  }

  #eval<A extends ReadonlyArray<unknown>>(
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> {
    const { commands, supply, topic } = this.#options
    return evaluate<A>(commands, { topic, pattern: supply.pattern }, script, [...supply.keys, ...keys], args)
  }

  #demanded(): void {
    if (this.#holdings.buffered > 0) {
      this.#verify = true
      this.#wakeKeeper?.()
    }
    this.#wakeTaker?.()
  }

  // --- joining ---------------------------------------------------------------------------------------------------

  /** Makes sure that the group exists. `again`: it did, and something says that it does no more. */
  #join(again: boolean): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { keys, lifecycle, opened, subscription, supply, topic } = this.#options
      const mine = this.#keys
      const sentAt = this.#now()
      const [, known] = yield* this.#eval<[string, 0 | 1]>(
        supply.scripts.join,
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
        [supply.pattern, wire, this.#group, this.consumer, again ? "earliest" : subscription.start, this.#leaseMillis]
      )
      this.#holdings.beatAt = sentAt
      if (!again || known === 0) yield* opened
      if (!again || known === 1) return
      yield* lifecycle.report({ _tag: "GroupRecreated", topic, group: this.#group, from: "earliest" })
      // What it had given us went with it, or is there for everybody.
      yield* this.#lose(this.#holdings.all())
    })
  }

  // --- taking ----------------------------------------------------------------------------------------------------

  readonly #takeOn: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    while (true) {
      if (!this.#mayTake) {
        yield* this.#idle()
        continue
      }
      const count = Math.min(this.#holdings.demand, this.#takeLimit)
      const result = yield* Effect.result(survivable(this.#takeOnce(count)))
      if (Result.isSuccess(result)) continue
      // Perhaps it was more than the network brings in time.
      this.#takeLimit = Math.max(1, count >> 1)
      this.#promising = true
      const reason = result.failure
      // A connection that was lost is being made again, and the next take waits for it. Only when that takes too long
      // are those told who wait: they would back off, further with each loss, while messages arrive.
      if (reason._tag === "Disconnected" && reason.ambiguous) continue
      this.#holdings.fail(this.#failureOf(reason))
      yield* Effect.sleep(hurryMillis)
    }
  })

  get #mayTake(): boolean {
    return (
      this.#promising &&
      this.#holdings.demand > 0 &&
      this.#holdings.buffered === 0 &&
      !this.#paused &&
      !this.#silent &&
      !this.#stopping
    )
  }

  #idle(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      // Somebody may have asked since the taker looked, and found nobody to wake.
      if (this.#mayTake) return resume(Effect.void)
      this.#wakeTaker = () => {
        if (!this.#mayTake) return
        this.#wakeTaker = undefined
        resume(Effect.void)
      }
      return Effect.sync(() => {
        this.#wakeTaker = undefined
      })
    })
  }

  #takeOnce(count: number): Effect.Effect<void, Reason> {
    const { commands, lifecycle, supply, topic } = this.#options
    const mine = this.#keys
    const script = supply.scripts.take
    return Effect.gen({ self: this }, function* () {
      const asked = this.#unsure
      if (asked) yield* this.#handBackUnknown()
      // What becomes ready from now on may come too late for this take.
      this.#promising = false
      this.#taking = true
      const now = this.#now()
      const reply = yield* commands
        .eval(
          script,
          [
            ...supply.keys,
            mine.consumers,
            mine.state,
            mine.processing(this.consumer),
            mine.returned,
            mine.suspects,
            mine.marks
          ],
          [this.consumer, count, this.#holdsSuspect ? 0 : 1, asked ? 1 : 0],
          { buffers: true }
        )
        .pipe(
          Effect.onError(() => Effect.sync(() => (this.#unsure = true))),
          Effect.ensuring(
            Effect.sync(() => {
              this.#taking = false
              this.#tellTaken?.()
            })
          )
        )
      // The reply table of the script: bytes where it has strings.
      const [tag, members, lengths, attempts, records, suspect, gone, holes] = reply as Taken
      switch (String(tag)) {
        case "OK":
          break
        case "EXPIRED":
          this.#promising = true
          this.#verify = true
          this.#wakeKeeper?.()
          return yield* Effect.sleep(hurryMillis)
        case "PAUSED":
          // The keeper notices when it is over.
          return this.expect(0)
        default:
          return yield* Effect.fail(
            problemOf(script.name, { topic, pattern: supply.pattern }, (reply as ReadonlyArray<unknown>).map(String)) ??
              new Rejected({ command: script.name, detail: `an answer that is none: ${String(tag)}` })
          )
      }
      const taken = this.#decode(members, lengths, attempts, records, now)
      if (suspect === 1) this.#suspect = taken[0]
      const missed = gone < 0 ? 0 : gone < this.#gone ? gone : gone - this.#gone
      if (gone >= 0) this.#gone = gone
      if (taken.length + missed >= count) this.#promising = true
      if (missed > 0 && !supply.expires) {
        yield* lifecycle.report({ _tag: "Truncated", topic, group: this.#group, count: missed })
      }
      if (supply.expires) yield* this.#tellGaps(taken, missed, holes.toString("latin1"))
      const last = taken.at(-1)
      if (last === undefined) return
      this.#lastId = last.id
      this.#takeLimit = Math.min(takeLimit, Math.max(1, Math.floor((takeBytes * taken.length) / (records.length + 1))))
      this.#holdings.add(taken)
    })
  }

  #decode(
    members: Buffer,
    lengths: Buffer,
    attempts: Buffer,
    records: Buffer,
    now: number
  ): ReadonlyArray<CustodyDelivery> {
    if (members.length === 0) return []
    const { topic } = this.#options
    const group = this.#group
    const names = members.toString("utf8").split(" ")
    const sizes = lengths.toString("latin1").split(" ")
    const before = attempts.length === 0 ? [] : attempts.toString("latin1").split(" ")
    const text = isAscii(records) ? records.toString("latin1") : undefined
    const taken: Array<CustodyDelivery> = []
    let from = 0
    for (let i = 0; i < names.length; i++) {
      const to = from + Number(sizes[i])
      const attempt = i < before.length ? Number(before[i]) : 1
      const name = names[i] as string // within bounds
      taken.push(new CustodyDelivery(topic, group, name, attempt, records, text, from, to, now))
      from = to
    }
    return taken
  }

  /** `missed` are gone, of them in the holes so many as they say; the rest of them an answer told of that was lost. */
  #tellGaps(taken: ReadonlyArray<CustodyDelivery>, missed: number, holes: string): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      const { lifecycle, topic } = this.#options
      this.#missed += missed
      if (this.#missed === 0 || taken.length === 0) return
      const pairs = holes === "" ? [] : holes.split(" ").map(Number)
      const before = new Map<number, number>()
      for (let i = 0; i + 1 < pairs.length; i += 2) before.set((pairs[i] ?? 0) - 1, pairs[i + 1] ?? 0)
      const behind = before.get(taken.length) ?? 0
      let inside = 0
      for (let i = 1; i < taken.length; i++) inside += before.get(i) ?? 0
      before.set(0, this.#missed - inside - behind)
      this.#missed = behind
      for (const [i, delivery] of taken.entries()) {
        const count = before.get(i) ?? 0
        if (count === 0) continue
        const after = i === 0 ? this.#lastId : taken[i - 1]?.id
        const gap: Gap = { missed: count, after, before: delivery.id, reason: "expired" }
        delivery.gap = gap
        yield* lifecycle.report({ _tag: "Gap", topic, group: this.#group, consumer: this.consumer, gap })
      }
    })
  }

  get #holdsSuspect(): boolean {
    return this.#suspect !== undefined && this.#holdings.find(this.#suspect) === this.#suspect
  }

  /** Hands back what an answer that never came had given us: nobody has seen it. Runs in the taker. */
  #handBackUnknown(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { commands, keys, supply, topic } = this.#options
      const mine = this.#keys
      const key = mine.processing(this.consumer)
      const members = yield* commands.run("smembers", (client) => client.smembers(key), { key })
      const known = new Set(this.#holdings.all().map(({ receipt }) => receipt))
      // In the order in which they were made, as far as their last number tells.
      const unknown = members.filter((member) => !known.has(member)).sort((a, b) => nth(a) - nth(b))
      // The last part first: each goes in front of what came back before.
      for (let end = unknown.length; end > 0; end -= moveLimit) {
        yield* evaluate(
          commands,
          { topic, pattern: supply.pattern },
          supply.scripts.settle,
          [
            ...supply.keys,
            key,
            mine.returned,
            mine.suspects,
            mine.marks,
            mine.waiting,
            mine.dead,
            mine.state,
            keys.wake
          ],
          [
            this.consumer,
            1,
            1,
            0,
            ...unknown.slice(Math.max(0, end - moveLimit), end).flatMap((member) => ["L", member])
          ]
        )
      }
      this.#unsure = false
    })
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
      const hurry = this.#verify ? hurryMillis : Infinity
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
    const { keys, supply } = this.#options
    const mine = this.#keys
    const sentAt = this.#now()
    const age = this.#holdings.age()
    this.#dueAt = Infinity
    const [tag, alive, paused, more, next, backlog, dead] = yield* this.#eval<
      [string, 0 | 1, 0 | 1, 0 | 1, number, number, ReadonlyArray<string>]
    >(
      supply.scripts.beat,
      [
        keys.groups,
        mine.consumers,
        mine.state,
        mine.waiting,
        mine.returned,
        mine.suspects,
        mine.marks,
        mine.dead,
        keys.wake
      ],
      [this.#group, this.consumer, this.#leaseMillis, moveLimit, age === undefined ? "" : Math.round(age)]
    )
    if (tag === "NOGROUP") {
      yield* this.#join(true)
      return true
    }
    if (next >= 0) this.#dueAt = Math.min(this.#dueAt, this.#now() + next)
    if (alive === 0) this.#verify = true
    if ((paused === 1) !== this.#paused) yield* this.#setPaused(paused === 1)
    if (this.#verify) yield* this.#ask()
    this.#holdings.beatAt = sentAt
    this.#holdings.handOut()
    if (backlog > 0) this.wake(0)
    if (more === 1) return true
    yield* this.#handBackUnclaimed()
    // Whose own heartbeat had run out knows of an outage that may have met all of them: those who live get a beat to say so.
    return alive === 1 && dead.length > 0 ? yield* this.#vacate("dead", dead) : false
  })

  #setPaused(paused: boolean): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    this.#paused = paused
    if (!paused) this.wake(0)
    return lifecycle.report({ _tag: paused ? "ConsumerPaused" : "ConsumerResumed", topic, group: this.#group })
  }

  /** Asks of every delivery whether it is still ours. */
  #ask(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { commands } = this.#options
      const key = this.#keys.processing(this.consumer)
      this.#verify = false
      const held = this.#holdings.all().filter(({ settling }) => !settling)
      for (let i = 0; i < held.length; i += verifyLimit) {
        const some = held.slice(i, i + verifyLimit)
        const sentAt = this.#now()
        const told = yield* commands.run(
          "smismember",
          (client) =>
            client.smismember(
              key,
              some.map(({ receipt }) => receipt)
            ),
          { key }
        )
        const lost: Array<CustodyDelivery> = []
        some.forEach((delivery, index) => {
          if (told[index] === 1) delivery.renewedAt = sentAt
          // What was settled meanwhile has left by our own hand.
          else if (!delivery.settling && this.#holdings.find(delivery) === delivery) lost.push(delivery)
        })
        yield* this.#lose(lost)
      }
    }).pipe(Effect.onError(() => Effect.sync(() => (this.#verify = true))))
  }

  #lose(deliveries: ReadonlyArray<CustodyDelivery>): Effect.Effect<void> {
    if (deliveries.length === 0) return Effect.void
    const lost = this.#holdings.lose(deliveries)
    const { lifecycle, topic } = this.#options
    return lost.length === 0
      ? Effect.void
      : lifecycle.report({ _tag: "LeaseLost", topic, group: this.#group, deliveries: lost })
  }

  /** Gives back what was taken for somebody who no longer asks. */
  #handBackUnclaimed(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const [first, ...others] = this.#holdings
        .unclaimed(this.#leaseMillis / 3)
        .map((delivery) => [delivery, Settlement.release] as const)
      return first === undefined ? Effect.void : Effect.ignore(this.#settler.settle([first, ...others]))
    })
  }

  /** Gives to others what these consumers hold; answers whether there is more of it. */
  #vacate(how: "leave" | "dead", consumers: ReadonlyArray<string>): Effect.Effect<boolean, Reason> {
    const { deadLetters, keys, lifecycle, subscription, supply, topic } = this.#options
    const group = this.#group
    return Effect.gen({ self: this }, function* () {
      const mine = this.#keys
      const [, moved, from, buried, dropped, more] = yield* this.#eval<
        [string, number, ReadonlyArray<string>, ReadonlyArray<Buried>, number, 0 | 1]
      >(
        supply.scripts.vacate,
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
      if (buried.length > 0)
        yield* Effect.logWarning("DeadLettered", { topic, group, reasons: { CrashLoop: buried.length } })
      for (const [member, attempts, record] of buried) {
        const bytes = Buffer.from(record)
        const delivery = new CustodyDelivery(
          topic,
          group,
          member,
          attempts,
          bytes,
          undefined,
          0,
          bytes.length,
          this.#now()
        )
        // Nobody settles what nobody has seen, so nobody else tells of it.
        const settlement = Settlement.deadLetter("CrashLoop", "delivered too often to consumers that died or stalled")
        lifecycle.emit({ _tag: "Settled", topic, group, delivery, settlement, stale: false })
      }
      if (dropped > 0) yield* this.#dropped(dropped)
      if (moved > 0) this.wake(0)
      return more === 1
    })
  }

  #dropped(count: number): Effect.Effect<void> {
    const { lifecycle, topic } = this.#options
    return lifecycle.report({ _tag: "DeadLettersDropped", topic, group: this.#group, count })
  }

  // --- leaving ---------------------------------------------------------------------------------------------------

  readonly #leave: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const [, keeper] = this.#fibers
    if (keeper !== undefined) yield* Fiber.interrupt(keeper)
    // A take that is on its way would give us something after we have left; the script refuses those that come later.
    yield* Effect.timeoutOption(
      Effect.callback<void>((resume) => {
        if (!this.#taking) return resume(Effect.void)
        this.#tellTaken = () => resume(Effect.void)
      }),
      500
    )
    while (true) {
      const answer = yield* Effect.result(this.#vacate("leave", [this.consumer]))
      if (Result.isSuccess(answer)) {
        if (!answer.success) return
      } else if (answer.failure.permanent) {
        // It cannot hand back what it holds, but the others need not wait for its heartbeat to run out.
        const key = this.#keys.consumers
        return yield* Effect.ignore(this.#options.commands.run("zadd", (client) => client.zadd(key, 0, this.consumer)))
      } else {
        yield* Effect.sleep(hurryMillis)
      }
    }
  })
}

type Taken = readonly [
  tag: Buffer,
  members: Buffer,
  lengths: Buffer,
  attempts: Buffer,
  records: Buffer,
  suspect: 0 | 1,
  gone: number,
  holes: Buffer
]

const nth = (member: string): number => Number(/(\d*)(?:#\d+)?$/.exec(member)?.[1])

const stopped = new Disconnected({ ambiguous: false, cause: new Error("the receiver is closed") })

/** A bug of ours must be heard by whoever waits, and must not end the fiber that everything hangs on. */
const survivable = <A>(self: Effect.Effect<A, Reason>): Effect.Effect<A, Reason> =>
  Effect.catchDefect(self, (defect) => Effect.fail(new Rejected({ command: "waybill", detail: String(defect) })))
