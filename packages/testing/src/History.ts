/**
 * A judge of histories: from what producers, handlers and the test wrote down, and from what the store holds at the end,
 * it says which messages were lost, which ended twice, and which came again without a reason.
 *
 * Each process has a {@link Recorder} of its own. One that may be killed writes to a file: a fact is on its way to the
 * disk before the program goes on, so SIGKILL takes nothing back. The facts of several processes of one machine share one
 * clock.
 *
 * | violation | what happened |
 * |---|---|
 * | `Lost` | published, nowhere in the store, and no handler got through it |
 * | `Leftover` | still pending, waiting or undelivered at the end |
 * | `TwoEnds` | acknowledged or dead-lettered more than once, or ended and still in the store |
 * | `Unexplained` | handled again, though nothing had happened to its former handling |
 * | `StaleFence` | handled under a fence that does not grow, in a process that nobody had stopped |
 * | `StaleEffect` | another store accepted an effect under a fence that had been overtaken |
 * | `WrongAttempt` | the attempt is not the number of deliveries before it, plus one |
 * | `Invented` | handled, and never published |
 * | `EffectTwice`, `OutOfOrder` | judged only where the pattern promises it |
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { History } from "@waybill/testing"
 * import { Consumer, Producer, Topic, Transport } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 * const recorder = History.inMemory("test")
 *
 * const Greeter = Consumer.make(Greeting, { group: "greeter" }).pipe(
 *   Consumer.process(History.observe(recorder)(() => Effect.void)),
 *   Consumer.layer
 * )
 *
 * const program = Effect.gen(function*() {
 *   const { lifecycle } = yield* Transport.Transport
 *   yield* History.follow(recorder, lifecycle)
 *   yield* Producer.publish(Greeting, "world").pipe(Effect.provide(Greeter))
 *   // ... hurt somebody, write down whom, wait until the work is done, and ask the store what is left
 *   const left = { group: "greeter", undelivered: [], pending: [], waiting: [], deadLetters: [] }
 *   const report = History.check(recorder.events, [left])
 *   yield* Effect.log(History.render(report))
 * }).pipe(Effect.scoped, Effect.provide(MemoryStreams.layer()))
 * ```
 *
 * @module
 */
import { openSync, readFileSync, writeSync } from "node:fs"
import { Effect, Exit, Schema, type Scope } from "effect"
import type { Delivery, Lifecycle } from "waybill"

/**
 * What a process writes down, at the moment it happens.
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
  /** That handler is through. */
  Ended: {
    group: Schema.String,
    id: Schema.String,
    fence: Schema.Number,
    outcome: Schema.Literals(["success", "failure", "interrupted"])
  },
  /** The store has answered how the delivery ends; `stale` when it refused, because the delivery had moved on. */
  Settled: {
    group: Schema.String,
    id: Schema.String,
    fence: Schema.Number,
    as: Schema.Literals(["Ack", "Retry", "DeadLetter", "Release"]),
    stale: Schema.Boolean
  },
  /** The consumer learned that the delivery is no longer its own. */
  LeaseLost: { group: Schema.String, id: Schema.String, fence: Schema.Number },
  /**
   * The handler wrote to another store, which accepted the fence or refused it. `order` grows with what that store
   * accepted: answers may arrive in another one.
   */
  Effect: {
    group: Schema.String,
    id: Schema.String,
    fence: Schema.Number,
    accepted: Schema.Boolean,
    order: Schema.Number
  },
  /**
   * The test hurts a process, or with `*` all of them. Written before it is done. `StateLost`: the store forgets
   * everything, and what was published before is owed no longer.
   */
  Fault: { fault: Schema.Literals(["Killed", "Stopped", "Unreachable", "StateLost"]), target: Schema.String },
  /** The end of the faults of a process, or with `*` of those that met all; without it they last. Written after it is done. */
  Healed: { target: Schema.String }
})

export type Fact = typeof Fact.Type

/**
 * A fact, who wrote it down, and when.
 *
 * @category models
 */
export interface Event {
  readonly writer: string
  /** Microseconds on the clock of the machine, which no setting of the time moves. */
  readonly at: number
  readonly fact: Fact
}

