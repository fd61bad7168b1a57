/**
 * The connections to Redis: each reconnects by itself, each command settles within its deadline, none is sent twice.
 * Deadlines and pauses pass on the `Clock` that the layer was built with; under `TestClock` they pass when the test says.
 *
 * ```ts
 * import { Config, Effect } from "effect"
 * import { IoRedis } from "waybill/redis"
 *
 * const program = Effect.gen(function*() {
 *   const redis = yield* IoRedis.IoRedis
 *   return yield* redis.commands.run("PING", [], (client) => client.ping())
 * })
 *
 * const RedisLive = IoRedis.layerConfig({
 *   host: Config.String("REDIS_HOST").pipe(Config.withDefault("127.0.0.1")),
 *   password: Config.Redacted("REDIS_PASSWORD")
 * })
 *
 * program.pipe(Effect.provide(RedisLive))
 * ```
 *
 * @module
 */
import * as Config from "effect/Config"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as EffectRedis from "effect/persistence/Redis"
import * as Random from "effect/Random"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { RedisOptions } from "ioredis"
import { Disconnected, InvalidUrl, type Reason, TransportError } from "../Transport.ts"
import * as Address from "./internal/connection/Address.ts"
import { make as cluster } from "./internal/connection/Cluster.ts"
import type { ConnectionEvent, Server, Shared } from "./internal/connection/Connection.ts"
import { make as makeEffectRedis } from "./internal/connection/EffectRedis.ts"
import { sentinel } from "./internal/connection/Sentinel.ts"
import { type Servers, single } from "./internal/connection/Servers.ts"
import { Ticker } from "./internal/connection/Ticker.ts"
import { durationOf, wholeOf } from "./internal/Settings.ts"

export type { Commands, Connection } from "./internal/connection/Connection.ts"

export class IoRedis extends Context.Service<
  IoRedis,
  Servers & {
    /** The number of the database that every connection uses. */
    readonly db: number
    /** How many replicas each server must have. */
    readonly replicas: number
    /** Calls `listener` with the events of every connection, until the scope closes. It must be quick and must not throw. */
    readonly listen: (listener: (event: ConnectionEvent) => void) => Effect.Effect<void, never, Scope.Scope>
  }
>()("waybill/redis/IoRedis") {}

/** Where the servers are and how to authenticate. Everything has a default: `redis://127.0.0.1:6379`, no password. */
export interface Options {
  /**
   * Where the servers are, in one string. The other options take precedence over it. An invalid URL fails with `InvalidUrl`.
   *
   * | URL | leads to |
   * |---|---|
   * | `redis://user:password@host:port/db` | one server |
   * | `unix://user:password@/run/redis.sock?db=0`, also `redis+unix://` | one server, through a socket |
   * | `redis-cluster://user:password@host:port,host:port` | a cluster, which names its other nodes |
   * | `redis-sentinel://user:password@host:port,host:port/name/db` | the master that Sentinels watch by this name; the ports are those of the Sentinels, 26379 by default |
   *
   * `rediss://`, `rediss-cluster://` and `rediss-sentinel://` use TLS. User and password are those of the servers; the Sentinels
   * get `?sentinelUsername=` and `sentinelPassword=`. `?natMap=10.0.0.1:6379=redis.example:7001,...` is `natMap`.
   */
  readonly url?: string | Redacted.Redacted<string> | undefined
  readonly host?: string | undefined
  readonly port?: number | undefined
  /** A socket in the file system, instead of host and port. */
  readonly path?: string | undefined
  /** Nodes of a cluster, as `host:port`. Two or three are enough: they name the others. */
  readonly cluster?: ReadonlyArray<string> | undefined
  /** All Sentinels that watch the master, as `host:port`. They need `name`. */
  readonly sentinels?: ReadonlyArray<string> | undefined
  /** The name of the master in the configuration of the Sentinels. */
  readonly name?: string | undefined
  /** The Sentinels' own user and password, none by default: they never get those of the servers. */
  readonly sentinelUsername?: string | undefined
  readonly sentinelPassword?: Redacted.Redacted<string> | Effect.Effect<Redacted.Redacted<string>> | undefined
  /** TLS to the Sentinels; as for the servers by default. */
  readonly sentinelTls?: boolean | NonNullable<RedisOptions["tls"]> | undefined
  /**
   * For servers behind addresses of their own, as in containers: `{ "10.0.0.1:6379": "redis.example:7001" }` reaches what the
   * cluster or the Sentinels call the former at the latter.
   */
  readonly natMap?: Readonly<Record<string, string>> | undefined
  readonly db?: number | undefined
  /** How many replicas the server must have, 0 by default. With fewer, `Health.check` reports `ReplicasMissing`. */
  readonly replicas?: number | undefined
  readonly username?: string | undefined
  /** An effect is run again before every attempt to connect, for passwords that change while the program runs. */
  readonly password?: Redacted.Redacted<string> | Effect.Effect<Redacted.Redacted<string>> | undefined
  /** `true` for TLS with the system's certificates, or the options of `node:tls`. */
  readonly tls?: boolean | NonNullable<RedisOptions["tls"]> | undefined
  /** Further options of ioredis: those that affect how a connection is made, and none that this library relies on. */
  readonly client?: Pick<RedisOptions, (typeof passedOn)[number]> | undefined
  /** The name in CLIENT LIST, followed by the role of each connection; `waybill` by default. */
  readonly connectionName?: string | undefined
  /**
   * How long building the layer waits for an unreachable server before it fails: 10 seconds by default.
   * With `"Infinity"` a program may start before its server.
   */
  readonly startTimeout?: Duration.Input | undefined
}

