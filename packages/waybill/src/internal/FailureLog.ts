/**
 * Logs deliveries that failed: a dead letter as a warning, a retry at debug level. Costs nothing when those levels are
 * disabled.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import type { Handle } from "../Delivery.ts"
import type { Settlement } from "../Settlement.ts"

/** How many dead letters of one batch are logged one by one; the others are counted by reason. */
const maxLetters = 20
/** The most characters of a cause in the log; the dead letter has the rest. */
const maxCause = 1000

/** Logs the failures among the deliveries settled in one step. */
export const logFailures = (
  topic: string,
  group: string,
  ended: ReadonlyArray<readonly [Handle, Settlement]>
): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const minimum = fiber.getRef(References.MinimumLogLevel)
    if (LogLevel.isGreaterThan(minimum, "Warn") || fiber.getRef(References.CurrentLoggers).size === 0)
      return Effect.void
    const debugs = !LogLevel.isGreaterThan(minimum, "Debug")
    const lines: Array<Effect.Effect<void>> = []
    let letters = 0
    const rest: Record<string, number> = {}
    for (const [{ attempt, id }, settlement] of ended) {
      if (settlement._tag === "DeadLetter") {
        const { cause, reason } = settlement
        if (++letters > maxLetters) rest[reason] = (rest[reason] ?? 0) + 1
        else
          lines.push(
            Effect.logWarning("DeadLettered", { topic, group, id, attempt, reason, cause: cause.slice(0, maxCause) })
          )
      } else if (settlement._tag === "Retry" && settlement.newerThan === undefined && debugs) {
        const { cause, delay, failure } = settlement
        const said = failure === undefined ? cause.slice(0, maxCause) : `${failure.tag}: ${failure.message}`
        lines.push(
          Effect.logDebug("Retried", { topic, group, id, attempt, failure: said, delay: Duration.format(delay) })
        )
      }
    }
    if (letters > maxLetters) lines.push(Effect.logWarning("DeadLettered", { topic, group, reasons: rest }))
    return Effect.all(lines, { discard: true })
  })
