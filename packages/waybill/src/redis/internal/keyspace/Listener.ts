/**
 * Listens to events of a topic's keys, for all receivers of this process: they wake at once, and keys written by other programs
 * are copied. An event only says that there is something to find: a lost one delays what a poll finds anyway, except foreign
 * keys, which only the event or a scan reveals.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type { Reason } from "../../../Transport.ts"
import { evaluate } from "../connection/ScriptReply.ts"
import type { Store } from "../Pattern.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import { adopt, pattern } from "./KeyspaceScripts.ts"
import { channelOf, checkOf } from "./Notifications.ts"

export type Notifications = "require" | "enable" | "poll"

export interface ListenerOptions extends Pick<Store, "redis" | "subscriber" | "pollMillis"> {
  readonly topic: string
  readonly keys: TopicKeys
  readonly notifications: Notifications
  readonly scan: boolean
  readonly ttlMillis: number
}

/** A receiver, as the listener sees it. */
export interface Hearer {
  /** Something may be available in that many milliseconds. */
  readonly wake: (millis: number) => void
  /** No new messages will be heard of. */
  readonly fail: (reason: Reason) => void
}

/** How many foreign keys one script copies. */
const adoptLimit = 100
/** About how many keys of the whole database the server visits in one step of a scan. */
const scanStep = 1000
/** How long other programs may have switched events off unnoticed. A listener that receives one meanwhile need not ask. */
const watchMillis = 2000
/** In poll mode scans repeat, but take no more than this share of the time. */
const scanShare = 0.1

const set = Buffer.from("set")

/** The beginning of our own messages' names. All others are foreign. */
const ours = "#"

/** A key as bytes: other programs may use names that are not text. */
const keyOf = (beginning: string, name: string): Buffer =>
  Buffer.concat([Buffer.from(beginning), Buffer.from(name, "latin1")])

/** Escapes a text for a glob pattern of the server. */
const literally = (text: string): string => text.replaceAll(/[*?[\]\\^]/g, "\\$&")

export class Listener {
  readonly #options: ListenerOptions
  readonly #hearers = new Set<Hearer>()
  /** Names of foreign keys that were written, and may be written again while they are copied: one character per byte. */
  readonly #written = new Set<string>()
  readonly #work = Latch.makeUnsafe(false)
  #scan: boolean
  /** Whether the server sends events has to be checked again: it may be another one, or have other settings. */
  #verify = false
  /** How long to wait for the next scan, if there is to be one. */
  #restMillis: number | undefined
  readonly #check: Effect.Effect<string | undefined, Reason>

  constructor(options: ListenerOptions) {
    this.#options = options
    this.#scan = options.scan
    const { keys, notifications, redis, subscriber } = options
    this.#check = checkOf(redis, subscriber, keys, notifications === "enable")
  }

  /** Until the scope closes. */
  hear(hearer: Hearer): Effect.Effect<void, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.sync(() => void this.#hearers.add(hearer)),
      () => Effect.sync(() => this.#hearers.delete(hearer))
    )
  }

