/**
 * Schedules publish a message at each of their ticks. They are stored beside the messages of their topic, and every process that
 * consumes the topic, or declares schedules of it, watches them: a tick is stored once, as long as one such process is alive.
 *
 * @module
 */
import * as Arr from "effect/Array"
import type * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Repetition from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { finiteOf, shown } from "./internal/Limits.ts"
import { isName } from "./internal/Name.ts"
import { safe } from "./internal/SafeText.ts"
import { messageAs, messageIdOf, planned, publish } from "./internal/Scheduler.ts"
import {
  type Definition,
  type Drift,
  type Entry,
  mostChanges,
  progressOf,
  read,
  same,
  type ScheduleChange,
  type StoredSchedule,
  write
} from "./internal/ScheduleStore.ts"
import * as Timing from "./internal/Timing.ts"
import type { Lifecycle } from "./Lifecycle.ts"
import type { Headers, Outgoing } from "./Message.ts"
import { message } from "./Producer.ts"
import type { InvalidPayload, PayloadTooLarge, Topic } from "./Topic.ts"
import {
  find,
  type Name,
  NotOffered,
  notProvided,
  type Schedules,
  type Transport,
  TransportError,
  UnreadableSchedule
} from "./Transport.ts"

/** The id, the timing or another option of a schedule is invalid. Nothing was changed. */
export class InvalidSchedule extends Schema.TaggedError<InvalidSchedule>("waybill/InvalidSchedule")("InvalidSchedule", {
  schedule: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return safe(`invalid schedule ${this.schedule}: ${this.issue}`)
  }
}

/** What is published, and when. */
export interface Options<P, On, RD, RE> {
  readonly topic: Topic<P, On, RD, RE, unknown>
  /** The payload of every message. Its tick is in the headers `schedule` and `tick`, and in its id. */
  readonly payload: NoInfer<P>
  readonly headers?: Headers | undefined
  /** No tick is before this instant. The ticks of `every` are counted from it; without it, from the epoch. */
  readonly start?: DateTime.DateTime | undefined
  /** No tick is after this instant. */
  readonly end?: DateTime.DateTime | undefined
  /** How many ticks are published before the schedule ends. Unlimited by default. */
  readonly times?: number | undefined
  /**
   * Which ticks are published that were missed, because no process watched the schedule or the store could not be reached.
   * A tick is missed when it is noticed more than a minute late, or when a later one is due as well. `last`, the default: the last
   * one of those that are due. `all`: every one of them, at most the newest 1,000. `skip`: none.
   */
  readonly missed?: "skip" | "last" | "all" | undefined
  /** Ticks that are noticed later than this are not published, whatever `missed` says. Unlimited by default. */
  readonly window?: Duration.Input | undefined
  /**
   * What happens at a tick while the message of the tick before it is not settled by every group. `allow`, the default: it is
   * published as well. `skip`: it is not, and is reported as `TicksMissed`, but it counts towards `times`. `NotOffered` if the
   * layer cannot keep an id to a message until that is settled.
   */
  readonly overlap?: "allow" | "skip" | undefined
  /** Delays each message by a time between 0 and this, which is the same for a tick in every process. None by default. */
  readonly jitter?: Duration.Input | undefined
}

/** A schedule of a topic: data, which `layer` declares and `upsert` stores. */
export interface Schedule<out On = unknown, out R = never> {
  readonly id: string
  readonly topic: { readonly name: string; readonly on: Name<On> }
  readonly definition: Effect.Effect<Definition, InvalidSchedule | InvalidPayload | PayloadTooLarge, R>
}

/**
 * A schedule with a cron expression of five fields, or of six, the first being seconds. `zone` is the name of a time zone, UTC by
 * default: a time that a change of its clock skips is due right after the change, and one that occurs twice is due the first
 * time; if its hour is `*`, it is due both times.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Schedules, Topic } from "waybill"
 *
 * const Report = Topic.make("reports", { payload: Schema.Struct({ kind: Schema.String }) })
 *
 * const Nightly = Schedules.layer([
 *   Schedules.cron("nightly", "0 3 * * *", { zone: "Europe/Berlin", topic: Report, payload: { kind: "daily" } })
 * ])
 * ```
 */
