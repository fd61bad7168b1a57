/** What is more urgent goes first, also before what came back and before what was read ahead. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, Random, References, Schedule, Schema } from "effect"
import { Consumer, DeadLetters, type Delivery, Inspector, Producer, Settlement, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryLists } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisLists } from "waybill/redis"
import { becomes, outgoing } from "./Fixture.ts"

const order = "priority"
const onRedis = <A>(layer: (prefix: string) => Layer.Layer<A, never, IoRedis.IoRedis>) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const prefix = `urgent${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
      return layer(prefix).pipe(Layer.provide(IoRedis.layer({ url })))
    })
  ).pipe(Layer.provide(RedisServer.layer()))

const patterns = {
  RedisLists: onRedis((prefix) => RedisLists.layer({ prefix, order })),
  RedisExactlyOnce: onRedis((prefix) => RedisExactlyOnce.layer({ prefix, order })),
  MemoryLists: MemoryLists.layer({ order }),
  MemoryExactlyOnce: MemoryExactlyOnce.layer({ order })
}

const priorities = ["high", "normal", "low"] as const

describe.each(Object.entries(patterns))("priorities, %s", (_, layer) => {
  const built = Effect.provideService(Layer.build(layer), References.MinimumLogLevel, "None")
  it.live("case D4: a message that comes back waits by its priority, and then by its age", () =>
    Effect.gen(function* () {
      const transport = Context.get(yield* built, Transport.AtMostOnce)
      const receiver = yield* transport.receive({
        topic: "work",
        group: "g",
        start: "earliest",
        maxDeliveries: 5,
        lease: Duration.seconds(15),
        shutdown: Duration.seconds(2)
      })
      const publish = (...names: ReadonlyArray<string>) =>
        Effect.forEach(names, (name) =>
          transport.publish("work", [outgoing({ body: name, headers: { priority: name.split(" ")[0] ?? "" } })])
        )
      const take = Effect.fnUntraced(function* (count: number) {
        const taken: Array<string> = []
        while (taken.length < count) {
          const deliveries = yield* receiver.take(1)
          yield* receiver.settle([[deliveries[0], Settlement.ack]])
          taken.push(String(deliveries[0].body))
        }
        return taken
      })
      for (const how of [Settlement.release, Settlement.retry(Duration.zero, "again")]) {
        yield* publish("low 1", "low 2", "normal 1", "high 1")
        const held: Array<readonly [Delivery.Delivery, Settlement.Settlement]> = []
        while (held.length < 4) for (const delivery of yield* receiver.take(10)) held.push([delivery, how])
        yield* publish("high 2", "normal 2", "low 3", "high 3", "high 4", "high 5", "high 6")
        const [first, ...others] = held
        if (first !== undefined) yield* receiver.settle([first, ...others])
        assert.deepStrictEqual(yield* take(11), [
          ..."high 1,high 2,high 3,high 4,high 5,high 6".split(","),
          ..."normal 1,normal 2,low 1,low 2,low 3".split(",")
        ])
      }
    }).pipe(Effect.scoped)
  )

  it.live("case A4: something urgent is begun by the next free handler, whatever was read ahead", () =>
    Effect.gen(function* () {
      const Work = Topic.make("work", { payload: Schema.Struct({ name: Schema.String, millis: Schema.Number }) })
      const context = yield* built
      const begun: Array<string> = []
      const publish = (priority: string, names: ReadonlyArray<string>, millis: number) =>
        Producer.publishAll(
          Work,
          names.map((name) => ({ name, millis })),
          () => ({ headers: { priority } })
        )
      yield* Effect.gen(function* () {
        yield* Consumer.make(Work, { group: "g", concurrency: 4, shutdown: "200 millis" }).pipe(
          Consumer.process(({ millis, name }) =>
            Effect.andThen(
              Effect.sync(() => begun.push(name)),
              millis > 0 ? Effect.sleep(millis) : Effect.void
            )
          ),
          Consumer.layer,
          Layer.build
        )
        const named = (count: number, name: string) => Array.from({ length: count }, () => name)
        yield* publish("low", named(3000, "quick"), 0)
        yield* publish("low", named(200, "slow"), 100)
        const slow = () => begun.filter((name) => name === "slow").length
        yield* becomes(
          "slow ones have begun",
          Effect.sync(() => slow() > 4),
          true
        )
        for (const priority of priorities.slice(0, 2)) {
          const before = slow()
          yield* publish(priority, [priority], 0)
          yield* becomes(
            "the urgent one has begun",
            Effect.sync(() => begun.includes(priority)),
            true
          )
          assert.isAtMost(begun.slice(0, begun.indexOf(priority)).filter((name) => name === "slow").length - before, 12)
        }
      }).pipe(Effect.provideContext(context))
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it.live("case A4: so it is where something urgent comes back behind hundreds that were handed back", () =>
    Effect.gen(function* () {
      const Work = Topic.make("work", { payload: Schema.Struct({ name: Schema.String, millis: Schema.Number }) })
      const context = yield* built
      const begun: Array<string> = []
      const times = (name: string) => begun.filter((other) => other === name).length
      const publish = (priority: string, names: ReadonlyArray<string>, millis: number) =>
        Producer.publishAll(
          Work,
          names.map((name) => ({ name, millis })),
          () => ({ headers: { priority } })
        )
      const until = (what: string, holds: () => boolean) => becomes(what, Effect.sync(holds), true)
      /** How many slow ones begin until one of this name has begun so many times. */
      const meanwhile = Effect.fnUntraced(function* (name: string, count: number) {
        const before = times("slow")
        yield* until(`${name} has begun`, () => times(name) === count)
        return begun.slice(0, begun.lastIndexOf(name)).filter((other) => other === "slow").length - before
      })
      yield* Effect.gen(function* () {
        yield* Consumer.make(Work, { group: "g", concurrency: 4, shutdown: "200 millis" }).pipe(
          Consumer.process(({ millis, name }) => {
            begun.push(name)
            if (millis > 0) return Effect.sleep(millis)
            const fails = (name === "rejected" || name === "retried") && times(name) === 1
            return fails ? Effect.fail({ _tag: name } as const) : Effect.void
          }),
          Consumer.onFailure({
            rejected: Consumer.deadLetter("rejected"),
            retried: Consumer.retry(Schedule.spaced("500 millis").pipe(Schedule.upTo({ times: 1 })))
          }),
          Consumer.layer,
          Layer.build
        )
        yield* publish("high", ["rejected"], 0)
        const { describe } = yield* Inspector.Inspector
        const dead = Effect.map(describe(Work.name), ({ groups }) => groups[0]?.deadLetters)
        yield* becomes("it is dead-lettered", Effect.orDie(dead), 1)
        yield* publish("low", Array<string>(3000).fill("quick"), 0)
        yield* until("quick ones are done", () => times("quick") === 3000)
        yield* publish("low", Array<string>(450).fill("slow"), 100)
        yield* until("slow ones have begun", () => times("slow") > 0)
        yield* DeadLetters.redrive(Work, "g")
        assert.isAtMost(yield* meanwhile("rejected", 2), 12)
        yield* publish("high", ["retried"], 0)
        // Four of them begin in each tenth of a second until it is due.
        assert.isAtMost(yield* meanwhile("retried", 2), 60)
      }).pipe(Effect.provideContext(context))
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )
})
