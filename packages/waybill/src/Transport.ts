/**
 * The one port between producers, consumers and a delivery pattern, and the names under which a program has its
 * transports. A pattern is a `Layer` that provides a transport: under every default name whose promise it keeps or,
 * with `as`, under a name of the program's own.
 *
 * Calls take and return arrays, because a round trip carries a batch. Consumers pull, so a slow one is never flooded.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as RcMap from "effect/RcMap"
import type * as Scope from "effect/Scope"
import type { ConditionFailed, Query } from "./Commit.ts"
import type { Delivery, Handle } from "./Delivery.ts"
import type * as Health from "./Health.ts"
import { type DeadLetter as Letter, Inspector, type Start } from "./Inspector.ts"
import { checked } from "./internal/CheckedInspector.ts"
import { watch } from "./internal/Scheduler.ts"
import type { ScheduleStore } from "./internal/ScheduleStore.ts"
import type { Lifecycle } from "./Lifecycle.ts"
import type { Durability, Filter, Outgoing, Receipt, Uniqueness } from "./Message.ts"
import type { Ack, DeadLetter, Settlement } from "./Settlement.ts"
import { NotProvided, TransportError } from "./TransportError.ts"

export type { ScheduleChange, ScheduleReply, ScheduleStore, StoredSchedule } from "./internal/ScheduleStore.ts"
export * from "./TransportError.ts"

/**
 * The promise of a transport. `at-most-once`: a message may be lost. `at-least-once`: a message is delivered again
 * until it is settled. `transactional`: in addition, a commit is applied together with the ack, all of it once or
 * none of it.
 */
export type Guarantee = "at-most-once" | "at-least-once" | "transactional"

/** `G` and the weaker guarantees that it includes. */
export type Included<G extends Guarantee> = G extends "transactional"
  ? Guarantee
  : G extends "at-least-once"
    ? "at-least-once" | "at-most-once"
    : "at-most-once"

/** The guarantees that include `G`. */
export type Including<G extends Guarantee> = G extends "at-most-once"
  ? Guarantee
  : G extends "at-least-once"
    ? "at-least-once" | "transactional"
    : "transactional"

/** One pattern on one store. */
export interface Transport<out G extends Guarantee = Guarantee> {
  /** The strongest guarantee it keeps. */
  readonly guarantee: G
  /**
   * Stores the messages in order, in one round trip, all of them or none, and returns receipts in the same order.
   * `Producer` passes at most 1,000 messages of 1 MiB in all, or a single larger one, and a durability other than `stored` only
   * if the transport is `durable`; without one, it is the layer's choice.
   */
  readonly publish: (
    topic: string,
    messages: NonEmptyReadonlyArray<Outgoing>,
    durability?: Durability
  ) => Effect.Effect<ReadonlyArray<Receipt>, TransportError>
  /** Joins a group. Closing the scope leaves it: unsettled deliveries are released, within `shutdown`. */
  readonly receive: (subscription: Subscription) => Effect.Effect<Receiver, TransportError, Scope.Scope>
  readonly lifecycle: Lifecycle
  /**
   * Hands dead letters of a group to `Consumer.onDeadLetter`, each to one consumer at a time, until it is confirmed. Safe to
   * repeat. Absent if the transport has none to hand out.
   */
  readonly claimDeadLetters?:
    | ((claim: DeadLetterClaim) => Effect.Effect<ClaimedDeadLetters, TransportError>)
    | undefined
  /** Milliseconds since the epoch by the clock of the store; that of this process if it is absent. */
  readonly now?: Effect.Effect<number, TransportError> | undefined
  /** Whether every consumer gets every message, whatever its group. */
  readonly broadcasts?: boolean | undefined
  /** Whether its groups are given the most urgent messages first. Elsewhere `Producer` refuses a priority. */
  readonly priorities?: boolean | undefined
  /** Whether its groups may have a filter. Elsewhere a consumer with one fails with `NotOffered`. */
  readonly filters?: boolean | undefined
  /** Whether publishing can wait for replicas and disks. Elsewhere `Producer` refuses a durability other than `stored`. */
  readonly durable?: boolean | undefined
  /** For how long messages may have their ids to themselves, besides the window. `Producer` refuses anything else. */
  readonly unique?: ReadonlyArray<Uniqueness> | undefined
  /** Figures and dead letters of the topics on this transport. */
  readonly inspector: Inspector["Service"]
  /** Reads the records that commits have written. Every transport that keeps `transactional` has it. */
  readonly records?:
    | {
        /**
         * Reads a record beside the topic. Fails with `WrongKeyType` if it was written as another kind of record; a
         * record that was never written is empty.
         */
        readonly read: <A, E>(
          topic: { readonly name: string },
          query: Query<A, E>
        ) => Effect.Effect<A, TransportError | E>
      }
    | undefined
  /** Keeps schedules beside the messages of a topic. Absent if the transport stores no messages. */
  readonly schedules?: Schedules | undefined
  /** The store's report on itself; absent if there is nothing to check. */
  readonly health?: Health.Store["Service"] | undefined
}

