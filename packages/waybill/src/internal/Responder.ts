/**
 * Answers requests: runs the handler while the caller waits, and sends its result.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { Delivery } from "../Delivery.ts"
import type { DeadLetter } from "../Inspector.ts"
import { publish } from "../Producer.ts"
import type { Reply, RequestTopic } from "../Topic.ts"
import { find, type Transport, type TransportError } from "../Transport.ts"
import { replyTo, replyWithin } from "./Headers.ts"

/** For how long this process's own clock tells the time of the store, ms. */
const remembered = 10_000

const again = Schedule.exponential("100 millis")

export const responder = <P, A, E, On, RepliesOn, RD, RE, ME>(
  topic: RequestTopic<P, A, E, On, RepliesOn, RD, RE, ME>
) => {
  const read = new WeakMap<Transport, { readonly time: number; readonly at: number }>()

  /** The time by the clock of the store. */
  const now = (transport: Transport): Effect.Effect<number, TransportError> =>
    Effect.clockWith((clock) => {
      if (transport.now === undefined) return Effect.succeed(clock.currentTimeMillisUnsafe())
      const at = Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
      const known = read.get(transport)
      if (known !== undefined && at - known.at < remembered) return Effect.succeed(known.time + at - known.at)
      return Effect.tap(transport.now, (time) => Effect.sync(() => read.set(transport, { time, at })))
    })

  /** How much longer the caller waits. */
  const timeLeft = ({ headers, publishedAt }: Delivery): Effect.Effect<number> =>
    Effect.contextWith((context: Context.Context<never>) => {
      const transport = find(context, topic.on)
      const within = Number(headers[replyWithin] ?? Infinity)
      if (transport === undefined || Number.isNaN(within)) return Effect.succeed(Infinity)
      return now(transport).pipe(
        Effect.retry({ schedule: again, while: ({ reason }) => !reason.permanent }),
        Effect.map((time) => publishedAt + within - time),
        // It was published before it was delivered: after this long the deadline has passed, whatever the time is.
        Effect.timeoutOrElse({ duration: Duration.millis(within), orElse: () => Effect.succeed(0) }),
        // The store will not tell its time.
        Effect.catch(() => Effect.succeed(within))
      )
    })

  const send = (to: string, reply: Reply<A, E>): Effect.Effect<void, TransportError, RepliesOn> =>
    publish(topic.replies, reply, { headers: { [replyTo]: to } }).pipe(
      // The answer does not fit its schema, or is too large: a bug.
      Effect.catchTags({ InvalidPayload: Effect.die, PayloadTooLarge: Effect.die }),
      Effect.asVoid
    )

  return {
    /** Runs the handler of a delivery and answers it. Nothing is answered once the deadline has passed. */
    answering: <F, R>(
      delivery: Delivery,
      handled: Effect.Effect<A, F, R>
    ): Effect.Effect<void, Exclude<F, E>, R | RepliesOn> => {
      const to = delivery.headers[replyTo]
      const answered = handled.pipe(
        Effect.map((value): Reply<A, E> => ({ _tag: "Success", value })),
        Effect.catch((error) =>
          topic.isError(error)
            ? Effect.succeed<Reply<A, E>>({ _tag: "Failure", error })
            : // The topic does not declare it.
              Effect.fail(error as Exclude<F, E>)
        )
      )
      if (to === undefined) return Effect.asVoid(answered)
      return Effect.flatMap(timeLeft(delivery), (left) =>
        left <= 0
          ? Effect.void
          : answered.pipe(
              Effect.tap((reply) =>
                send(to, reply).pipe(
                  Effect.retry({ schedule: again, while: ({ reason }) => !reason.permanent }),
                  Effect.catch((error) => Effect.logWarning("an answer could not be sent", error))
                )
              ),
              Effect.timeoutOption(Duration.millis(left)),
              Effect.tap((ended) =>
                Option.isNone(ended) ? Effect.logDebug("the deadline of a request has passed") : Effect.void
              ),
              Effect.asVoid
            )
      )
    },

    /** Tells the caller that there will be no answer. */
    deadLettered: ({ headers, reason }: DeadLetter): Effect.Effect<void, TransportError, RepliesOn> => {
      const to = headers[replyTo]
      return to === undefined ? Effect.void : send(to, { _tag: "DeadLettered", reason })
    }
  }
}
