/**
 * A pattern whose groups keep claims: what it contributes besides its source.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { startProblem } from "../../../internal/Unplaced.ts"
import { type Guarantee, type Reason, type Subscription, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import { hear } from "../group/Wake.ts"
import type { Pattern, Store } from "../Pattern.ts"
import type { ClaimedHandle } from "./ClaimedDelivery.ts"
import * as ClaimsInspector from "./ClaimsInspector.ts"
import * as ClaimsMembership from "./ClaimsMembership.ts"
import type { BoundSource } from "./Scripts.ts"

export interface ClaimsOptions<G extends Guarantee>
  extends
    Pick<Pattern<G>, "name" | "guarantee" | "markerMillis" | "priorities" | "filters" | "unique" | "advice">,
    Pick<BoundSource, "scripts" | "setting" | "expires" | "urgencyOf"> {
  /** Only for a pattern that applies commits. */
  readonly committer?: (store: Store, subscription: Subscription, consumer: string) => Committer<ClaimedHandle>
  /** Where the groups of one layer listen; by default, on the channel `wake` of their topic. */
  readonly listening?: (store: Store) => Effect.Effect<Listening, never, Scope.Scope>
}

export type Listening = (subscription: Subscription) => Effect.Effect<BoundSource["listen"], Reason, Scope.Scope>

export const make = <G extends Guarantee>({
  advice,
  committer,
  filters,
  guarantee,
  listening = onWake,
  markerMillis,
  name,
  priorities,
  unique,
  ...source
}: ClaimsOptions<G>): Pattern<G> => ({
  name,
  guarantee,
  markerMillis,
  priorities,
  filters,
  unique,
  advice,
  inspector: (options) => ClaimsInspector.make(options, name, source.expires ? "expiry" : "settled", source.scripts),
  open: (store) =>
    Effect.map(listening(store), (listenTo) => ({
      publishing: {
        script: source.scripts.publish,
        schedule: source.scripts.schedule,
        settingOf: () => source.setting
      },
      join: Effect.fnUntraced(function* (subscription, opened) {
        const { topic } = subscription
        const problem = startProblem(subscription.start)
        if (problem !== undefined) return yield* new TransportError({ operation: "receive", topic, reason: problem })
        const keys = store.keysOf(topic)
        const listen = yield* Effect.mapError(
          listenTo(subscription),
          (reason) => new TransportError({ operation: "receive", topic, reason })
        )
        return yield* ClaimsMembership.make({
          ...store,
          ...store.limitsOf(topic),
          topic,
          keys,
          source: { ...source, pattern: name, listen },
          subscription,
          committer: committer && ((consumer) => committer(store, subscription, consumer)),
          opened
        })
      })
    }))
})

const onWake = (store: Store): Effect.Effect<Listening> =>
  Effect.succeed(({ group, topic }) =>
    Effect.succeed((heard) => hear(store.subscriber, topic, group, store.keysOf(topic), heard))
  )
