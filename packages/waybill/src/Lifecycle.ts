/**
 * Events of connections, groups, leases and messages, as data. The log, the metrics and the tests all read these
 * events, and this page lists every one of them.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Delivery, Handle } from "./Delivery.ts"
import type { Gap } from "./Gap.ts"
import type { Outgoing, Receipt } from "./Message.ts"
import type { Settlement } from "./Settlement.ts"

export type Event =
  /** The transport accepted a batch; `receipts[i]` belongs to `messages[i]`. */
  | {
      readonly _tag: "Published"
      readonly topic: string
      readonly messages: ReadonlyArray<Outgoing>
      readonly receipts: ReadonlyArray<Receipt>
    }
  /** A delivery ended; `stale` when the transport refused it because the lease had moved on. */
  | {
      readonly _tag: "Settled"
      readonly topic: string
      readonly group: string
      readonly delivery: Delivery
      readonly settlement: Settlement
      readonly stale: boolean
    }
  | { readonly _tag: "ConsumerStarted"; readonly topic: string; readonly group: string; readonly consumer: string }
  /** The consumer takes nothing new; running handlers may finish within its `shutdown`. */
  | { readonly _tag: "ConsumerStopping"; readonly topic: string; readonly group: string; readonly consumer: string }
  | { readonly _tag: "ConsumerStopped"; readonly topic: string; readonly group: string; readonly consumer: string }
  /**
   * The transport failed under a consumer, which retries with backoff; `permanent` when retrying alone will not help.
   * One event per try; the log shows an error once until `ConsumerRecovered`.
   */
  | {
      readonly _tag: "ConsumerFailing"
      readonly topic: string
      readonly group: string
      readonly permanent: boolean
      readonly error: string
    }
  /** The transport works again after this many failed tries. */
  | { readonly _tag: "ConsumerRecovered"; readonly topic: string; readonly group: string; readonly tries: number }
  | { readonly _tag: "ConsumerPaused"; readonly topic: string; readonly group: string }
  | { readonly _tag: "ConsumerResumed"; readonly topic: string; readonly group: string }
  | { readonly _tag: "Disconnected"; readonly role: string; readonly cause: string }
  | { readonly _tag: "Reconnected"; readonly role: string; readonly afterMillis: number }
  /**
   * Another server, or a restarted one, has taken the place of the one that this process was connected to. It has everything
   * that was accepted by `since`, in milliseconds since the epoch; without `since` that is not known. `mayBeLost`: this process
   * has had messages or settlements accepted after that, which the server may lack.
   */
  | {
      readonly _tag: "FailedOver"
      readonly role: string
      readonly server: string
      readonly mayBeLost: boolean
      readonly since: number | undefined
    }
  /** The group was lost (FLUSHALL, XGROUP DESTROY, a restart without persistence) and recreated; messages may be lost. */
  | { readonly _tag: "GroupRecreated"; readonly topic: string; readonly group: string; readonly from: string }
  /** Deliveries that this consumer no longer owns. Their handlers are interrupted and nothing is settled. */
  | {
      readonly _tag: "LeaseLost"
      readonly topic: string
      readonly group: string
      readonly deliveries: ReadonlyArray<Handle>
    }
  /** Deliveries taken over from consumers that died or stalled. */
  | {
      readonly _tag: "Claimed"
      readonly topic: string
      readonly group: string
      readonly from: ReadonlyArray<string>
      readonly count: number
    }
  /**
   * Messages of a version that this consumer does not read yet (it reads up to `reads`) were set aside, until another
   * member of the group takes them or this program is updated. The log names a version once.
   */
  | {
      readonly _tag: "NewerVersion"
      readonly topic: string
      readonly group: string
      readonly version: number
      readonly reads: number
      readonly count: number
    }
  /** Messages were trimmed before the group had settled them. */
  | { readonly _tag: "Truncated"; readonly topic: string; readonly group: string; readonly count: number }
  /** A subscriber missed messages; the next delivery carries the same gap. */
  | {
      readonly _tag: "Gap"
      readonly topic: string
      readonly group: string
      readonly consumer: string
      readonly gap: Gap
    }
  /** A declared schedule was stored, changed, or removed because it is no longer declared. */
  | {
      readonly _tag: "ScheduleChanged"
      readonly topic: string
      readonly schedule: string
      readonly change: "created" | "changed" | "removed"
    }
  /** A stored schedule is not what this process declares: another release may have changed it. It is left as it is. */
  | {
      readonly _tag: "ScheduleDrifted"
      readonly topic: string
      readonly schedule: string
      readonly found: "changed" | "missing" | "undeclared"
    }
  /**
   * Ticks of a schedule that are not published, at least this many: they were noticed too late, or the message of the tick before
   * them is not settled.
   */
  | {
      readonly _tag: "TicksMissed"
      readonly topic: string
      readonly schedule: string
      readonly count: number
      readonly reason: "late" | "overlap"
    }
  /** The schedules of a topic cannot be watched; it is tried again every second. One event an outage. */
  | { readonly _tag: "SchedulesFailing"; readonly topic: string; readonly permanent: boolean; readonly error: string }
  /** `Consumer.onDeadLetter` failed for a dead letter, which it is not run for again. The letter stays where it is. */
  | {
      readonly _tag: "DeadLetterUnhandled"
      readonly topic: string
      readonly group: string
      readonly id: string
      /** The letter's `entry`. */
      readonly entry: string
      readonly error: string
    }
  /** The cap dropped the oldest dead letters. */
  | { readonly _tag: "DeadLettersDropped"; readonly topic: string; readonly group: string; readonly count: number }

