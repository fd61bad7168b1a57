/**
 * Listens for notifications that something of a topic is available or will be soon, brought by others, so that polling is rarely
 * needed. A lost notification, or a server that denies subscribing, costs at most the poll interval.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Subscriber } from "../connection/Subscriber.ts"
import type { TopicKeys } from "../wire/Keys.ts"

/**
 * Calls `heard` with the milliseconds until then, and with the urgency if given, until the scope closes. Ignores notifications for
 * other groups.
 */
export const hear = (
  subscriber: Subscriber,
  topic: string,
  group: string,
  keys: TopicKeys,
  heard: (millis: number, urgency?: number) => void
): Effect.Effect<void, never, Scope.Scope> =>
  subscriber
    .subscribe("channel", keys.wake, {
      message: (payload) => {
        const text = String(payload)
        const blank = text.indexOf(" ")
        if (blank < 0) {
          const [millis, urgency] = text.split(";")
          heard(Number(millis) || 0, urgency === undefined ? undefined : Number(urgency))
        } else if (text.slice(blank + 1) === group) heard(Number(text.slice(0, blank)) || 0)
      },
      interrupted: () => heard(0),
      refused: () => {}
    })
    .pipe(
      // Polling continues regardless.
      Effect.catch((reason) => Effect.logWarning("no notifications, only polling", { topic, reason: reason.message }))
    )
