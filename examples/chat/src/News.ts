/**
 * What wakes those who wait, in every server process: at most once, and nothing is told here that is not read elsewhere.
 * Who hears nothing looks again after a while; who has missed something is told `Missed`.
 *
 * @module
 */
import { Context, Effect, Layer, Schema, type Scope } from "effect"
import { Consumer, Producer, Topic, type Transport } from "waybill"
import { Room, User } from "./Protocol.ts"
import { Channels } from "./Transports.ts"

export const Fact = Schema.Union([
  /** The command of this id has been carried out, or refused. */
  Schema.TaggedStruct("Settled", { command: Schema.String }),
  Schema.TaggedStruct("Posted", { room: Room }),
  /** This user has joined or left. */
  Schema.TaggedStruct("Members", { room: Room, user: User }),
  Schema.TaggedStruct("Read", { room: Room, user: User }),
  /** Somebody has come or gone. */
  Schema.TaggedStruct("Presence", {}),
  /** The only fact that stands nowhere else. */
  Schema.TaggedStruct("Typing", { room: Room, user: User })
])
export type Fact = typeof Fact.Type

const Facts = Topic.make("chat/news", { payload: Fact, on: Channels })

/** `Missed`: look at everything, some facts did not get here. */
export type Listener = (fact: Fact | { readonly _tag: "Missed" }) => void

export class News extends Context.Service<
  News,
  {
    /** Tells all processes, this one too. Nobody waits for it, and when it fails that is in the log. */
    readonly tell: (facts: ReadonlyArray<Fact>) => Effect.Effect<void>
    /** Calls `listener` until the scope closes; it must be quick. */
    readonly hear: (listener: Listener) => Effect.Effect<void, never, Scope.Scope>
  }
>()("chat/News") {
  static readonly layer: Layer.Layer<News, Transport.TransportError, Channels> = Layer.unwrap(
    Effect.gen(function* () {
      const channels = yield* Effect.context<Channels>()
      const listeners = new Set<Listener>()
      const heard: Listener = (fact) => {
        for (const listener of listeners) listener(fact)
      }
      const consumer = Consumer.make(Facts, { group: "servers", concurrency: 16 }).pipe(
        Consumer.process((fact) => Effect.sync(() => heard(fact))),
        Consumer.onGap(() => Effect.sync(() => heard({ _tag: "Missed" }))),
        Consumer.layer
      )
      const news = Layer.succeed(
        News,
        News.of({
          tell: (facts) =>
            Producer.publishAll(Facts, facts).pipe(
              Effect.provideContext(channels),
              Effect.catch((error) => Effect.logWarning("news were not told", error)),
              Effect.asVoid
            ),
          hear: (listener) =>
            Effect.acquireRelease(
              Effect.sync(() => {
                listeners.add(listener)
              }),
              () => Effect.sync(() => listeners.delete(listener))
            )
        })
      )
      return Layer.provideMerge(consumer, news)
    })
  )
}
