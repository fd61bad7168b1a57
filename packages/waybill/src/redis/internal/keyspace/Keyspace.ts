/**
 * The keyspace pattern: numbered keys with an expiry, and claims for those that were read.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as RcMap from "effect/RcMap"
import * as ClaimsPattern from "../claims/ClaimsPattern.ts"
import type { Pattern } from "../Pattern.ts"
import { pattern } from "./KeyspaceScripts.ts"
import * as KeyspaceSource from "./KeyspaceSource.ts"
import { Listener, type Notifications } from "./Listener.ts"
import { advice } from "./Notifications.ts"

export interface KeyspaceOptions {
  readonly notifications: Notifications
  readonly scan: boolean
  readonly ttlMillis: number
}

export const make = (options: KeyspaceOptions): Pattern<"at-least-once"> =>
  ClaimsPattern.make({
    name: pattern,
    guarantee: "at-least-once",
    filters: true,
    scripts: KeyspaceSource.scripts,
    unique: ["until-settled", "coalescing"],
    expires: true,
    advice,
    setting: options.ttlMillis,
    listening: (store) =>
      Effect.map(
        RcMap.make({
          lookup: (topic: string) => {
            const listener = new Listener({ ...store, ...options, topic, keys: store.keysOf(topic) })
            return Effect.as(listener.start, listener)
          }
        }),
        (listeners): ClaimsPattern.Listening =>
          ({ topic }) =>
            RcMap.get(listeners, topic).pipe(
              // A failure is for the present callers, not for later ones.
              Effect.tapError(() => RcMap.invalidate(listeners, topic)),
              Effect.map((listener) => (wake, fail) => listener.hear({ wake, fail }))
            )
      )
  })
