/**
 * A cluster: a connection to each master, and commands that go to the one that has their keys. A command goes on to another
 * server, or to the same one again, only after a reply that says it was not executed, or before it was handed to a socket. After
 * anything else it may have run, and it is never sent again from here.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { Disconnected, type Reason, Refused, UnsupportedServer } from "../../../Transport.ts"
import * as Address from "./Address.ts"
import {
  type Commands,
  type Connection,
  type EvalOptions,
  type Keys,
  make as makeConnection,
  type RunOptions,
  type Server,
  ServerConnection,
  type Shared
} from "./Connection.ts"
import { evaluate } from "./Evaluation.ts"
import { watch } from "./FailoverWatch.ts"
import type { Servers } from "./Servers.ts"
import { redirectionOf, rowsOf, Slots, slotOf } from "./Slots.ts"

export interface ClusterOptions {
  readonly shared: Shared
  /** Where to begin: one that can be reached is enough. */
  readonly nodes: ReadonlyArray<Address.HostPort>
  readonly serverAt: (place: Address.HostPort) => Effect.Effect<Server, Reason>
}

/** How long a server that cannot serve now is left alone, and how often the slots are asked for at most. */
const pauseMillis = 20
/** How long one server may take to say which slots there are, and all together when none is connected. */
const askMillis = 300
const searchMillis = 1000
/** How long a connection is waited for until the slots are asked for again. */
const connectMillis = 100
const defaultMillis = 5000

/** Not executed, and a little later it may be, there or elsewhere. */
const passing: ReadonlySet<string> = new Set([
  "ASK",
  "CLUSTERDOWN",
  "LOADING",
  "MASTERDOWN",
  "MOVED",
  "NOREPLICAS",
  "READONLY",
  "TRYAGAIN"
])

/** The shared connection to one server, until no slot is there any more. */
interface Node {
  readonly place: Address.HostPort
  readonly connection: ServerConnection
  readonly scope: Scope.Closeable
}

/** A connection of its own that goes where its slot goes. */
interface Follower {
  /** Of the last command, if it was made for no key. */
  slot: number | undefined
  readonly connection: ServerConnection
}

/** Keys whose server is watched. */
interface Watcher {
  readonly slot: number | undefined
  readonly listener: () => void
}

/** Sends a command on a connection that is there. */
type Send<A> = (
  connection: ServerConnection,
  before: ((client: Redis) => void) | undefined,
  deadline: number
) => Effect.Effect<A, Reason>

export const make = Effect.fnUntraced(function* (
  options: ClusterOptions
): Effect.fn.Return<Servers, never, Scope.Scope> {
  const cluster = new Cluster(
    options,
    yield* Scope.Scope,
    yield* Clock.Clock,
    Effect.runForkWith(yield* Effect.context<never>())
  )
  const { dedicated, dedicatedTo, masters, onMove, reason, refresh, serverOf } = cluster
  return { commands: cluster, dedicated, dedicatedTo, masters, onMove, reason, refresh, serverOf }
})

class Cluster implements Omit<Servers, "commands">, Commands {
  readonly #options: ClusterOptions
  readonly #scope: Scope.Scope
  readonly #clock: Clock.Clock
  readonly #fork: (effect: Effect.Effect<unknown>) => unknown
  readonly #slots = new Slots()
  readonly #nodes = new Map<string, Node>()
  readonly #followers = new Set<Follower>()
  readonly #watchers = new Set<Watcher>()
  readonly #moveListeners = new Set<() => void>()
  /** Commands that wait until other servers have some slots. */
  readonly #waiting = new Set<() => void>()
  #refreshing: Deferred.Deferred<void> | undefined
  #refreshedAt = -Infinity
  /** Each time another server is asked first: one may be cut off from the others, and not know it. */
  #turn = 0
  #reason: Reason = new Disconnected({ ambiguous: false, cause: new Error("not connected yet") })

  constructor(
    options: ClusterOptions,
    scope: Scope.Scope,
    clock: Clock.Clock,
    fork: (effect: Effect.Effect<unknown>) => unknown
  ) {
    this.#options = options
    this.#scope = scope
    this.#clock = clock
    this.#fork = fork
  }