const passedOn = [
  "clientInfoTag",
  "connectTimeout",
  "disableClientInfo",
  "family",
  "keepAlive",
  "noDelay",
  "showFriendlyErrorStack",
  "socketTimeout"
] as const satisfies ReadonlyArray<keyof RedisOptions>

/**
 * Makes the connections to one server. Building the layer connects once: it fails with a `TransportError` of operation
 * `connect`, at once if the server rejects the credentials, and after `startTimeout` if it cannot be reached. From then on a lost
 * connection is restored indefinitely, 50 ms after the loss and less often later, up to every 2 seconds.
 *
 * @example
 * ```ts
 * import { Redacted } from "effect"
 * import { IoRedis } from "waybill/redis"
 *
 * const RedisLive = IoRedis.layer({ host: "redis.internal", password: Redacted.make("from a vault"), tls: true })
 * ```
 */
export const layer = (options: Options = {}): Layer.Layer<IoRedis, TransportError> => {
  check(options)
  return Layer.effect(IoRedis, make(options))
}

/** Throws on an invalid number: in the source of a program that is a bug. From `Config` it is an `InvalidUrl`. */
const check = ({ db, port, replicas, startTimeout }: Options): void => {
  if (port !== undefined) wholeOf("port", port, 1, 65_535)
  if (db !== undefined) wholeOf("db", db, 0)
  if (replicas !== undefined) wholeOf("replicas", replicas, 0)
  if (startTimeout !== undefined) durationOf("startTimeout", startTimeout)
}

/**
 * The same with options from `Config`.
 *
 * @example
 * ```ts
 * import { Config } from "effect"
 * import { IoRedis } from "waybill/redis"
 *
 * const RedisLive = IoRedis.layerConfig({ url: Config.Redacted("REDIS_URL") })
 * ```
 */
export const layerConfig = (options: Config.Wrap<Options>): Layer.Layer<IoRedis, TransportError | Config.ConfigError> =>
  Layer.effect(IoRedis, Effect.flatMap(Config.unwrap(options), make))

/**
 * The server of a URL such as `redis://127.0.0.1:6379`; see `Options.url`.
 *
 * @example
 * ```ts
 * import { IoRedis } from "waybill/redis"
 *
 * const RedisLive = IoRedis.layerUrl("redis://127.0.0.1:6379/1")
 * ```
 */
