/**
 * The one port between the two ends and a delivery pattern. A pattern is a `Layer` that provides it, next to the
 * guarantees it keeps.
 *
 * Arrays go in and come out: a round trip carries a batch. Consumers pull, so a slow one is never flooded.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Delivery } from "./Delivery.ts"
import { Inspector } from "./Inspector.ts"
import type { Lifecycle } from "./Lifecycle.ts"
import type { Outgoing, Receipt } from "./Message.ts"
import { Records } from "./Records.ts"
import type { DeadLetter, Settlement } from "./Settlement.ts"
import { MarkerTooShort, type TransportError } from "./TransportError.ts"

export * from "./TransportError.ts"

export class Transport extends Context.Service<
  Transport,
  {
    /**
     * Stores the messages in order, in one round trip, and answers in the same order. All of them or none. `Producer` gives
     * it at most 1,000 messages of together 1 MiB, or a single one.
     */
    readonly publish: (
      topic: string,
      messages: NonEmptyReadonlyArray<Outgoing>
    ) => Effect.Effect<ReadonlyArray<Receipt>, TransportError>
    /** Joins a group. Closing the scope leaves it: what was taken and not settled is released, within `shutdown`. */
    readonly receive: (subscription: Subscription) => Effect.Effect<Receiver, TransportError, Scope.Scope>
    readonly lifecycle: Lifecycle
  }
>()("waybill/Transport") {}

export interface Subscription {
  readonly topic: string
  readonly group: string
  /** Where a group that does not exist yet begins: with everything stored so far, or with what comes after it. */
  readonly start: "earliest" | "latest"
  /** How long a silent consumer keeps its messages. Living ones renew in time, however long their handlers take. */
  readonly lease: Duration.Duration
  /** How often a message may be delivered to consumers that die on it; the next consumer dead-letters it unseen. */
  readonly maxDeliveries: number
  /** How long leaving the group may take, whatever state the server is in. */
  readonly shutdown: Duration.Duration
  /**
   * `interrupt`, also when absent: what is held counts as lost before somebody else may have it, by the clock of this
   * process, whether the store can be asked or not. `continue`: only when the store says so; what has not begun is recalled.
   */
  readonly leaseLost?: "interrupt" | "continue" | undefined
  /**
   * Of a consumer that commits: for how long its retry policies may bring a message again, all delays of the longest one
   * added up; infinite when it does not end. Its absence says that the consumer does not commit.
   */
  readonly redelivery?: Duration.Duration | undefined
}

/** A member of a group. */
export interface Receiver {
  /** Unique for the life of this process; shown by Inspector. */
  readonly consumer: string
  /**
   * Waits for at least one delivery and takes at most `max`, and no more of them than about `bytes` hold. Interrupting it loses
   * nothing.
   */
  readonly take: (max: number, bytes?: number) => Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError>
  /** Ends deliveries; the answers stand in the same order. Safe to repeat when the outcome is unknown. */
  readonly settle: (
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement]>
  ) => Effect.Effect<ReadonlyArray<Settled>, TransportError>
  /** Waits for deliveries whose lease is gone: another consumer may have them soon, and settling them changes nothing. */
  readonly lost: Effect.Effect<NonEmptyReadonlyArray<Delivery>>
  /**
   * Waits until the receiver wants deliveries back whose handlers have not begun: the group is paused, or something more
   * urgent waits. A transport without it never does.
   */
  readonly recalled?: Effect.Effect<Recall>
}

/** A wish of a receiver to have deliveries back. */
export interface Recall {
  readonly concerns: (delivery: Delivery) => boolean
  /** To be run when none of them will begin any more: each was released, or had begun before. */
  readonly done: Effect.Effect<void>
}

/**
 * `Stale`: the delivery was no longer this consumer's, and nothing was changed. A dead letter: its commit was refused, and
 * this is how it ended instead.
 */
export type Settled = "Settled" | "Stale" | DeadLetter

/** Provided by layers that lose what they are told to, and never more. Every layer provides it. */
export class AtMostOnce extends Context.Service<AtMostOnce, "AtMostOnce">()("waybill/Transport/AtMostOnce") {}

/** Provided by layers that deliver again until a message is settled. */
export class AtLeastOnce extends Context.Service<AtLeastOnce, "AtLeastOnce">()("waybill/Transport/AtLeastOnce") {}

/** Provided by layers that apply a commit together with the ack, all of it once or none of it. */
export class Transactional extends Context.Service<Transactional, "Transactional">()(
  "waybill/Transport/Transactional"
) {}

/** What a pattern can promise: the stronger one includes the weaker. */
export type Guarantee = "at-most-once" | "at-least-once" | "transactional"

/** What a layer provides that keeps the guarantee. */
export type Provided<G extends Guarantee> =
  | Transport
  | Inspector
  | AtMostOnce
  | (G extends "at-most-once" ? never : AtLeastOnce)
  | (G extends "transactional" ? Transactional | Records : never)

/**
 * The layer of a pattern on a store: `make` brings everything that belongs to it, and `guarantee` is the strongest that
 * it keeps.
 */
export const layer = <G extends Guarantee, E, R>(
  guarantee: G,
  make: Effect.Effect<
    Transport["Service"] & {
      readonly inspector: Inspector["Service"]
      readonly records?: Records["Service"] | undefined
    },
    E,
    R
  >
): Layer.Layer<Provided<G>, E, Exclude<R, Scope.Scope>> =>
  Layer.effectContext(
    Effect.map(make, (transport) => {
      let context: Context.Context<never> = Context.make(Transport, transport).pipe(
        Context.add(Inspector, transport.inspector),
        Context.add(AtMostOnce, "AtMostOnce")
      )
      if (guarantee !== "at-most-once") context = Context.add(context, AtLeastOnce, "AtLeastOnce")
      if (guarantee === "transactional") context = Context.add(context, Transactional, "Transactional")
      if (transport.records !== undefined) context = Context.add(context, Records, transport.records)
      // What was added above is what the guarantee stands for.
      return context as Context.Context<Provided<G>>
    })
  )

/**
 * What is wrong with a marker of this length for this subscription, if anything. A message may lie among the dead letters,
 * then take down as many consumers as it may, and then be retried to the end.
 */
export const markerProblem = (
  markerMillis: number,
  deadLetterMillis: number,
  { lease, maxDeliveries, redelivery }: Subscription
): MarkerTooShort | undefined => {
  if (redelivery === undefined) return undefined
  const neededMillis = deadLetterMillis + maxDeliveries * Duration.toMillis(lease) + Duration.toMillis(redelivery)
  return markerMillis < neededMillis ? new MarkerTooShort({ markerMillis, neededMillis }) : undefined
}