const Line = Schema.fromJsonString(Schema.Struct({ writer: Schema.String, at: Schema.Number, fact: Fact }))

/**
 * The hand that writes for one process.
 *
 * @category models
 */
export interface Recorder {
  /** Unique for each life of a process. */
  readonly writer: string
  readonly record: (fact: Fact) => void
}

/**
 * Keeps the facts in memory: for processes that outlive the test.
 *
 * @category constructors
 */
export const inMemory = (writer: string): Recorder & { readonly events: ReadonlyArray<Event> } => {
  const events: Array<Event> = []
  return { writer, events, record: (fact) => void events.push({ writer, at: now(), fact }) }
}

/**
 * Appends each fact to a file, one line of JSON and one system call each. {@link read} reads them.
 *
 * @category constructors
 */
export const toFile = (writer: string, path: string): Recorder => {
  const file = openSync(path, "a")
  return {
    writer,
    record: (fact) => void writeSync(file, `${JSON.stringify({ writer, at: now(), fact } satisfies Event)}\n`)
  }
}

/** Not the Clock of a fiber: all processes must read the same one. */
const now = (): number => Number(process.hrtime.bigint() / 1000n)

/**
 * The file holds something else than a history.
 *
 * @category errors
 */
export class NoHistory extends Schema.TaggedError<NoHistory>()("NoHistory", {
  path: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return `${this.path} is no history: ${this.issue}`
  }
}

const decodeLine = Schema.decodeUnknownEffect(Line)

/**
 * The facts in a file of {@link toFile}. A line that its process did not live to finish has not happened.
 *
 * @category constructors
 */
export const read = Effect.fn("History.read")(function* (
  path: string
): Effect.fn.Return<ReadonlyArray<Event>, NoHistory> {
  const fail = (issue: unknown) => new NoHistory({ path, issue: String(issue) })
  const text = yield* Effect.try({ try: () => readFileSync(path, "utf8"), catch: fail })
  const whole = text.slice(0, text.lastIndexOf("\n") + 1)
  return yield* Effect.forEach(whole.split("\n").slice(0, -1), (line) => decodeLine(line)).pipe(Effect.mapError(fail))
})

/**
 * Wraps a handler, so that it records when it begins and how it ends.
 *
 * @category recording
 */
export const observe =
  (recorder: Recorder) =>
  <P, A, E, R>(handler: (payload: P, delivery: Delivery.Delivery) => Effect.Effect<A, E, R>) =>
  (payload: P, delivery: Delivery.Delivery): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      const { attempt, fence, group, id } = delivery
      recorder.record({ _tag: "Started", group, id, attempt, fence })
      return Effect.onExit(
        Effect.suspend(() => handler(payload, delivery)),
        (exit) =>
          Effect.sync(() =>
            recorder.record({
              _tag: "Ended",
              group,
              id,
              fence,
              outcome: Exit.isSuccess(exit) ? "success" : Exit.hasInterrupts(exit) ? "interrupted" : "failure"
            })
          )
      )
    })

/**
 * Records what a transport says of itself until the scope closes: receipts, settlements, lost leases.
 *
 * @category recording
 */
export const follow = (recorder: Recorder, lifecycle: Lifecycle.Lifecycle): Effect.Effect<void, never, Scope.Scope> =>
  lifecycle.listen((event) => {
    switch (event._tag) {
      case "Published":
        for (const { id } of event.receipts) recorder.record({ _tag: "Published", id })
        return
      case "Settled": {
        const { fence, group, id } = event.delivery
        return recorder.record({ _tag: "Settled", group, id, fence, as: event.settlement._tag, stale: event.stale })
      }
      case "LeaseLost":
        for (const { fence, group, id } of event.deliveries) recorder.record({ _tag: "LeaseLost", group, id, fence })
    }
  })

/**
 * What the store holds of a group's messages at the end, by message id; an id stands as often as it is there.
 *
 * @category models
 */
