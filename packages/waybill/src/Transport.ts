/**
 * The one port between the two ends and a delivery pattern, and the names under which a program has its transports. A
 * pattern is a `Layer` that provides one: under every default name whose promise it keeps, or, with `as`, under a name of
 * the program's own.
 *
 * Arrays go in and come out: a round trip carries a batch. Consumers pull, so a slow one is never flooded.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { Query } from "./Commit.ts"
import type { Delivery, Handle } from "./Delivery.ts"
import type * as Health from "./Health.ts"
import { Inspector } from "./Inspector.ts"
import { checked } from "./internal/CheckedInspector.ts"
import type { Lifecycle } from "./Lifecycle.ts"
import type { Outgoing, Receipt } from "./Message.ts"
import type { Ack, DeadLetter, Settlement } from "./Settlement.ts"
import { NotProvided, TransportError } from "./TransportError.ts"

export * from "./TransportError.ts"

/**
 * The promise of a transport. `at-most-once`: a message may be lost. `at-least-once`: it is delivered
 * again until it is settled. `transactional`: a commit is also applied together with the ack, all of it once or none of it.
 */
export type Guarantee = "at-most-once" | "at-least-once" | "transactional"

/** `G` and the weaker guarantees, which it includes. */
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

/** One pattern on one store. What belongs together travels together. */
export interface Transport<out G extends Guarantee = Guarantee> {
  /** The strongest guarantee that it keeps. */
  readonly guarantee: G
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
  /** Its groups are given what is most urgent first. Elsewhere `Producer` refuses a priority. */
  readonly priorities?: boolean | undefined
  /** Figures and dead letters of the topics on this transport. */
  readonly inspector: Inspector["Service"]
  /** Reads the records that commits have written. Every transport that keeps `transactional` has it. */
  readonly records?:
    | {
        /**
         * Reads a record beside the topic. Fails with `WrongKeyType` when it was written as another kind of record; a record
         * that was never written is empty.
         */
        readonly read: <A, E>(
          topic: { readonly name: string },
          query: Query<A, E>
        ) => Effect.Effect<A, TransportError | E>
      }
    | undefined
  /** The store's account of itself; none where there is nothing to ask. */
  readonly health?: Health.Store["Service"] | undefined
}

/** A name under which a program has a transport, and what it promises. */
export interface Name<out On = unknown, out G extends Guarantee = Guarantee> extends Context.Key<On, Transport> {
  readonly guarantee: G
}

/** A name that only transports fit which keep its promise. */
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
      // Left out it is what the type parameter says by default.
      guarantee: options?.guarantee ?? ("at-least-once" as G)
    })

/** The type that is left over where nothing provides a default name: it says what the program needs. */
export type Needs<G extends Guarantee> = `needs ${G}`

export type AtMostOnce = Needs<"at-most-once">
export type AtLeastOnce = Needs<"at-least-once">
export type Transactional = Needs<"transactional">

/** The program's transport for what may get lost. Every layer without `as` provides it. */
export const AtMostOnce = Tag<AtMostOnce>()("waybill/AtMostOnce", { guarantee: "at-most-once" })

/** The program's transport for what may not get lost, where topics live that say nothing else. */
export const AtLeastOnce = Tag<AtLeastOnce>()("waybill/AtLeastOnce", { guarantee: "at-least-once" })

/** The program's transport for commits. */
export const Transactional = Tag<Transactional>()("waybill/Transactional", { guarantee: "transactional" })

/** The name that programs with one transport use without knowing. */
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

/** Whether where `kept` is kept, `asked` is. */
export const includes = (kept: Guarantee, asked: Guarantee): boolean => strength[kept] >= strength[asked]

/** The services of a layer that keeps `G`: its name `As` or, without one, every default name whose promise it keeps. */
export type Provided<G extends Guarantee, As extends Name = never> = [As] extends [never]
  ? Inspector | Needs<Included<G>>
  : As["Identifier"]

/** A layer may have a name whose promise it keeps. Otherwise the type says what is wrong. */
export type Keeps<G extends Guarantee, As extends Name> = [As["guarantee"]] extends [Included<G>]
  ? unknown
  : { readonly as: `${As["key"]} promises ${As["guarantee"]}, and this layer keeps ${G}` }

/** The name that a layer is given. */
export interface Naming<As extends Name> {
  /**
   * The name under which the program has this transport, for topics that are `on` it; without it the transport is the
   * program's default. A name that promises more than the pattern keeps does not compile, and throws.
   */
  readonly as?: As | undefined
}

/**
 * The layer of a pattern on a store, such as one of your own. `guarantee` is the strongest that it keeps; `make` brings
 * everything that belongs to it, and is called when the layer is described, so that it may throw on options that make no
 * sense. All options have to have defaults.
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
    make: (options: Options, as: string | undefined) => Effect.Effect<Omit<Transport, "guarantee">, E, R>
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
      // All options have defaults.
      Effect.map(make(options ?? ({} as Options), as?.key), (made) => {
        const transport: Transport<G> = { ...made, inspector: checked(made.inspector), guarantee }
        const services = new Map<string, unknown>(names.map((name) => [name.key, transport]))
        if (as === undefined) services.set(Inspector.key, transport.inspector)
        // These are the names that the type has.
        return Context.makeUnsafe<Provided<G, As>>(services)
      })
    )
  }

/**
 * The transports behind these names, each once; without names those of the program's default names.
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
        : // The type of the result asks for each of them.
          on.map((name) => Context.getUnsafe(context, name as Name<never>))
    return Effect.succeed([...new Set<Transport>(found)])
  })

/** The transport under the name, if it keeps what is asked of it: types see to it, and JavaScript does not. */
export const find = (context: Context.Context<never>, name: Name, asked = name.guarantee): Transport | undefined => {
  const transport = Context.getOrUndefined(context, name)
  return transport !== undefined && includes(transport.guarantee, asked) ? transport : undefined
}

/** Why `find` has found none. */
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
  readonly settle: (endings: NonEmptyReadonlyArray<Ending>) => Effect.Effect<ReadonlyArray<Settled>, TransportError>
  /** Waits for deliveries whose lease is gone: another consumer may have them soon, and settling them changes nothing. */
  readonly lost: Effect.Effect<NonEmptyReadonlyArray<Handle>>
  /**
   * Waits until the receiver wants deliveries back whose handlers have not begun: the group is paused, or something more
   * urgent waits. A transport without it never does.
   */
  readonly recalled?: Effect.Effect<Recall>
}

/**
 * How a delivery ends. To be acknowledged it need only be named, so that what it carries can be forgotten as soon as its handler
 * has ended. With anything else it is given whole: the store may have lost the message by then.
 */
export type Ending =
  | readonly [handle: Handle, settlement: Ack & { readonly commit?: undefined }]
  | readonly [delivery: Delivery, settlement: Settlement]

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
