/**
 * Messages with a lifetime: each is a key with an expiry. At least once within that time: a published message is delivered to
 * every group until the group settles it or it expires, whatever crashes, as long as Redis keeps its data. A late group gets
 * everything that has not expired, in order, and then new messages. Messages that expired before a group read them are counted
 * and reported as a `Gap`.
 *
 * Keyspace events wake waiting consumers, but the messages' numbers determine what is read. So a lost event costs at most
 * `pollInterval`. A key that another program wrote with a plain SET is a message too.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Keyspace from "./internal/keyspace/Keyspace.ts"
import * as Pattern from "./internal/Pattern.ts"
import { millisOf, oneOf, settingsOf, type StoreOptions } from "./internal/Settings.ts"

/**
 * @category models
 */
export interface Options extends StoreOptions {
  /** How long a message lives: 1 hour by default. For a delayed one this begins when it is due. */
  readonly ttl?: Duration.Input
  /**
   * How to deal with the server's keyspace events, which are off by default. `require`, the default: receiving fails with
   * `NotificationsDisabled` if they are off. `enable`: they are switched on with CONFIG SET, in addition to those that are
   * on. `poll`: they are not used, and new messages are found within `pollInterval`.
   */
  readonly notifications?: "require" | "enable" | "poll"
  /**
   * Whether to search for keys that other programs wrote while no consumer listened, when a topic is first received from and after
   * each lost connection; with `poll`, repeatedly. False by default: it is a SCAN of the whole database, in small steps.
   * Keys that are written while a consumer listens are found without it.
   */
  readonly scan?: boolean
}

/**
 * The keyspace pattern, on the connections of `IoRedis`. Throws on a prefix with white space, braces or a colon, a duration
 * of zero, or a count that is not an integer >= 1: those are bugs.
 *
 * @example
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "waybill"
 * import { IoRedis, RedisKeyspace } from "waybill/redis"
 *
 * const Alert = Topic.make("alerts", { payload: Schema.String })
 *
 * const Pager = Consumer.make(Alert, { group: "pager" }).pipe(
 *   Consumer.process(() => Effect.void),
 *   Consumer.layer
 * )
 *
 * const Main = Pager.pipe(
 *   Layer.provide(RedisKeyspace.layer({ ttl: "10 minutes", notifications: "enable" })),
 *   Layer.provide(IoRedis.layer({ url: "redis://127.0.0.1:6379" }))
 * )
 * ```
 *
 * @category layers
 */
export const layer = Pattern.layer("at-least-once", (options: Options) => {
  const { scan = false } = options
  const notifications = oneOf("notifications", options.notifications ?? "require", ["require", "enable", "poll"])
  const ttlMillis = millisOf("ttl", options.ttl ?? "1 hour")
  return [Keyspace.make({ notifications, scan, ttlMillis }), settingsOf(options)]
})
