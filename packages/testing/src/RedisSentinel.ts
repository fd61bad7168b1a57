/**
 * A real master with its replica and three Sentinels that watch them, of this test's own, on private ports of 127.0.0.1. The
 * Sentinels look at the servers and talk to each other several times a second instead of every one to ten seconds, so that a failover
 * takes about one second, and an old master that comes back learns within one that it is a replica.
 *
 * The processes live as long as the scope that made them. Everything runs on the real clock, also under `TestClock`.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { type CommandFailed, eventually, send } from "./Command.ts"
import {
  make as makeServer,
  type Options as ServerOptions,
  type RedisServer,
  RedisServerUnavailable
} from "./RedisServer.ts"
import * as ReplicaLink from "./ReplicaLink.ts"

/**
 * Options that may differ between two tests. Those of a server are for the master and its replicas.
 *
 * @category models
 */
export interface Options extends Omit<ServerOptions, "sentinel"> {
  /** The name of the master; `orders` by default. */
  readonly name?: string
  /** 1 by default. */
  readonly replicas?: number
  /** After how many milliseconds of silence the master counts as lost; 500 by default. */
  readonly downAfterMillis?: number
  /** Of the master and its replicas, without white space. */
  readonly password?: string
  /** Of the Sentinels, without white space. */
  readonly sentinelPassword?: string
}

type Server = RedisServer["Service"]

/**
 * Running servers and Sentinels, and the means to hurt them.
 *
 * @category services
 */
export class RedisSentinel extends Context.Service<
  RedisSentinel,
  {
    /** The name of the master. */
    readonly name: string
    /** The server that began as the master, and its replicas. Each can be killed, stopped, started, paused and resumed. */
    readonly servers: ReadonlyArray<Server>
    readonly sentinels: ReadonlyArray<Server>
    /** `127.0.0.1:port` of each Sentinel. */
    readonly addresses: ReadonlyArray<string>
    /** The master that most Sentinels name; it may be down. */
    readonly master: Effect.Effect<Server, RedisServerUnavailable>
    /** A replica that is running. */
    readonly replica: Effect.Effect<Server, RedisServerUnavailable>
    /** Waits until most Sentinels name another master than this one, and that one accepts writes; returns it. */
    readonly successorOf: (old: Server) => Effect.Effect<Server, RedisServerUnavailable>
    /** `SENTINEL FAILOVER`: the replica takes the place of the master. Returns once it has. */
    readonly failOver: Effect.Effect<Server, RedisServerUnavailable>
    /**
     * From now on nothing that is written reaches the replica, which stays ready to become the master. The inner effect ends
     * that.
     */
    readonly cutReplica: Effect.Effect<Effect.Effect<void>, RedisServerUnavailable>
    /** Returns when every Sentinel knows the others and every replica, and every replica is linked to the master. */
    readonly whole: Effect.Effect<void, RedisServerUnavailable>
  }
>()("@waybill/testing/RedisSentinel") {}

const sentinelCount = 3

/** How often they do what they do, ms. */
const hurry = "INFO-PERIOD 500 PUBLISH-PERIOD 200 PING-PERIOD 100 ASK-PERIOD 200 MIN-LINK-RECONNECT-PERIOD 200".split(
  " "
)

/** Starts the servers and the Sentinels. */
const start = Effect.fnUntraced(function* (options: Options, name: string, replicas: number) {
  const { args = [], downAfterMillis = 500, password, sentinelPassword } = options
  const startServer = (more: ReadonlyArray<string>) =>
    makeServer({
      ...options,
      args: [
        ...ReplicaLink.prompt,
        ...(password === undefined ? [] : ["--requirepass", password, "--masterauth", password]),
        ...more,
        ...args
      ]
    })
  const first = yield* startServer([])
  const followers = yield* Effect.forEach(
    Array.from({ length: replicas }),
    () => startServer(["--replicaof", "127.0.0.1", `${first.port}`]),
    { concurrency: "unbounded" }
  )
  const servers = [first, ...followers]
  const authenticated = (server: Server) => ({ port: server.port, password })
  const linked = (of: ReadonlyArray<Server>) =>
    Effect.map(
      Effect.forEach(of, (server) => ReplicaLink.isUp(authenticated(server))),
      (links) => links.every((isUp) => isUp)
    )
  // Sentinels hear of a replica from its master.
  yield* become("replicate", linked(followers))
  const sentinels = yield* Effect.forEach(
    Array.from({ length: sentinelCount }),
    () =>
      makeServer({
        ...options,
        args: sentinelPassword === undefined ? [] : ["--requirepass", sentinelPassword],
        sentinel: [
          `sentinel monitor ${name} 127.0.0.1 ${first.port} 2`,
          `sentinel down-after-milliseconds ${name} ${downAfterMillis}`,
          `sentinel failover-timeout ${name} 1500`,
          `sentinel parallel-syncs ${name} 1`,
          ...(password === undefined ? [] : [`sentinel auth-pass ${name} ${password}`]),
          ...(sentinelPassword === undefined ? [] : [`sentinel sentinel-pass ${sentinelPassword}`])
        ]
      }),
    { concurrency: "unbounded" }
  )
  const askSentinel = (sentinel: Server, ...words: ReadonlyArray<string>) =>
    Effect.mapError(send({ port: sentinel.port, password: sentinelPassword }, "SENTINEL", ...words), unavailable)
  // Servers that do not know the command are slower.
  yield* Effect.forEach(sentinels, (sentinel) => Effect.ignore(askSentinel(sentinel, "DEBUG", ...hurry)), {
    discard: true,
    concurrency: "unbounded"
  })
  return { servers, sentinels, authenticated, askSentinel, linked }
})