export interface Remains {
  readonly group: string
  /** Not yet handed to anyone; delayed ones included. */
  readonly undelivered: ReadonlyArray<string>
  readonly pending: ReadonlyArray<string>
  /** For their next attempt. */
  readonly waiting: ReadonlyArray<string>
  readonly deadLetters: ReadonlyArray<string>
}

/**
 * What a pattern promises beyond at least once.
 *
 * @category models
 */
export interface Promises {
  /** Each message has its effect once. */
  readonly effectsOnce?: boolean
  /** The messages of one key are handled one after the other, in the order in which they were published. */
  readonly ordered?: boolean
}

/**
 * One broken promise.
 *
 * @category models
 */
export interface Violation {
  readonly _tag:
    | "Lost"
    | "Leftover"
    | "TwoEnds"
    | "Unexplained"
    | "StaleFence"
    | "StaleEffect"
    | "WrongAttempt"
    | "Invented"
    | "EffectTwice"
    | "OutOfOrder"
  readonly group: string
  readonly id: string
  readonly detail: string
}

/**
 * A message that was handled again, and the reason.
 *
 * @category models
 */
export interface Repetition {
  readonly group: string
  readonly id: string
  readonly fence: number
  readonly because: "Retry" | "Release" | "LeaseLost" | "Killed" | "Stopped" | "Unreachable" | "StateLost"
  /** The process of the former handling. */
  readonly writer: string
}

/**
 * What the judge has to say.
 *
 * @category models
 */
export interface Report {
  /** Empty when every promise was kept. */
  readonly violations: ReadonlyArray<Violation>
  readonly repetitions: ReadonlyArray<Repetition>
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

/**
 * Judges the facts of all processes, in any order, against what is left of each group. Every group is owed every message
 * that was published. Throws when a group of the history is missing among the remains: that would overlook all of it.
 *
 * @category judging
 */
export const check = (
  events: ReadonlyArray<Event>,
  remains: ReadonlyArray<Remains>,
  promises: Promises = {}
): Report => {
  const told = tell(events)
  const violations: Array<Violation> = []
  const repetitions: Array<Repetition> = []
  for (const rest of remains) {
    const lives = told.groups.get(rest.group) ?? new Map<string, Life>()
    const places = placesOf(rest)
    for (const id of new Set([...told.owed, ...lives.keys(), ...places.keys()])) {
      const life = lives.get(id) ?? new Life()
      const report = (_tag: Violation["_tag"], detail: string) =>
        void violations.push({ _tag, group: rest.group, id, detail })
      judgeEnd(told, id, life, places.get(id) ?? [], report)
      judgeEffects(life, promises, report)
      repetitions.push(
        ...judgeHandlings(told, life, report).map((repetition) => ({ group: rest.group, id, ...repetition }))
      )
    }
    if (promises.ordered === true) violations.push(...judgeOrder(told, rest.group, lives))
  }
  const judged = new Set(remains.map((rest) => rest.group))
  for (const [group, lives] of told.groups) {
    if (!judged.has(group)) throw new Error(`the history tells of group ${group}, and nobody said what is left of it`)
    for (const life of lives.values()) told.counts.handlings += life.handlings.length
  }
  return { violations, repetitions, counts: told.counts }
}

/**
 * The report for people: one line of figures, and a few lines for each kind of violation.
 *
 * @category judging
 */
export const render = ({ counts, repetitions, violations }: Report): string => {
  const kinds = Map.groupBy(violations, (violation) => violation._tag)
  const reasons = Map.groupBy(repetitions, (repetition) => repetition.because)
  const figures = [
    ...Object.entries(counts).map(([name, count]) => `${name} ${count}`),
    ...[...reasons].map(([reason, all]) => `again after ${reason} ${all.length}`)
  ]
  return [
    figures.join(", "),
    ...[...kinds].flatMap(([kind, all]) => [
      `${kind}: ${all.length}`,
      ...all.slice(0, 5).map(({ detail, group, id }) => `  ${id} in ${group}: ${detail}`)
    ])
  ].join("\n")
}

/**
 * What happened to one message, line by line, with the faults in between: for whoever wants to know why it was reported.
 *
 * @category judging
 */
export const trace = (events: ReadonlyArray<Event>, id: string): string => {
  const about = events.filter(({ fact }) => ("id" in fact ? fact.id === id : true)).toSorted((a, b) => a.at - b.at)
  const first = about.findIndex(({ fact }) => "id" in fact)
  const last = about.findLastIndex(({ fact }) => "id" in fact)
  return about
    .slice(Math.max(0, first - 3), last + 4)
    .map(
      ({ at, fact: { _tag, ...facts }, writer }) =>
        `${(at / 1000).toFixed(1)} ms ${writer} ${_tag} ${JSON.stringify(facts)}`
    )
    .join("\n")
}

type Of<Tag extends Fact["_tag"]> = Extract<Fact, { readonly _tag: Tag }>

interface At<Tag extends Fact["_tag"]> {
  readonly at: number
  readonly writer: string
  readonly fact: Of<Tag>
}

/** One run of a handler. */
interface Handling extends At<"Started"> {
  ended: At<"Ended"> | undefined
  settled: At<"Settled"> | undefined
  leaseLost: boolean
}

/** All that happened to one message in one group, in the order of time. */
class Life {
  readonly handlings: Array<Handling> = []
  readonly settlements: Array<At<"Settled">> = []
  readonly effects: Array<At<"Effect">> = []
  /** Deliveries that were lost before a handler saw them. */
  unseen = 0

