/**
 * A connection that restores itself. Every command on it settles within its deadline, whatever the network and
 * the server do, and no command is ever sent twice.
 *
 * ioredis can reconnect and resend too, but resending runs writes twice and loses what a read had taken; so each
 * client here lives for one socket, and a new one is made when that is gone.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { Redis, type RedisOptions } from "ioredis"
import { Disconnected, type Reason, Refused, Rejected } from "../../../Transport.ts"
import { evaluate } from "./Evaluation.ts"
import { type Ask, helloOf, inspect, mismatch, tlsFailure, unasked, untold } from "./Handshake.ts"
import type { Watched } from "./ReplicationHistory.ts"
import type { Script } from "./Script.ts"
import { classify, isForeign } from "./ServerError.ts"
import type { Ticker } from "./Ticker.ts"

/** Sends commands to the server that has their keys. */
export interface Commands {
  /**
   * Runs `f` on the live client: one command, one pipeline or one transaction, without waiting in between. `keys` are
   * the key that it is about, or all of them: errors name them, and with several servers they determine which one is
   * asked. `[]` is for a command without a key, which any server may run.
   *
   * It waits for a connection and for the reply, together at most `deadline` (5 seconds by default, enforced at most
   * 100 ms late). If the deadline passes while the command is in flight, the connection is destroyed with everything
   * on it, for all who share it, and a new one is made: what has not left this process by then never will. So give a
   * command on the shared connection no shorter deadline than its slowest neighbour needs.
   *
   * Fails with `Disconnected` if there was no connection or no reply. `ambiguous` is true if the command had been
   * handed to a socket: then it may have run, or may still run on a server that is only stopped. The library never
   * sends a command again by itself.
   *
   * Interrupting it takes back a command that was not sent. One in flight on the shared connection is left to finish;
   * a dedicated connection is destroyed, and the server may have executed the command nevertheless: treat an
   * interrupted blocking read as ambiguous.
   */
  readonly run: <A>(
    command: string,
    keys: string | Keys,
    f: (client: Redis) => Promise<A>,
    options?: RunOptions
  ) => Effect.Effect<A, Reason>
  /**
   * Runs a script by its hash, and with its text if the server does not know it (any more). `buffers` keeps the strings in
   * the reply as bytes. Fails and waits like `run`.
   */
  readonly eval: (
    script: Script,
    keys: Keys,
    args: ReadonlyArray<string | Uint8Array | number>,
    options?: EvalOptions
  ) => Effect.Effect<unknown, Reason>
  /** Waits for a connection as long as it takes. Fails only on what waiting will not change: a wrong password. */
  readonly ready: Effect.Effect<void, Reason>
  /**
   * Calls `listener` when these keys have a server that is connected, and again on every new connection to it and whenever
   * another server gets them, until the scope closes. It must not throw.
   */
  readonly eachServer: (keys: string | Keys, listener: () => void) => Effect.Effect<void, never, Scope.Scope>
}

/** One connection to a server, or the wait for the next one. */
export interface Connection extends Commands {
  readonly role: string
  /** Where its server is, in words, without secrets; of the last one while disconnected, "" before the first. */
  readonly address: string
  /** The server's id of the current connection; undefined while disconnected. */
  readonly clientId: Effect.Effect<number | undefined>
  /** Ends what blocks on this connection, from another one to the same server; it returns as if its time were over. */
  readonly unblock: Effect.Effect<void>
  /**
   * Calls `setup` with the current client, if there is one, and with each later one before any waiting command is sent
   * on it, until the scope closes. For subscriptions; `setup` must not throw.
   */
  readonly each: (setup: (client: Redis) => void) => Effect.Effect<void, never, Scope.Scope>
}

/** Keys of one hash tag. */
export type Keys = ReadonlyArray<string | Buffer>

/** A connection of its own for a role; `keys` as for `run`. */
export type Dedicated = (role: string, keys: string | Keys) => Effect.Effect<Connection, never, Scope.Scope>

export interface RunOptions {
  /** For the connection and the reply together; 5 seconds by default. */
  readonly deadline?: Duration.Input | undefined
  /** It sends several commands: when a server refuses one of them, the others may have run. */
  readonly several?: boolean | undefined
}

