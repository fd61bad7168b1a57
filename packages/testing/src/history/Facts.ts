/**
 * What a history consists of, and what is told of one: the facts that processes record, what is left in the store at the end,
 * what was promised, and the report.
 *
 * @module
 */
import { Schema } from "effect"
import type { Repetition, Violation } from "./Finding.ts"

/**
 * A fact that a process records at the moment it happens.
 *
 * @category models
 */
export const Fact = Schema.TaggedUnion({
  /** A producer is about to publish: from now on the message may exist. */
  Publishing: { id: Schema.String, key: Schema.optional(Schema.String) },
  /** The producer has the receipt: from now on the message is owed. */
  Published: { id: Schema.String },
  /** A handler begins. */
  Started: { group: Schema.String, id: Schema.String, attempt: Schema.Number, fence: Schema.Number },
  /** That handler has ended. */
  Ended: {
    group: Schema.String,
    id: Schema.String,
    fence: Schema.Number,
    outcome: Schema.Literals(["success", "failure", "interrupted"])
  },
  /** The store has confirmed how the delivery ends; `stale` if it refused because the delivery had moved on. */
  Settled: {
    group: Schema.String,
    id: Schema.String,
    fence: Schema.Number,
    as: Schema.Literals(["Ack", "Retry", "DeadLetter", "Release"]),
    stale: Schema.Boolean
  },
  /** The consumer learned that it no longer owns the delivery. */
  LeaseLost: { group: Schema.String, id: Schema.String, fence: Schema.Number },
  /**
   * The handler wrote to another store, which accepted or refused the fence. `order` grows with what that store accepted,
   * because replies may arrive in a different order.
   */
  Effect: {
    group: Schema.String,
    id: Schema.String,
    fence: Schema.Number,
    accepted: Schema.Boolean,
    order: Schema.Number
  },
  /**
   * The test hurts a process, or all of them with `*`. Recorded beforehand. `StateLost`: the store forgets everything, and
   * messages published before are no longer owed.
   */
  Fault: { fault: Schema.Literals(["Killed", "Stopped", "Unreachable", "StateLost"]), target: Schema.String },
  /** A fault of a process ends, or with `*` those that affected all; without this, faults last. Recorded afterwards. */
  Healed: { target: Schema.String }
})

export type Fact = typeof Fact.Type

/**
 * A fact, its writer, and the time.
 *
 * @category models
 */
export interface Event {
  readonly writer: string
  /** Microseconds of the machine's monotonic clock. */
  readonly at: number
  readonly fact: Fact
}

/**
 * A group's messages in the store at the end, by message id; an id is repeated as often as it occurs.
 *
 * @category models
 */
export interface Remains {
  readonly group: string
  /** Not delivered to any consumer yet, including delayed messages. */
  readonly undelivered: ReadonlyArray<string>
  readonly pending: ReadonlyArray<string>
  /** Waiting for their next attempt. */
  readonly waiting: ReadonlyArray<string>
  readonly deadLetters: ReadonlyArray<string>
}

/**
 * A pattern's promises beyond at least once.
 *
 * @category models
 */
export interface Promises {
  /** Each message has its effect exactly once. */
  readonly effectsOnce?: boolean
  /** The messages of one key are handled one after the other, in the order they were published. */
  readonly ordered?: boolean
}

/**
 * The judge's report.
 *
 * @category models
 */
export interface Report {
  /** Empty if every promise was kept. */
  readonly violations: ReadonlyArray<Violation>
  readonly repetitions: ReadonlyArray<Repetition>
  /** How many repetitions each cause explains. */
  readonly explained: Readonly<Partial<Record<Repetition["because"], number>>>
  readonly counts: {
    readonly published: number
    readonly handlings: number
    readonly acknowledged: number
    readonly deadLettered: number
    readonly leasesLost: number
    /** Settlements that the store refused. */
    readonly stale: number
    readonly faults: number
  }
}