  handling(writer: string, fence: number): Handling | undefined {
    return this.handlings.findLast((handling) => handling.writer === writer && handling.fact.fence === fence)
  }
}

interface Fault {
  readonly from: number
  until: number
  readonly fault: Of<"Fault">["fault"]
  readonly target: string
}

/** The facts, sorted by what they are about. */
class Tale {
  readonly groups = new Map<string, Map<string, Life>>()
  /** When the first attempt to publish began, in order, and the key. */
  readonly offered = new Map<string, { readonly at: number; readonly key: string | undefined }>()
  /** Those whose producer has the receipt. */
  readonly owed = new Set<string>()
  readonly faults: Array<Fault> = []
  readonly counts = {
    published: 0,
    handlings: 0,
    acknowledged: 0,
    deadLettered: 0,
    leasesLost: 0,
    stale: 0,
    faults: 0
  }

  life(group: string, id: string): Life {
    let lives = this.groups.get(group)
    if (lives === undefined) this.groups.set(group, (lives = new Map()))
    let life = lives.get(id)
    if (life === undefined) lives.set(id, (life = new Life()))
    return life
  }
}

const tell = (events: ReadonlyArray<Event>): Tale => {
  const tale = new Tale()
  // Sorting is stable: the facts of one writer stay in its order.
  for (const { at, fact, writer } of events.toSorted((a, b) => a.at - b.at)) {
    switch (fact._tag) {
      case "Publishing":
        if (!tale.offered.has(fact.id)) tale.offered.set(fact.id, { at, key: fact.key })
        break
      case "Published":
        if (!tale.offered.has(fact.id)) tale.offered.set(fact.id, { at, key: undefined })
        if (!tale.owed.has(fact.id)) {
          tale.owed.add(fact.id)
          tale.counts.published++
        }
        break
      case "Started":
        tale
          .life(fact.group, fact.id)
          .handlings.push({ at, writer, fact, ended: undefined, settled: undefined, leaseLost: false })
        break
      case "Ended": {
        const handling = tale.life(fact.group, fact.id).handling(writer, fact.fence)
        if (handling !== undefined) handling.ended = { at, writer, fact }
        break
      }
      case "Settled": {
        const life = tale.life(fact.group, fact.id)
        const settled = { at, writer, fact }
        life.settlements.push(settled)
        const handling = life.handling(writer, fact.fence)
        if (handling !== undefined) handling.settled = settled
        if (fact.stale) tale.counts.stale++
        else if (fact.as === "Ack") tale.counts.acknowledged++
        else if (fact.as === "DeadLetter") tale.counts.deadLettered++
        break
      }
      case "LeaseLost": {
        const life = tale.life(fact.group, fact.id)
        const handling = life.handling(writer, fact.fence)
        if (handling === undefined) life.unseen++
        else handling.leaseLost = true
        tale.counts.leasesLost++
        break
      }
      case "Effect":
        tale.life(fact.group, fact.id).effects.push({ at, writer, fact })
        break
      case "Fault":
        tale.faults.push({ from: at, until: Number.POSITIVE_INFINITY, fault: fact.fault, target: fact.target })
        tale.counts.faults++
        break
      case "Healed":
        for (const fault of tale.faults) {
          if (fault.target === fact.target && fault.until > at) fault.until = at
        }
    }
  }
  return tale
}

type Place = "undelivered" | "pending" | "waiting" | "deadLetters"

const placesOf = (rest: Remains): Map<string, Array<Place>> => {
  const places = new Map<string, Array<Place>>()
  for (const place of ["undelivered", "pending", "waiting", "deadLetters"] as const) {
    for (const id of rest[place]) {
      const known = places.get(id)
      if (known === undefined) places.set(id, [place])
      else known.push(place)
    }
  }
  return places
}

type Say = (tag: Violation["_tag"], detail: string) => void

const judgeEnd = (tale: Tale, id: string, life: Life, places: ReadonlyArray<Place>, say: Say): void => {
  const forgotten = tale.faults.findLast(({ fault }) => fault === "StateLost")?.from ?? 0
  const ends = life.settlements
    .filter(({ at, fact }) => at > forgotten && !fact.stale && (fact.as === "Ack" || fact.as === "DeadLetter"))
    .map(({ fact, writer }) => ({ as: fact.as, text: `${fact.as} by ${writer}, fence ${fact.fence}` }))
  const buried = places.filter((place) => place === "deadLetters").length
  const burials = ends.filter((end) => end.as === "DeadLetter").length
  const left = places.filter((place) => place !== "deadLetters")
  const states = [
    ...ends.map((end) => end.text),
    // Dead letters that nobody wrote down: moved there unseen, or by a process that was killed before it could tell.
    ...Array.from({ length: buried - burials }, () => "a dead letter"),
    ...left
  ]
  if (states.length > 1) say("TwoEnds", states.join("; "))
  if (left.length > 0) say("Leftover", left.join("; "))

  const offered = tale.offered.get(id)
  const forgiven = offered !== undefined && offered.at < forgotten
  const done = life.handlings.some(
    ({ ended, settled }) =>
      ended?.fact.outcome === "success" || (ended !== undefined && settled?.fact.as === "Ack" && !settled.fact.stale)
  )
  if (tale.owed.has(id) && !forgiven && places.length === 0 && (!done || burials > 0)) {
    const last = life.handlings.at(-1)
    say(
      "Lost",
      [
        last === undefined
          ? "never handled"
          : `attempt ${last.fact.attempt} began in ${last.writer} and ${last.ended === undefined ? "did not end" : `ended in ${last.ended.fact.outcome}`}`,
        ...ends.map((end) => end.text)
      ].join("; ")
    )
  }
  if (offered === undefined) say("Invented", states.join("; ") || "handled")
}

const judgeEffects = (life: Life, promises: Promises, say: Say): void => {
  const accepted = life.effects.filter(({ fact }) => fact.accepted).sort((a, b) => a.fact.order - b.fact.order)
  let highest: At<"Effect"> | undefined
  for (const effect of accepted) {
    if (highest !== undefined && effect.fact.fence < highest.fact.fence) {
      say("StaleEffect", `${describe(effect)} after ${describe(highest)}`)
    } else highest = effect
  }
  if (promises.effectsOnce === true && accepted.length > 1) {
    say("EffectTwice", accepted.map(describe).join("; "))
  }
}

const describe = ({ fact, writer }: { readonly fact: { readonly fence: number }; readonly writer: string }): string =>
  `fence ${fact.fence} in ${writer}`

type Reason = Pick<Repetition, "fence" | "because" | "writer">

/** Each handling after the first needs a reason that lies between it and the one before it. */
const judgeHandlings = (tale: Tale, life: Life, say: Say): Array<Reason> => {
  const reasons: Array<Reason> = []
  let former: Handling | undefined
  for (const handling of life.handlings) {
    const { attempt, fence } = handling.fact
    if (former !== undefined && fence <= former.fact.fence && !forgotBetween(tale, former.at, handling.at)) {
      // A process that was stopped goes on with what it had in hand; whatever it does now, its fence is refused.
      const zombie = fence < former.fact.fence ? hindrance(tale, handling.writer, 0, handling.at) : undefined
      if (zombie === undefined) say("StaleFence", `${describe(handling)} after ${describe(former)}`)
      else reasons.push({ fence, because: zombie.fault, writer: handling.writer })
      continue
    }
    const because = former === undefined ? undefined : explain(tale, former, handling)
    if (former !== undefined) {
      if (because !== undefined) reasons.push({ fence, because, writer: former.writer })
      else say("Unexplained", `${describe(handling)}; before it ${describe(former)}, ${fate(former, handling)}`)
    }
    // What a process took and did not live to begin counts as an attempt, and no handler tells of it.
    const unseen = life.unseen + tale.faults.filter((fault) => fault.from < handling.at).length
    const least =
      former === undefined || forgotBetween(tale, former.at, handling.at)
        ? 1
        : former.fact.attempt + (former.settled?.fact.as === "Release" && !former.settled.fact.stale ? 0 : 1)
    if (attempt < least || attempt > least + unseen) {
      say("WrongAttempt", `attempt ${attempt}, expected ${least}${unseen > 0 ? ` to ${least + unseen}` : ""}`)
    }
    former = handling
  }
  return reasons
}

/** Why a message came again. Only what had happened before it did counts. */
const explain = (tale: Tale, former: Handling, handling: Handling): Reason["because"] | undefined => {
  const { settled } = former
  if (settled !== undefined && !settled.fact.stale) {
    if (settled.fact.as === "Retry" || settled.fact.as === "Release") return settled.fact.as
    if (settled.at < handling.at) {
      if (forgotBetween(tale, settled.at, handling.at)) return "StateLost"
      // An ack that was held up on its way may arrive after somebody else was given the message, and before he began.
      const late = settled.fact.as === "Ack" ? hindrance(tale, former.writer, former.at, settled.at) : undefined
      return late?.fault === "Stopped" || late?.fault === "Unreachable" ? late.fault : undefined
    }
  }
  if (former.leaseLost || settled?.fact.stale === true) return "LeaseLost"
  return hindrance(tale, former.writer, former.at, Math.min(handling.at, settled?.at ?? Number.POSITIVE_INFINITY))
    ?.fault
}

const forgotBetween = (tale: Tale, from: number, until: number): boolean =>
  tale.faults.some((fault) => fault.fault === "StateLost" && from <= fault.from && fault.from <= until)

/** A fault that met the writer at some time between two instants. A dead process is not hindered later, and not before. */
const hindrance = (tale: Tale, writer: string, from: number, until: number): Fault | undefined =>
  tale.faults.find(
    (fault) =>
      (fault.target === writer || fault.target === "*") &&
      fault.from <= until &&
      (fault.fault === "Killed" || fault.fault === "StateLost" ? fault.from : fault.until) >= from
  )

const fate = ({ ended, settled }: Handling, next: Handling): string =>
  settled === undefined
    ? ended === undefined
      ? "which did not end"
      : `which ended in ${ended.fact.outcome} and was not settled`
    : `settled as ${settled.fact.as} ${settled.at < next.at ? "before" : "only afterwards"}`

const judgeOrder = (tale: Tale, group: string, lives: ReadonlyMap<string, Life>): Array<Violation> => {
  const violations: Array<Violation> = []
  const last = new Map<string, { readonly id: string; readonly until: number }>()
  for (const [id, { key }] of tale.offered) {
    const life = lives.get(id)
    const first = life?.handlings[0]
    if (key === undefined || life === undefined || first === undefined) continue
    const before = last.get(key)
    if (before !== undefined && first.at < before.until) {
      violations.push({ _tag: "OutOfOrder", group, id, detail: `began before ${before.id} of key ${key} had ended` })
    }
    const end = life.handlings.at(-1)?.ended?.at ?? Number.POSITIVE_INFINITY
    last.set(key, { id, until: end })
  }
  return violations
}