export const cron = <P, On, RD, RE>(
  id: string,
  expression: string,
  options: Options<P, On, RD, RE> & { readonly zone?: string | undefined }
): Schedule<On, RE> => made(id, options, { cron: expression, zone: options.zone })

/**
 * A schedule with an interval of at least a second. Without `start` its ticks are multiples of the interval since the epoch, the
 * same in every process: `"1 hour"` is due on the hour.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Schedules, Topic } from "waybill"
 *
 * const Poll = Topic.make("feeds.poll", { payload: Schema.Struct({ feed: Schema.String }) })
 *
 * const program = (feed: string) =>
 *   Schedules.upsert(Schedules.every(`poll:${feed}`, "10 minutes", { topic: Poll, payload: { feed }, jitter: "1 minute" }))
 * ```
 */
export const every = <P, On, RD, RE>(
  id: string,
  interval: Duration.Input,
  options: Options<P, On, RD, RE>
): Schedule<On, RE> => made(id, options, { every: interval })

const made = <P, On, RD, RE>(
  id: string,
  options: Options<P, On, RD, RE>,
  timing: { readonly cron?: string; readonly zone?: string | undefined; readonly every?: Duration.Input }
): Schedule<On, RE> => ({
  id,
  topic: { name: options.topic.name, on: options.topic.on },
  definition: Effect.gen(function* () {
    if (!isName(id)) {
      return yield* new InvalidSchedule({
        schedule: shown(id),
        issue: "its id must have 1 to 200 characters, without white space or braces"
      })
    }
    const { message: given } = yield* message(options.topic, options.payload, { headers: options.headers })
    return yield* Effect.try({
      try: () => definitionOf(given, options, timing),
      catch: (error) =>
        new InvalidSchedule({ schedule: id, issue: error instanceof Error ? error.message : String(error) })
    })
  })
})

const instantOf = (at: DateTime.DateTime | undefined): number | undefined =>
  at === undefined ? undefined : Math.round(at.epochMilliseconds)

/** Throws on an invalid option. */
const definitionOf = (
  { body, headers: all, key, version }: Outgoing,
  options: Pick<
    Options<never, never, never, never>,
    "headers" | "start" | "end" | "times" | "missed" | "overlap" | "window" | "jitter"
  >,
  timing: { readonly cron?: string; readonly zone?: string | undefined; readonly every?: Duration.Input }
): Definition => {
  const millis = (name: string, input: Duration.Input | undefined) =>
    input === undefined ? undefined : Math.round(Duration.toMillis(finiteOf(name, input)))
  // The trace of the program that stores a schedule is not that of its ticks.
  const { traceparent, ...rest } = all
  const headers = options.headers?.["traceparent"] === undefined ? rest : { ...rest, traceparent }
  // Undefined fields are left out.
  const definition = JSON.parse(
    JSON.stringify({
      cron: timing.cron,
      zone: timing.zone,
      every: millis("interval", timing.every),
      start: instantOf(options.start),
      end: instantOf(options.end),
      times: options.times,
      missed: options.missed,
      overlap: options.overlap === "skip" ? "skip" : undefined,
      window: millis("window", options.window),
      jitter: millis("jitter", options.jitter),
      message: {
        body,
        headers: Object.keys(headers).length === 0 ? undefined : headers,
        key,
        v: version === 1 ? undefined : version
      }
    })
  ) as Definition // of these fields
  const issue = Timing.problemOf(definition)
  if (issue !== undefined) throw new Error(issue)
  if (read(write({ definition, progress: {} })) === undefined) throw new Error("an option has a value of another type")
  return definition
}

type Problem = InvalidSchedule | InvalidPayload | PayloadTooLarge | TransportError