  readonly reason = (): Reason => this.#reason

  // --- commands --------------------------------------------------------------------------------------------------

  readonly run = <A>(
    command: string,
    keys: string | Keys,
    f: (client: Redis) => Promise<A>,
    options?: RunOptions
  ): Effect.Effect<A, Reason> => {
    const sent: Send<A> = (connection, before, deadline) =>
      connection.runNow(
        command,
        keys,
        before === undefined
          ? f
          : (client) => {
              before(client)
              return f(client)
            },
        { deadline }
      )
    return this.#send(slotOf(keys), sent, options)
  }

  readonly eval: Commands["eval"] = (script, keys, args, options?: EvalOptions) =>
    this.#send(
      slotOf(keys),
      (connection, before, deadline) =>
        connection.runNow(
          script.name,
          keys,
          (client) => evaluate(client, script, keys, args, options?.buffers === true, before),
          { deadline }
        ),
      options
    )

  #send<A>(slot: number | undefined, send: Send<A>, options: RunOptions | undefined): Effect.Effect<A, Reason> {
    return Effect.suspend(() => {
      const millis = options?.deadline === undefined ? defaultMillis : millisOf(options.deadline)
      const expires = this.#now() + millis
      const address = this.#masterOf(slot)
      const node = address === undefined ? undefined : this.#nodes.get(address)
      const once = options?.several === true
      if (node === undefined || !node.connection.usable) return this.#route(slot, send, expires, once, undefined)
      return Effect.catch(send(node.connection, undefined, millis), (reason) =>
        mayGoOn(reason) ? this.#route(slot, send, expires, once, { reason, node }) : Effect.fail(reason)
      )
    })
  }

  /**
   * Tries until a server executes it or refuses it for good, it may have been executed, or its time is over. `once`: it is several
   * commands, of which some may have run when a server refuses one.
   */
  #route<A>(
    slot: number | undefined,
    send: Send<A>,
    expires: number,
    once: boolean,
    first: { readonly reason: Reason; readonly node: Node } | undefined
  ): Effect.Effect<A, Reason> {
    return Effect.gen({ self: this }, function* () {
      let last: Reason = first?.reason ?? this.#reason
      let asking = first === undefined ? undefined : yield* this.#learn(first.reason, first.node, slot)
      if (once && last._tag === "Refused") return yield* new Disconnected({ ambiguous: true, cause: last })
      while (true) {
        const left = expires - this.#now()
        if (left <= 0) return yield* Effect.fail(last)
        const address = asking ?? this.#masterOf(slot)
        if (address === undefined) {
          yield* Effect.timeoutOption(this.refresh, left)
          if (this.#masterOf(slot) === undefined) {
            last = this.#reason
            if (last.permanent) return yield* Effect.fail(last)
            yield* Effect.sleep(pauseMillis)
          }
          continue
        }
        const node = this.#nodeAt(address)
        if (!node.connection.usable) {
          asking = undefined
          yield* this.#connected(node, Math.min(left, connectMillis))
          last = node.connection.reason
          continue
        }
        const result = yield* Effect.result(send(node.connection, asking === undefined ? undefined : askFirst, left))
        if (Result.isSuccess(result)) return result.success
        last = result.failure
        if (!mayGoOn(last)) return yield* Effect.fail(last)
        asking = yield* this.#learn(last, node, slot)
        if (once && last._tag === "Refused") return yield* new Disconnected({ ambiguous: true, cause: last })
        // Too few replicas is the answer of the right server, and not the one to wait for.
        if (last._tag === "Refused" && last.code === "NOREPLICAS" && this.#masterOf(slot) === address) {
          return yield* Effect.fail(last)
        }
      }
    })
  }

  /** What a refusal says about the slots; returns the address to ask for this command only, and pauses if there is nothing else to do. */
  readonly #learn = Effect.fnUntraced(
    { self: this },
    function* (
      this: Cluster,
      reason: Reason,
      node: Node,
      slot: number | undefined
    ): Effect.fn.Return<string | undefined> {
      if (reason._tag !== "Refused") return undefined
      const redirection = redirectionOf(reason.detail, node.place)
      if (redirection?.kind === "asking") return this.#known(redirection.place)
      if (redirection?.kind === "moved") {
        const isNews = this.#slots.move(redirection.slot, redirection.place)
        if (isNews) this.#moved()
        this.#fork(this.refresh)
        if (isNews) return undefined
      } else if (reason.code === "NOREPLICAS") {
        yield* this.refresh
        return undefined
      } else if (reason.code !== "TRYAGAIN") {
        this.#fork(this.refresh)
      }
      // Keyless commands have other servers to go to, and a slot that moves none.
      if (slot === undefined) this.#turn++
      yield* Effect.sleep(pauseMillis)
      return undefined
    }
  )

  /** Waits for the connection, or for another server to have the slots, and asks for them if that takes long. */
  readonly #connected = Effect.fnUntraced(
    { self: this },
    function* (this: Cluster, { connection }: Node, millis: number): Effect.fn.Return<void, Reason> {
      const moved = Effect.callback<void>((resume) => {
        const done = () => resume(Effect.void)
        this.#waiting.add(done)
        return Effect.sync(() => this.#waiting.delete(done))
      })
      const waited = yield* Effect.timeoutOption(Effect.raceFirst(connection.ready, moved), millis)
      if (Option.isNone(waited)) yield* Effect.timeoutOption(this.refresh, searchMillis)
    }
  )

  // --- servers ---------------------------------------------------------------------------------------------------

  #now(): number {
    return Number(this.#clock.monotonicTimeNanosUnsafe()) / 1e6
  }

  /** Any of them for a command without a key: one that is connected, if there is one. */
  #masterOf(slot: number | undefined): string | undefined {
    if (slot !== undefined) return this.#slots.masterOf(slot)
    const masters = [...this.#slots.masters]
    const from = masters.length === 0 ? 0 : this.#turn % masters.length
    const inTurn = [...masters.slice(from), ...masters.slice(0, from)]
    return inTurn.find((address) => this.#nodes.get(address)?.connection.usable) ?? inTurn[0]
  }

  #known(place: Address.HostPort): string {
    const address = Address.shown(place)
    if (!this.#nodes.has(address)) this.#open(address, place)
    return address
  }

  #nodeAt(address: string): Node {
    return this.#nodes.get(address) ?? this.#open(address, this.#slots.places.get(address) ?? placeOf(address))
  }

  #open(address: string, place: Address.HostPort): Node {
    const { serverAt, shared } = this.#options
    const scope = Scope.forkUnsafe(this.#scope)
    const connection = new ServerConnection(
      shared,
      {
        role: `commands:${address}`,
        dedicated: false,
        server: serverAt(place),
        beside: () => undefined,
        clustered: true
      },
      this.#clock
    )
    const node: Node = { place, connection, scope }
    this.#nodes.set(address, node)
    this.#fork(
      Scope.provide(
        Effect.all([
          connection.open,
          watch(connection, shared),
          connection.each(() => {
            for (const { listener, slot } of this.#watchers) if (this.#masterOf(slot) === address) listener()
          })
        ]),
        scope
      )
    )
    return node
  }

  /** Asks for the slots: one caller at a time for all, and not more often than every 20 ms. */
  readonly refresh: Effect.Effect<void> = Effect.suspend(() => {
    if (this.#refreshing !== undefined) return Deferred.await(this.#refreshing)
    const done = Deferred.makeUnsafe<void>()
    this.#refreshing = done
    const over = Effect.sync(() => {
      this.#refreshedAt = this.#now()
      this.#refreshing = undefined
      Deferred.doneUnsafe(done, Exit.void)
    })
    this.#fork(Effect.ensuring(this.#refresh, over))
    return Deferred.await(done)
  })

  readonly #refresh: Effect.Effect<void> = Effect.gen({ self: this }, function* () {
    const rest = pauseMillis - (this.#now() - this.#refreshedAt)
    if (rest > 0) yield* Effect.sleep(rest)
    const connected = [...this.#nodes.values()].filter(({ connection }) => connection.usable)
    const from = connected.length === 0 ? 0 : this.#turn++ % connected.length
    for (const node of [...connected.slice(from), ...connected.slice(0, from)]) {
      if (Result.isSuccess(yield* Effect.result(Effect.timeout(this.#ask(node), askMillis)))) return
    }
    for (const place of [...this.#options.nodes, ...this.#slots.places.values()]) this.#known(place)
    const answers = [...this.#nodes.values()].map((node) => Effect.andThen(node.connection.ready, this.#ask(node)))
    const found = yield* Effect.result(Effect.timeoutOption(Effect.raceAll(answers), searchMillis))
    if (Result.isFailure(found)) this.#reason = found.failure
    else if (Option.isNone(found.success)) {
      this.#reason = [...this.#nodes.values()].map(({ connection }) => connection.reason)[0] ?? this.#reason
    }
  })

  /** Asks one server, which is connected. */
  readonly #ask = Effect.fnUntraced(
    { self: this },
    function* (this: Cluster, { connection, place }: Node): Effect.fn.Return<void, Reason> {
      const reply = yield* connection
        .runNow("cluster|slots", [], (client) => client.cluster("SLOTS"))
        .pipe(
          Effect.mapError((reason) =>
            reason._tag === "Rejected"
              ? new UnsupportedServer({ found: noCluster(place), needed: "a node of a cluster" })
              : reason
          )
        )
      const rows = rowsOf(reply, place)
      if (rows.length === 0) return yield* new Refused({ code: "CLUSTERDOWN", detail: "CLUSTERDOWN no slot is served" })
      if (this.#slots.replace(rows)) this.#moved()
      this.#prune()
    }
  )

  /** Some slots have other servers now. */
  #moved(): void {
    for (const follower of this.#followers) {
      const master = this.#masterOf(follower.slot)
      if (master !== undefined && follower.slot !== undefined && follower.connection.address !== master) {
        follower.connection.retire()
      }
    }
    for (const { listener, slot } of this.#watchers) {
      const address = this.#masterOf(slot)
      if (address !== undefined && this.#nodes.get(address)?.connection.usable === true) listener()
    }
    for (const listener of this.#moveListeners) listener()
    // Those that begin to wait because of it are not among them.
    const waiting = Array.from(this.#waiting)
    for (const resume of waiting) resume()
  }

  /** Leaves the servers that have no slot, once they have replied to everything. */
  #prune(): void {
    const { masters } = this.#slots
    for (const [address, { connection, scope }] of this.#nodes) {
      if (masters.has(address)) continue
      this.#nodes.delete(address)
      this.#fork(Effect.andThen(connection.drained, Scope.close(scope, Exit.void)))
    }
  }

  readonly ready: Effect.Effect<void, Reason> = Effect.gen({ self: this }, function* () {
    while (true) {
      yield* this.refresh
      if (this.#slots.masters.size > 0) break
      if (this.#reason.permanent) return yield* Effect.fail(this.#reason)
      yield* Effect.sleep(connectMillis)
    }
    for (const address of this.#slots.masters) this.#nodeAt(address)
  })

  readonly masters: Effect.Effect<ReadonlyArray<Connection>, Reason> = Effect.gen({ self: this }, function* () {
    yield* this.refresh
    const masters = [...this.#slots.masters]
    if (masters.length === 0) return yield* Effect.fail(this.#reason)
    return masters.map((address) => this.#nodeAt(address).connection)
  })

  readonly eachServer: Commands["eachServer"] = (keys, listener) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        const watcher: Watcher = { slot: slotOf(keys), listener }
        this.#watchers.add(watcher)
        const address = this.#masterOf(watcher.slot)
        if (address !== undefined && this.#nodes.get(address)?.connection.usable === true) listener()
        return watcher
      }),
      (watcher) => Effect.sync(() => this.#watchers.delete(watcher))
    )

  // --- connections of their own ----------------------------------------------------------------------------------

  readonly serverOf = (keys: string | Keys): string => this.#masterOf(slotOf(keys)) ?? ""

  readonly onMove: Servers["onMove"] = (listener) =>
    Effect.acquireRelease(
      Effect.sync(() => void this.#moveListeners.add(listener)),
      () => Effect.sync(() => this.#moveListeners.delete(listener))
    )

  readonly dedicatedTo: Servers["dedicatedTo"] = (role, address) => {
    const server = this.#options.serverAt(this.#slots.places.get(address) ?? placeOf(address))
    return makeConnection(this.#options.shared, {
      role,
      dedicated: true,
      server,
      beside: this.#beside,
      clustered: true
    })
  }

  readonly #beside = (address: string): Commands | undefined => this.#nodes.get(address)?.connection

  readonly dedicated: Servers["dedicated"] = Effect.fnUntraced(
    { self: this },
    function* (this: Cluster, role: string, keys: string | Keys) {
      const follower: { slot: number | undefined } = { slot: slotOf(keys) }
      const server = Effect.suspend(() => {
        const address = this.#masterOf(follower.slot)
        return address === undefined
          ? Effect.fail(this.#reason)
          : this.#options.serverAt(this.#slots.places.get(address) ?? placeOf(address))
      })
      const connection = yield* makeConnection(this.#options.shared, {
        role,
        dedicated: true,
        server: Effect.andThen(this.#fresh, server),
        beside: this.#beside,
        clustered: true
      })
      const following: Follower = Object.assign(follower, { connection })
      yield* Effect.acquireRelease(
        Effect.sync(() => this.#followers.add(following)),
        () => Effect.sync(() => this.#followers.delete(following))
      )
      const { clientId, each, eachServer, ready, unblock } = connection
      const run: Connection["run"] = (command, keys, f, options) =>
        this.#follow(following, connection.run(command, keys, f, options), options)
      return {
        role,
        get address() {
          return connection.address
        },
        clientId,
        each,
        eachServer,
        ready,
        unblock,
        run,
        eval: (script, keys, args, options) =>
          run(script.name, keys, (client) => evaluate(client, script, keys, args, options?.buffers === true), options)
      } satisfies Connection
    }
  )

  /** What is known of the slots is not older than the last attempt to connect. */
  readonly #fresh: Effect.Effect<void> = Effect.suspend(() =>
    this.#now() - this.#refreshedAt < pauseMillis ? Effect.void : this.refresh
  )

  /** Runs `sent` again where the slot is, as long as it is not executed. A slot on its way is waited for at its source. */
  #follow<A>(
    follower: Follower,
    sent: Effect.Effect<A, Reason>,
    options: RunOptions | undefined
  ): Effect.Effect<A, Reason> {
    return Effect.gen({ self: this }, function* () {
      const expires = this.#now() + (options?.deadline === undefined ? defaultMillis : millisOf(options.deadline))
      while (true) {
        const result = yield* Effect.result(sent)
        if (Result.isSuccess(result)) return result.success
        const reason = result.failure
        if (reason._tag !== "Refused" || !passing.has(reason.code) || this.#now() >= expires) {
          return yield* Effect.fail(reason)
        }
        const redirection = redirectionOf(reason.detail, placeOf(follower.connection.address))
        if (redirection?.kind === "moved") {
          follower.slot = redirection.slot
          if (this.#slots.move(redirection.slot, redirection.place)) this.#moved()
          follower.connection.retire()
        } else {
          if (reason.code !== "TRYAGAIN" && reason.code !== "ASK") this.#fork(this.refresh)
          yield* Effect.sleep(pauseMillis)
        }
      }
    })
  }
}

const millisOf = (deadline: Duration.Input): number => Duration.toMillis(Duration.fromInputUnsafe(deadline))

/** It was not executed. */
const mayGoOn = (reason: Reason): boolean =>
  reason._tag === "Disconnected" ? !reason.ambiguous : reason._tag === "Refused" && passing.has(reason.code)

/** For one command that the slot's next server would send back otherwise. */
const askFirst = (client: Redis): void => {
  // If it fails, so does the command behind it.
  client.asking().catch(() => {})
}

const noCluster = (place: Address.HostPort): string => `${Address.shown(place)}, which is not part of a cluster`

/** The reverse of `shown`. */
const placeOf = (address: string): Address.HostPort => {
  const colon = address.lastIndexOf(":")
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(address.slice(colon + 1)) }
}