export interface EvalOptions extends RunOptions {
  readonly buffers?: boolean | undefined
  /** Sends more on the same connection, right behind the script, and is waited for. */
  readonly behind?: ((client: Redis) => Promise<void>) | undefined
}

/** The same as the events of the same name in Lifecycle. */
export type ConnectionEvent =
  | { readonly _tag: "Disconnected"; readonly role: string; readonly cause: string }
  | { readonly _tag: "Reconnected"; readonly role: string; readonly afterMillis: number }
  | {
      readonly _tag: "FailedOver"
      readonly role: string
      readonly server: string
      readonly mayBeLost: boolean
      readonly since: number | undefined
    }

/** The types of replies depend on their mapping, so it is named. */
export type ClientOptions = RedisOptions & { readonly replyMapping: "legacy" }

/** Where a connection leads. */
export interface Server {
  readonly options: ClientOptions
  /** In words, without secrets. */
  readonly address: string
  /** It is refused while it does not call itself a master. */
  readonly master?: boolean | undefined
}

/** Shared by the connections of one service. */
export interface Shared {
  /** Precedes the role in the name of each connection. */
  readonly connectionName: string
  readonly incarnation: string
  readonly reconnect: Schedule.Schedule<unknown, Reason>
  readonly ticker: Ticker
  /** Of the servers that this process has been connected to. */
  readonly histories: Set<Watched>
  readonly emit: (event: ConnectionEvent) => void
}

/** How long connecting may take, including the first replies. */
const connectTimeout = Duration.seconds(5)
/** How often a server that is loading its data is asked whether it has finished. */
const loadingPoll = Duration.millis(100)
/** A server that accepts connections only to drop them is not tried more often than this. */
const pauseAfterLoss = Duration.millis(50)
/** How long the result of an attempt to connect counts without another attempt. */
const staleMillis = 250
/** Closing waits no longer for the operating system to report the end of the socket. */
const closeTimeout = Duration.millis(500)

export interface ConnectionOptions {
  readonly role: string
  readonly dedicated: boolean
  /** Run before every attempt: a password may have changed, or another server may have taken over. */
  readonly server: Effect.Effect<Server, Reason>
  /** The shared connection to the server at an address. */
  readonly beside: (address: string) => Commands | undefined
  /** Every server is a node of a cluster. */
  readonly clustered?: boolean | undefined
}

/** Makes the connection and restores it until the scope closes. Returns at once. */
export const make = Effect.fnUntraced(function* (
  shared: Shared,
  options: ConnectionOptions
): Effect.fn.Return<ServerConnection, never, Scope.Scope> {
  const connection = new ServerConnection(shared, options, yield* Clock.Clock)
  yield* connection.open
  return connection
})

/** A command from being requested to being answered. */
interface Call {
  readonly command: string
  readonly keys: string | Keys
  /** The tick at which it is given up. */
  readonly expires: number
  readonly f: (client: Redis) => Promise<unknown>
  readonly resume: (effect: Effect.Effect<unknown, Reason>) => void
  /** Whether it waits for a connection. */
  readonly waits: boolean
}

/** A connection with the internals that its service and its ticker need. */
export class ServerConnection implements Connection {
  /** The live client: it has received a reply, is not lost, and not about to be replaced. */
  #client: Redis | undefined
  /** Completed when `#client` is lost. */
  #lost: Deferred.Deferred<unknown> | undefined
  /** The live client only serves what is in flight: its server has turned out to be the wrong one. */
  #retiring = false
  #clientId: number | undefined
  #closed = false
  /** Why there is no connection at this moment. */
  #reason: Reason = new Disconnected({ ambiguous: false, cause: new Error("not connected yet") })
  /** When the last attempt to connect ended. */
  #attemptedAt = 0n
  /** Open: the next attempt is made without waiting. */
  readonly #impatient = Latch.makeUnsafe(false)
  /** How many commands were answered on whose effect a caller may rely. */
  answered = 0
  /** Where the current attempt leads, or the connection that it made. */
  #towards: string | undefined
  /** Open: the attempt leads to the wrong server. */
  readonly #elsewhere = Latch.makeUnsafe(false)
  /** How often in a row the connection was given up because the server is read-only. */
  #readOnlyTimes = 0
  readonly #waiting = new Set<Call>()
  readonly #inFlight = new Set<Call>()
  readonly #readyWaiters = new Set<(effect: Effect.Effect<void, Reason>) => void>()
  readonly #setups = new Set<(client: Redis) => void>()