export interface Schedules extends ScheduleStore {
  /**
   * Publishes the ticks of the topic's schedules when they are due, until the scope closes. So does every consumer of the topic,
   * and one watch per topic serves all of a process.
   */
  readonly watch: (topic: string) => Effect.Effect<void, never, Scope.Scope>
}

/** What `layer` makes a transport of. */
export interface Made extends Omit<Transport, "guarantee" | "schedules"> {
  readonly schedules?: ScheduleStore | undefined
}

/** What a consumer says and asks about the dead letters of its group. */
export interface DeadLetterClaim {
  readonly topic: string
  readonly group: string
  /** Entries that were handled: they never come again. */
  readonly handled: ReadonlyArray<string>
  /** Entries that are being handled: no other consumer gets them for another lease. A lease of zero gives them up. */
  readonly held: ReadonlyArray<string>
  /** How many more to claim. A reply of about 1 MiB holds fewer. */
  readonly limit: number
  readonly lease: Duration.Duration
  /** The position of an earlier reply, in case the store has lost it. The first claim of a group starts with later letters. */
  readonly from: string | undefined
}

export interface ClaimedDeadLetters {
  /** Those that are new, and those whose claim has expired. Redriven, discarded and dropped ones are passed over. */
  readonly letters: ReadonlyArray<Letter>
  /** Up to where the group has been given them. */
  readonly position: string
}

/** A name under which a program has a transport, and the guarantee it promises. */
export interface Name<out On = unknown, out G extends Guarantee = Guarantee> extends Context.Key<On, Transport> {
  readonly guarantee: G
}

/** A name that only fits transports which keep its promise. */
export interface Tag<in out Self, in out Id extends string, in out G extends Guarantee> extends Context.ServiceClass<
  Self,
  Id,
  Transport<Including<G>>
> {
  readonly guarantee: G
}

/**
 * Makes a name for a transport, as a class. A topic lives on it (`on: Orders`), and a layer provides it
 * (`RedisStreams.layer({ as: Orders })`). Without options it promises `at-least-once`.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Producer, Topic, Transport } from "waybill"
 * import { MemoryPubSub, MemoryStreams } from "waybill/memory"
 *
 * class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
 * class Prices extends Transport.Tag<Prices>()("shop/Prices", { guarantee: "at-most-once" }) {}
 *
 * const OrderPlaced = Topic.make("orders.placed", { payload: Schema.String, on: Orders })
 * const Price = Topic.make("prices.tea", { payload: Schema.Int, on: Prices })
 *
 * const program = Effect.andThen(Producer.publish(OrderPlaced, "o-1"), Producer.publish(Price, 250)).pipe(
 *   Effect.provide(Layer.merge(MemoryStreams.layer({ as: Orders }), MemoryPubSub.layer({ as: Prices })))
 * )
 * ```
 */
export const Tag =
  <Self>() =>
  <const Id extends string, const G extends Guarantee = "at-least-once">(
    id: Id,
    options?: { readonly guarantee?: G }
  ): Tag<Self, Id, G> =>
    Object.assign(Context.Service<Self, Transport<Including<G>>>()(id), {
      // Left out, it is the default of the type parameter.
      guarantee: options?.guarantee ?? ("at-least-once" as G)
    })

/** The type that is left over if nothing provides a default name: it reads as what the program needs. */
export type Needs<G extends Guarantee> = `needs ${G}`

export type AtMostOnce = Needs<"at-most-once">
export type AtLeastOnce = Needs<"at-least-once">
export type Transactional = Needs<"transactional">

/** The program's transport for messages that may be lost. Every layer without `as` provides it. */
export const AtMostOnce = Tag<AtMostOnce>()("waybill/AtMostOnce", { guarantee: "at-most-once" })

/** The program's transport for messages that must not be lost. The default of a topic. */
export const AtLeastOnce = Tag<AtLeastOnce>()("waybill/AtLeastOnce", { guarantee: "at-least-once" })

/** The program's transport for commits. */
export const Transactional = Tag<Transactional>()("waybill/Transactional", { guarantee: "transactional" })

/** The name that programs with one transport use implicitly. */
export const defaultName = <G extends Guarantee>(guarantee: G): Name<Needs<G>, G> =>
  // The table has each under its guarantee.
  defaults[guarantee] as Name<unknown, Guarantee> as Name<Needs<G>, G>

const defaults = { "at-most-once": AtMostOnce, "at-least-once": AtLeastOnce, transactional: Transactional }

