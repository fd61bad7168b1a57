/**
 * Reading, redriving and discarding the dead letters of a group. A pass covers the letters that were there when it
 * began, each once: a message that dies again meanwhile waits for the next pass. Interrupting a pass and running it
 * again loses and doubles nothing.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import type { DeadLetter } from "./Inspector.ts"
import { nameProblem } from "./internal/CheckedInspector.ts"
import { decoded } from "./internal/Decoded.ts"
import { numberOf, wholeOf } from "./internal/Limits.ts"
import type { DecodeFailure, Inspected } from "./Topic.ts"
import type { TransportError } from "./Transport.ts"

/** Steps small enough that a rate is even, rather than one burst a second. */
const stepsPerSecond = 20

/** A dead letter with its body decoded, or the reason why that failed. */
export interface Decoded<out P> extends DeadLetter {
  readonly payload: Result.Result<P, DecodeFailure>
}

/** The most letters in a page of the pass; a page of large ones is shorter. */
const pageSize = 500

/**
 * The dead letters of a group, oldest first.
 *
 * @example
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { DeadLetters, Topic } from "waybill"
 *
 * const Payment = Topic.make("payments", { payload: Schema.Struct({ cents: Schema.Int }) })
 *
 * const declined = DeadLetters.stream(Payment, "charge").pipe(
 *   Stream.filter((letter) => letter.reason === "CardDeclined"),
 *   Stream.take(20),
 *   Stream.runCollect
 * )
 * ```
 */
export const stream = <P, On, RD>(
  topic: Inspected<P, On, RD>,
  group: string
): Stream.Stream<Decoded<P>, TransportError, On | RD> =>
  pages(topic, group).pipe(
    Stream.flattenIterable,
    Stream.mapEffect((letter) => decode(topic, letter))
  )

interface Selection<in P> {
  /** Which dead letters; all of them by default. */
  readonly where?: ((letter: Decoded<P>) => boolean) | undefined
  /** The most letters to select. */
  readonly limit?: number | undefined
  /** Only counts what would be selected. */
  readonly dryRun?: boolean | undefined
  /** The most letters a second, evenly spread from the first on. Unlimited by default. */
  readonly ratePerSecond?: number | undefined
  /** Called after each step with the totals so far. Must be quick and must not throw. */
  readonly onProgress?: ((report: Report) => void) | undefined
}

/** `selected` matched; `done` of them were still there and were moved or deleted. */
export interface Report {
  readonly examined: number
  readonly selected: number
  readonly done: number
}

/**
 * Sends dead letters back to their group: attempts start over, while the id and the fence continue. A letter leaves
 * the dead letters in the same step, so redriving it twice delivers it once.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { DeadLetters, Topic } from "waybill"
 *
 * const Payment = Topic.make("payments", { payload: Schema.Struct({ cents: Schema.Int }) })
 *
 * const program = Effect.gen(function*() {
 *   const where = (letter: DeadLetters.Decoded<{ readonly cents: number }>) => letter.reason === "GatewayDown"
 *   const plan = yield* DeadLetters.redrive(Payment, "charge", { where, dryRun: true })
 *   yield* Effect.log(`${plan.selected} of ${plan.examined} would go back`)
 *   yield* DeadLetters.redrive(Payment, "charge", { where, ratePerSecond: 100 })
 * })
 * ```
 */
export const redrive = Effect.fn("DeadLetters.redrive")(function* <P, On, RD>(
  topic: Inspected<P, On, RD>,
  group: string,
  selection: Selection<P> = {}
): Effect.fn.Return<Report, TransportError, On | RD> {
  const { inspector } = yield* topic.on
  return yield* pass(topic, group, selection, (entries) => inspector.redrive(topic.name, group, entries))
})

/**
 * Deletes dead letters for good.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { DeadLetters, Topic } from "waybill"
 *
 * const Payment = Topic.make("payments", { payload: Schema.Struct({ cents: Schema.Int }) })
 *
 * const old = Date.parse("2026-01-01")
 * const program = DeadLetters.discard(Payment, "charge", { where: (letter) => letter.diedAt < old })
 * ```
 */