/** What names a topic: any `Topic` does. */
export interface Scheduled<out On> {
  readonly name: string
  readonly on: Name<On>
}

const opened = <On>({ name, on }: Scheduled<On>): Effect.Effect<Opened, TransportError, On> =>
  Effect.contextWith((context: Context.Context<never>) => {
    const transport = find(context, on)
    if (transport === undefined) return Effect.fail(notProvided(context, on, "schedule", name))
    const { schedules } = transport
    if (schedules !== undefined) return Effect.succeed({ schedules, transport })
    return notOffered(name, "schedules", "it stores no messages. Use a pattern that does")
  })

const notOffered = (topic: string, feature: string, detail: string): Effect.Effect<never, TransportError> =>
  Effect.fail(new TransportError({ operation: "schedule", topic, reason: new NotOffered({ feature, detail }) }))

/** Fails if the transport does not keep what the definition asks for. */
const ensureKept = (
  topic: string,
  { overlap }: Definition,
  { unique }: Transport
): Effect.Effect<void, TransportError> =>
  overlap === undefined || unique?.includes("until-settled") === true
    ? Effect.void
    : notOffered(topic, 'overlap: "skip"', "it does not know when a message is settled. Leave it out")

interface Opened {
  readonly schedules: Schedules
  readonly transport: Transport
}

const absent = { revision: "", next: undefined, text: "" }

const removal = { next: undefined, text: "", messages: [] }

/** A result, and the change that leads to it. */
type Decision<A> = readonly [result: A, change?: Omit<ScheduleChange, "id" | "revision">]

/**
 * Repeats until the schedule has not been changed by another process in between. `catchUp`: publishes the ticks that are due before
 * it is changed.
 */
const modify = Effect.fnUntraced(function* <On, A>(
  topic: Scheduled<On>,
  id: string,
  decide: (found: StoredSchedule, now: number) => Decision<A>,
  catchUp = false
): Effect.fn.Return<A, TransportError, On> {
  const { schedules, transport } = yield* opened(topic)
  while (true) {
    const { now, schedules: all } = yield* schedules.find(topic.name, [id])
    const found = all[0] ?? { id, ...absent }
    const [result, change] = decide(found, now)
    if (change === undefined) return result
    const due = catchUp ? planned(found, now) : undefined
    if (due !== undefined) {
      yield* publish(schedules, transport.lifecycle, topic.name, [due])
      continue
    }
    const [made] = yield* schedules.change(topic.name, [{ id, revision: found.revision, ...change }], true)
    if (made !== undefined) return result
  }
})

/** The schedule with this definition, if it is not what is stored. */
const changed = (
  { text }: Pick<StoredSchedule, "text">,
  definition: Definition,
  now: number
): Pick<StoredSchedule, "next" | "text"> | undefined => {
  const before = read(text)
  if (before !== undefined && same(before.definition, definition)) return undefined
  const progress = progressOf(text)
  return { next: upcoming({ definition, progress }, now), text: write({ definition, progress }) }
}

type Stored = "Created" | "Changed" | "Unchanged"

/** Stores a definition. What is due by the one before it is published as that says. */
const store = <On>(
  topic: Scheduled<On>,
  id: string,
  definition: Definition
): Effect.Effect<Stored, TransportError, On> =>
  modify(
    topic,
    id,
    (found, now): Decision<Stored> => {
      const change = changed(found, definition, now)
      if (change === undefined) return ["Unchanged"]
      return [found.revision === "" ? "Created" : "Changed", { ...change, messages: [] }]
    },
    true
  )

const upcoming = ({ definition, progress: { count = 0, paused } }: Entry, now: number): number | undefined =>
  paused === true || count >= (definition.times ?? Infinity) ? undefined : Timing.tickAfter(definition, now)

