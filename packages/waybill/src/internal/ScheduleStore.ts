/**
 * The part of a transport that keeps schedules, and what it keeps of each: a text that the store does not read, and when it is due.
 * Every change names the revision that it is based on. So of several processes that find the same tick due, one publishes it.
 *
 * @module
 */
import type * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"
import type * as Scope from "effect/Scope"
import type { Outgoing, Receipt } from "../Message.ts"
import type { TransportError } from "../TransportError.ts"
import { problemOf } from "./Timing.ts"

/** A schedule as it is stored. */
export interface StoredSchedule {
  readonly id: string
  /** Differs after each change; "" if there is no such schedule. */
  readonly revision: string
  /** When it is due, in milliseconds since the epoch by the store's clock; undefined while it is paused, or after its end. */
  readonly next: number | undefined
  readonly text: string
}

/** A change of one schedule. It is made if the schedule has the revision, together with its messages, or not at all. */
export interface ScheduleChange extends StoredSchedule {
  /** Without it the schedule is removed. */
  readonly text: string
  /** Published in the same step. Each has an id. */
  readonly messages: ReadonlyArray<Outgoing>
}

/** Some schedules, and the time by the store's clock. */
export interface ScheduleReply {
  readonly now: number
  readonly schedules: ReadonlyArray<StoredSchedule>
}

/**
 * How a stored schedule differs from what a running process declares. `missing`: it is not stored. `undeclared`: it is, although
 * the process no longer declares it.
 */
export interface Drift {
  readonly schedule: string
  readonly found: "changed" | "missing" | "undeclared"
}

export interface ScheduleStore {
  /** The schedules that are due, the first ones of them, and when the next one is due if none is. */
  readonly due: (topic: string) => Effect.Effect<ScheduleReply & { readonly next: number | undefined }, TransportError>
  /** These schedules, in this order. */
  readonly find: (topic: string, ids: ReadonlyArray<string>) => Effect.Effect<ScheduleReply, TransportError>
  /** A page of them, in the order in which they are due; those that are not due at all come last. */
  readonly page: (
    topic: string,
    after: Option.Option<StoredSchedule>,
    limit: number
  ) => Effect.Effect<ScheduleReply, TransportError>
  /**
   * Makes changes, at most `mostChanges`; returns for each of them the receipts of its messages, or undefined if it was not made.
   * `announce`: informs those who listen.
   */
  readonly change: (
    topic: string,
    changes: ReadonlyArray<ScheduleChange>,
    announce: boolean
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<Receipt> | undefined>, TransportError>
  /** Records for so many milliseconds what a process has found, and forgets what is over; at most `mostChanges` of each. */
  readonly note: (
    topic: string,
    drifts: ReadonlyArray<Drift>,
    over: ReadonlyArray<Drift>,
    millis: number
  ) => Effect.Effect<void, TransportError>
  /** What processes have recorded, at most so many. */
  readonly drifts: (topic: string, limit: number) => Effect.Effect<ReadonlyArray<Drift>, TransportError>
  /** Calls `heard` when schedules were changed, until the scope closes. */
  readonly listen: (topic: string, heard: () => void) => Effect.Effect<void, never, Scope.Scope>
  /** How long a change may go unnoticed by those who listen, in milliseconds. */
  readonly pollMillis: number
}

/** How many changes, and how many messages with them, one call of `change` may carry. */
export const mostChanges = 250

const whole = Schema.Int
const optional = Schema.optionalKey

/** The message of each tick. */
const Content = Schema.Struct({
  body: Schema.String,
  headers: optional(Schema.Record(Schema.String, Schema.String)),
  key: optional(Schema.String),
  v: optional(whole)
})

const Definition = Schema.Struct({
  cron: optional(Schema.String),
  zone: optional(Schema.String),
  every: optional(whole),
  start: optional(whole),
  end: optional(whole),
  times: optional(whole),
  missed: optional(Schema.Literals(["skip", "last", "all"])),
  window: optional(whole),
  jitter: optional(whole),
  /** Whether a tick is left out while the message of the one before it is not settled. */
  overlap: optional(Schema.Literal("skip")),
  /** The owner, if the schedule was declared in code. */
  declared: optional(Schema.String),
  message: Content
})

/** What a schedule is, apart from when it was and will be due. */
export type Definition = typeof Definition.Type

/** How far it has come. */
export interface Progress {
  /** The last tick that was published. */
  readonly last?: number | undefined
  /** How many ticks were published. */
  readonly count?: number | undefined
  readonly paused?: true | undefined
}

const Progress = Schema.Struct({
  last: optional(whole),
  count: optional(whole),
  paused: optional(Schema.Literal(true))
})

const Entry = Schema.Struct({ ...Definition.fields, ...Progress.fields })
SchemaJITCompiler.enable(Entry.ast)

export interface Entry {
  readonly definition: Definition
  readonly progress: Progress
}

// What this build does not know has a meaning to another one: such a schedule is left to it.
const decode = Schema.decodeUnknownOption(Entry, { onExcessProperty: "error" })

/** Undefined if this process cannot read it: another build stored it, or its time zone is not known here. */
export const read = (text: string): Entry | undefined => {
  const entry = Option.getOrUndefined(decode(parsed(text)))
  if (entry === undefined) return undefined
  const { count, last, paused, ...definition } = entry
  return problemOf(definition) === undefined ? { definition, progress: { count, last, paused } } : undefined
}

const decodeProgress = Schema.decodeUnknownOption(Progress)

/** How far a schedule has come, also one that cannot be read otherwise. */
export const progressOf = (text: string): Progress => Option.getOrElse(decodeProgress(parsed(text)), () => ({}))

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

export const write = ({ definition, progress }: Entry): string => JSON.stringify({ ...definition, ...progress })

/** Whether two definitions are the same, whatever the order of their fields. */
export const same = (a: Definition, b: Definition): boolean => inOrder(a) === inOrder(b)

const inOrder = (definition: Definition): string =>
  JSON.stringify(read(write({ definition, progress: {} }))?.definition)
