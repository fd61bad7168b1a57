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
import { Log, Producer, Topic, type Transport } from "waybill"
import { News } from "./News.ts"
import { ClientId, User } from "./Protocol.ts"
import { Expiring } from "./Transports.ts"

/** For how long a user is online that nothing more is heard of; the messages live no longer. */
export const ttlMillis = 300_000

/** How often a client that is there says so. */
export const signMillis = 60_000

/** How long news may be late that were lost. */
const lookAgain = "5 seconds"

const Sign = Schema.Union([
  /** Here, by this connection of this tab. A tab has one at a time, or two while one replaces the other. */
  Schema.TaggedStruct("Here", { user: User, tab: ClientId, connection: Schema.String }),
  Schema.TaggedStruct("Gone", { user: User, tab: ClientId, connection: Schema.String }),
  /** Gone in all tabs. */
  Schema.TaggedStruct("Left", { user: User })
])
type Sign = typeof Sign.Type

interface Connection {
  readonly tab: string
  /** The number of its last sign of life. */
  readonly sign: number
  /** Since when another connection of its tab has gone, and nothing was heard of it. */
  doubtedAt: bigint | undefined
}

interface Read {
  readonly position: string
  readonly user: string
  readonly number: number
  /** The connection that is there. */
  readonly here?: string
}

/** For how long a connection counts that another one of its tab has outlived: its server may have been killed. */
const doubtNanos = 10_000_000_000n

export const Signs = Topic.make("chat/presence", { payload: Sign, on: Expiring })

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
  static readonly layer: Layer.Layer<Presence, Transport.TransportError, News | Expiring> = Layer.effect(
    Presence,
    Effect.gen(function* () {
      const news = yield* News
      const store = yield* Effect.context<Expiring>()
      const listeners = new Set<Listener>()
      const tell: Listener = (change) => {
        for (const listener of listeners) listener(change)
      }

      const publish = (sign: Sign) =>
        Producer.publish(Signs, sign).pipe(
          Effect.provideContext(store),
          // Names were checked at the edge.
          Effect.catchTag(["InvalidPayload", "PayloadTooLarge"], Effect.die)
        )
      const attempt = (sign: Sign) =>
        Effect.catch(publish(sign), (error) => Effect.logWarning("presence was not told", error))
      const changed = news.tell([{ _tag: "Presence" }])

      const users = new Map<string, Map<string, Connection>>()
      /** What was read and has not expired, in the order of the store, which is that in which it expires. */
      const kept: Array<Read> = []
      let number = 0
      const gone = (user: string, reason: "left" | "timed-out", connection?: string) => {
        const connections = users.get(user)
        if (connections === undefined) return
        if (connection !== undefined) connections.delete(connection)
        if (connection !== undefined && connections.size > 0) return
        users.delete(user)
        tell({ _tag: "Offline", user, reason })
      }
      /** Whoever holds a connection of this tab says that it is there, and one that says nothing is not. */
      const doubt = (user: string, tab: string, at: bigint) => {
        for (const one of users.get(user)?.values() ?? []) if (one.tab === tab) one.doubtedAt = at
      }

      /** Connections of this process: how they say that they are there. */
      const own = new Map<string, { readonly user: string; readonly tab: string; readonly sign: Effect.Effect<void> }>()
      const heed = (sign: Sign, position: string, now: bigint): Effect.Effect<unknown> => {
        const { user } = sign
        const read: Read = { position, user, number: ++number, ...(sign._tag === "Here" && { here: sign.connection }) }
        kept.push(read)
        if (sign._tag === "Left") {
          gone(user, "left")
          tell({ _tag: "Left", user })
        } else if (sign._tag === "Here") {
          const connections = users.get(user) ?? new Map<string, Connection>()
          const isNew = connections.size === 0
          connections.set(sign.connection, { tab: sign.tab, sign: read.number, doubtedAt: undefined })
          users.set(user, connections)
          if (isNew) tell({ _tag: "Online", user })
        } else if (users.get(user)?.has(sign.connection) === true) {
          gone(user, "left", sign.connection)
          doubt(user, sign.tab, now)
          return Effect.forEach(
            [...own].filter(([id, one]) => id !== sign.connection && one.user === user && one.tab === sign.tab),
            ([, one]) => Effect.andThen(one.sign, changed)
          )
        }
        return Effect.void
      }
      let last: string | undefined
      const look = Effect.suspend(() =>
        Log.stream(Signs, { after: last }).pipe(
          Stream.runForEach(({ payload, position }) =>
            Effect.flatMap(Clock.monotonicTimeNanos, (now) => {
              last = position
              return Result.isSuccess(payload) ? heed(payload.success, position, now) : Effect.void
            })
          ),
          Effect.provideContext(store)
        )
      )

      /** The store says what has expired, by its own clock: what lies in front of the oldest that it still has. */
      const sweep = Effect.gen(function* () {
        if (kept.length > 0) {
          const [oldest] = yield* Log.first(Signs, { limit: 1 })
          // It may have looked through many that are gone without meeting one that is not.
          const unknown = oldest === undefined && (yield* Log.last(Signs, { limit: 1 })).length > 0
          const place = kept.findIndex(({ position }) => position === oldest?.position)
          const expired = unknown ? [] : kept.splice(0, place < 0 ? kept.length : place)
          for (const { here, number, user } of expired) {
            if (here !== undefined && users.get(user)?.get(here)?.sign === number) gone(user, "timed-out", here)
          }
        }
        const now = yield* Clock.monotonicTimeNanos
        for (const [user, connections] of users) {
          for (const [id, { doubtedAt }] of connections) {
            if (doubtedAt !== undefined && now - doubtedAt > doubtNanos) gone(user, "left", id)
          }
        }
      }).pipe(Effect.provideContext(store), Effect.ignore)

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

      return Presence.of({
        online: Effect.sync(() => new Set(users.keys())),
        isOnline: (user) => users.has(user),
        enter: Effect.fn("Presence.enter")(function* (user, tab) {
          const connection = SecureRandom.uuidV7Unsafe()
          const sign = attempt({ _tag: "Here", user, tab, connection })
          yield* Effect.acquireRelease(
            Effect.andThen(
              Effect.sync(() => own.set(connection, { user, tab, sign })),
              Effect.andThen(sign, changed)
            ),
            () =>
              Effect.andThen(
                Effect.sync(() => own.delete(connection)),
                Effect.andThen(attempt({ _tag: "Gone", user, tab, connection }), changed)
              )
          )
          let signed = yield* Clock.monotonicTimeNanos
          return Effect.flatMap(Clock.monotonicTimeNanos, (now) => {
            if (now - signed < BigInt(signMillis) * 1_000_000n) return Effect.void
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
