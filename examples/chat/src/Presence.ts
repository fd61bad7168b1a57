/**
 * Who is online. A connection says so once a minute, in messages that live for five: whoever has said nothing for that
 * long is gone, however its process ended. Every server process knows all of them, one that starts late too.
 *
 * @module
 */
import { Clock, Context, Effect, Layer, Schema, type Scope } from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { Consumer, Producer, Topic, Transport } from "waybill"
import { ClientId, User } from "./Protocol.ts"

/** For how long a user is online that nothing more is heard of; the messages live no longer. */
export const ttlMillis = 300_000

const heartbeat = "60 seconds"

export const Signs = Topic.make("chat/presence", {
  payload: Schema.Union([
    /** Here, by this connection of this tab. A tab has one at a time: a new one replaces the old. */
    Schema.TaggedStruct("Here", { user: User, tab: ClientId, connection: Schema.String }),
    Schema.TaggedStruct("Gone", { user: User, tab: ClientId, connection: Schema.String }),
    /** Gone in all tabs. */
    Schema.TaggedStruct("Left", { user: User })
  ])
})

/** `Left`: the user has gone on purpose, everywhere; an `Offline` has come before, if it was online. */
export type Change =
  | { readonly _tag: "Online"; readonly user: string }
  | { readonly _tag: "Offline"; readonly user: string; readonly reason: "left" | "timed-out" }
  | { readonly _tag: "Left"; readonly user: string }

export type Listener = (change: Change) => void

export class Presence extends Context.Service<
  Presence,
  {
    /** Everyone who is online in any tab. */
    readonly online: Effect.Effect<ReadonlySet<string>>
    readonly isOnline: (user: string) => boolean
    /** The user is online until the scope closes, or this process ends and nobody has heard of it for `ttlMillis`. */
    readonly enter: (user: string, tab: string) => Effect.Effect<void, never, Scope.Scope>
    /** The user goes, in all its tabs. */
    readonly leave: (user: string) => Effect.Effect<void, Transport.TransportError>
    /** Calls `listener` for every user that comes or goes, until the scope closes; it must be quick. */
    readonly hear: (listener: Listener) => Effect.Effect<void, never, Scope.Scope>
  }
>()("chat/Presence") {
  /** Over a transport whose messages expire after `ttlMillis`. */
  static readonly layer: Layer.Layer<Presence, Transport.TransportError, Transport.Transport | Transport.AtLeastOnce> =
    Layer.unwrap(
      Effect.gen(function* () {
        const transport = yield* Transport.Transport
        const listeners = new Set<Listener>()
        const tell: Listener = (change) => {
          for (const listener of listeners) listener(change)
        }

        const users = new Map<string, Map<string, { readonly connection: string; readonly until: number }>>()
        const here = (user: string, tab: string, connection: string, until: number) => {
          const tabs = users.get(user) ?? new Map<string, { readonly connection: string; readonly until: number }>()
          const isNew = tabs.size === 0
          tabs.set(tab, { connection, until })
          users.set(user, tabs)
          if (isNew) tell({ _tag: "Online", user })
        }
        const gone = (user: string, reason: "left" | "timed-out", tab?: string) => {
          const tabs = users.get(user)
          if (tabs === undefined) return
          if (tab !== undefined) tabs.delete(tab)
          if (tab !== undefined && tabs.size > 0) return
          users.delete(user)
          tell({ _tag: "Offline", user, reason })
        }
        const sweep = Effect.map(Clock.currentTimeMillis, (now) => {
          for (const [user, tabs] of users) {
            for (const [tab, { until }] of tabs) if (until <= now) gone(user, "timed-out", tab)
          }
        })

        // A group of its own, from the earliest on: what has not expired says who is online already.
        const group = `server-${SecureRandom.uuidV7Unsafe()}`
        const consumer = Consumer.make(Signs, { group }).pipe(
          Consumer.process((sign, { publishedAt }) =>
            Effect.map(Clock.currentTimeMillis, (now) => {
              const { user } = sign
              if (sign._tag === "Left") {
                gone(user, "left")
                tell({ _tag: "Left", user })
              } else if (sign._tag === "Here") {
                const until = publishedAt + ttlMillis
                if (until > now) here(user, sign.tab, sign.connection, until)
              } else if (users.get(user)?.get(sign.tab)?.connection === sign.connection) {
                gone(user, "left", sign.tab)
              }
            })
          ),
          Consumer.layer
        )

        const publish = (sign: Parameters<typeof Signs.encode>[0]) =>
          Producer.publish(Signs, sign).pipe(
            Effect.provideService(Transport.Transport, transport),
            // Names were checked at the edge.
            Effect.catchTag(["InvalidPayload", "PayloadTooLarge"], Effect.die)
          )
        const attempt = (sign: Parameters<typeof Signs.encode>[0]) =>
          Effect.catch(publish(sign), (error) => Effect.logWarning("presence was not told", error))

        const presence = Layer.effect(
          Presence,
          Effect.gen(function* () {
            yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), sweep)))
            return Presence.of({
              online: Effect.sync(() => new Set(users.keys())),
              isOnline: (user) => users.has(user),
              enter: Effect.fn("Presence.enter")(function* (user, tab) {
                const connection = SecureRandom.uuidV7Unsafe()
                yield* Effect.acquireRelease(attempt({ _tag: "Here", user, tab, connection }), () =>
                  attempt({ _tag: "Gone", user, tab, connection })
                )
                yield* attempt({ _tag: "Here", user, tab, connection }).pipe(
                  Effect.delay(heartbeat),
                  Effect.forever,
                  Effect.forkScoped
                )
              }),
              leave: Effect.fn("Presence.leave")(function* (user) {
                yield* publish({ _tag: "Left", user })
              }),
              hear: (listener) =>
                Effect.acquireRelease(
                  Effect.sync(() => {
                    listeners.add(listener)
                  }),
                  () => Effect.sync(() => listeners.delete(listener))
                )
            })
          })
        )
        return Layer.merge(consumer, presence)
      })
    )
}