/**
 * Stores a schedule under its id. One that is there already is changed from its next tick on, after what is due of it is published,
 * and keeps its count; if it is the same, nothing happens. For a schedule per customer or document: declare those that are part of
 * the program with `layer`.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Schedules, Topic } from "waybill"
 *
 * const Digest = Topic.make("digests", { payload: Schema.Struct({ user: Schema.String }) })
 *
 * const program = (user: string, zone: string) =>
 *   Schedules.upsert(Schedules.cron(`digest:${user}`, "0 8 * * MON", { zone, topic: Digest, payload: { user } }))
 * ```
 */
export const upsert = Effect.fn("Schedules.upsert")(function* <On, R>(
  schedule: Schedule<On, R>
): Effect.fn.Return<Stored, Problem, On | R> {
  const definition = yield* schedule.definition
  yield* ensureKept(schedule.topic.name, definition, (yield* opened(schedule.topic)).transport)
  return yield* store(schedule.topic, schedule.id, definition)
})

/** Removes a schedule. Returns whether it was there. Messages that it has published remain. */
export const remove = Effect.fn("Schedules.remove")(
  <On>(topic: Scheduled<On>, id: string): Effect.Effect<boolean, TransportError, On> =>
    modify(topic, id, ({ revision }) => (revision === "" ? [false] : [true, removal]))
)

/**
 * Stops a schedule until `resume`, also across restarts. Returns whether it is there; fails with `UnreadableSchedule` if this
 * process cannot read it.
 */
export const pause = Effect.fn("Schedules.pause")(
  <On>(topic: Scheduled<On>, id: string): Effect.Effect<boolean, TransportError, On> =>
    steer(topic, id, ({ definition, progress }) => ({ definition, progress: { ...progress, paused: true } }))
)

/** Continues a paused schedule with its next tick: those meanwhile are not missed. Returns and fails as `pause` does. */
export const resume = Effect.fn("Schedules.resume")(
  <On>(topic: Scheduled<On>, id: string): Effect.Effect<boolean, TransportError, On> =>
    steer(topic, id, ({ definition, progress }) => ({ definition, progress: { ...progress, paused: undefined } }))
)

type Found<A> = "absent" | "unreadable" | { readonly result: A }

/** Changes a schedule that is there and can be read. */
const steering = Effect.fnUntraced(function* <On, A>(
  topic: Scheduled<On>,
  id: string,
  none: A,
  decide: (entry: Entry, next: number | undefined, now: number) => Decision<A>
): Effect.fn.Return<A, TransportError, On> {
  const found = yield* modify(topic, id, ({ next, revision, text }, now): Decision<Found<A>> => {
    if (revision === "") return ["absent"]
    const entry = read(text)
    if (entry === undefined) return ["unreadable"]
    const [result, change] = decide(entry, next, now)
    return change === undefined ? [{ result }] : [{ result }, change]
  })
  if (found === "absent") return none
  if (found !== "unreadable") return found.result
  const reason = new UnreadableSchedule({ schedule: id })
  return yield* new TransportError({ operation: "schedule", topic: topic.name, reason })
})

const steer = <On>(topic: Scheduled<On>, id: string, f: (entry: Entry) => Entry) =>
  steering(topic, id, false, (entry, _, now) => {
    const after = f(entry)
    if (after.progress.paused === entry.progress.paused) return [true]
    return [true, { next: upcoming(after, now), text: write(after), messages: [] }]
  })

/**
 * Publishes the message of a schedule now, beside its ticks, which do not change. Returns the id of the message; undefined if there
 * is no such schedule. Fails as `pause` does.
 */
export const run = Effect.fn("Schedules.run")(function* <On>(
  topic: Scheduled<On>,
  id: string
): Effect.fn.Return<string | undefined, TransportError, On> {
  const unique = (yield* Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER)).toString(36)
  return yield* steering<On, string | undefined>(topic, id, undefined, (entry, next, now) => {
    const message = messageAs(`${id}@run-${unique}`, id, now, { message: entry.definition.message })
    return [message.id, { next, text: write(entry), messages: [message] }]
  })
})

