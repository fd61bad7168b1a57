/**
 * The answers to this process's requests. One subscription for each topic of replies, made with the first request, and kept until
 * the layer closes. It receives the answers of all processes, and decodes only its own.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
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
    /**
     * Subscribes to a topic of replies, unless that was done before; returns when the subscription is confirmed. An interruption ends
     * the waiting, not the subscription.
     */
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
    const subscribed = new Map<Transport, Map<string, Subscribed>>()

    const subscribe = Effect.fnUntraced(function* (transport: Transport, topic: string) {
      const waiting: Waiting = new Map()
      if (transport.broadcasts !== true)
        return yield* new TransportError({ operation: "receive", topic, reason: shared })
      const own = yield* Scope.fork(scope)
      yield* inBackground((started) => run(programOf(transport, topic, waiting), started, undefined)).pipe(
        Scope.provide(own),
        Effect.onError((cause) => Scope.close(own, Exit.failCause(cause)))
      )
      return waiting
    })

    return {
      to: ({ name, on }) =>
        Effect.contextWith((context: Context.Context<never>) => {
          const transport = find(context, on)
          if (transport === undefined) return Effect.fail(notProvided(context, on, "receive", name))
          const topics = subscribed.get(transport) ?? new Map<string, Subscribed>()
          subscribed.set(transport, topics)
          const subscription = Effect.suspend(() => {
            const known = topics.get(name)
            const ended = known?.pollUnsafe()
            if (known !== undefined && (ended === undefined || Exit.isSuccess(ended))) return Effect.succeed(known)
            // Not a child of the request that comes first, which may end before it: the next one waits for it too.
            return Effect.tap(Effect.forkIn(subscribe(transport, name), scope), (made) =>
              Effect.sync(() => topics.set(name, made))
            )
          })
          return Effect.flatMap(subscribing.withPermits(1)(Effect.uninterruptible(subscription)), Fiber.join)
        })
    }
  })
)

type Subscribed = Fiber.Fiber<Waiting, TransportError>

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