/** The guarantee of topics on this name. */
export type GuaranteeOf<On> =
  On extends Needs<infer G>
    ? G
    : On extends { readonly Service: Transport<infer G> }
      ? "at-most-once" extends G
        ? "at-most-once"
        : "at-least-once" extends G
          ? "at-least-once"
          : "transactional"
      : Guarantee

const strength = { "at-most-once": 0, "at-least-once": 1, transactional: 2 }

/** Whether a transport that keeps `kept` also keeps `asked`. */
export const includes = (kept: Guarantee, asked: Guarantee): boolean => strength[kept] >= strength[asked]

/** The services of a layer that keeps `G`: its name `As` or, without one, every default name whose promise it keeps. */
export type Provided<G extends Guarantee, As extends Name = never> = [As] extends [never]
  ? Inspector | Needs<Included<G>>
  : As["Identifier"]

/** A layer may take a name whose promise it keeps. Otherwise the type says what is wrong. */
export type Keeps<G extends Guarantee, As extends Name> = [As["guarantee"]] extends [Included<G>]
  ? unknown
  : { readonly as: `${As["key"]} promises ${As["guarantee"]}, and this layer keeps ${G}` }

/** The name given to a layer. */
export interface Naming<As extends Name> {
  /**
   * The name under which the program has this transport, for topics that are `on` it. Without it, the transport is the
   * program's default. A name that promises more than the pattern keeps does not compile, and throws.
   */
  readonly as?: As | undefined
}

/**
 * The layer of a pattern on a store, such as one of your own. `guarantee` is the strongest that it keeps. `make`
 * creates the transport with everything that belongs to it; it is called when the layer is described, so that it may
 * throw on invalid options. Every option must have a default.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { Transport } from "waybill"
 *
 * class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
 *
 * const layer = Transport.layer("at-least-once", ({ host = "localhost" }: { readonly host?: string }) =>
 *   Effect.die(`here a transport is made that publishes to ${host}, receives from it, and inspects it`)
 * )
 * const Default = layer()
 * const Named = layer({ host: "orders.example", as: Orders })
 * ```
 */
export const layer =
  <G extends Guarantee, Options, E, R>(
    guarantee: G,
    make: (options: Options, as: string | undefined) => Effect.Effect<Made, E, R>
  ) =>
  <As extends Name = never>(
    options?: Options & Naming<As> & Keeps<G, As>
  ): Layer.Layer<Provided<G, As>, E, Exclude<R, Scope.Scope>> => {
    const as = options?.as
    if (as !== undefined && !includes(guarantee, as.guarantee)) {
      throw new Error(`${as.key} promises ${as.guarantee}, and this layer keeps ${guarantee}`)
    }
    const names: ReadonlyArray<Name> =
      as === undefined ? Object.values(defaults).filter((name) => includes(guarantee, name.guarantee)) : [as]
    return Layer.effectContext(
      // Every option has a default.
      Effect.flatMap(make(options ?? ({} as Options), as?.key), watching).pipe(
        Effect.map((made) => {
          const transport: Transport<G> = { ...made, inspector: checked(made.inspector), guarantee }
          const services = new Map<string, unknown>(names.map((name) => [name.key, transport]))
          if (as === undefined) services.set(Inspector.key, transport.inspector)
          // These are the names in the type.
          return Context.makeUnsafe<Provided<G, As>>(services)
        })
      )
    )
  }

/** Adds the watch of schedules, which its consumers share. */
const watching = (made: Made): Effect.Effect<Omit<Transport, "guarantee">, never, Scope.Scope> => {
  const { lifecycle, receive, schedules: store, ...rest } = made
  if (store === undefined) return Effect.succeed({ ...rest, lifecycle, receive })
  return Effect.map(RcMap.make({ lookup: (topic: string) => watch(store, lifecycle, topic) }), (watches) => ({
    ...rest,
    lifecycle,
    receive: (subscription) => Effect.tap(receive(subscription), RcMap.get(watches, subscription.topic)),
    schedules: { ...store, watch: (topic) => RcMap.get(watches, topic) }
  }))
}

/**
 * The transports behind these names, each once. Without names, those of the program's default names.
 */
export const all: {
  (): Effect.Effect<ReadonlyArray<Transport>, never, AtMostOnce>
  <Names extends ReadonlyArray<Name>>(
    ...on: Names
  ): Effect.Effect<ReadonlyArray<Transport>, never, Names[number]["Identifier"]>
} = (...on: ReadonlyArray<Name>) =>
  Effect.contextWith((context: Context.Context<never>) => {
    const found =
      on.length === 0
        ? Object.values(defaults).flatMap((name) => Context.getOrUndefined(context, name) ?? [])
        : // The type of the result requires each of them.
          on.map((name) => Context.getUnsafe(context, name as Name<never>))
    return Effect.succeed([...new Set<Transport>(found)])
  })

