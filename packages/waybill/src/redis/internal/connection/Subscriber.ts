/**
 * Subscriptions that restore themselves: after a lost connection each one is made again, and its listener is told
 * before it gets the first message after the gap.
 *
 * All subscriptions of one kind in a layer share a connection to each server: a name is subscribed to at the server that has it as
 * a key, because events of keys, and the number of receivers that a publisher is told, are that server's. ioredis can resubscribe
 * too, but does not report it, and it loses messages when several kinds share a connection.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Redis } from "ioredis"
import { Disconnected, type Reason } from "../../../Transport.ts"
import type { Connection } from "./Connection.ts"
import { classify } from "./ServerError.ts"
import type { Servers } from "./Servers.ts"

/** `channel` is a name, `pattern` a glob over names, `shard` a name whose messages stay within its shard of a cluster. */
export type Kind = "channel" | "pattern" | "shard"

/** Called from the socket: its functions must return quickly and not throw. */
export interface Listener {
  /** `channel` is the one published to, also when a pattern was subscribed to; its `bytes` need not be text. */
  readonly message: (payload: Buffer, channel: string, bytes: Buffer) => void
  /** The subscription was lost and has been restored: what was published in between never arrives. */
  readonly interrupted: () => void
  /** The server refuses to restore the subscription; it is asked again every few seconds. */
  readonly refused: (reason: Reason) => void
}

export interface Subscriber {
  /**
   * Listens until the scope closes. Returns once the server has confirmed the subscription: what is published from then on
   * arrives, or `interrupted` is called. Fails if the server refuses, or does not answer within 5 seconds.
   */
  readonly subscribe: (kind: Kind, name: string, listener: Listener) => Effect.Effect<void, Reason, Scope.Scope>
  /** Returns once everything that was published under this name at its server before the call has been delivered. */
  readonly delivered: (kind: Kind, name: string) => Effect.Effect<void, Reason>
}

/** How long a connection may be silent before it is pinged, and how long the answer may take. */
const quiet = "3 seconds"
const patience = "3 seconds"
const confirmation = "5 seconds"

/** The server does not have this name, or does not know yet. */
const elsewhere: ReadonlySet<string> = new Set(["CLUSTERDOWN", "MOVED", "TRYAGAIN"])

/** Each connection is made for the first subscription of its kind at its server, and lasts as long as the scope. */
export const make = Effect.fnUntraced(function* (
  servers: Pick<Servers, "dedicatedTo" | "onMove" | "refresh" | "serverOf">
): Effect.fn.Return<Subscriber, never, Scope.Scope> {
  const scope = yield* Scope.Scope
  const fork = Effect.runForkWith(yield* Effect.context<never>())
  const of = (kind: Kind) => new Subscriptions(kind, servers, scope, fork)
  const kinds = { channel: of("channel"), pattern: of("pattern"), shard: of("shard") }
  yield* servers.onMove(() => {
    for (const subscriptions of Object.values(kinds)) fork(subscriptions.follow)
  })
  return {
    subscribe: (kind, name, listener) => kinds[kind].subscribe(name, listener),
    delivered: (kind, name) => Effect.flatMap(kinds[kind].connectionOf(name), (connection) => connection.ping)
  }
})

/** The commands of each kind. */
const protocol = {
  channel: {
    subscribe: (client: Redis, name: string) => client.subscribe(name),
    unsubscribe: (client: Redis, name: string) => client.unsubscribe(name)
  },
  pattern: {
    subscribe: (client: Redis, name: string) => client.psubscribe(name),
    unsubscribe: (client: Redis, name: string) => client.punsubscribe(name)
  },
  shard: {
    subscribe: (client: Redis, name: string) => client.ssubscribe(name),
    unsubscribe: (client: Redis, name: string) => client.sunsubscribe(name)
  }
} satisfies Record<Kind, unknown>

/** One name and its listeners. */
class Subject {
  readonly name: string
  readonly listeners = new Set<Listener>()
  /** Callers that wait for the confirmation. */
  readonly waiting = new Set<(effect: Effect.Effect<void, Reason>) => void>()
  /** Confirmed on the current connection. */
  live = false
  /** Confirmed on an earlier connection, and its listeners have not been told of the loss yet. */
  cut = false
  /** Requested on the current connection, and not answered yet. */
  asked = false
  /** Where it is subscribed to. */
  connection: SubscriberConnection

  constructor(name: string, connection: SubscriberConnection) {
    this.name = name
    this.connection = connection
  }
}

/** All subscriptions of one kind. */
class Subscriptions {
  readonly kind: Kind
  readonly subjects = new Map<string, Subject>()
  readonly #servers: Pick<Servers, "dedicatedTo" | "refresh" | "serverOf">
  readonly #scope: Scope.Scope
  readonly #fork: (effect: Effect.Effect<unknown>) => unknown
  readonly #connections = new Map<string, SubscriberConnection>()
  readonly #opening = Semaphore.makeUnsafe(1)

