/**
 * A real Redis Cluster of this test's own: three masters, each with a replica, on private ports of 127.0.0.1. It is there after about
 * two seconds, most of which the servers themselves insist on; so make one for a file of tests, and `flush` between them.
 *
 * The servers live as long as the scope that made them. Everything runs on the real clock, also under `TestClock`.
 */
import { Context, Effect, Layer, type Scope } from "effect"
import { type CommandFailed, eventually, type Reply, send } from "./Command.ts"
import * as Port from "./Port.ts"
import {
  make as makeServer,
  type Options as ServerOptions,
  type RedisServer,
  RedisServerUnavailable
} from "./RedisServer.ts"
import * as ReplicaLink from "./ReplicaLink.ts"

/**
 * Options that may differ between two clusters.
 *
 * @category models
 */
export interface Options extends ServerOptions {
  /** 3 by default, which is also the fewest that survive the loss of one. */
  readonly masters?: number
  /** Replicas of each master, 1 by default. */
  readonly replicas?: number
  /** After how many milliseconds of silence a master counts as lost; 1000 by default. */
  readonly nodeTimeoutMillis?: number
  /** Of every server. */
  readonly password?: string
}

/**
 * A slot on its way from one master to another. Meanwhile the source answers for the keys that it still has.
 *
 * @category models
 */
export interface Migration {
  /** Moves up to so many keys, and returns how many it moved: 0 when all have been. */
  readonly move: (keys: number) => Effect.Effect<number, RedisServerUnavailable>
  /** Gives the slot to its new master, and tells all others. Move all keys first. */
  readonly finish: Effect.Effect<void, RedisServerUnavailable>
}

/** One server of a cluster. */
type Node = RedisServer["Service"]

/**
 * A running cluster, and the means to hurt it. A key stands for its slot: `{orders}` and `{orders}:1` are in the same one.
 *
 * @category services
 */
export class RedisCluster extends Context.Service<
  RedisCluster,
  {
    /** All servers, those that began as masters first. Each can be killed, stopped, started, paused and resumed. */
    readonly nodes: ReadonlyArray<Node>
    /** `127.0.0.1:port` of each. */
    readonly addresses: ReadonlyArray<string>
    readonly slotOf: (key: string) => Effect.Effect<number, RedisServerUnavailable>
    /** The master that has the slot of this key now, by the word of those that are running. */
    readonly masterOf: (key: string) => Effect.Effect<Node, RedisServerUnavailable>
    /** A replica of that master. */
    readonly replicaOf: (key: string) => Effect.Effect<Node, RedisServerUnavailable>
    /** `CLUSTER FAILOVER`: the replica takes the place of its master without loss. Returns once it has. */
    readonly failOver: (key: string) => Effect.Effect<void, RedisServerUnavailable>
    /** Moves the slot of this key to another master, ten keys at a time. */
    readonly migrate: (key: string, to: Node) => Effect.Effect<void, RedisServerUnavailable>
    /** The same, step by step. */
    readonly beginMigration: (key: string, to: Node) => Effect.Effect<Migration, RedisServerUnavailable>
    /**
     * From now on nothing that is written to the slot reaches its replica, which stays ready to become the master. The inner
     * effect ends that.
     */
    readonly cutReplica: (key: string) => Effect.Effect<Effect.Effect<void>, RedisServerUnavailable>
    /** Returns when all servers that run agree that the cluster is up, and every replica is linked to its master. */
    readonly whole: Effect.Effect<void, RedisServerUnavailable>
    /** Deletes everything on every master. */
    readonly flush: Effect.Effect<void, RedisServerUnavailable>
  }
>()("@waybill/testing/RedisCluster") {}

/** A server as it sees itself, in a line of `CLUSTER NODES`. */
interface Self {
  readonly node: Node
  readonly id: string
  readonly isMaster: boolean
  /** The id of the master of a replica. */
  readonly master: string
  readonly epoch: number
  readonly slots: ReadonlyArray<readonly [from: number, to: number]>
}

const slotCount = 16_384

