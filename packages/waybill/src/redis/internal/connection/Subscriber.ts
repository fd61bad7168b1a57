/**
 * Subscriptions that restore themselves: after a lost connection each one is made again, and its listener is told
 * before it gets the first message after the gap.
 *
 * All subscriptions of one kind in a layer share a connection. ioredis can resubscribe too, but does not report it, and it loses
 * messages when several kinds share a connection.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { Disconnected, type Reason } from "../../../Transport.ts"
import type { Connection, Dedicated } from "./Connection.ts"
import { classify } from "./ServerError.ts"

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
  /** Returns once everything of this kind that was published before the call has been delivered. */
  readonly delivered: (kind: Kind) => Effect.Effect<void, Reason>
}

/** How long a connection may be silent before it is pinged, and how long the answer may take. */
const quiet = "3 seconds"
const patience = "3 seconds"
const confirmation = "5 seconds"

/** Each connection is made for the first subscription of its kind, and lasts as long as the scope. */
export const make = Effect.fnUntraced(function* (redis: {
  readonly dedicated: Dedicated
}): Effect.fn.Return<Subscriber, never, Scope.Scope> {
  const scope = yield* Scope.Scope
  const line = (kind: Kind) =>
    Effect.cached(
      Effect.gen(function* () {
        const line = new SubscriberConnection(kind, yield* redis.dedicated(`subscriber:${kind}`, []))
        yield* line.connection.each(line.adopt)
        yield* Effect.forkScoped(line.keepAlive)
        return line
      }).pipe(Scope.provide(scope), Effect.uninterruptible)
    )
  const lines = { channel: yield* line("channel"), pattern: yield* line("pattern"), shard: yield* line("shard") }
  return {
    subscribe: (kind, name, listener) => Effect.flatMap(lines[kind], (line) => line.subscribe(name, listener)),
    delivered: (kind) => Effect.flatMap(lines[kind], (line) => line.ping)
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

  constructor(name: string) {
    this.name = name
  }
}

/** All subscriptions of one kind, on one connection at a time. */
class SubscriberConnection {
  readonly connection: Connection
  readonly #kind: Kind
  readonly #subjects = new Map<string, Subject>()
  #client: Redis | undefined
  /** Something has arrived since the last check. */
  #heard = false
  /** The subject and the channel of the last message: the next one usually has the same. */
  #lastSubject: Subject | undefined
  #lastBytes: Buffer = Buffer.alloc(0)
  #lastChannel = ""

  constructor(kind: Kind, connection: Connection) {
    this.#kind = kind
    this.connection = connection
  }

  subscribe(name: string, listener: Listener): Effect.Effect<void, Reason, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => this.#enter(name, listener)),
      (subject) => Effect.sync(() => this.#leave(subject, listener))
    ).pipe(Effect.flatMap((subject) => this.#confirmed(subject)))
  }

  /** Moves to a new connection: all subscriptions are requested again. */
  readonly adopt = (client: Redis): void => {
    this.#client = client
    this.#lastSubject = undefined
    if (this.#kind === "pattern") {
      client.on("pmessageBuffer", (pattern: string, channel: Buffer, payload: Buffer) =>
        this.#deliver(client, channel, payload, pattern)
      )
    } else {
      const event = this.#kind === "shard" ? "smessageBuffer" : "messageBuffer"
      client.on(event, (channel: Buffer, payload: Buffer) => this.#deliver(client, channel, payload, undefined))
    }
    // The slot of a shard has moved: the server has ended its subscriptions.
    client.on("moved", () => this.#lose())
    this.#lose()
  }

  /** Pings a silent connection, and requests again what the server has refused. */
  readonly keepAlive: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    while (true) {
      yield* Effect.sleep(quiet)
      if (this.#subjects.size === 0) continue
      for (const subject of this.#subjects.values()) if (!subject.live && !subject.asked) this.#ask(subject)
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

  #enter(name: string, listener: Listener): Subject {
    let subject = this.#subjects.get(name)
    if (subject === undefined) {
      subject = new Subject(name)
      this.#subjects.set(name, subject)
      this.#lastSubject = undefined
    }
    subject.listeners.add(listener)
    return subject
  }

  #leave(subject: Subject, listener: Listener): void {
    subject.listeners.delete(listener)
    if (subject.listeners.size > 0 || this.#subjects.get(subject.name) !== subject) return
    this.#subjects.delete(subject.name)
    this.#lastSubject = undefined
    const client = this.#client
    // Nobody waits for the answer, and a lost connection has nothing left to unsubscribe from.
    if (client?.status === "ready") protocol[this.#kind].unsubscribe(client, subject.name).catch(() => {})
  }

  #confirmed(subject: Subject): Effect.Effect<void, Reason> {
    const answer = Effect.callback<void, Reason>((resume) => {
      if (subject.live) return resume(Effect.void)
      subject.waiting.add(resume)
      if (!subject.asked) this.#ask(subject)
      return Effect.sync(() => {
        subject.waiting.delete(resume)
      })
    })
    return Effect.andThen(this.connection.ready, answer).pipe(
      Effect.timeoutOrElse({ duration: confirmation, orElse: () => Effect.fail(unconfirmed) })
    )
  }

  #lose(): void {
    for (const subject of this.#subjects.values()) {
      subject.cut ||= subject.live
      subject.live = false
      subject.asked = false
      this.#ask(subject)
    }
  }

  #ask(subject: Subject): void {
    const client = this.#client
    if (client === undefined) return
    subject.asked = true
    protocol[this.#kind].subscribe(client, subject.name).then(
      () => {
        if (client === this.#client) this.#confirm(subject)
      },
      (error: unknown) => {
        if (client !== this.#client) return
        subject.asked = false
        const reason = classify(error, "subscribe", subject.name)
        // The next connection asks again.
        if (reason._tag === "Disconnected") return
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
      subject = this.#subjects.get(pattern ?? channel)
      // It was published before the server had processed the UNSUBSCRIBE.
      if (subject === undefined) return
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
