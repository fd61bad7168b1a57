/**
 * A backlog is published, then consumed against the clock. A round only counts if every message was handled exactly
 * once and the store has nothing left to deliver.
 */
import { Effect, Schedule, Schema } from "effect"
import type { Peer } from "./Peer.ts"
import { Tally } from "./Tally.ts"

/** The contender did not do its job, so its speed is meaningless. */
export class JobNotDone extends Schema.TaggedError<JobNotDone>("@waybill/bench/JobNotDone")("JobNotDone", {
  message: Schema.String
}) {}

/** Nothing here takes minutes unless it hangs. */
export const patience = "4 minutes"

/**
 * Consumes the messages from 0 to `messages` and returns the rate per second, from the first call of the handler to
 * the last.
 */
export const drain = Effect.fnUntraced(function* (peer: Peer, messages: number) {
  const tally = new Tally(messages)
  collectGarbage()
  yield* Effect.scoped(
    Effect.gen(function* () {
      yield* peer.consume(tally.handle)
      yield* tally.complete.pipe(
        Effect.timeoutOrElse({
          duration: patience,
          orElse: () => new JobNotDone({ message: `handled only ${tally.count} of ${messages} within ${patience}` })
        })
      )
      yield* settled(peer)
    })
  )
  if (tally.repeated > 0) {
    return yield* new JobNotDone({ message: `${tally.repeated} messages were handled more than once` })
  }
  return messages / tally.seconds
})

/** Handled messages may still be on their way to being settled. */
export const settled = (peer: Peer) =>
  Effect.gen(function* () {
    const left = yield* peer.left
    if (left !== 0) return yield* new JobNotDone({ message: `${left} messages are left in the store` })
  }).pipe(Effect.retry({ schedule: Schedule.spaced("20 millis").pipe(Schedule.upTo({ times: 250 })) }))

/** Garbage from before the measurement must not be collected during it. */
export const collectGarbage = (): void => globalThis.gc?.()
