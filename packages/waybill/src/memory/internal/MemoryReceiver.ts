/**
 * A member of an in-memory group. Every step happens at one instant, and nothing that was taken is lost between it and the
 * caller.
 *
 * @module
 */
import { isReadonlyArrayNonEmpty, type NonEmptyReadonlyArray } from "effect/Array"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Delivery } from "../../Delivery.ts"
import { Freezable } from "../../internal/Freezable.ts"
import type { Lifecycle } from "../../Lifecycle.ts"
import type { Recall, Receiver, Settled } from "../../Transport.ts"
import type { Group } from "./Group.ts"
import type { Member } from "./Member.ts"
import { completed, step } from "./Step.ts"
import type { Topic } from "./Topic.ts"

/** The longest timer that runtimes support; longer waits are repeated. */
const longestSleep = 24 * 60 * 60 * 1000

/** From a loss until an interrupted handler has ended, if its finalizers do not wait. */
const turns = 8

/** What a receiver needs from its layer. */
export interface Home {
  readonly lifecycle: Lifecycle
  /** The topics that commits have published to meanwhile. */
  readonly touched: () => ReadonlySet<Topic>
}

export class MemoryReceiver implements Receiver, Freezable {
  readonly consumer: string
  readonly #lifecycle: Lifecycle
  readonly #touched: () => ReadonlySet<Topic>
  readonly #topic: Topic
  readonly #group: Group
  readonly #member: Member

  constructor({ lifecycle, touched }: Home, topic: Topic, group: Group, member: Member) {
    this.#lifecycle = lifecycle
    this.#touched = touched
    this.consumer = member.consumer
    this.#topic = topic
    this.#group = group
    this.#member = member
    group.join(member)
  }

  readonly take = (max: number, bytes = Infinity): Effect.Effect<NonEmptyReadonlyArray<Delivery>> =>
    Effect.withFiber((fiber) => {
      // An interruption between this step and the caller's next one would lose the taken messages: yield before, not there.
      if (fiber.currentOpCount + 64 > fiber.cache.maxOpsBeforeYield) {
        return Effect.flatMap(Effect.yieldNow, () => this.take(max, bytes))
      }
      const clock = fiber.getRef(Clock.Clock)
      const now = clock.currentTimeMillisUnsafe()
      this.#topic.promote(now)
      const reclaimed = this.#group.reclaim(this.#member, now)
      // Others are told first: nothing may come between the deliveries and their caller.
      const told = completed(this.#lifecycle, this.#topic, fiber, undefined)
      if (reclaimed) {
        // Handlers that are to be interrupted get their turns before the messages begin again here.
        const others = Effect.andThen(told, Effect.repeat(Effect.yieldNow, { times: turns }))
        return Effect.flatMap(others, () => this.take(max, bytes))
      }
      if (!Exit.isExit(told)) return Effect.flatMap(told, () => this.take(max, bytes))
      const deliveries = this.#group.take(this.#member, Math.max(1, max), bytes, now)
      return isReadonlyArrayNonEmpty(deliveries)
        ? // A gap is reported within the remaining turns, so nothing comes between them.
          completed(this.#lifecycle, this.#topic, fiber, deliveries)
        : Effect.flatMap(this.#change(clock, now), () => this.take(max, bytes))
    })

  readonly settle: Receiver["settle"] = (endings) =>
    step((now, fiber) => {
      const answers = endings.map(([handle, settlement]): Settled =>
        settlement._tag === "Release" ? "Stale" : this.#group.settle(this.#member, handle, settlement, now)
      )
      // The last one first: each goes before what came back earlier.
      for (let i = endings.length - 1; i >= 0; i--) {
        const [handle, settlement] = endings[i] ?? endings[0] // within bounds
        if (settlement._tag === "Release") {
          answers[i] = this.#group.settle(this.#member, handle, settlement, now)
        }
      }
      const touched = this.#touched()
      const told = completed(this.#lifecycle, this.#topic, fiber, answers)
      return touched.size === 0
        ? told
        : Effect.andThen(
            Effect.all(Array.from(touched, (topic) => completed(this.#lifecycle, topic, fiber, undefined))),
            told
          )
    })

  readonly lost: Receiver["lost"] = Effect.suspend(() => {
    const { some } = this.#member.lost
    const lost = this.#member.lost.take()
    if (!isReadonlyArrayNonEmpty(lost)) return Effect.flatMap(some.await, () => this.lost)
    const { group, topic } = lost[0]
    return Effect.as(this.#lifecycle.report({ _tag: "LeaseLost", topic, group, deliveries: lost }), lost)
  })

  readonly cancelled: NonNullable<Receiver["cancelled"]> = Effect.suspend(() => {
    const { some } = this.#member.cancelled
    const cancelled = this.#member.cancelled.take()
    return isReadonlyArrayNonEmpty(cancelled)
      ? Effect.succeed(cancelled)
      : Effect.flatMap(some.await, () => this.cancelled)
  })

  readonly unclaimed: NonNullable<Receiver["unclaimed"]> = step((now, fiber) => {
    const due = this.#group.unclaimedAt(now)
    const { deadLettered } = this.#group
    const told = completed(this.#lifecycle, this.#topic, fiber, undefined)
    if (due <= now) return told
    const wait = Effect.raceFirst(deadLettered.await, Effect.sleep(Math.min(due - now, longestSleep)))
    return Effect.andThen(
      told,
      Effect.flatMap(wait, () => this.unclaimed)
    )
  })

  get recalled(): Effect.Effect<Recall> {
    return this.#member.recalls.next
  }

  readonly leave = step((now, fiber) => {
    this.#group.leave(this.#member, now)
    return completed(this.#lifecycle, this.#topic, fiber, undefined)
  })

  readonly [Freezable] = (frozen: boolean): Effect.Effect<void> =>
    step((now, fiber) => {
      this.#group.freeze(this.#member, frozen ? now : undefined)
      return completed(this.#lifecycle, this.#topic, fiber, undefined)
    })

  /** Waits until there may be something to take. */
  #change(clock: Clock.Clock, now: number): Effect.Effect<void> {
    const { changed } = this.#topic
    const due = Math.min(this.#topic.nextDelayedAt ?? Infinity, this.#group.nextDue(this.#member))
    if (due === Infinity) return changed.await
    return Effect.raceFirst(changed.await, clock.sleep(Duration.millis(Math.min(due - now, longestSleep))))
  }
}
