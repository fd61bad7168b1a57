/**
 * The streams layer on a server of the test, under a prefix of its own, with a plain client beside it that sees and does
 * what no library would.
 */
import { assert } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Exit, Layer, Option, Random, References, Scope } from "effect"
import { Redis } from "ioredis"
import { type Commit, Inspector, type Lifecycle, type Message, type Delivery, Settlement, Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"

export interface Options extends RedisStreams.Options {
  /** Where the library connects; the server itself by default. */
  readonly url?: string
}

export type Joining = Partial<Transport.Subscription>

/** What a draft leaves out is as plain as can be. */
export type Draft = Partial<Message.Outgoing> & { readonly body: string }

export const outgoing = (draft: Draft | string): Message.Outgoing => ({
  id: undefined,
  headers: {},
  key: undefined,
  version: 1,
  due: undefined,
  ...(typeof draft === "string" ? { body: draft } : draft)
})

export const client = (url: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const redis = new Redis(url, { lazyConnect: true, retryStrategy: () => 50 })
      redis.on("error", () => {})
      return redis
    }),
    (redis) => Effect.sync(() => redis.disconnect())
  )

/** Asks until the answer is the expected one; the last answer is in the failure. */
export const becomes = <A>(what: string, ask: Effect.Effect<A, unknown>, expected: A): Effect.Effect<void> =>
  Effect.gen(function* () {
    for (let left = 1000; ; left--) {
      const actual = yield* Effect.orDie(ask)
      if (left === 0) return assert.deepStrictEqual(actual, expected, what)
      if (JSON.stringify(actual) === JSON.stringify(expected)) return
      yield* Effect.sleep(20)
    }
  })

export const make = Effect.fnUntraced(function* (options: Options = {}) {
  const server = yield* RedisServer.RedisServer
  const prefix = `fixture${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
  const { url = server.url, ...rest } = options
  const context = yield* Layer.build(
    RedisStreams.layer({ prefix, ...rest }).pipe(Layer.provideMerge(IoRedis.layer({ url })))
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  const transport = Context.get(context, Transport.AtMostOnce)
  const inspector = Context.get(context, Inspector.Inspector)
  const redis = yield* client(server.url)
  const events: Array<Lifecycle.Event> = []
  yield* transport.lifecycle.listen((event) => events.push(event))
  const base = `{${prefix}:t}`

  const join = (subscription: Joining = {}) =>
    transport
      .receive({
        topic: "t",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(2),
        ...subscription
      })
      .pipe(Effect.provideService(References.MinimumLogLevel, "None"))

  return {
    server,
    transport,
    inspector,
    /** Reads a record beside the topic `t`. */
    read: <A>(query: Commit.Query<A>) => transport.records!.read({ name: "t" }, query),
    redis,
    prefix,
    /** The name of a key of the topic `t`. */
    key: (name: string) => `${base}:${name}`,
    /** The name of a key of its group `g`. */
    groupKey: (name: string) => `${base}:group:g:${name}`,
    publish: (first: Draft | string, ...others: ReadonlyArray<Draft | string>) =>
      transport.publish("t", [outgoing(first), ...others.map(outgoing)]),
    join,
    /** A receiver in a scope of its own, and how to close it. */
    joinAndLeave: Effect.fnUntraced(function* (subscription?: Joining) {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
      const receiver = yield* Scope.provide(join(subscription), scope)
      return { receiver, leave: Scope.close(scope, Exit.void) }
    }),
    /** Exactly so many deliveries, in as many takes as it needs. */
    take: Effect.fnUntraced(function* (receiver: Transport.Receiver, count: number) {
      const taken: Array<Delivery.Delivery> = []
      while (taken.length < count) taken.push(...(yield* receiver.take(count - taken.length)))
      return taken
    }),
    settle: (
      receiver: Transport.Receiver,
      deliveries: ReadonlyArray<Delivery.Delivery>,
      settlement: Settlement.Settlement = Settlement.ack
    ) => {
      const [first, ...others] = deliveries.map((delivery) => [delivery, settlement] as const)
      return first === undefined ? Effect.succeed([]) : receiver.settle([first, ...others])
    },
    events,
    /** Waits until an event with this tag has happened. */
    happens: <T extends Lifecycle.Event["_tag"]>(tag: T) =>
      Effect.gen(function* () {
        for (let left = 1000; left > 0; left--) {
          const found = events.find((event) => event._tag === tag)
          // The tag was compared.
          if (found !== undefined) return found as Extract<Lifecycle.Event, { readonly _tag: T }>
          yield* Effect.sleep(20)
        }
        return yield* Effect.die(
          new Error(`${tag} did not happen, only ${events.map(({ _tag }) => _tag).join(", ") || "nothing"}`)
        )
      }),
    /** Waits until a read waits on the server. */
    blocked: becomes(
      "a read waits",
      Effect.promise(async () => (await redis.info("clients")).includes("blocked_clients:1")),
      true
    ),
    letters: inspector.deadLetters("t", "g", { after: Option.none(), limit: 100 }),
    group: (name = "g") =>
      Effect.map(inspector.describe("t"), (info) => {
        const found = info.groups.find(({ group }) => group === name)
        assert(found !== undefined, `there is no group ${name}`)
        return found
      })
  }
})
