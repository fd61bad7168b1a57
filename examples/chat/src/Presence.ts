/**
 * Who is online. A sign of life is a message that lives for five minutes, and a client that is there makes one each minute:
 * whoever has made none for that long is gone, however it or its server ended. Every server process knows all of them, one
 * that starts late too.
 *
 * Each process reads the signs as a log, from the earliest that has not expired on, and keeps its place in memory. A group
 * for each, which has its place in the store, would do the same and stay behind, with nobody in it, when its process is
 * killed; one group that all share would hand each sign to one of them only.
 *
 * @module
 */
import { Clock, Context, Effect, Latch, Layer, Result, Schema, type Scope, Stream } from "effect"
import * as SecureRandom from "effect/crypto/SecureRandom"
import { type Inspector, Log, Producer, Topic, type Transport } from "waybill"
import { News } from "./News.ts"
import { ClientId, User } from "./Protocol.ts"

/** For how long a user is online that nothing more is heard of; the messages live no longer. */
export const ttlMillis = 300_000

/** How often a client that is there says so. */
export const signMillis = 60_000

/** How long news may be late that were lost. */
const lookAgain = "5 seconds"

const Sign = Schema.Union([
  /** Here, by this connection of this tab. A tab has one at a time: a new one replaces the old. */
  Schema.TaggedStruct("Here", { user: User, tab: ClientId, connection: Schema.String }),
  Schema.TaggedStruct("Gone", { user: User, tab: ClientId, connection: Schema.String }),
  /** Gone in all tabs. */
  Schema.TaggedStruct("Left", { user: User })
])
type Sign = typeof Sign.Type

export const Signs = Topic.make("chat/presence", { payload: Sign })

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
    /**
     * The user comes, and goes when the scope closes, or when nothing has been heard of it for `ttlMillis`. The inner effect
     * is for each time that something is heard: it makes a sign of life once a minute, however often it runs.
     */
    readonly enter: (user: string, tab: string) => Effect.Effect<Effect.Effect<void>, never, Scope.Scope>
    /** The user goes, in all its tabs. */
    readonly leave: (user: string) => Effect.Effect<void, Transport.TransportError>
    /** Calls `listener` for every user that comes or goes, until the scope closes; it must be quick. */
    readonly hear: (listener: Listener) => Effect.Effect<void, never, Scope.Scope>
  }
>()("chat/Presence") {
  /** Over a pattern whose messages expire after `ttlMillis`. */
  static readonly layer: Layer.Layer<
    Presence,
    Transport.TransportError,
    News | Transport.Transport | Inspector.Inspector
  > = Layer.effect(
    Presence,
    Effect.gen(function* () {
      const news = yield* News
      const store = yield* Effect.context<Transport.Transport | Inspector.Inspector>()
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

      const heed = (sign: Sign, publishedAt: number, now: number) => {
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
      }
      let last: string | undefined
      const look = Effect.suspend(() =>
        Log.stream(Signs, { after: last }).pipe(
          Stream.runForEach(({ payload, position, publishedAt }) =>
            Effect.map(Clock.currentTimeMillis, (now) => {
              last = position
              if (Result.isSuccess(payload)) heed(payload.success, publishedAt, now)
            })
          ),
          Effect.provideContext(store)
        )
      )

      const woken = Latch.makeUnsafe()
      yield* news.hear(({ _tag }) => {
        if (_tag === "Presence" || _tag === "Missed") woken.openUnsafe()
      })
      yield* look
      yield* Effect.timeoutOption(woken.await, lookAgain).pipe(
        Effect.andThen(Effect.sync(() => woken.closeUnsafe())),
        Effect.andThen(look),
        Effect.catch((error) => Effect.logWarning("presence is not known at present", error)),
        Effect.forever,
        Effect.forkScoped
      )
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep("1 second"), sweep)))

      const publish = (sign: Sign) =>
        Producer.publish(Signs, sign).pipe(
          Effect.provideContext(store),
          // Names were checked at the edge.
          Effect.catchTag(["InvalidPayload", "PayloadTooLarge"], Effect.die)
        )
      const attempt = (sign: Sign) =>
        Effect.catch(publish(sign), (error) => Effect.logWarning("presence was not told", error))
      const changed = news.tell([{ _tag: "Presence" }])

      return Presence.of({
        online: Effect.sync(() => new Set(users.keys())),
        isOnline: (user) => users.has(user),
        enter: Effect.fn("Presence.enter")(function* (user, tab) {
          const connection = SecureRandom.uuidV7Unsafe()
          const sign = attempt({ _tag: "Here", user, tab, connection })
          yield* Effect.acquireRelease(Effect.andThen(sign, changed), () =>
            Effect.andThen(attempt({ _tag: "Gone", user, tab, connection }), changed)
          )
          let signed = yield* Clock.currentTimeMillis
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            if (now - signed < signMillis) return Effect.void
            signed = now
            return sign
          })
        }),
        leave: Effect.fn("Presence.leave")(function* (user) {
          yield* Effect.andThen(publish({ _tag: "Left", user }), changed)
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
}