const become = <E>(what: string, look: Effect.Effect<boolean, E>) =>
  Effect.flatMap(eventually(look), (is) =>
    is ? Effect.void : Effect.fail(new RedisServerUnavailable({ message: `The servers did not ${what}.` }))
  )

/**
 * Starts servers and Sentinels, and waits until they know each other.
 *
 * @category constructors
 */
export const make = Effect.fn("RedisSentinel.make")(function* (
  options: Options = {}
): Effect.fn.Return<RedisSentinel["Service"], RedisServerUnavailable, Scope.Scope> {
  const { name = "orders", replicas = 1 } = options
  const { askSentinel, authenticated, linked, sentinels, servers } = yield* start(options, name, replicas)

  const master = Effect.gen(function* () {
    const ports = yield* Effect.forEach(
      yield* Effect.filter(sentinels, ({ running }) => running),
      (sentinel) =>
        Effect.orElseSucceed(
          Effect.map(askSentinel(sentinel, "GET-MASTER-ADDR-BY-NAME", name), (reply) =>
            Array.isArray(reply) ? Number(reply[1]) : 0
          ),
          () => 0
        ),
      { concurrency: "unbounded" }
    )
    const named = servers.find(({ port }) => ports.filter((one) => one === port).length > sentinelCount / 2)
    return named ?? (yield* new RedisServerUnavailable({ message: "Most Sentinels name no master." }))
  })
  const replica = Effect.gen(function* () {
    const current = yield* master
    const [found] = yield* Effect.filter(
      servers.filter((server) => server !== current),
      ({ running }) => running
    )
    return found ?? (yield* new RedisServerUnavailable({ message: "No replica is running." }))
  })
  const successorOf = Effect.fnUntraced(function* (old: Server) {
    yield* become(
      "fail over",
      Effect.gen(function* () {
        const current = yield* master
        if (current === old) return false
        return (yield* ReplicaLink.fieldOf(authenticated(current), "replication", "role")) === "master"
      })
    )
    return yield* master
  })
  const whole = become(
    "become whole",
    Effect.gen(function* () {
      const current = yield* master
      if (!(yield* linked(servers.filter((server) => server !== current)))) return false
      for (const sentinel of sentinels) {
        const reply = yield* askSentinel(sentinel, "MASTER", name)
        const about = Array.isArray(reply) ? reply.map(String) : []
        const told = (field: string) => Number(about[about.indexOf(field) + 1])
        if (told("num-slaves") !== replicas || told("num-other-sentinels") !== sentinelCount - 1) return false
        if (told("port") !== current.port || about[about.indexOf("flags") + 1] !== "master") return false
      }
      return true
    })
  )
  yield* whole

  return RedisSentinel.of({
    name,
    servers,
    sentinels,
    addresses: sentinels.map(({ port }) => `127.0.0.1:${port}`),
    master,
    replica,
    successorOf,
    failOver: Effect.gen(function* () {
      const old = yield* master
      const [sentinel] = yield* Effect.filter(sentinels, ({ running }) => running)
      if (sentinel !== undefined) yield* askSentinel(sentinel, "FAILOVER", name)
      return yield* successorOf(old)
    }),
    cutReplica: Effect.gen(function* () {
      const mend = yield* Effect.mapError(ReplicaLink.cut(authenticated(yield* replica)), unavailable)
      // A server that is down by then comes back with its first settings.
      return Effect.ignore(mend)
    }),
    whole
  })
})

/**
 * The servers as a layer, best shared by the tests of a file.
 *
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<RedisSentinel, RedisServerUnavailable> =>
  Layer.effect(RedisSentinel, make(options))

const unavailable = ({ message }: CommandFailed) => new RedisServerUnavailable({ message })