/** What the nodes say. */
const listeningTo = (nodes: ReadonlyArray<Node>, password: string | undefined) => {
  const ask = (node: Node, ...words: ReadonlyArray<string | number>) =>
    Effect.mapError(send({ port: node.port, password }, ...words), unavailable)
  /** What every server that replies says. */
  const askAll = (of: ReadonlyArray<Node>, ...words: ReadonlyArray<string | number>) =>
    Effect.map(
      Effect.forEach(of, (node) => Effect.option(Effect.map(ask(node, ...words), (reply) => ({ node, reply }))), {
        concurrency: "unbounded"
      }),
      (replies) => replies.flatMap((reply) => (reply._tag === "Some" ? [reply.value] : []))
    )
  const running = Effect.filter(nodes, (node) => node.running)
  const selves = Effect.gen(function* () {
    const replies = yield* askAll(yield* running, "CLUSTER", "NODES")
    return replies.flatMap(({ node, reply }) => selfIn(node, reply))
  })
  const slotOf = (key: string) =>
    Effect.gen(function* () {
      const [node] = yield* running
      if (node === undefined) return yield* new RedisServerUnavailable({ message: "No node is running." })
      return Number(yield* ask(node, "CLUSTER", "KEYSLOT", key))
    })
  const masterOf = Effect.fnUntraced(function* (key: string) {
    const slot = yield* slotOf(key)
    const [self] = (yield* selves)
      .filter(({ isMaster, slots }) => isMaster && slots.some(([from, to]) => from <= slot && slot <= to))
      // Of an old master that does not know it yet and its successor, the successor has the higher epoch.
      .toSorted((a, b) => b.epoch - a.epoch)
    return self ?? (yield* new RedisServerUnavailable({ message: `No master has the slot of ${key}.` }))
  })
  const replicaOf = Effect.fnUntraced(function* (key: string) {
    const { id } = yield* masterOf(key)
    const found = (yield* selves).find(({ isMaster, master }) => !isMaster && master === id)
    return found?.node ?? (yield* new RedisServerUnavailable({ message: `${key} has no replica.` }))
  })
  const whole = become(
    "become whole",
    Effect.gen(function* () {
      const up = yield* running
      const states = yield* askAll(up, "CLUSTER", "INFO")
      if (states.length < up.length || states.some(({ reply }) => !String(reply).includes("cluster_state:ok"))) {
        return false
      }
      const followers = (yield* selves).filter(({ isMaster }) => !isMaster)
      const links = yield* Effect.forEach(followers, ({ node }) => ReplicaLink.isUp({ port: node.port, password }))
      return links.every((isUp) => isUp)
    })
  )
  return { ask, askAll, selves, slotOf, masterOf, replicaOf, whole }
}

type Voices = ReturnType<typeof listeningTo>

const become = <E>(what: string, look: Effect.Effect<boolean, E>) =>
  Effect.flatMap(eventually(look), (is) =>
    is ? Effect.void : Effect.fail(new RedisServerUnavailable({ message: `The cluster did not ${what}.` }))
  )

/** Makes a cluster of nodes that have not met. */
const form = Effect.fnUntraced(function* (
  started: ReadonlyArray<Started>,
  masters: number,
  { ask, askAll, whole }: Voices
) {
  const nodes = started.map(({ node }) => node)
  yield* Effect.forEach(nodes.slice(0, masters), (node, i) => {
    const from = Math.ceil((slotCount * i) / masters)
    return ask(node, "CLUSTER", "ADDSLOTSRANGE", from, Math.ceil((slotCount * (i + 1)) / masters) - 1)
  })
  yield* Effect.forEach(nodes, (node, i) => ask(node, "CLUSTER", "SET-CONFIG-EPOCH", i + 1))
  const first = nodes[0] as Node // there is at least one master
  yield* Effect.forEach(started.slice(1), ({ bus, node }) => ask(first, "CLUSTER", "MEET", "127.0.0.1", node.port, bus))
  const ids = yield* Effect.forEach(nodes, (node) => Effect.map(ask(node, "CLUSTER", "MYID"), String))
  const allKnow = (holds: (text: string) => boolean) =>
    Effect.map(
      askAll(nodes, "CLUSTER", "NODES"),
      (replies) => replies.length === nodes.length && replies.every(({ reply }) => holds(String(reply)))
    )
  yield* become(
    "meet",
    allKnow((text) => ids.every((id) => text.includes(id)) && !text.includes("handshake"))
  )
  yield* Effect.forEach(nodes.slice(masters), (node, i) =>
    // One of the masters.
    ask(node, "CLUSTER", "REPLICATE", ids[i % masters] as string)
  )
  // Clients ask any of them which replicas there are.
  yield* become(
    "learn of its replicas",
    allKnow((text) => text.split(/\bslave /).length - 1 === nodes.length - masters)
  )
  yield* whole
})

/**
 * Starts a cluster and waits until it is up.
 *
 * @category constructors
 */
