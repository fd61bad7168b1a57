/**
 * Retries while the server is unreachable and reports the outage once.
 *
 * @module
 */
import { Console, Effect, Schedule } from "effect"
import type { Transport } from "waybill"
import type { ServerProblem } from "../Problem.ts"
import { toProblem } from "../Server.ts"

/** Retries transient failures until the server returns a result; a permanent failure is a `ServerProblem`. */
export const retryWhileUnreachable = <A, R>(
  inspect: Effect.Effect<A, Transport.TransportError, R>
): Effect.Effect<A, ServerProblem, R> =>
  Effect.suspend(() => {
    let told = false
    return inspect.pipe(
      Effect.mapError((error) => ({ permanent: error.reason.permanent, problem: toProblem(error) })),
      Effect.tapError(({ permanent, problem }) => {
        if (permanent || told) return Effect.void
        told = true
        return Console.error(`waybill: ${problem.detail}. Waiting for the server to come back`)
      }),
      Effect.retry({ schedule: Schedule.spaced("1 second"), while: ({ permanent }) => !permanent }),
      Effect.mapError(({ problem }) => problem)
    )
  })