  readonly role: string
  /** Hidden from code that prints a connection: the options contain the password. */
  readonly #shared: Shared
  readonly #options: ConnectionOptions
  /** Of the server of the current connection, or of the last one. */
  #address = ""
  /** The server has refused a write because it is a replica, and was not seen as a master since. */
  readOnly = false
  readonly #clock: Clock.Clock

  constructor(shared: Shared, options: ConnectionOptions, clock: Clock.Clock) {
    this.role = options.role
    this.#shared = shared
    this.#options = options
    this.#clock = clock
  }

  /** Connects in the background and stays connected until the scope closes. */
  readonly open: Effect.Effect<void, never, Scope.Scope> = Effect.suspend(() =>
    Effect.andThen(
      Effect.acquireRelease(
        Effect.sync(() => this.#shared.ticker.add(this)),
        () => this.close
      ),
      Effect.forkScoped(this.keepConnected)
    )
  )

  readonly run = <A>(
    command: string,
    keys: string | Keys,
    f: (client: Redis) => Promise<A>,
    options?: RunOptions
  ): Effect.Effect<A, Reason> => this.#call(command, keys, f, options, true)

  /** The same, but fails at once while there is no connection. */
  readonly runNow = <A>(
    command: string,
    keys: string | Keys,
    f: (client: Redis) => Promise<A>,
    options?: RunOptions
  ): Effect.Effect<A, Reason> => this.#call(command, keys, f, options, false)

  #call<A>(
    command: string,
    keys: string | Keys,
    f: (client: Redis) => Promise<A>,
    options: RunOptions | undefined,
    waits: boolean
  ): Effect.Effect<A, Reason> {
    return Effect.callback<A, Reason>((resume) => {
      const call: Call = {
        command,
        keys,
        expires: this.#shared.ticker.after(options?.deadline),
        f,
        // `f` makes what `resume` takes; the sets in between hold calls of every type.
        resume: resume as (effect: Effect.Effect<unknown, Reason>) => void,
        waits
      }
      this.#start(call)
      return Effect.sync(() => this.#abandon(call))
    })
  }

  readonly eval = (
    script: Script,
    keys: Keys,
    args: ReadonlyArray<string | Uint8Array | number>,
    options?: EvalOptions
  ): Effect.Effect<unknown, Reason> =>
    this.run(
      script.name,
      keys,
      (client) => evaluate(client, script, keys, args, options?.buffers === true, undefined, options?.behind),
      options
    )

  readonly clientId: Effect.Effect<number | undefined> = Effect.sync(() => this.#clientId)

  readonly unblock: Effect.Effect<void> = Effect.suspend(() => {
    const id = this.#clientId
    const beside = this.#options.beside(this.#address)
    if (id === undefined || beside === undefined) return Effect.void
    return beside.run("client|unblock", [], (client) => client.client("UNBLOCK", id), { deadline: 1000 })
  }).pipe(Effect.ignore)

  readonly ready: Effect.Effect<void, Reason> = Effect.callback((resume) => {
    if (this.#closed) return resume(Effect.fail(this.#reason))
    if (this.#usable() !== undefined) return resume(Effect.void)
    if (this.#reason.permanent && !this.#askAgain()) return resume(Effect.fail(this.#reason))
    this.#readyWaiters.add(resume)
    return Effect.sync(() => {
      this.#readyWaiters.delete(resume)
    })
  })

  readonly each = (setup: (client: Redis) => void): Effect.Effect<void, never, Scope.Scope> =>
    Effect.acquireRelease(
      Effect.sync(() => {
        this.#setups.add(setup)
        const client = this.#usable()
        if (client !== undefined) setup(client)
      }),
      () => Effect.sync(() => this.#setups.delete(setup))
    )

  readonly eachServer: Connection["eachServer"] = (_, listener) => this.each(() => listener())

  /** Why there is no connection, while there is none. */
  get reason(): Reason {
    return this.#reason
  }

  /** The name in CLIENT LIST. */
  get name(): string {
    return `${this.#shared.connectionName}:${this.role}:${this.#shared.incarnation}`.replace(/[^!-~]/g, "_")
  }

  get address(): string {
    return this.#address
  }

  /** Whether a command that is handed to it now is sent now. */
  get usable(): boolean {
    return this.#usable() !== undefined
  }

  get dedicated(): boolean {
    return this.#options.dedicated
  }

  get clustered(): boolean {
    return this.#options.clustered === true
  }

  /** The server at `address` has taken over. What is in flight to another one may have run there. */
  moveTo(address: string): void {
    if (this.#towards === undefined || this.#towards === address) return
    this.#towards = undefined
    this.#elsewhere.openUnsafe()
    this.#impatient.openUnsafe()
    if (this.#client !== undefined) this.#lose(this.#client, moved)
  }

  /** Another server is the right one now: nothing more is sent on this connection, and the next is made once all replies are in. */
  retire(): void {
    if (this.#client === undefined) return
    this.#retiring = true
    this.#retire(this.#client)
  }

  /** Waits until nothing is in flight, and nothing more is sent. To be followed by the end of its scope. */
  readonly drained: Effect.Effect<void> = Effect.suspend(() => {
    const lost = this.#lost
    if (this.#client === undefined || lost === undefined) return Effect.void
    this.retire()
    return Effect.asVoid(Deferred.await(lost))
  })

  get busy(): boolean {
    return this.#waiting.size > 0 || this.#inFlight.size > 0
  }

  /** The client, if a command handed to it now is written to its socket now. */
  #usable(): Redis | undefined {
    const client = this.#client
    if (client === undefined || this.#retiring || client.status !== "ready" || !client.stream.writable) return undefined
    return client
  }

  #start(call: Call): void {
    const client = this.#usable()
    if (client !== undefined) {
      this.#send(client, call)
    } else if (this.#closed || (this.#reason.permanent && !this.#askAgain())) {
      call.resume(Effect.fail(this.#reason))
    } else if (!call.waits) {
      call.resume(Effect.fail(unsent))
    } else {
      this.#waiting.add(call)
      this.#shared.ticker.wake()
    }
  }

  /** Whether the last attempt is so old that its result may have changed: then another is made now. */
  #askAgain(): boolean {
    const sinceMillis = Number(this.#clock.monotonicTimeNanosUnsafe() - this.#attemptedAt) / 1e6
    if (sinceMillis < staleMillis) return false
    this.#impatient.openUnsafe()
    return true
  }

  #send(client: Redis, call: Call): void {
    let answer: Promise<unknown>
    try {
      answer = call.f(client)
    } catch (defect) {
      return call.resume(Effect.die(defect))
    }
    this.#inFlight.add(call)
    this.#shared.ticker.wake()
    answer.then(
      (value) => {
        if (this.#inFlight.delete(call)) {
          if (accepts(call.command)) this.answered++
          call.resume(Effect.succeed(value))
          if (this.#retiring) this.#retire(client)
        }
      },
      (error) => {
        if (this.#inFlight.delete(call)) {
          const reason = afterSending(classify(error, call.command, named(call.keys)))
          // A replica has taken the place of its master: the address has to be resolved again.
          if (reason._tag === "Refused" && reason.code === "READONLY" && this.#client === client) {
            this.#retiring = true
            this.readOnly = true
          }
          call.resume(Effect.fail(reason))
          if (this.#retiring) this.#retire(client)
        }
      }
    )
  }

  #retire(client: Redis): void {
    if (this.#inFlight.size === 0)
      this.#lose(client, new Error(this.readOnly ? "the server is read-only" : "another server has the keys"))
  }

  /** Called when the calling fiber is interrupted: the reply is no longer awaited. */
  #abandon(call: Call): void {
    if (this.#waiting.delete(call)) return
    if (this.dedicated && this.#inFlight.has(call) && this.#client !== undefined) {
      this.#lose(this.#client, new Error(`${call.command} was interrupted`))
    }
  }

  /** Fails the commands whose deadlines have passed. */
  expire(): void {
    const now = this.#shared.ticker.now
    for (const call of this.#waiting) {
      if (call.expires > now) continue
      this.#waiting.delete(call)
      // It waited for a socket to close that already accepts nothing.
      if (this.#client !== undefined && !this.#retiring)
        this.#lose(this.#client, new Error("the connection was closed"))
      call.resume(Effect.fail(this.#reason))
    }
    for (const call of this.#inFlight) {
      if (call.expires > now) continue
      if (this.#client !== undefined) {
        this.#lose(this.#client, new Error(`no answer to ${call.command} within its deadline`))
      }
      return
    }
  }

  /** Ends a client and everything on it. Commands in flight may have run. */
  #lose(client: Redis, cause: unknown): void {
    if (this.#client !== client) return
    const lost = this.#lost
    const calls = [...this.#inFlight]
    this.#client = undefined
    this.#clientId = undefined
    this.#retiring = false
    this.#inFlight.clear()
    if (!this.#closed) this.#reason = new Disconnected({ ambiguous: false, cause })
    destroy(client)
    if (lost !== undefined) Deferred.doneUnsafe(lost, Exit.succeed(cause))
    for (const call of calls) call.resume(Effect.fail(new Disconnected({ ambiguous: true, cause })))
  }

  /** Connects, waits for the end of the connection, and connects again. */
  readonly keepConnected: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    let lostAt: bigint | undefined
    while (true) {
      lostAt = yield* this.#connectOnce(lostAt).pipe(
        // A listener or a setup that throws must not end all reconnecting.
        Effect.catchDefect((defect) => {
          if (this.#client !== undefined) this.#lose(this.#client, defect)
          return Effect.as(Effect.logError(`a callback of the connection ${this.role} threw`, defect), lostAt)
        })
      )
      yield* Effect.sleep(Duration.times(pauseAfterLoss, Math.min(40, 2 ** this.#readOnlyTimes)))
    }
  })

  /** Lives through one connection and returns the time of its end. `lostAt` is the end of the previous one. */
  readonly #connectOnce = Effect.fnUntraced(function* (this: ServerConnection, lostAt: bigint | undefined) {
    const lost = yield* this.#connectInTheEnd()
    if (lostAt !== undefined) {
      const afterMillis = Number(this.#clock.monotonicTimeNanosUnsafe() - lostAt) / 1e6
      this.#shared.emit({ _tag: "Reconnected", role: this.role, afterMillis: Math.round(afterMillis) })
    }
    const cause = yield* Deferred.await(lost)
    this.#readOnlyTimes = this.readOnly ? this.#readOnlyTimes + 1 : 0
    const now = this.#clock.monotonicTimeNanosUnsafe()
    this.#shared.emit({ _tag: "Disconnected", role: this.role, cause: describe(cause) })
    return now
  })

  /** Makes `client` the live one. The result is completed with the cause of its end. */
  adopt(client: Connected): Deferred.Deferred<unknown> {
    const lost = Deferred.makeUnsafe<unknown>()
    this.#client = client.redis
    this.#clientId = client.id
    this.#address = client.address
    this.#lost = lost
    // For callers in the moment between the end of the socket and the news of it.
    this.#reason = new Disconnected({ ambiguous: false, cause: new Error("the connection was closed") })
    const onClose = () => this.#lose(client.redis, client.lastError() ?? new Error("the connection was closed"))
    client.redis.once("close", onClose)
    if (client.redis.status !== "ready") {
      onClose()
      return lost
    }
    this.readOnly = false
    for (const setup of this.#setups) setup(client.redis)
    const readyWaiters = Array.from(this.#readyWaiters)
    const waiting = Array.from(this.#waiting)
    this.#readyWaiters.clear()
    for (const resume of readyWaiters) resume(Effect.void)
    for (const call of waiting) {
      // Earlier ones may have interrupted it, or lost the connection again, which puts it back.
      if (this.#waiting.delete(call)) this.#start(call)
    }
    return lost
  }

  /** One attempt. Callers get its failure until the next attempt. */
  readonly #connect: Effect.Effect<Deferred.Deferred<unknown>, Reason> = Effect.suspend(
    () => this.#options.server
  ).pipe(
    Effect.flatMap((server) => {
      this.#towards = server.address
      this.#elsewhere.closeUnsafe()
      return Effect.raceFirst(connect(this, server), this.#moved)
    }),
    Effect.tapError((reason) => Effect.sync(() => this.unreachable(reason)))
  )

  readonly #moved = Effect.andThen(
    this.#elsewhere.await,
    Effect.fail(new Disconnected({ ambiguous: false, cause: moved }))
  )

  /** Tries until there is a connection: at the policy's pace, and at once when a caller needs a result that may have changed. */
  readonly #connectInTheEnd = Effect.fnUntraced(function* (this: ServerConnection) {
    const step = yield* Schedule.toStep(this.#shared.reconnect)
    while (true) {
      const attempt = yield* Effect.result(this.#connect)
      if (Result.isSuccess(attempt)) return attempt.success
      const [, pause] = yield* Effect.orDie(step(this.#clock.currentTimeMillisUnsafe(), attempt.failure))
      this.#impatient.closeUnsafe()
      yield* Effect.raceFirst(Effect.sleep(pause), this.#impatient.await)
    }
  })

  unreachable(reason: Reason): void {
    this.#reason = reason
    this.#attemptedAt = this.#clock.monotonicTimeNanosUnsafe()
    if (!reason.permanent) return
    this.#failAll(reason)
  }

  #failAll(reason: Reason): void {
    const waiters = [...this.#readyWaiters]
    const calls = [...this.#waiting]
    this.#readyWaiters.clear()
    this.#waiting.clear()
    for (const resume of waiters) resume(Effect.fail(reason))
    for (const call of calls) call.resume(Effect.fail(reason))
  }

  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    const client = this.#client
    this.#closed = true
    this.#reason = new Disconnected({ ambiguous: false, cause: new Error("the scope of the connection is closed") })
    this.#shared.ticker.delete(this)
    this.#failAll(this.#reason)
    if (client === undefined) return Effect.void
    this.#lose(client, new Error("the scope of the connection is closed"))
    return end(client)
  })
}

interface Connected {
  readonly redis: Redis
  readonly address: string
  readonly id: number | undefined
  readonly lastError: () => unknown
}

/** Makes a client and hands it over once the server has replied on it. Nothing remains of a failed attempt. */
const connect = Effect.fnUntraced(function* (
  connection: ServerConnection,
  { address, master = connection.readOnly, options }: Server
): Effect.fn.Return<Deferred.Deferred<unknown>, Reason> {
  const redis = new Redis({ ...options, connectionName: connection.name })
  let lastError: unknown
  redis.on("error", (error) => {
    lastError = error
  })
  /** ioredis rejects with "Connection is closed." and reveals the true cause only by an event. */
  const ask: Ask = (command, f) =>
    Effect.tryPromise({
      try: f,
      catch: (error) => {
        const failure = tlsFailure(lastError, address)
        if (failure !== undefined) return failure
        if (isForeign(lastError)) {
          return new Rejected({
            command,
            detail: `what listens at ${address} does not speak the Redis protocol`
          })
        }
        const reason = classify(lastError ?? error, command)
        return reason._tag === "Disconnected" && reason.ambiguous
          ? new Disconnected({ ambiguous: false, cause: reason.cause })
          : reason
      }
    }).pipe(
      Effect.timeoutOrElse({
        duration: connectTimeout,
        orElse: () =>
          Effect.fail(
            new Disconnected({
              ambiguous: false,
              cause: new Error(`${address} did not answer within ${Duration.toSeconds(connectTimeout)} seconds`)
            })
          )
      })
    )
  const secure = options.tls !== undefined
  const toldBy = (probe: Effect.Effect<Reason | undefined>): Effect.Effect<never, Reason> =>
    Effect.flatMap(probe, (reason) => (reason === undefined ? Effect.never : Effect.fail(reason)))
  const otherwise = toldBy(mismatch(options, secure, address))
  return yield* Effect.gen(function* () {
    yield* ask("connect", () => redis.connect()).pipe(
      // A server that waits for the rest of a command never answers a TLS handshake.
      Effect.raceFirst(secure ? Effect.delay(otherwise, suspicious) : Effect.never),
      // A server at its client limit hangs up, as does one that expects a handshake, or it says something that is not Redis.
      Effect.tapError((reason) =>
        !secure && (reason._tag === "Rejected" || (reason._tag === "Disconnected" && !isSystem(reason.cause)))
          ? Effect.raceAllFirst([otherwise, toldBy(unasked(options)), Effect.sleep(suspicious)])
          : Effect.void
      )
    )
    // ioredis reports a missing or forbidden database by an event, and continues in database 0.
    if (lastError !== undefined) return yield* Effect.fail(classify(lastError, "select"))
    yield* ask("ping", () => redis.ping()).pipe(
      Effect.tapError((reason) =>
        isLoading(reason) ? Effect.sync(() => connection.unreachable(reason)) : Effect.void
      ),
      Effect.retry({ while: isLoading, schedule: pollWhileLoading }),
      // Whatever else the server says to a PING, it answers; what the user may do shows with the commands.
      untold(() => undefined)
    )
    const hello = yield* ask("hello", () => redis.call("HELLO")).pipe(
      Effect.map(helloOf),
      untold(() => helloOf(undefined))
    )
    // It refused a write as a replica, or does not know yet that it is the master.
    if (master && (hello.role === "replica" || hello.role === "slave")) {
      return yield* new Refused({ code: "READONLY", detail: `READONLY ${address} is a replica` })
    }
    if (!connection.dedicated) yield* inspect(redis, hello, ask, connection.clustered)
    const id = hello.id ?? (yield* ask("client|id", () => redis.client("ID")).pipe(untold(() => undefined)))
    return connection.adopt({ redis, address, id, lastError: () => lastError })
  }).pipe(Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : end(redis))))
})

/** A connection that is not made by then is examined more closely. */
const suspicious = Duration.seconds(1)
/** The system has given the reason: the port is closed, or the host cannot be found. */
const isSystem = (cause: unknown): boolean =>
  cause instanceof Error && "syscall" in cause && (cause.syscall === "connect" || cause.syscall === "getaddrinfo")

const isLoading = (reason: Reason): boolean => reason._tag === "Refused" && reason.code === "LOADING"
const pollWhileLoading = Schedule.spaced(loadingPoll)

/** Closes the socket now, in whatever state it is. ioredis rejects what is in flight on it soon after. */
const destroy = (client: Redis): void => {
  if (client.status === "end") return
  client.disconnect()
  // Before the first attempt to connect there is no socket, whatever the type says.
  const stream: typeof client.stream | undefined = client.stream
  stream?.destroy()
}

/** Destroys a client and waits until its socket is gone. */
const end = (client: Redis): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const onEnd = () => resume(Effect.void)
    client.once("end", onEnd)
    destroy(client)
    if (client.status === "end") onEnd()
    return Effect.sync(() => client.off("end", onEnd))
  }).pipe(Effect.timeoutOption(closeTimeout), Effect.asVoid)

/** As named in an error. */
const named = (keys: string | Keys): string | undefined =>
  typeof keys === "string" ? keys : keys.length === 0 ? undefined : keys.join(" or ")

const unsent = new Disconnected({ ambiguous: false, cause: new Error("not connected") })

/** Commands given to a live socket may have run in part, even if the last one found the socket closed. */
const afterSending = (reason: Reason): Reason =>
  reason._tag === "Disconnected" ? new Disconnected({ ambiguous: true, cause: reason.cause }) : reason

/** Whether a caller may rely on what the command has done. An idle process sends only others. */
const accepts = (command: string): boolean => !routine.has(command.slice(command.lastIndexOf("/") + 1))
const routine: ReadonlySet<string> = new Set(["beat", "info", "schedules-due", "take", "trim"])

const moved = new Error("another server has become the master")

const describe = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))
