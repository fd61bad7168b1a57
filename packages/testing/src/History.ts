/**
 * A judge of histories: from the facts that producers, handlers and the test recorded, and from what the store holds at the
 * end, it determines which messages were lost, which ended twice, and which came again without a reason.
 *
 * Each process has its own {@link Recorder}. A process that may be killed records to a file: a fact is on its way to the
 * disk before the program continues, so SIGKILL takes nothing back. The facts of several processes on one machine share one
 * clock.
 *
 * | violation | what happened |
 * |---|---|
 * | `Lost` | published, not in the store, and not completed by any handler |
 * | `Leftover` | still pending, waiting or undelivered at the end |
 * | `TwoEnds` | acknowledged or dead-lettered more than once, or ended and still in the store; an ack that a fault delayed until another consumer had repeated the work does not count |
 * | `Unexplained` | handled again although nothing had happened to the previous handling |
 * | `StaleFence` | handled under a fence that did not grow, in a process that was not stopped |
 * | `StaleEffect` | another store accepted an effect under a fence that had been overtaken |
 * | `WrongAttempt` | the attempt is not the number of earlier deliveries plus one |
 * | `Invented` | handled but never published |
 * | `EffectTwice`, `OutOfOrder` | judged only if the pattern promises it |
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
 *   const { lifecycle } = yield* Transport.AtMostOnce
 *   yield* History.follow(recorder, lifecycle)
 *   yield* Producer.publish(Greeting, "world").pipe(Effect.provide(Greeter))
 *   // ... hurt a process, record it, wait until the work is done, and ask the store what is left
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
import { type Event, Fact, type Promises, type Remains, type Report } from "./history/Facts.ts"
import { judge } from "./history/Judge.ts"

export { type Event, Fact, type Promises, type Remains, type Report }

const Line = Schema.fromJsonString(Schema.Struct({ writer: Schema.String, at: Schema.Number, fact: Fact }))

/**
 * Records the facts of one process.
 *
 * @category models
 */
export interface Recorder {
  /** Unique for each life of a process. */
  readonly writer: string
  readonly record: (fact: Fact) => void
}

/**
 * Keeps the facts in memory, for processes that outlive the test.
 *
 * @category constructors
 */
export const inMemory = (writer: string): Recorder & { readonly events: ReadonlyArray<Event> } => {
  const events: Array<Event> = []
  return { writer, events, record: (fact) => void events.push({ writer, at: now(), fact }) }
}

/**
 * Appends each fact to a file, as one line of JSON in one system call. {@link read} reads them.
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

/** Not the Clock of a fiber, because all processes must read the same one. */
const now = (): number => Number(process.hrtime.bigint() / 1000n)

/**
 * The file does not contain a history.
 *
 * @category errors
 */
export class NoHistory extends Schema.TaggedError<NoHistory>("@waybill/testing/NoHistory")("NoHistory", {
  path: Schema.String,
  issue: Schema.String
}) {
  override get message(): string {
    return `${this.path} is not a history: ${this.issue}`
  }
}

const decodeLine = Schema.decodeUnknownEffect(Line)

/**
 * The facts in a file of {@link toFile}. A line that its process was killed before finishing has not happened.
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
 * Wraps a handler so that its start and its outcome are recorded.
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
 * Records what a transport reports until the scope closes: receipts, settlements, lost leases.
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
        for (const { fence, id } of event.deliveries) {
          recorder.record({ _tag: "LeaseLost", group: event.group, id, fence })
        }
    }
  })

/**
 * Judges the facts of all processes, in any order, against the remains of each group. Every group is owed every published
 * message. Throws if a group of the history is missing among the remains: all of it would be overlooked.
 *
 * @category judging
 */
export const check = (events: ReadonlyArray<Event>, remains: ReadonlyArray<Remains>, promises: Promises = {}): Report =>
  judge(events, remains, promises)

/**
 * The report for people: one line of figures, and a few lines for each kind of violation.
 *
 * @category judging
 */
export const render = ({ counts, explained, violations }: Report): string => {
  const kinds = Map.groupBy(violations, (violation) => violation._tag)
  const figures = [
    ...Object.entries(counts).map(([name, count]) => `${name} ${count}`),
    ...Object.entries(explained).map(([reason, count]) => `again after ${reason} ${count}`)
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
 * The history of one message, line by line, with the faults in between, to find out why it was reported.
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
