/**
 * What one program brings is in the hands of another, which waits, as soon as it is due: on every pattern that stores,
 * without polling for it. The poll interval here is so long that polling could not be in time.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Clock, Context, Duration, Effect, Exit, Fiber, Layer, References, Scope } from "effect"
import { Commit, type Inspector, Settlement, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"
import { outgoing } from "./Fixture.ts"

const lateMillis = 50
const rounds = 7
const lease = Duration.minutes(5)

type Layers = (
  options: Pick<RedisLists.Options, "pollInterval">
) => Layer.Layer<Transport.AtMostOnce | Inspector.Inspector, never, IoRedis.IoRedis>

const patterns: Record<string, { readonly layer: Layers; readonly commits: boolean }> = {
  RedisStreams: { layer: RedisStreams.layer, commits: true },
  RedisLists: { layer: RedisLists.layer, commits: false },
  RedisExactlyOnce: { layer: RedisExactlyOnce.layer, commits: true },
  RedisKeyspace: { layer: (options) => RedisKeyspace.layer({ ...options, notifications: "enable" }), commits: false }
}

type Failure = Transport.TransportError

/** Another program, and how it ends. */
interface Program {
  readonly publish: (topic: string, body: string, delayMillis?: number) => Effect.Effect<unknown, Failure>
  readonly take: (topic: string) => Effect.Effect<Held, Failure>
  readonly join: (topic: string) => Effect.Effect<Transport.Receiver, Failure>
  readonly transport: Transport.Transport
  readonly end: Effect.Effect<void>
}

interface Held {
  readonly settle: (settlement: Settlement.Settlement) => Effect.Effect<unknown, Failure>
}

/** Prepares what is to happen to the topic; that then says when the message is due. */
type Scenario = (
  program: Program,
  topic: string,
  delay: number
) => Effect.Effect<Effect.Effect<number, Failure>, Failure>

/** The body of what is there before the message that is waited for. */
const atOnce = "at once"

/** Does it, and then the program ends. */
const dueIn = (delay: number, act: Effect.Effect<unknown, Failure>, end: Effect.Effect<void> = Effect.void) =>
  Effect.gen(function* () {
    const due = (yield* Clock.currentTimeMillis) + delay
    yield* act
    yield* end
    return due
  })

const scenarios: Record<string, { readonly commits?: true; readonly prepare: Scenario }> = {
  "a delayed message, whose publisher ends at once,": {
    prepare: ({ end, publish }, topic, delay) => Effect.succeed(dueIn(delay, publish(topic, "late", delay), end))
  },
  "a retry, whose consumer ends at once,": {
    prepare: Effect.fnUntraced(function* ({ end, publish, take }, topic, delay) {
      yield* publish(topic, "again")
      const { settle } = yield* take(topic)
      return dueIn(delay, settle(Settlement.retry(Duration.millis(delay), "not yet")), end)
    })
  },
  "a delayed message that is published with one that is not": {
    prepare: ({ transport }, topic, delay) => {
      const due = { _tag: "After", delay: Duration.millis(delay) } as const
      return Effect.succeed(
        dueIn(delay, transport.publish(topic, [outgoing(atOnce), { ...outgoing("late"), due }, outgoing(atOnce)]))
      )
    }
  },
  "a retry that is settled with a release, whose consumer ends at once,": {
    prepare: Effect.fnUntraced(function* ({ end, join, transport }, topic, delay) {
      const receiver = yield* join(topic)
      yield* transport.publish(topic, [outgoing("late"), outgoing(atOnce)])
      const [first] = yield* receiver.take(1)
      const [second] = yield* receiver.take(1)
      const [late, other] = first.body === "late" ? [first, second] : [second, first]
      return dueIn(
        delay,
        receiver.settle([
          [late, Settlement.retry(Duration.millis(delay), "not yet")],
          [other, Settlement.release]
        ]),
        end
      )
    })
  },
  "a message that is released": {
    prepare: Effect.fnUntraced(function* ({ publish, take }, topic) {
      yield* publish(topic, "back")
      const { settle } = yield* take(topic)
      return dueIn(0, settle(Settlement.release))
    })
  },
  "a message that a consumer holds which leaves": {
    prepare: Effect.fnUntraced(function* ({ end, publish, take }, topic) {
      yield* publish(topic, "held")
      yield* take(topic)
      return dueIn(0, end)
    })
  },
  "a delayed message of a commit": {
    commits: true,
    prepare: Effect.fnUntraced(function* ({ end, publish, take }, topic, delay) {
      yield* publish(`${topic}/source`, "cause")
      const { settle } = yield* take(`${topic}/source`)
      const due = { _tag: "After", delay: Duration.millis(delay) } as const
      const commit = Commit.make({ messages: [{ topic, message: { ...outgoing("effect"), due } }] })
      return dueIn(delay, settle(Settlement.commit(commit)), end)
    })
  }
}