  /** Returns when everything written from now on is heard. */
  readonly start: Effect.Effect<void, Reason, Scope.Scope> = Effect.gen({ self: this }, function* () {
    const { keys, notifications, redis, subscriber } = this.#options
    if (notifications !== "poll") {
      // One event per batch of ours, and one per foreign key.
      const channel = channelOf(redis.db, keys.messages)
      const named = Buffer.byteLength(channel)
      yield* subscriber.subscribe("pattern", `${literally(channel)}[^${ours}]*`, {
        message: (event, _, on) => {
          // SET with an expiry causes two events, and the end of the expiry a third.
          if (!event.equals(set)) return
          this.#written.add(on.toString("latin1", named))
          this.#work.openUnsafe()
        },
        interrupted: () => {
          this.#verify = true
          this.#scan = this.#options.scan
          this.#work.openUnsafe()
          this.#wake(0)
        },
        refused: (reason) => this.#fail(reason)
      })
      yield* subscriber.subscribe(
        "channel",
        channelOf(redis.db, keys.numbers),
        this.#hears(() => 0)
      )
      yield* this.#check
    }
    yield* subscriber.subscribe(
      "channel",
      keys.wake,
      this.#hears((millis) => Number.parseInt(String(millis), 10) || 0)
    )
    if (this.#scan) this.#work.openUnsafe()
    yield* Effect.forkScoped(this.#run)
  })

  #hears(millisOf: (message: Buffer) => number) {
    return {
      message: (message: Buffer) => this.#wake(millisOf(message)),
      interrupted: () => this.#wake(0),
      refused: (reason: Reason) => this.#fail(reason)
    }
  }

  #wake(millis: number): void {
    for (const hearer of this.#hearers) hearer.wake(millis)
  }

  #fail(reason: Reason): void {
    for (const hearer of this.#hearers) hearer.fail(reason)
  }

  readonly #run: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    const { notifications, pollMillis } = this.#options
    const polls = notifications === "poll"
    while (true) {
      const rest = polls ? this.#restMillis : watchMillis
      if (rest === undefined) yield* this.#work.await
      else if (Option.isNone(yield* Effect.timeoutOption(this.#work.await, rest))) {
        // Without events, scanning is the only way: it repeats.
        if (polls) this.#scan = true
        else this.#verify = true
      }
      this.#work.closeUnsafe()
      const result = yield* Effect.result(this.#step)
      if (Result.isSuccess(result)) continue
      const reason = result.failure
      this.#work.openUnsafe()
      if (reason.permanent) this.#fail(reason)
      else if (reason._tag === "Refused") yield* Effect.logWarning("keys of others wait to be taken in", reason.message)
      yield* Effect.sleep(pollMillis)
    }
  })

  readonly #step: Effect.Effect<void, Reason> = Effect.gen({ self: this }, function* () {
    if (this.#verify) {
      const { scan, topic } = this.#options
      const found = yield* Effect.tapError(this.#check, ({ _tag }) =>
        Effect.sync(() => {
          // Once they are on again, keys written meanwhile are searched for.
          if (_tag === "NotificationsDisabled") this.#scan = scan
        })
      )
      this.#verify = false
      if (found !== undefined) {
        this.#scan = scan
        this.#wake(0)
        yield* Effect.logWarning(
          scan
            ? "keyspace events were switched off, and are on again"
            : "keyspace events were switched off, and are on again: keys that others wrote meanwhile are not taken in",
          { topic, found }
        )
      }
    }
    yield* this.#adopt()
    if (!this.#scan) return
    this.#scan = false
    const [took] = yield* Effect.onError(Effect.timed(this.#scanAll), () => Effect.sync(() => (this.#scan = true)))
    const { notifications, pollMillis } = this.#options
    if (notifications === "poll") this.#restMillis = Math.max(pollMillis, Duration.toMillis(took) / scanShare)
  })

  #adopt(): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { keys, redis, topic, ttlMillis } = this.#options
      while (this.#written.size > 0) {
        const names: Array<string> = []
        for (const name of this.#written) {
          // Another write while this is under way requires another pass.
          this.#written.delete(name)
          if (names.push(name) === adoptLimit) break
        }
        yield* Effect.onError(
          evaluate(
            redis.commands,
            { topic, pattern },
            adopt,
            keys,
            { ttl: ttlMillis },
            {
              keys: names.flatMap((name) => [keyOf(keys.messages, name), keyOf(keys.adopted, name)]),
              kinds: names.flatMap(() => ["channel", "string"] as const)
            }
          ),
          () => Effect.sync(() => names.forEach((name) => this.#written.add(name)))
        )
      }
    })
  }

  /** Visits every key of the topic's server, a few at a time. */
  readonly #scanAll: Effect.Effect<void, Reason> = Effect.gen({ self: this }, function* () {
    const { keys, redis } = this.#options
    const named = Buffer.byteLength(keys.messages)
    let cursor = "0"
    do {
      const [next, found] = yield* redis.commands.run("scan", keys.numbers, (client) =>
        client.scanBuffer(cursor, "MATCH", `${literally(keys.messages)}[^${ours}]*`, "COUNT", scanStep)
      )
      for (const key of found) this.#written.add(key.toString("latin1", named))
      yield* this.#adopt()
      cursor = String(next)
    } while (cursor !== "0")
  })
}