export const layerUrl = (url: string | Redacted.Redacted<string>): Layer.Layer<IoRedis, TransportError> =>
  layer({ url })

/**
 * Effect's own `Redis` service from the same client, so that `PersistedQueue`, `RateLimiter`, `Persistence` and
 * `CircuitBreaker` of `effect/persistence` need no second client library. The options say how many connections
 * `Redis.reserve` may hold, and for how long.
 *
 * ```ts
 * import { Layer } from "effect"
 * import { RateLimiter } from "effect/persistence"
 * import { IoRedis } from "waybill/redis"
 *
 * const RateLimiterLive = RateLimiter.layer.pipe(
 *   Layer.provide(RateLimiter.layerStoreRedis()),
 *   Layer.provide(IoRedis.layerEffectRedis()),
 *   Layer.provide(IoRedis.layerUrl("redis://127.0.0.1:6379"))
 * )
 * ```
 */
export const layerEffectRedis = (
  options: EffectRedis.PoolOptions = {}
): Layer.Layer<EffectRedis.Redis, never, IoRedis> =>
  Layer.effect(
    EffectRedis.Redis,
    Effect.flatMap(IoRedis, (redis) => makeEffectRedis(redis, options))
  )

/** The service itself, for programs that manage their own scopes. See `layer`. */
export const make = Effect.fnUntraced(function* (
  options: Options = {}
): Effect.fn.Return<IoRedis["Service"], TransportError, Scope.Scope> {
  const startTimeout = durationOf("startTimeout", options.startTimeout ?? "10 seconds")
  const described = yield* Effect.mapError(complete(options), connectFailed)
  const listeners = new Set<(event: ConnectionEvent) => void>()
  const shared: Shared = {
    connectionName: options.connectionName ?? "waybill",
    incarnation: Math.abs(yield* Random.nextInt).toString(36),
    reconnect,
    ticker: new Ticker(),
    histories: new Set(),
    emit: (event) => {
      for (const listener of listeners) listener(event)
    }
  }
  yield* Effect.forkScoped(shared.ticker.run)
  const servers = yield* serversOf(shared, described)
  yield* servers.commands.ready.pipe(
    Effect.timeoutOrElse({
      duration: startTimeout,
      orElse: () => Effect.fail(unreachable(servers.reason(), Address.addressShown(described.address), startTimeout))
    }),
    Effect.mapError(connectFailed)
  )
  return IoRedis.of({
    ...servers,
    db: described.db,
    replicas: options.replicas ?? 0,
    listen: (listener) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          listeners.add(listener)
        }),
        () => Effect.sync(() => listeners.delete(listener))
      )
  })
})

const serversOf = (
  shared: Shared,
  { address, toSentinel, toServer }: Complete
): Effect.Effect<Servers, never, Scope.Scope> => {
  switch (address._tag) {
    case "Standalone":
      return single(shared, toServer(address.place))
    case "Sentinel":
      return sentinel(shared, { ...address, toSentinel, toServer })
    case "Cluster": {
      const { natMap, nodes } = address
      return cluster({
        shared,
        nodes,
        serverAt: (place) =>
          // Named as the cluster names it.
          Effect.map(toServer(Address.reachedAt(natMap, place)), ({ options }) => ({
            options,
            address: Address.shown(place)
          }))
      })
    }
  }
}

const connectFailed = (reason: Reason) => new TransportError({ operation: "connect", reason })

/** Forever: 50 ms doubling to 2 s, each varied by 20 %; 2 s from the start if only an operator can help. */
const reconnect = Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("2 seconds")]).pipe(
  Schedule.setInputType<Reason>(),
  Schedule.modifyDelay(({ duration, input }) => Effect.succeed(input.permanent ? Duration.seconds(2) : duration)),
  Schedule.jittered
)