/** A schedule as it is stored. */
export interface Info {
  readonly id: string
  /** `ended`: it has no further tick. `unreadable`: a newer build stored it, or its zone is unknown here; others publish it. */
  readonly state: "active" | "paused" | "ended" | "unreadable"
  /** The next tick, in milliseconds since the epoch by the store's clock; undefined unless it is active. */
  readonly next: number | undefined
  /** For how long it has been due, in milliseconds by the store's clock: 0 if it is not, or `next` is undefined. */
  readonly overdueMillis: number
  /** The last tick that was published, likewise. */
  readonly last: number | undefined
  /** How many ticks were published. */
  readonly published: number
  /** Undefined if it is unreadable. Its times are in milliseconds, instants since the epoch. */
  readonly definition: Definition | undefined
}

export type { Definition, Drift } from "./internal/ScheduleStore.ts"

const infoOf = ({ id, next, text }: StoredSchedule, now: number): Info => {
  const entry = read(text)
  const progress = progressOf(text)
  return {
    id,
    next,
    overdueMillis: next === undefined ? 0 : Math.max(0, now - next),
    state:
      entry === undefined
        ? "unreadable"
        : progress.paused === true
          ? "paused"
          : next === undefined
            ? "ended"
            : "active",
    last: progress.last,
    published: progress.count ?? 0,
    definition: entry?.definition
  }
}

const pageSize = 200

const stored = <A>(schedules: Schedules, topic: string, f: (one: StoredSchedule, now: number) => A) =>
  Stream.paginate(Option.none<StoredSchedule>(), (after) =>
    Effect.map(schedules.page(topic, after, pageSize), ({ now, schedules }) => {
      const last = schedules.at(-1)
      return [
        schedules.map((one) => f(one, now)),
        last === undefined ? Option.none() : Option.some(Option.some(last))
      ] as const
    })
  )

/** The schedules of a topic, the next one first. One that is published while the stream is read may appear twice. */
export const list = <On>(topic: Scheduled<On>): Stream.Stream<Info, TransportError, On> =>
  Stream.unwrap(Effect.map(opened(topic), ({ schedules }) => stored(schedules, topic.name, infoOf)))

const mostDrifts = 1000

/**
 * How the schedules of a topic differ from what running programs declare with `layer`: two releases run side by side, or somebody
 * has changed or removed one of them. At most 1,000. A difference is known about a second after the change, and gone as much
 * later as the programs take to notice that it is over, or half a minute after the last of them has died.
 */
export const drifts = <On>(topic: Scheduled<On>): Effect.Effect<ReadonlyArray<Drift>, TransportError, On> =>
  Effect.flatMap(opened(topic), ({ schedules }) => schedules.drifts(topic.name, mostDrifts))

/**
 * What has become of the message of a schedule's last tick.
 *
 * | `state` | |
 * |---|---|
 * | `delayed` | it is not due yet, because of `jitter` |
 * | `ready` | no consumer has been given it |
 * | `pending` | a consumer holds it |
 * | `waiting` | it waits for its next attempt |
 * | `dead` | it is a dead letter, for `reason` |
 * | `settled` | every group has settled it; or it was removed, or has expired |
 * | `skipped` | it was not published, because the message of the tick before is not settled |
 * | `unknown` | its id is not found, in a queue, or a topic without groups, with messages that are not settled: it may be one of them |
 */
export interface Outcome {
  readonly state: "delayed" | "ready" | "pending" | "waiting" | "dead" | "settled" | "skipped" | "unknown"
  /** The group in which it is so. Of several groups the one that has most trouble with it. */
  readonly group?: string | undefined
  readonly reason?: string | undefined
}

/** The most troubled first. */
const troubles = ["Dead", "Waiting", "Pending", "Ready"] as const

const stateOf = { Waiting: "waiting", Pending: "pending", Ready: "ready", Settled: "settled" } as const

