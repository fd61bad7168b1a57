/**
 * The answers to this process's requests. One subscription for each topic of replies, made with the first request, and kept until
 * the layer closes. It receives the answers of all processes, and decodes only its own.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Delivery } from "./Delivery.ts"
import { replyTo } from "./internal/Headers.ts"
import { inBackground, type Program, run } from "./internal/Member.ts"
import * as Routing from "./internal/Routing.ts"
import type { Body } from "./Message.ts"
import { find, type Name, NotOffered, notProvided, type Transport, TransportError } from "./Transport.ts"

/** What to do with the answer to a request, by the request's number. */
export type Waiting = Map<string, (answer: Body) => void>

/** Every consumer of pub/sub gets every message: a group for each process would only be left behind. */
const group = "callers"

export class Replies extends Context.Service<
  Replies,
  {
    /** Subscribes to a topic of replies, unless that was done before; returns when the subscription is confirmed. */
    readonly to: (topic: { readonly name: string; readonly on: Name }) => Effect.Effect<Waiting, TransportError>
  }
>()("waybill/Replies") {}

/**
 * What `Producer.request` needs in a program, once.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Producer, Replies, Topic } from "waybill"
 * import { MemoryPubSub, MemoryStreams } from "waybill/memory"
 *
 * const Double = Topic.request(Topic.make("double", { payload: Schema.Int }), { success: Schema.Int })
 *
 * const Doubling = Consumer.make(Double, { group: "doubling" }).pipe(
 *   Consumer.respond(Double, (n) => Effect.succeed(n * 2)),
 *   Consumer.layer
 * )
 *
 * // The answers travel on pub/sub, which comes last: it is the program's transport for `at-most-once`.
 * const Transports = Layer.merge(MemoryStreams.layer(), MemoryPubSub.layer())
 *
 * const program = Producer.request(Double, 21).pipe(
 *   Effect.provide(Layer.merge(Doubling, Replies.layer).pipe(Layer.provideMerge(Transports)))
 * )
 * ```
 */
export const layer: Layer.Layer<Replies> = Layer.effect(
  Replies,
  Effect.gen(function* () {
    const scope = yield* Scope.Scope
    const subscribing = Semaphore.makeUnsafe(1)
    const subscribed = new Map<Transport, Map<string, Waiting>>()

    const subscribe = Effect.fnUntraced(function* (transport: Transport, topic: string) {
      const waiting: Waiting = new Map()
      if (transport.broadcasts !== true)
        return yield* new TransportError({ operation: "receive", topic, reason: shared })
      yield* inBackground((started) => run(programOf(transport, topic, waiting), started, undefined)).pipe(
        Scope.provide(scope)
      )
      return waiting
    })

    return {
      to: ({ name, on }) =>
        Effect.contextWith((context: Context.Context<never>) => {
          const transport = find(context, on)
          if (transport === undefined) return Effect.fail(notProvided(context, on, "receive", name))
          const topics = subscribed.get(transport) ?? new Map<string, Waiting>()
          subscribed.set(transport, topics)
          const known = topics.get(name)
          if (known !== undefined) return Effect.succeed(known)
          return subscribing.withPermits(1)(
            Effect.suspend(() => {
              const made = topics.get(name)
              if (made !== undefined) return Effect.succeed(made)
              return Effect.tap(subscribe(transport, name), (waiting) => Effect.sync(() => topics.set(name, waiting)))
            })
          )
        })
    }
  })
)

const shared = new NotOffered({
  feature: "replies",
  detail: "its consumers share messages. Use pub/sub for the topic of replies: `repliesOn`"
})

const programOf = (transport: Transport, topic: string, waiting: Waiting): Program => ({
  transport,
  concurrency: 1,
  prefetch: 1024,
  prefetchBytes: 64 * 1024 * 1024,
  routes: Routing.none,
  handle: {
    _tag: "One",
    returns: "anything",
    run: ({ body, headers }: Delivery) => Effect.sync(() => waiting.get(headers[replyTo] ?? "")?.(body))
  },
  deadLettered: undefined,
  settled: undefined,
  subscription: {
    topic,
    group,
    start: "latest",
    lease: Duration.seconds(15),
    maxDeliveries: 5,
    shutdown: Duration.zero
  }
})
