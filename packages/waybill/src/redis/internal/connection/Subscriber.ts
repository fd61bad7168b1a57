/**
 * Subscriptions that come back by themselves: after a lost connection each is made again, and its listener is told
 * before the first message that comes after the hole.
 *
 * One connection a kind carries all subscriptions of a layer. ioredis could subscribe again too, but does not say so; and with
 * several kinds on one connection it loses messages.
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

/** `channel` is a name, `pattern` a glob over names, `shard` a name whose messages stay in its part of a cluster. */
export type Kind = "channel" | "pattern" | "shard"

/** Called from the socket: everything in it must be quick and not throw. */
export interface Listener {
  /** The channel is the one that it was published to, whatever was subscribed to; its bytes need not be text. */
  readonly message: (payload: Buffer, channel: string, bytes: Buffer) => void
  /** The subscription was lost and is there again: what was published in between never arrives. */
  readonly interrupted: () => void
  /** The server does not want to subscribe again; it is asked every few seconds. */
  readonly refused: (reason: Reason) => void
}

export interface Subscriber {
  /**
   * Listens until the scope closes. Returns when the server has confirmed: what is published from then on arrives, or
   * `interrupted` is called. Fails when the server says no, or nothing for 5 seconds.
   */
  readonly subscribe: (kind: Kind, name: string, listener: Listener) => Effect.Effect<void, Reason, Scope.Scope>
  /** Returns when everything of this kind was delivered that was published before. */
  readonly delivered: (kind: Kind) => Effect.Effect<void, Reason>
}

/** How long a connection may be silent before it is asked for a sign of life, and how long that may take. */
const quiet = "3 seconds"
const patience = "3 seconds"
const confirmation = "5 seconds"

/** The connections are made with the first subscription of their kind and live as long as the scope. */
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

/** What the kinds are called in the protocol. */
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

/** One name, and those who listen to it. */
class Subject {
  readonly name: string
  readonly listeners = new Set<Listener>()
  /** Those who wait for the confirmation. */
  readonly waiting = new Set<(effect: Effect.Effect<void, Reason>) => void>()
  /** Confirmed on the connection there is now. */
  live = false
  /** Confirmed on an earlier connection, and its listener was not told yet that it is gone. */
  cut = false
  /** Asked for on the connection there is now, and not answered. */
  asked = false

  constructor(name: string) {
    this.name = name
  }
}

/** All subscriptions of one kind, on one connection after the other. */
class SubscriberConnection {
  readonly connection: Connection
  readonly #kind: Kind
  readonly #subjects = new Map<string, Subject>()
  #client: Redis | undefined
  /** Something was heard since the last look. */
  #heard = false
  /** The subject and the channel of the last message: most come from the same as the one before. */
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

  /** Takes a new connection: everything that was subscribed to is asked for again. */
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
    // The slot of a shard has moved: the server has ended its subscriptions by itself.
    client.on("moved", () => this.#lose())
    this.#lose()
  }

  /** Asks a silent connection for a sign of life, and the server again for what it has refused. */
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

  /** What the server sent before it answers has arrived. */
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
    // Nobody waits for the answer; on a connection that is lost there is nothing left to end.
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
      // It was published before the server heard of the end of the subscription.
      if (subject === undefined) return
      this.#lastSubject = subject
      this.#lastBytes = bytes
      this.#lastChannel = channel
    }
    // A message may overtake the news that its subscription was confirmed.
    if (!subject.live) this.#confirm(subject)
    for (const listener of subject.listeners) listener.message(payload, this.#lastChannel, bytes)
  }
}

const unconfirmed = new Disconnected({
  ambiguous: false,
  cause: new Error("the server did not confirm the subscription in time")
})
