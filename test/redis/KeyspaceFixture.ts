/**
 * The keyspace layer on a server of the test, under a prefix of its own, with a plain client beside it and the program
 * redis-cli for what somebody writes by hand.
 */
import { execFile } from "node:child_process"
import { RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Exit, Layer, Random, References, Scope } from "effect"
import { type Delivery, Inspector, type Lifecycle, Settlement, Transport } from "waybill"
import { IoRedis, RedisKeyspace } from "waybill/redis"
import { client, type Draft, type Joining, outgoing } from "./Fixture.ts"

export interface Options extends RedisKeyspace.Options {
  /** Where the library connects; the server itself by default. */
  readonly url?: string
}

/** Runs redis-cli and answers what it prints. */
export const cli = (port: number, ...args: ReadonlyArray<string>) =>
  Effect.callback<string, Error>((resume) => {
    execFile("redis-cli", ["-p", String(port), ...args], (error, stdout) =>
      resume(error === null ? Effect.succeed(stdout.trim()) : Effect.fail(error))
    )
  })

/** Another program on the same topics: a layer of its own. */
const program = Effect.fnUntraced(
  function* (url: string, options: RedisKeyspace.Options) {
    const context = yield* Layer.build(
      RedisKeyspace.layer(options).pipe(Layer.provideMerge(IoRedis.layer({ url })), Layer.fresh)
    )
    const transport = Context.get(context, Transport.AtMostOnce)
    const events: Array<Lifecycle.Event> = []
    yield* transport.lifecycle.listen((event) => events.push(event))
    const join = (subscription: Joining = {}) =>
      transport.receive({
        topic: "t",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(2),
        ...subscription
      })
    return {
      transport,
      inspector: Context.get(context, Inspector.Inspector),
      events,
      publish: (first: Draft | string, ...others: ReadonlyArray<Draft | string>) =>
        transport.publish("t", [outgoing(first), ...others.map(outgoing)]),
      join,
      /** A receiver in a scope of its own, and how to close it. */
      joinAndLeave: Effect.fnUntraced(function* (subscription?: Joining) {
        const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
        const receiver = yield* Scope.provide(join(subscription), scope)
        return { receiver, leave: Scope.close(scope, Exit.void) }
      })
    }
  },
  Effect.provideService(References.MinimumLogLevel, "None")
)

export const make = Effect.fnUntraced(function* ({ url, ...options }: Options = {}) {
  const server = yield* RedisServer.RedisServer
  const prefix = `fixture${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
  const all: RedisKeyspace.Options = { prefix, notifications: "enable", ...options }
  return {
    server,
    redis: yield* client(server.url),
    /** The name of a key of the topic `t`. */
    key: (name: string) => `{${all.prefix}:t}:${name}`,
    ...(yield* program(url ?? server.url, all)),
    /** Another program that shares the topics, with other options. */
    another: ({ url, ...others }: Options = {}) => program(url ?? server.url, { ...all, ...others })
  }
})

/** Exactly so many deliveries, in as many takes as it needs. */
export const take = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
  const taken: Array<Delivery.Delivery> = []
  while (taken.length < count) taken.push(...(yield* receiver.take(count - taken.length)))
  return taken
})

export const settle = (
  receiver: Transport.Receiver,
  deliveries: ReadonlyArray<Delivery.Delivery>,
  settlement: Settlement.Settlement = Settlement.ack
) => {
  const [first, ...others] = deliveries.map((delivery) => [delivery, settlement] as const)
  return first === undefined ? Effect.succeed([]) : receiver.settle([first, ...others])
}

/** Takes and acks so many, and answers their bodies. */
export const consume = Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
  const taken = yield* take(receiver, count)
  yield* settle(receiver, taken)
  return taken.map(({ body }) => String(body))
})