/**
 * What has become of the message of the last tick of a schedule, as `list` returned it; undefined if it has not had one. The cost
 * is that of `Inspector.message`. Fails with `NotOffered` if the layer does not find messages by id.
 *
 * @example
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Schedules, Topic } from "waybill"
 *
 * const Report = Topic.make("reports", { payload: Schema.Struct({ kind: Schema.String }) })
 *
 * const failed = Schedules.list(Report).pipe(
 *   Stream.mapEffect((info) => Effect.map(Schedules.outcome(Report, info), (outcome) => ({ info, outcome }))),
 *   Stream.filter(({ outcome }) => outcome?.state === "dead")
 * )
 * ```
 */
export const outcome = Effect.fn("Schedules.outcome")(function* <On>(
  topic: Scheduled<On>,
  { definition, id, last }: Info
): Effect.fn.Return<Outcome | undefined, TransportError, On> {
  const { inspector } = (yield* opened(topic)).transport
  if (last === undefined) return undefined
  const found = Option.getOrUndefined(yield* inspector.message(topic.name, messageIdOf(id, last, definition ?? {})))
  const place = troubles.flatMap((tag) => found?.groups.filter(({ _tag }) => _tag === tag) ?? [])[0]
  const isAnother = found !== undefined && found.headers["tick"] !== new Date(last).toISOString()
  if (isAnother && (place === undefined || place._tag === "Dead")) return { state: "settled" }
  if (isAnother) return { state: "skipped" }
  if (found?.dueAt !== undefined) return { state: "delayed" }
  if (place?._tag === "Dead") return { state: "dead", group: place.group, reason: place.deadLetter.reason }
  if (place !== undefined) return { state: stateOf[place._tag], group: place.group }
  if (found !== undefined) return { state: found.groups.length === 0 ? "ready" : "settled" }
  // An id that a message has to itself is known until it is settled; in a queue, any other only for a while.
  if (definition?.overlap === "skip") return { state: "settled" }
  const { depth, groups } = yield* inspector.describe(topic.name)
  // Where messages stay in place once they are given, each that is stored is found.
  const queues = groups.filter(({ reached }) => reached === undefined)
  const open = groups.length === 0 ? depth : Math.max(0, ...queues.map(({ lag, pending }) => lag + pending))
  return { state: definition === undefined || open > 0 ? "unknown" : "settled" }
})

export interface LayerOptions<On> {
  /**
   * Whose schedules these are. Those of other owners are left alone, so programs that declare schedules of the same topic need
   * different names. `waybill` by default.
   */
  readonly owner?: string | undefined
  /** What happens to schedules of this owner that are no longer declared: `remove`, the default, or only `report`. */
  readonly removed?: "remove" | "report" | undefined
  /** Further topics that may have schedules of this owner, such as one whose last schedule is no longer declared. */
  readonly topics?: ReadonlyArray<Scheduled<On>> | undefined
}

/**
 * Declares schedules. On start each topic is reconciled once: new schedules are stored, changed ones are due as now declared from
 * their next tick on, and those of the same owner that are no longer declared are removed. Then the ticks are published until the
 * scope closes. Of two releases that declare different schedules the one that started last decides; the other one reports
 * `ScheduleDrifted` in its lifecycle, and changes nothing.
 *
 * Throws if two schedules of a topic have the same id: that is a bug.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Schedules, Topic } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Cleanup = Topic.make("cleanup", { payload: Schema.Struct({ table: Schema.String }) })
 *
 * const Main = Layer.mergeAll(
 *   Schedules.layer([
 *     Schedules.cron("sessions", "*\/15 * * * *", { topic: Cleanup, payload: { table: "sessions" } }),
 *     Schedules.every("uploads", "1 hour", { topic: Cleanup, payload: { table: "uploads" }, missed: "skip" })
 *   ]),
 *   Consumer.make(Cleanup, { group: "cleanup" }).pipe(
 *     Consumer.process(({ table }) => Effect.log(`cleaning ${table}`)),
 *     Consumer.layer
 *   )
 * ).pipe(Layer.provide(MemoryStreams.layer()))
 * ```
 */
