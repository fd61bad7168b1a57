/**
 * Looking again and again goes on when the server comes back: that it is away is said once.
 *
 * @module
 */
import { Console, Effect, Schedule } from "effect"
import type { Transport } from "waybill"
import type { ServerProblem } from "../Problem.ts"
import { toProblem } from "../Server.ts"

/** Asks until the server answers; what does not pass by itself is a problem. */
export const waitingOut = <A, R>(
  look: Effect.Effect<A, Transport.TransportError, R>
): Effect.Effect<A, ServerProblem, R> =>
  Effect.suspend(() => {
    let told = false
    return look.pipe(
      Effect.mapError((error) => ({ permanent: error.reason.permanent, problem: toProblem(error) })),
      Effect.tapError(({ permanent, problem }) => {
        if (permanent || told) return Effect.void
        told = true
        return Console.error(`waybill: ${problem.detail}. It goes on when the server is back`)
      }),
      Effect.retry({ schedule: Schedule.spaced("1 second"), while: ({ permanent }) => !permanent }),
      Effect.mapError(({ problem }) => problem)
    )
  })