describe.each(sampled("late delays", Object.entries(patterns), 2))("case F6 %s", (_, { commits, layer }) => {
  const build = Effect.fnUntraced(function* (pollInterval: Duration.Input) {
    const { url } = yield* RedisServer.RedisServer
    const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
    const context = yield* Layer.build(
      layer({ pollInterval }).pipe(Layer.provide(IoRedis.layer({ url })), Layer.fresh)
    ).pipe(Scope.provide(scope))
    const transport = Context.get(context, Transport.AtMostOnce)
    const join = (topic: string) =>
      Scope.provide(
        transport.receive({
          topic,
          group: "g",
          start: "earliest",
          lease,
          maxDeliveries: 5,
          shutdown: Duration.seconds(2)
        }),
        scope
      )
    return { transport, join, end: Scope.close(scope, Exit.void) }
  })

  // It asks for nothing any more soon after it has asked, and so does not take back itself what it releases.
  const another = Effect.map(build("20 millis"), ({ end, join, transport }): Program => ({
    end,
    join,
    transport,
    publish: (topic, body, delayMillis) => {
      const due =
        delayMillis === undefined ? undefined : ({ _tag: "After", delay: Duration.millis(delayMillis) } as const)
      return transport.publish(topic, [{ ...outgoing(body), due }])
    },
    take: Effect.fnUntraced(function* (topic) {
      const receiver = yield* join(topic)
      const [delivery] = yield* receiver.take(1)
      return { settle: (settlement) => receiver.settle([[delivery, settlement]]) }
    })
  }))

  const awaited = Effect.fnUntraced(function* (receiver: Transport.Receiver) {
    while (true) {
      const [delivery] = yield* receiver.take(1)
      if (delivery.body !== atOnce) return delivery
      yield* receiver.settle([[delivery, Settlement.ack]])
    }
  })

  for (const [name, { commits: needed, prepare }] of Object.entries(scenarios)) {
    it.live.skipIf(needed === true && !commits)(
      `${name} is at most ${lateMillis} ms late for another program that waits`,
      () =>
        Effect.gen(function* () {
          const { join, transport } = yield* build("1 hour")
          // A timer and a round trip of this process are as late as the machine is busy.
          const controlLateness = Effect.fnUntraced(function* (due: number) {
            yield* Effect.sleep(Math.max(0, due - (yield* Clock.currentTimeMillis)))
            yield* transport.publish("control", [outgoing("control")])
            return (yield* Clock.currentTimeMillis) - due
          })
          const late: Array<number> = []
          for (let round = 0; round < rounds; round++) {
            // A new topic each time, for a read that waited before may still be given something.
            const topic = `t${round}`
            const receiver = yield* join(topic)
            const program = yield* another
            const act = yield* prepare(program, topic, 60 + 40 * round)
            const taking = yield* Effect.forkChild(
              Effect.zip(awaited(receiver), Clock.currentTimeMillis).pipe(Effect.timeout("20 seconds")),
              { startImmediately: true }
            )
            // It waits, and knows of nothing.
            yield* Effect.sleep("100 millis")
            const due = yield* act
            const [control, [delivery, taken]] = yield* Effect.all([controlLateness(due), Fiber.join(taking)], {
              concurrency: "unbounded"
            })
            yield* receiver.settle([[delivery, Settlement.ack]])
            yield* program.end
            late.push(taken - due - control)
          }
          // How late they are is what a few say that nothing held up; by polling none would be.
          const [, second = Infinity] = late.toSorted((a, b) => a - b)
          assert.isAtMost(second, lateMillis, `late by ${late.join(", ")} ms`)
          assert.isAtMost(Math.max(...late), 5000, `late by ${late.join(", ")} ms`)
        }).pipe(
          Effect.scoped,
          Effect.provide(RedisServer.layer()),
          Effect.provideService(References.MinimumLogLevel, "Info")
        ),
      60_000
    )
  }
})
