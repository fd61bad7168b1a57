/**
 * Effect's own `Redis` service on the connections of `IoRedis`, so that `PersistedQueue`, `RateLimiter`, `Persistence`
 * and `CircuitBreaker` of `effect/persistence` need no second client library.
 *
 * Commands keep the promises of `IoRedis`: each settles within 5 seconds and none is sent twice. Commands on a reserved
 * connection may block for as long as they like.
 *
 * @module
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redis from "effect/persistence/Redis"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type { Redis as Client } from "ioredis"
import type { Reason } from "../../../Transport.ts"
import type { Commands } from "./Connection.ts"
import type { Servers } from "./Servers.ts"
import { type Listener, make as makeSubscriber, type Subscriber } from "./Subscriber.ts"

/** A `RedisError` has the reason of the port as its `cause`. */
export const make = Effect.fnUntraced(function* (
  redis: Servers,
  options: Redis.PoolOptions
): Effect.fn.Return<Redis.Redis["Service"], never, Scope.Scope> {
  const subscriber = yield* makeSubscriber(redis)
  return yield* Redis.make({
    send: send(redis.commands, undefined),
    connect: Effect.gen(function* () {
      const scope = yield* Scope.make()
      const connection = yield* Scope.provide(redis.dedicated("reserved", []), scope)
      yield* connection.ready.pipe(
        Effect.mapError(redisError),
        Effect.onExit((exit) => (Exit.isSuccess(exit) ? Effect.void : Scope.close(scope, Exit.void)))
      )
      return { send: send(connection, Duration.infinity), close: Scope.close(scope, Exit.void) }
    }),
    subscribe: (channel, onMessage) => subscribe(subscriber, channel, onMessage),
    pool: options
  })
})

const redisError = (cause: Reason) => new Redis.RedisError({ cause })

const send =
  (connection: Commands, deadline: Duration.Duration | undefined) =>
  <A = unknown>(command: string, ...args: ReadonlyArray<string>): Effect.Effect<A, Redis.RedisError> =>
    connection
      // The caller names the type of the reply, as in Effect's port.
      .run(command, keysOf(command, args), (client) => call(client, command, args) as Promise<A>, { deadline })
      .pipe(Effect.mapError(redisError))

/** For a script the keys follow their number; otherwise the first argument is one. */
const keysOf = (command: string, args: ReadonlyArray<string>): ReadonlyArray<string> =>
  /^eval/i.test(command) ? args.slice(2, 2 + Number(args[1])) : args.slice(0, 1)

/**
 * Replies in the form of RESP2, as Effect's own clients return them. ioredis does so for lower-case command names;
 * for others it makes an object of a map.
 */
const call = (client: Client, command: string, args: ReadonlyArray<string>): Promise<unknown> => {
  const name = command.toLowerCase()
  return client.call(name === "hgetall" ? "HGETALL" : name, [...args])
}

const retryDelay = Schedule.spaced("100 millis")

/**
 * Returns once the channel is subscribed. Messages published while there is no connection are missed, as always with pub/sub. The
 * inner effect fails if the server denies the subscription permanently.
 */
const subscribe = Effect.fnUntraced(function* (
  subscriber: Subscriber,
  channel: string,
  onMessage: (message: Redis.RedisMessage) => void
): Effect.fn.Return<Effect.Effect<never, Redis.RedisError>, Redis.RedisError, Scope.Scope> {
  const denied = yield* Deferred.make<never, Redis.RedisError>()
  const listener: Listener = {
    message: (payload, channel) => onMessage({ channel, message: String(payload) }),
    interrupted: () => {},
    refused: (reason) => {
      if (reason.permanent) Deferred.doneUnsafe(denied, Exit.fail(redisError(reason)))
    }
  }
  yield* subscriber
    .subscribe("channel", channel, listener)
    .pipe(Effect.retry({ while: (reason) => !reason.permanent, schedule: retryDelay }), Effect.mapError(redisError))
  return Deferred.await(denied)
})