  constructor(
    kind: Kind,
    servers: Pick<Servers, "dedicatedTo" | "refresh" | "serverOf">,
    scope: Scope.Scope,
    fork: (effect: Effect.Effect<unknown>) => unknown
  ) {
    this.kind = kind
    this.#servers = servers
    this.#scope = scope
    this.#fork = fork
  }

  subscribe(name: string, listener: Listener): Effect.Effect<void, Reason, Scope.Scope> {
    return Effect.flatMap(this.connectionOf(name), (connection) =>
      Effect.acquireRelease(
        Effect.sync(() => this.#enter(name, listener, connection)),
        (subject) => Effect.sync(() => this.#leave(subject, listener))
      )
    ).pipe(Effect.flatMap((subject) => Effect.andThen(this.#follow(subject), confirmed(subject))))
  }

  /** The connection on which this name is, or is to be, subscribed to. */
  connectionOf(name: string): Effect.Effect<SubscriberConnection> {
    return Effect.suspend(() => {
      const subject = this.subjects.get(name)
      return subject === undefined ? this.#at(this.#servers.serverOf(name)) : Effect.succeed(subject.connection)
    })
  }

  #at(server: string): Effect.Effect<SubscriberConnection> {
    const open = Effect.gen({ self: this }, function* () {
      const known = this.#connections.get(server)
      if (known !== undefined) return known
      const made = yield* this.#servers.dedicatedTo(`subscriber:${this.kind}`, server)
      const connection = new SubscriberConnection(this, server, made)
      this.#connections.set(server, connection)
      yield* made.each(connection.adopt)
      yield* Effect.forkScoped(connection.keepAlive)
      return connection
    })
    return this.#opening.withPermits(1)(open.pipe(Scope.provide(this.#scope), Effect.uninterruptible))
  }

  #enter(name: string, listener: Listener, connection: SubscriberConnection): Subject {
    const subject = this.subjects.get(name) ?? new Subject(name, connection)
    if (!this.subjects.has(name)) {
      this.subjects.set(name, subject)
      connection.forgetLast()
    }
    subject.listeners.add(listener)
    return subject
  }

  #leave(subject: Subject, listener: Listener): void {
    subject.listeners.delete(listener)
    if (subject.listeners.size > 0 || this.subjects.get(subject.name) !== subject) return
    this.subjects.delete(subject.name)
    subject.connection.unsubscribe(subject)
  }

  /** Moves the subscriptions whose servers are others now. */
  readonly follow: Effect.Effect<void> = Effect.suspend(() =>
    Effect.forEach([...this.subjects.values()], (subject) => this.#follow(subject), { discard: true })
  )

  /** The listeners are told as after a lost connection. */
  #follow(subject: Subject): Effect.Effect<void> {
    const target = () => {
      const server = this.#servers.serverOf(subject.name)
      const isThere = server === "" || server === subject.connection.server
      return isThere || this.subjects.get(subject.name) !== subject ? undefined : server
    }
    return Effect.gen({ self: this }, function* () {
      const server = target()
      if (server === undefined) return
      const next = yield* this.#at(server)
      if (target() !== server) return
      subject.connection.unsubscribe(subject)
      subject.connection = next
      next.lose(subject)
    })
  }

  /** Looks for the servers of all names before `then`: one of them has another. */
  afterRefresh(then: () => void): void {
    this.#fork(Effect.andThen(this.#servers.refresh, Effect.sync(then)))
  }
}

/** Returns once the server has confirmed it, or fails with what it says instead. */
const confirmed = (subject: Subject): Effect.Effect<void, Reason> => {
  const answer = Effect.callback<void, Reason>((resume) => {
    if (subject.live) return resume(Effect.void)
    subject.waiting.add(resume)
    if (!subject.asked) subject.connection.ask(subject)
    return Effect.sync(() => {
      subject.waiting.delete(resume)
    })
  })
  return Effect.andThen(
    Effect.suspend(() => subject.connection.connection.ready),
    answer
  ).pipe(Effect.timeoutOrElse({ duration: confirmation, orElse: () => Effect.fail(unconfirmed) }))
}

/** The subscriptions of one kind at one server, on one connection at a time. */
class SubscriberConnection {
  readonly server: string
  readonly connection: Connection
  readonly #subscriptions: Subscriptions
  #client: Redis | undefined
  /** Something has arrived since the last check. */
  #heard = false
  /** The subject and the channel of the last message: the next one usually has the same. */
  #lastSubject: Subject | undefined
  #lastBytes: Buffer = Buffer.alloc(0)
  #lastChannel = ""

  constructor(subscriptions: Subscriptions, server: string, connection: Connection) {
    this.#subscriptions = subscriptions
    this.server = server
    this.connection = connection
  }

  /** Those that are subscribed to here. */
  get #subjects(): ReadonlyArray<Subject> {
    return [...this.#subscriptions.subjects.values()].filter(({ connection }) => connection === this)
  }

  /** Moves to a new connection: all subscriptions are requested again. */
  readonly adopt = (client: Redis): void => {
    this.#client = client
    this.#lastSubject = undefined
    const { kind } = this.#subscriptions
    if (kind === "pattern") {
      client.on("pmessageBuffer", (pattern: string, channel: Buffer, payload: Buffer) =>
        this.#deliver(client, channel, payload, pattern)
      )
    } else {
      const event = kind === "shard" ? "smessageBuffer" : "messageBuffer"
      client.on(event, (channel: Buffer, payload: Buffer) => this.#deliver(client, channel, payload, undefined))
    }
    // The slot of a shard has moved: the server has ended its subscriptions, and those that are elsewhere now have left this one.
    client.on("moved", () =>
      this.#subscriptions.afterRefresh(() => (client === this.#client ? this.#loseAll() : undefined))
    )
    this.#loseAll()
  }

  /** Pings a silent connection, and requests again what the server has refused. */
  readonly keepAlive: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    while (true) {
      yield* Effect.sleep(quiet)
      const subjects = this.#subjects
      if (subjects.length === 0) continue
      for (const subject of subjects) if (!subject.live && !subject.asked) this.ask(subject)
      const heard = this.#heard
      this.#heard = false
      if (heard) continue
      yield* Effect.ignore(this.ping)
    }
  })

  /** Once it returns, everything that the server sent before its answer has arrived. */
  get ping(): Effect.Effect<void, Reason> {
    return Effect.asVoid(this.connection.run("ping", [], (client) => client.ping(), { deadline: patience }))
  }

  /** A name has come or gone. */
  forgetLast(): void {
    this.#lastSubject = undefined
  }

  unsubscribe(subject: Subject): void {
    this.#lastSubject = undefined
    const client = this.#client
    // Nobody waits for the answer, and a lost connection has nothing left to unsubscribe from.
    if (client?.status === "ready") {
      protocol[this.#subscriptions.kind].unsubscribe(client, subject.name).catch(() => {})
    }
  }

  #loseAll(): void {
    for (const subject of this.#subjects) this.lose(subject)
  }

  /** It is to be subscribed to again, or here for the first time. */
  lose(subject: Subject): void {
    subject.cut ||= subject.live
    subject.live = false
    subject.asked = false
    this.#lastSubject = undefined
    this.ask(subject)
  }

  ask(subject: Subject): void {
    const client = this.#client
    if (client === undefined) return
    const isCurrent = () => client === this.#client && subject.connection === this
    subject.asked = true
    protocol[this.#subscriptions.kind].subscribe(client, subject.name).then(
      () => {
        if (isCurrent()) this.#confirm(subject)
      },
      (error: unknown) => {
        if (!isCurrent()) return
        subject.asked = false
        const reason = classify(error, "subscribe", subject.name)
        // The next connection asks again.
        if (reason._tag === "Disconnected") return
        if (reason._tag === "Refused" && elsewhere.has(reason.code)) {
          return this.#subscriptions.afterRefresh(() => {
            if (isCurrent() && !subject.live && !subject.asked) this.ask(subject)
          })
        }
        for (const resume of subject.waiting) resume(Effect.fail(reason))
        subject.waiting.clear()
        if (subject.cut) for (const listener of subject.listeners) listener.refused(reason)
      }
    )
  }

  #confirm(subject: Subject): void {
    subject.live = true
    subject.asked = false
    if (subject.cut) {
      subject.cut = false
      for (const listener of subject.listeners) listener.interrupted()
    }
    for (const resume of subject.waiting) resume(Exit.void)
    subject.waiting.clear()
  }

  #deliver(client: Redis, bytes: Buffer, payload: Buffer, pattern: string | undefined): void {
    if (client !== this.#client) return
    this.#heard = true
    let subject = this.#lastSubject
    if (subject === undefined || !bytes.equals(this.#lastBytes) || (pattern ?? subject.name) !== subject.name) {
      const channel = bytes.toString()
      subject = this.#subscriptions.subjects.get(pattern ?? channel)
      // It was published before the server had processed the UNSUBSCRIBE.
      if (subject?.connection !== this) return
      this.#lastSubject = subject
      this.#lastBytes = bytes
      this.#lastChannel = channel
    }
    // A message may arrive before the confirmation of its subscription is processed.
    if (!subject.live) this.#confirm(subject)
    for (const listener of subject.listeners) listener.message(payload, this.#lastChannel, bytes)
  }
}

const unconfirmed = new Disconnected({
  ambiguous: false,
  cause: new Error("the server did not confirm the subscription in time")
})