export const layer = <On, R>(
  schedules: ReadonlyArray<Schedule<On, R>>,
  options: LayerOptions<On> = {}
): Layer.Layer<never, Problem, On | R> => {
  const owner = options.owner ?? "waybill"
  const topics = new Map<string, Declared<On, R>>()
  const declaredOf = (topic: Scheduled<On>) => {
    const key = `${topic.on.key} ${topic.name}`
    const known = topics.get(key)
    if (known !== undefined) return known
    const declared: Declared<On, R> = { topic, schedules: new Map() }
    topics.set(key, declared)
    return declared
  }
  for (const topic of options.topics ?? []) declaredOf(topic)
  for (const schedule of schedules) {
    const { schedules } = declaredOf(schedule.topic)
    if (schedules.has(schedule.id)) {
      throw new Error(`topic ${schedule.topic.name} has two schedules ${shown(schedule.id)}`)
    }
    schedules.set(schedule.id, schedule)
  }
  return Layer.effectDiscard(
    Effect.gen(function* () {
      const all = yield* Effect.forEach(topics.values(), (declared) => defined(declared, owner))
      for (const declared of all)
        yield* patiently(declared.topic, declare(declared, owner, options.removed ?? "remove"))
    })
  )
}

/** As a consumer does, a program starts although the store cannot be reached at the moment, and says so. */
const patiently = <On, A, R>(topic: Scheduled<On>, self: Effect.Effect<A, TransportError, R>) =>
  Effect.flatMap(opened(topic), ({ transport }) => {
    let failing = false
    const report = ({ message: error, reason: { permanent } }: TransportError) => {
      if (failing || permanent) return Effect.void
      failing = true
      return transport.lifecycle.report({ _tag: "SchedulesFailing", topic: topic.name, permanent, error })
    }
    return self.pipe(
      Effect.tapError(report),
      Effect.retry({ while: ({ reason }) => !reason.permanent, schedule: Repetition.spaced("1 second") })
    )
  })

interface Declared<On, R> {
  readonly topic: Scheduled<On>
  readonly schedules: Map<string, Schedule<On, R>>
}

/** Before anything is stored: if one schedule is invalid, nothing is changed. */
const defined = Effect.fnUntraced(function* <On, R>({ schedules, topic }: Declared<On, R>, owner: string) {
  const definitions = new Map<string, Definition>()
  for (const [id, { definition }] of schedules) definitions.set(id, { ...(yield* definition), declared: owner })
  return { topic, definitions }
})

const declare = Effect.fnUntraced(function* <On>(
  { definitions, topic }: { readonly topic: Scheduled<On>; readonly definitions: ReadonlyMap<string, Definition> },
  owner: string,
  removed: "remove" | "report"
) {
  const { schedules, transport } = yield* opened(topic)
  const { lifecycle } = transport
  for (const definition of definitions.values()) yield* ensureKept(topic.name, definition, transport)
  const all = yield* Stream.runCollect(stored(schedules, topic.name, (one) => one))
  const found = new Map(all.map((one) => [one.id, one]))
  for (const [id, definition] of definitions) {
    if (changed(found.get(id) ?? absent, definition, 0) === undefined) continue
    const stored = yield* store(topic, id, definition)
    if (stored !== "Unchanged") {
      const change = stored === "Created" ? "created" : "changed"
      yield* lifecycle.report({ _tag: "ScheduleChanged", topic: topic.name, schedule: id, change })
    }
  }
  const isOwn = ({ text }: StoredSchedule) => read(text)?.definition.declared === owner
  const strangers = all.filter((one) => !definitions.has(one.id) && isOwn(one))
  for (const { id } of strangers) {
    if (removed === "report") {
      yield* lifecycle.report({ _tag: "ScheduleDrifted", topic: topic.name, schedule: id, found: "undeclared" })
    } else {
      const made = yield* modify(topic, id, (found): Decision<boolean> => (isOwn(found) ? [true, removal] : [false]))
      if (made) {
        yield* lifecycle.report({ _tag: "ScheduleChanged", topic: topic.name, schedule: id, change: "removed" })
      }
    }
  }
  yield* schedules.watch(topic.name)
  const drifted = new Map(strangers.map(({ id }) => [id, removed === "report" ? ("undeclared" as const) : undefined]))
  for (const id of definitions.keys()) drifted.set(id, undefined)
  yield* Effect.forkScoped(Effect.scoped(drifting(topic.name, definitions, drifted, schedules, lifecycle)))
})

