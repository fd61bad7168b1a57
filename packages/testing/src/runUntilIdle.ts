/**
 * Moves `TestClock` until no message is left to deliver, retry or settle: a consumer with a day of backoff is tested
 * in milliseconds.
 */
import { Clock, Duration, Effect, Schema, type Scope } from "effect"
import { type Inspector, Transport } from "waybill"
import { isTestClock, yieldToOthers, passTimeUntil } from "./Scheduling.ts"

/**
 * Something still waits, and moving the clock does not change it, or keeps bringing it back.
 *
 * @category errors
 */
export class NeverIdle extends Schema.TaggedError<NeverIdle>("@waybill/testing/NeverIdle")("NeverIdle", {
  /** Whether moving the clock has no effect, one message is retried again and again, or the work never ends. */
  reason: Schema.Literals(["stuck", "retried without end", "busy without end"]),
  /** One line for each topic and group that is not idle. */
  waiting: Schema.Array(Schema.String)
}) {
  override get message(): string {
    return `${this.reason}: ${this.waiting.join("; ")}`
  }
}

/**
 * @category models
 */
export interface Options<Names extends ReadonlyArray<Transport.Name> = []> {
  /** From this attempt of a message on, retries count as endless. 500 by default. */
  readonly maxAttempts?: number
  /** The names of the transports that must all become idle; by default the program's default ones. */
  readonly on?: Names | undefined
  /** How many times to check and to move the clock. 20,000 by default, which takes a few seconds. */
  readonly maxSteps?: number
}

/**
 * Lets every fiber run that can, moves the clock to the next retry or delayed message, and repeats until every group of
 * every topic has lag 0, pending 0 and waiting 0, and no message is delayed. Handlers that sleep on the test's clock are
 * woken too. Fails with `NeverIdle` if that does not happen, naming what still waits.
 *
 * Waiting for the real world (a socket, a timer of the runtime) does not end with the test's clock: await
 * `probe.settled` for it first. On the real clock it checks every 10 milliseconds. After a failure the clock keeps
 * advancing, so that the consumers can stop: they too wait for handlers by the test's clock.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Probe, runUntilIdle } from "@waybill/testing"
 *
 * const program = Effect.gen(function*() {
 *   yield* runUntilIdle()
 *   const { deadLetters } = yield* Probe.Probe
 *   return yield* deadLetters
 * })
 * ```
 */
export const runUntilIdle: <const Names extends ReadonlyArray<Transport.Name> = []>(
  options?: Options<Names>
) => Effect.Effect<void, NeverIdle | Transport.TransportError, Named<Names>> = Effect.fn("runUntilIdle")(function* <
  Names extends ReadonlyArray<Transport.Name>
>(options?: Options<Names>): Effect.fn.Return<void, NeverIdle | Transport.TransportError, Named<Names> | Scope.Scope> {
  // Without names these are the default ones.
  const transports = yield* Transport.all(...(options?.on ?? [])) as Effect.Effect<
    ReadonlyArray<Transport.Transport>,
    never,
    Named<Names>
  >
  const clock = yield* Clock.Clock
  const { maxAttempts = 500, maxSteps = 20_000 } = options ?? {}
  let events = 0
  let endless = false
  for (const { lifecycle } of transports) {
    yield* lifecycle.listen((event) => {
      events++
      if (event._tag === "Settled" && event.settlement._tag === "Retry") {
        const { delivery, settlement } = event
        // Messages of a newer version are set aside again and again, and no attempt counts.
        endless ||= (settlement.newerThan === undefined ? delivery.attempt : delivery.fence) >= maxAttempts
      }
    })
  }
  const look = Effect.map(
    Effect.forEach(transports, ({ inspector }) => Effect.flatMap(inspector.topics, Effect.forEach(inspector.describe))),
    (infos) => infos.flat()
  )
  let before = ""
  let stride = 1
  for (let step = 0; ; step++) {
    yield* yieldToOthers
    const infos = yield* look
    if (endless || step === maxSteps || stride > longestStride) {
      if (isTestClock(clock)) yield* Effect.forkDetach(passTimeUntil(clock, Effect.map(look, noConsumers)))
      return yield* new NeverIdle({
        reason: endless ? "retried without end" : step === maxSteps ? "busy without end" : "stuck",
        waiting: infos.flatMap(unfinished)
      })
    }
    const now = `${events} ${JSON.stringify(infos.map(figures))}`
    if (now !== before) {
      before = now
      stride = 1
      continue
    }
    // Nothing has moved, so all consequences of the last change have happened too, including its events.
    if (infos.every(isIdle)) return
    if (!isTestClock(clock)) {
      yield* Effect.sleep("10 millis")
      continue
    }
    const due = nextDue(infos, clock.currentTimeMillisUnsafe())
    // Without a due time some fiber may sleep for an unknown time. The clock wakes sleepers in order, however far it
    // goes in one stride.
    const guessing = infos.some(isBusy) || due === Infinity
    yield* clock.adjust(guessing ? Math.min(due, stride) : due)
    if (guessing && stride <= due) stride *= 2
  }
}, Effect.scoped)

/** The services of the transports of these names; without names, of the default ones. */
type Named<Names extends ReadonlyArray<Transport.Name>> = [Names[number]] extends [never]
  ? Transport.AtMostOnce
  : Names[number]["Identifier"]

/** Longer than anything sleeps. */
const longestStride = Duration.toMillis(Duration.days(36_500))

/** A text that changes when something happens, but not while time passes. */
const figures = (info: Inspector.TopicInfo) => [
  info.topic,
  info.depth,
  info.delayed,
  info.groups.map(({ deadLetters, group, lag, pending, waiting }) => [group, lag, pending, waiting, deadLetters])
]

const isIdle = (info: Inspector.TopicInfo): boolean =>
  info.delayed === 0 && info.groups.every(({ lag, pending, waiting }) => lag + pending + waiting === 0)

const noConsumers = (infos: ReadonlyArray<Inspector.TopicInfo>): boolean =>
  infos.every((info) => info.groups.every((group) => group.consumers.length === 0))

/** Whether a message is with a handler, or should be. */
const isBusy = (info: Inspector.TopicInfo): boolean => info.groups.some(({ lag, pending }) => lag + pending > 0)

/** Milliseconds until something becomes available by itself. */
const nextDue = (infos: ReadonlyArray<Inspector.TopicInfo>, now: number): number => {
  const dues = infos.flatMap((info) => [info.nextDelayedAt, ...info.groups.map((group) => group.nextRetryAt)])
  return dues.reduce<number>(
    (next, due) => (due !== undefined && due > now ? Math.min(next, due - now) : next),
    Infinity
  )
}

const unfinished = (info: Inspector.TopicInfo): ReadonlyArray<string> => [
  ...(info.delayed > 0 ? [`${info.delayed} delayed in ${info.topic}`] : []),
  ...info.groups.flatMap(({ consumers, group, lag, paused, pending, waiting }) =>
    lag + pending + waiting === 0
      ? []
      : `${group} of ${info.topic} has lag ${lag}, ${pending} with a handler, ${waiting} waiting to be retried` +
        (paused ? ", and is paused" : consumers.length === 0 ? ", and no consumer" : "")
  )
]
