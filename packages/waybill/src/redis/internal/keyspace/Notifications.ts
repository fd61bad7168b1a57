/**
 * Whether the server sends events for keys: asked if that is permitted, tried out otherwise.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as SecureRandom from "effect/crypto/SecureRandom"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { Disconnected, NotificationsDisabled, type Reason } from "../../../Transport.ts"
import type { IoRedis } from "../../IoRedis.ts"
import type { Commands } from "../connection/Connection.ts"
import type { Subscriber } from "../connection/Subscriber.ts"
import type { TopicKeys } from "../wire/Keys.ts"

type Redis = Context.Service.Shape<typeof IoRedis>

const setting = "notify-keyspace-events"

/** Events by the name of the key (`K`), of commands that write a string (`$`). `A` stands for all commands. */
const missing = (flags: string): string =>
  (flags.includes("K") ? "" : "K") + (flags.includes("$") || flags.includes("A") ? "" : "$")

/** The channel on which the server reports what happened to a key. */
export const channelOf = (db: number, key: string): string => `__keyspace@${db}__:${key}`

/**
 * A check that fails with `NotificationsDisabled` if the keys of a topic cause no events. `enable`: it switches them on, in addition
 * to those that are on, and returns the flags it found; nothing is ever switched off.
 *
 * It may run repeatedly: once CONFIG was denied, it is not tried again, which would fill the server's ACL log.
 */
export const checkOf = (
  redis: Redis,
  subscriber: Subscriber,
  keys: TopicKeys,
  enable: boolean
): Effect.Effect<string | undefined, Reason> => {
  let denied: Reason | undefined
  return Effect.gen(function* () {
    if (denied === undefined) {
      const flags = yield* Effect.result(ask(redis.commands, keys.numbers))
      if (Result.isSuccess(flags)) {
        const lacking = missing(flags.success)
        if (lacking === "") return
        const needed = flags.success + lacking
        if (!enable) return yield* new NotificationsDisabled({ found: flags.success, needed })
        yield* redis.commands.run("config|set", keys.numbers, (client) => client.config("SET", setting, needed))
        return flags.success
      }
      const reason = flags.failure
      // Not permitted, or no such command: the server's behaviour tells more than its words.
      if (reason._tag !== "NotPermitted" && reason._tag !== "Rejected") return yield* Effect.fail(reason)
      denied = reason
    }
    if (yield* isAnnounced(redis, subscriber, keys)) return
    if (enable) return yield* Effect.fail(denied)
    return yield* new NotificationsDisabled({ found: "(CONFIG GET is not allowed)", needed: "K$" })
  })
}

/** Advice for the operator of a server with topics of the pattern. */
export const advice = (server: Commands): Effect.Effect<ReadonlyArray<string>> =>
  Effect.match(ask(server, []), {
    onFailure: () => [
      "it does not say whether it announces keys, which topics of the keyspace pattern need: CONFIG GET is not permitted"
    ],
    onSuccess: (flags) =>
      missing(flags) === ""
        ? []
        : [
            `${setting} is "${flags}", and there are topics of the keyspace pattern: without K$ their subscribers poll, or ` +
              "fail with NotificationsDisabled"
          ]
  })

/** What the server of these keys says. */
const ask = (commands: Commands, keys: string | ReadonlyArray<string>): Effect.Effect<string, Reason> =>
  Effect.map(
    commands.run("config|get", keys, (client) => client.config("GET", setting)),
    // Alternating name and value.
    (reply) => String((reply as ReadonlyArray<unknown>)[1] ?? "")
  )

/**
 * Writes a key and listens. The server sends the event before it replies to a PING on the listening connection, so that no time
 * has to pass before silence counts as a no.
 */
const isAnnounced = (redis: Redis, subscriber: Subscriber, keys: TopicKeys): Effect.Effect<boolean, Reason> =>
  Effect.scoped(
    Effect.gen(function* () {
      const key = keys.probe(SecureRandom.uuidV4Unsafe())
      let heard = false
      let cut = false
      const channel = channelOf(redis.db, key)
      yield* subscriber.subscribe("channel", channel, {
        message: () => (heard = true),
        interrupted: () => (cut = true),
        refused: () => {}
      })
      yield* redis.commands.run("set", key, (client) => client.set(key, "", "PX", 1000))
      yield* subscriber.delivered("channel", channel)
      // Another connection has not heard what the lost one would have.
      if (cut && !heard) return yield* new Disconnected({ ambiguous: false, cause: new Error("no answer") })
      return heard
    })
  )