/** The transport under the name, if it keeps what is asked of it. The types ensure that; JavaScript does not. */
export const find = (context: Context.Context<never>, name: Name, asked = name.guarantee): Transport | undefined => {
  const transport = Context.getOrUndefined(context, name)
  return transport !== undefined && includes(transport.guarantee, asked) ? transport : undefined
}

/** Why `find` found none. */
export const notProvided = (
  context: Context.Context<never>,
  name: Name,
  operation: TransportError["operation"],
  topic: string
): TransportError => {
  const kept = Context.getOrUndefined(context, name)?.guarantee
  const reason = new NotProvided({ name: name.key, needed: name.guarantee, kept })
  return new TransportError({ operation, topic, reason })
}

export interface Subscription {
  readonly topic: string
  readonly group: string
  /** Where a new group begins. */
  readonly start: Start
  /**
   * Which messages the group wants; all of them by default. The group has passed the others once it gets to them. A
   * member that wants something else than living ones is refused with `TopicConflict`.
   */
  readonly only?: Filter | undefined
  /** How long a silent consumer keeps its messages. Live consumers renew in time, however long their handlers take. */
  readonly lease: Duration.Duration
  /**
   * How often a message may be delivered to consumers that die with it, before the next one dead-letters it without
   * handling it.
   */
  readonly maxDeliveries: number
  /** How long leaving the group may take, whatever state the server is in. */
  readonly shutdown: Duration.Duration
  /**
   * `interrupt`, the default: held deliveries count as lost before another consumer may have them, by the clock of
   * this process, whether or not the store can be reached. `continue`: only when the store says so; deliveries that
   * have not begun are recalled.
   */
  readonly leaseLost?: "interrupt" | "continue" | undefined
  /**
   * For a consumer that commits: how long its retry policies may redeliver a message, as the sum of all delays of the
   * longest one; infinite if it does not end. Undefined if the consumer does not commit.
   */
  readonly redelivery?: Duration.Duration | undefined
  /** Commits are applied in the order in which they are settled, even if the store rejects one of them for the moment. */
  readonly inOrder?: boolean | undefined
}

/** A member of a group. */
export interface Receiver {
  /** Unique within the life of this process; shown by Inspector. */
  readonly consumer: string
  /**
   * Waits for at least one delivery and takes at most `max`, of about `bytes` bytes in all. Interrupting it loses
   * nothing.
   */
  readonly take: (max: number, bytes?: number) => Effect.Effect<NonEmptyReadonlyArray<Delivery>, TransportError>
  /** Ends deliveries; the results are in the same order. Safe to repeat when the outcome is unknown. */
  readonly settle: (endings: NonEmptyReadonlyArray<Ending>) => Effect.Effect<ReadonlyArray<Settled>, TransportError>
  /** Waits for deliveries whose lease is gone: another consumer may have them soon, and settling them has no effect. */
  readonly lost: Effect.Effect<NonEmptyReadonlyArray<Handle>>
  /**
   * Waits for deliveries that an operator has cancelled: their handlers are to be interrupted, and they are settled as
   * `Settlement.cancelled`. Absent if the transport cancels nothing.
   */
  readonly cancelled?: Effect.Effect<NonEmptyReadonlyArray<Handle>>
  /**
   * Waits until the receiver wants deliveries back whose handlers have not begun, because the group is paused or
   * something more urgent waits. Absent if the transport never does.
   */
  readonly recalled?: Effect.Effect<Recall>
  /**
   * Waits until the group may have dead letters that no hook has claimed. Absent if the transport does not tell: then
   * hooks ask once a second.
   */
  readonly unclaimed?: Effect.Effect<void>
}

/**
 * How a delivery ends. An ack only needs to name it, so that its content can be forgotten as soon as its handler has ended.
 * Anything else needs the whole delivery: the store may have lost the message by then.
 */
export type Ending =
  | readonly [handle: Handle, settlement: Ack & { readonly commit?: undefined }]
  | readonly [delivery: Delivery, settlement: Settlement]

/** A receiver's request to have deliveries back. */
export interface Recall {
  readonly concerns: (delivery: Delivery) => boolean
  /** To be run once none of them will begin any more, because each was released or had already begun. */
  readonly done: Effect.Effect<void>
}

/**
 * `Stale`: the delivery was no longer this consumer's, and nothing changed. A dead letter: its commit was refused,
 * and it ended like this instead. `ConditionFailed`: a condition of its commit did not hold, nothing changed, and the
 * delivery is still this consumer's.
 */
export type Settled = "Settled" | "Stale" | DeadLetter | ConditionFailed