const levels = new Map<Event["_tag"], (...message: ReadonlyArray<unknown>) => Effect.Effect<void>>([
  ["ConsumerFailing", Effect.logError],
  ["Disconnected", Effect.logWarning],
  ["FailedOver", Effect.logWarning],
  ["GroupRecreated", Effect.logWarning],
  ["Truncated", Effect.logError],
  ["Gap", Effect.logWarning],
  ["NewerVersion", Effect.logWarning],
  ["DeadLetterUnhandled", Effect.logError],
  ["DeadLettersDropped", Effect.logWarning],
  ["ScheduleDrifted", Effect.logWarning],
  ["TicksMissed", Effect.logWarning],
  ["SchedulesFailing", Effect.logWarning],
  ["LeaseLost", Effect.logWarning],
  ["Claimed", Effect.logWarning]
])

/** How many messages a log line names; it also gives the total. */
const namedInLog = 20

type Listener = (event: Event) => void

/**
 * A hub of events. Emitting without listeners costs one comparison: check `active` before building an event on a hot path.
 */
export class Lifecycle {
  readonly #listeners = new Set<Listener>()
  readonly #overhearing = new Set<Listener>()

  get active(): boolean {
    return this.#listeners.size > 0
  }

  emit(event: Event): void {
    for (const listener of this.#listeners) listener(event)
    for (const listener of this.#overhearing) listener(event)
  }

  /** Emits a rare event and logs it. Not for `Published` and `Settled`, which occur per message. */
  report(event: Exclude<Event, { readonly _tag: "Published" | "Settled" }>): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.emit(event)
      const { _tag, ...facts } = event
      // Whole deliveries would put payloads into the log, and all of their ids would flood it.
      const details =
        "deliveries" in facts
          ? {
              ...facts,
              deliveries: facts.deliveries.slice(0, namedInLog).map((lost) => lost.id),
              count: facts.deliveries.length
            }
          : facts
      return (levels.get(_tag) ?? Effect.logInfo)(_tag, details)
    })
  }

  /**
   * Calls `listener` for every event until the scope closes. It runs inside the emitting fiber and must be quick. An
   * error that it throws is logged once.
   */
  listen(listener: Listener): Effect.Effect<void, never, Scope.Scope> {
    return attach(this.#listeners, listener)
  }

  /**
   * Like `listen`, for rare events: it does not make the hub `active`, so the `Published` and `Settled` of producers and
   * consumers arrive only while another listener is attached. Events that a transport reports by itself always arrive.
   */
  overhear(listener: Listener): Effect.Effect<void, never, Scope.Scope> {
    return attach(this.#overhearing, listener)
  }

  /**
   * All events from now on. A reader that falls more than `capacity` events behind (4096 by default) loses the oldest,
   * so that no reader can hold up the work.
   */
  stream(capacity = 4096): Stream.Stream<Event> {
    return Stream.unwrap(
      Effect.gen({ self: this }, function* () {
        const queue = yield* Queue.sliding<Event>(capacity)
        yield* this.listen((event) => {
          Queue.offerUnsafe(queue, event)
        })
        return Stream.fromQueue(queue)
      })
    )
  }
}

/**
 * A listener that throws must not end the emitting fiber. The first error is logged in the fiber that attached the
 * listener.
 */
const attach = (listeners: Set<Listener>, listener: Listener): Effect.Effect<void, never, Scope.Scope> =>
  Effect.contextWith((context: Context.Context<never>) => {
    let complained = false
    // A function of its own: the same listener may be attached in several scopes.
    const own: Listener = (event) => {
      try {
        listener(event)
      } catch (defect) {
        if (complained) return
        complained = true
        const log = Effect.logError(`A lifecycle listener threw on ${event._tag}`, Cause.die(defect))
        Effect.runForkWith(context)(log)
      }
    }
    return Effect.acquireRelease(
      Effect.sync(() => {
        listeners.add(own)
      }),
      () => Effect.sync(() => listeners.delete(own))
    )
  })