export const discard = Effect.fn("DeadLetters.discard")(function* <P, On, RD>(
  topic: Inspected<P, On, RD>,
  group: string,
  selection: Selection<P> = {}
): Effect.fn.Return<Report, TransportError, On | RD> {
  const { inspector } = yield* topic.on
  return yield* pass(topic, group, selection, (entries) => inspector.discard(topic.name, group, entries))
})

/**
 * Decodes one dead letter, such as one that `Inspector` has returned.
 *
 * @example
 * ```ts
 * import { Effect, Option, Schema } from "effect"
 * import { DeadLetters, Inspector, Topic } from "waybill"
 *
 * const Payment = Topic.make("payments", { payload: Schema.Struct({ cents: Schema.Int }) })
 *
 * const program = Effect.gen(function*() {
 *   const inspector = yield* Inspector.Inspector
 *   const letters = yield* inspector.deadLetters(Payment.name, "charge", { after: Option.none(), limit: 10 })
 *   return yield* Effect.forEach(letters, (letter) => DeadLetters.decode(Payment, letter))
 * })
 * ```
 */
export const decode = <P, RD>(
  topic: Inspected<P, unknown, RD>,
  letter: DeadLetter
): Effect.Effect<Decoded<P>, never, RD> => decoded(topic, letter)

/** Ends after as many letters as there were at the start: new ones are behind them. */
const pages = <On>(
  { name: topic, on }: Inspected<unknown, On, unknown>,
  group: string
): Stream.Stream<ReadonlyArray<DeadLetter>, TransportError, On> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const { inspector } = yield* on
      const problem = nameProblem(topic, group)
      if (problem !== undefined) return yield* Effect.fail(problem)
      const info = yield* inspector.describe(topic)
      const total = info.groups.find((candidate) => candidate.group === group)?.deadLetters ?? 0
      const start = { after: Option.none<string>(), left: total }
      return Stream.paginate(start, ({ after, left }) =>
        left === 0
          ? Exit.succeed([[], Option.none()] as const)
          : Effect.map(inspector.deadLetters(topic, group, { after, limit: Math.min(pageSize, left) }), (page) => {
              const last = page.at(-1)
              const next =
                last === undefined
                  ? Option.none()
                  : Option.some({ after: Option.some(last.entry), left: left - page.length })
              return [[page], next] as const
            })
      )
    })
  )

const pass = Effect.fnUntraced(function* <P, On, RD>(
  topic: Inspected<P, On, RD>,
  group: string,
  { dryRun = false, limit = Infinity, onProgress, ratePerSecond, where = () => true }: Selection<P>,
  act: (entries: ReadonlyArray<string>) => Effect.Effect<number, TransportError>
): Effect.fn.Return<Report, TransportError, On | RD> {
  if (limit !== Infinity) wholeOf("limit", limit)
  if (ratePerSecond !== undefined) numberOf("ratePerSecond", ratePerSecond, 0)
  let examined = 0
  let selected = 0
  let done = 0
  const perStep =
    ratePerSecond === undefined ? pageSize : Math.max(1, Math.min(pageSize, Math.floor(ratePerSecond / stepsPerSecond)))
  let matching: Array<string> = []
  /** When the next step may begin, by this process's monotonic clock. */
  let next = 0n
  const step = Effect.gen(function* () {
    if (matching.length > 0 && !dryRun) {
      if (ratePerSecond !== undefined) {
        const now = yield* Clock.monotonicTimeNanos
        if (next > now) yield* Effect.sleep(Duration.nanos(next - now))
        // Lost time is not caught up: that would be a burst.
        const nanos = Math.min((matching.length / ratePerSecond) * 1e9, Number.MAX_VALUE)
        next = (next > now ? next : now) + BigInt(Math.ceil(nanos))
      }
      done += yield* act(matching)
    }
    matching = []
    onProgress?.({ examined, selected, done })
  })
  yield* pages(topic, group).pipe(
    // The next page loads while this one is processed.
    Stream.buffer({ capacity: 1 }),
    Stream.takeWhile(() => selected < limit),
    Stream.runForEach(
      Effect.fnUntraced(function* (page) {
        for (const letter of page) {
          if (selected === limit) break
          examined++
          if (!where(yield* decode(topic, letter))) continue
          selected++
          if (matching.push(letter.entry) === perStep) yield* step
        }
        yield* step
      })
    )
  )
  return { examined, selected, done }
})