export const make = Effect.fn("RedisCluster.make")(function* (
  options: Options = {}
): Effect.fn.Return<RedisCluster["Service"], RedisServerUnavailable, Scope.Scope> {
  const { masters = 3, password, replicas = 1 } = options
  const started = yield* Effect.forEach(Array.from({ length: masters * (1 + replicas) }), () => startNode(options), {
    concurrency: "unbounded"
  })
  const nodes = started.map(({ node }) => node)
  const voices = listeningTo(nodes, password)
  const { ask, masterOf, replicaOf, selves, slotOf, whole } = voices
  yield* form(started, masters, voices)

  const beginMigration = Effect.fnUntraced(function* (key: string, to: Node) {
    const slot = yield* slotOf(key)
    const source = yield* masterOf(key)
    const target = String(yield* ask(to, "CLUSTER", "MYID"))
    yield* ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    yield* ask(source.node, "CLUSTER", "SETSLOT", slot, "MIGRATING", target)
    const auth = password === undefined ? [] : ["AUTH", password]
    return {
      move: Effect.fnUntraced(function* (count: number) {
        const keys = yield* ask(source.node, "CLUSTER", "GETKEYSINSLOT", slot, count)
        if (!Array.isArray(keys) || keys.length === 0) return 0
        yield* ask(source.node, "MIGRATE", "127.0.0.1", to.port, "", 0, 5000, ...auth, "KEYS", ...keys.map(String))
        return keys.length
      }),
      finish: Effect.gen(function* () {
        yield* ask(to, "CLUSTER", "SETSLOT", slot, "NODE", target)
        yield* ask(source.node, "CLUSTER", "SETSLOT", slot, "NODE", target)
        const others = (yield* selves).filter(({ isMaster, node }) => isMaster && node !== to && node !== source.node)
        yield* Effect.forEach(others, ({ node }) => ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target))
      })
    } satisfies Migration
  })

  return RedisCluster.of({
    nodes,
    addresses: nodes.map(({ port }) => `127.0.0.1:${port}`),
    slotOf,
    masterOf: (key) => Effect.map(masterOf(key), ({ node }) => node),
    replicaOf,
    failOver: Effect.fnUntraced(function* (key) {
      const next = yield* replicaOf(key)
      yield* ask(next, "CLUSTER", "FAILOVER")
      yield* become(
        "fail over",
        Effect.map(masterOf(key), ({ node }) => node === next)
      )
    }),
    migrate: Effect.fnUntraced(function* (key, to) {
      const { finish, move } = yield* beginMigration(key, to)
      while ((yield* move(10)) > 0);
      yield* finish
    }),
    beginMigration,
    cutReplica: Effect.fnUntraced(function* (key) {
      const { port } = yield* replicaOf(key)
      const mend = yield* Effect.mapError(ReplicaLink.cut({ port, password }), unavailable)
      // A server that is down by then comes back with its first settings.
      return Effect.ignore(mend)
    }),
    whole,
    flush: Effect.gen(function* () {
      const up = (yield* selves).filter(({ isMaster }) => isMaster)
      yield* Effect.forEach(up, ({ node }) => ask(node, "FLUSHALL"), { discard: true, concurrency: "unbounded" })
    })
  })
})

/**
 * The cluster as a layer, best shared by the tests of a file.
 *
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<RedisCluster, RedisServerUnavailable> =>
  Layer.effect(RedisCluster, make(options))

/** A replica stays with its master, and takes its place however old its data are. */
const member = "--cluster-enabled yes --cluster-allow-replica-migration no --cluster-replica-validity-factor 0".split(
  " "
)

interface Started {
  readonly node: Node
  readonly bus: number
}

/** A server, and the port on which it talks to the others: by default 10,000 above its own, which somebody else may have. */
const startNode = ({ args = [], nodeTimeoutMillis = 1000, password, ...options }: Options) =>
  Effect.gen(function* () {
    const bus = yield* Port.reserve
    const node = yield* makeServer({
      ...options,
      args: [
        ...ReplicaLink.prompt,
        ...member,
        "--cluster-port",
        `${bus}`,
        "--cluster-node-timeout",
        `${nodeTimeoutMillis}`,
        ...(password === undefined ? [] : ["--requirepass", password, "--masterauth", password]),
        ...args
      ]
    })
    return { node, bus }
  })

const unavailable = ({ message }: CommandFailed) => new RedisServerUnavailable({ message })

const selfIn = (node: Node, reply: Reply): ReadonlyArray<Self> => {
  const line = String(reply)
    .split("\n")
    .find((line) => line.includes("myself"))
  if (line === undefined) return []
  const [id = "", , flags = "", master = "", , , epoch, , ...slots] = line.split(" ")
  return [
    {
      node,
      id,
      isMaster: flags.includes("master"),
      master,
      epoch: Number(epoch),
      slots: slots
        // Those in brackets are on their way.
        .filter((slot) => !slot.startsWith("["))
        .map((slot) => {
          const [from, to = from] = slot.split("-").map(Number)
          return [Number(from), Number(to)] as const
        })
    }
  ]
}