/** How long changes are collected before they are compared: they often come in bursts. */
const driftMillis = 1000

/** How long a process that ends tries to withdraw what it has recorded. */
const withdrawMillis = 1000

/** How long a process takes for each call that compares, at least, while nothing is announced. */
const compareMillis = 4000

/**
 * Reports declared schedules that are changed or removed from now on, and removed ones that come back, and records them for others to
 * see. `known`: those to compare, with what was reported of them.
 */
const drifting = Effect.fnUntraced(function* (
  topic: string,
  definitions: ReadonlyMap<string, Definition>,
  known: Map<string, Drift["found"] | undefined>,
  schedules: Schedules,
  lifecycle: Lifecycle
) {
  const chunks = Arr.chunksOf(known.keys(), mostChanges)
  const interval = Math.max(schedules.pollMillis, compareMillis * chunks.length)
  const heard = Latch.makeUnsafe(false)
  let isHeard = false
  yield* schedules.listen(topic, () => {
    isHeard = true
    heard.openUnsafe()
  })
  const compare = Effect.fnUntraced(function* (ids: ReadonlyArray<string>) {
    const { schedules: some } = yield* schedules.find(topic, ids)
    const drifts: Array<Drift> = []
    const over: Array<Drift> = []
    for (const one of some) {
      const schedule = one.id
      const before = known.get(schedule)
      const found = driftOf(one, definitions.get(schedule))
      known.set(schedule, found)
      if (before !== undefined && before !== found) over.push({ schedule, found: before })
      if (found === undefined) continue
      drifts.push({ schedule, found })
      if (before !== found) yield* lifecycle.report({ _tag: "ScheduleDrifted", topic, schedule, found })
    }
    if (drifts.length + over.length > 0) yield* schedules.note(topic, drifts, over, 3 * (interval + driftMillis))
  })
  yield* Effect.addFinalizer(() => withdraw(topic, known, schedules))
  const pause = interval < Infinity ? Effect.race(heard.await, Effect.sleep(interval / chunks.length)) : heard.await
  /** How many to compare without a pause. */
  let hurry = chunks.length
  for (let i = 0; i < chunks.length; i = (i + 1) % chunks.length) {
    // The next time is another chance.
    yield* Effect.ignore(compare(chunks[i] ?? []))
    if (--hurry > 0) continue
    yield* pause
    if (!isHeard) continue
    yield* Effect.sleep(driftMillis)
    isHeard = false
    heard.closeUnsafe()
    hurry = chunks.length
  }
})

const driftOf = ({ revision, text }: StoredSchedule, declared: Definition | undefined): Drift["found"] | undefined => {
  if (declared === undefined) return revision === "" ? undefined : "undeclared"
  if (revision === "") return "missing"
  const stored = read(text)?.definition
  return stored !== undefined && same(stored, declared) ? undefined : "changed"
}

/** A process that ends declares nothing any more. If the store cannot be reached, what it has recorded expires. */
const withdraw = (
  topic: string,
  known: ReadonlyMap<string, Drift["found"] | undefined>,
  schedules: Schedules
): Effect.Effect<void> => {
  const drifts = [...known].flatMap(([schedule, found]) => (found === undefined ? [] : [{ schedule, found }]))
  const chunks = Arr.chunksOf(drifts, mostChanges)
  return Effect.forEach(chunks, (some) => schedules.note(topic, [], some, 0), { discard: true }).pipe(
    Effect.timeoutOption(withdrawMillis),
    Effect.ignore
  )
}
