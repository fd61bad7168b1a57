/**
 * Looking again and again goes on when the server comes back: that it is away is said once.
 *
 * @module
 */
import { Console, Effect } from "effect"
import type { Transport } from "waybill"
import type { ServerProblem } from "../Problem.ts"
import { toProblem } from "../Server.ts"

/** Asks until the server answers; what does not pass by itself is a problem. */
export const waitingOut = <A, R>(
  look: Effect.Effect<A, Transport.TransportError, R>,
  told = false
): Effect.Effect<A, ServerProblem, R> =>
  Effect.catch(look, (error) => {
    const problem = toProblem(error)
    if (error.reason.permanent) return Effect.fail(problem)
    const telling = told ? Effect.void : Console.error(`waybill: ${problem.detail}. It goes on when the server is back`)
    return telling.pipe(Effect.andThen(Effect.sleep("1 second")), Effect.andThen(waitingOut(look, true)))
  })