const unreachable = (reason: Reason, address: string, waited: Duration.Duration): Reason =>
  reason._tag !== "Disconnected"
    ? reason
    : new Disconnected({
        ambiguous: false,
        cause: new Error(
          `no connection to Redis at ${address} within ${Duration.format(waited)} (startTimeout): ${
            reason.cause instanceof Error ? reason.cause.message : String(reason.cause)
          }. Start a server there, or correct host and port`
        )
      })

/**
 * Where a URL leads, in words without secrets, and whether it contains a password.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { IoRedis } from "waybill/redis"
 *
 * const program = Effect.map(IoRedis.addressOf("redis://:secret@redis.internal/3"), ({ address }) => address)
 * ```
 */
export const addressOf = (
  url: string | Redacted.Redacted<string>
): Effect.Effect<{ readonly address: string; readonly hasPassword: boolean }, InvalidUrl> =>
  Effect.map(parsed(url), ({ address, password, sentinelPassword }) => ({
    address: Address.addressShown(address),
    hasPassword: password !== undefined || sentinelPassword !== undefined
  }))

const parsed = (url: string | Redacted.Redacted<string>): Effect.Effect<Address.ServerUrl, InvalidUrl> => {
  const found = Address.parse(typeof url === "string" ? url : Redacted.value(url))
  return typeof found === "string" ? Effect.fail(new InvalidUrl({ detail: found })) : Effect.succeed(found)
}

/** The options with every default filled in. */
const complete = Effect.fnUntraced(function* (options: Options): Effect.fn.Return<Complete, Reason> {
  const url = options.url === undefined ? undefined : yield* parsed(options.url)
  const address = Address.addressOf(options, url?.address)
  if (typeof address === "string") return yield* new InvalidUrl({ detail: address })
  const db = options.db ?? url?.db ?? 0
  if (!Number.isInteger(db) || db < 0)
    return yield* new InvalidUrl({ detail: `db ${db} is not the number of a database` })
  if (address._tag === "Cluster" && db > 0) return yield* new InvalidUrl({ detail: "a cluster has database 0 only" })
  const tls = options.tls ?? url?.tls ?? false
  return {
    address,
    db,
    toServer: connecting(options.client, db, {
      username: options.username ?? url?.username,
      password: options.password ?? url?.password,
      tls
    }),
    toSentinel: connecting(options.client, 0, {
      username: options.sentinelUsername ?? url?.sentinelUsername,
      password: options.sentinelPassword ?? url?.sentinelPassword,
      tls: options.sentinelTls ?? tls
    })
  }
})

interface Complete {
  readonly address: Address.Address
  readonly db: number
  readonly toServer: Connecting
  readonly toSentinel: Connecting
}

/** How to connect to a server, wherever it is. */
type Connecting = (place: Address.Place) => Effect.Effect<Server>

const connecting =
  (
    client: Options["client"],
    db: number,
    { password, tls, username }: Pick<Options, "username" | "password" | "tls">
  ): Connecting =>
  (place) =>
    Effect.map(Effect.isEffect(password) ? password : Effect.succeed(password), (password) => ({
      address: Address.shown(place),
      options: {
        ...defaults,
        ...Object.fromEntries(
          passedOn.flatMap((name) => (client?.[name] === undefined ? [] : [[name, client[name]] as const]))
        ),
        ...place,
        db,
        ...(username === undefined ? {} : { username }),
        ...(password === undefined ? {} : { password: Redacted.value(password) }),
        ...(tls === undefined || tls === false ? {} : { tls: tls === true ? {} : tls })
      }
    }))

const defaults = {
  family: 0,
  lazyConnect: true,
  // Reconnecting is ours: see internal/connection/Connection.
  retryStrategy: null,
  autoResubscribe: false,
  autoResendUnfulfilledCommands: false,
  enableOfflineQueue: false,
  // The ready check of ioredis keeps its own timers running after the client is gone.
  enableReadyCheck: false,
  maxRetriesPerRequest: null,
  connectTimeout: 5000,
  disconnectTimeout: 250,
  keepAlive: 10_000,
  noDelay: true,
  protocol: 3,
  replyMapping: "legacy",
  disableClientInfo: true
} as const
