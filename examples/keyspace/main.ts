/**
 * Alerts that count for a short while. The desk is there from the beginning, the pager comes late, and the desk goes home for
 * a time: each gets what has not expired, in order, and is told how many alerts it has missed.
 */
import { NodeRuntime } from "@effect/platform-node"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Config, Console, Effect, Exit, Layer, Option, Queue, Redacted, References, Schema, Scope } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { MemoryKeyspace } from "waybill/memory"
import { IoRedis, RedisKeyspace } from "waybill/redis"

const Alert = Topic.make("alerts", { payload: Schema.Struct({ text: Schema.String }) })

const ttl = "2 seconds"

/** In memory, or on the Redis of REDIS_URL, under keys of this run. */
const Alerts = Layer.unwrap(
  Effect.gen(function* () {
    const url = yield* Config.option(Config.Redacted("REDIS_URL"))
    if (Option.isNone(url)) return MemoryKeyspace.layer({ ttl })
    const prefix = `example-${process.pid}`
    yield* Console.log(`on Redis; by hand: redis-cli SET '{${prefix}:alerts}:message:mine' '{"text":"by hand"}' EX 2`)
    return RedisKeyspace.layer({ prefix, ttl, notifications: "enable" }).pipe(
      Layer.provide(temporaryKeys(prefix)),
      Layer.provide(IoRedis.layer({ url: Redacted.value(url.value) }))
    )
  })
)

/** Somebody who listens until the scope closes; answers a queue with what it heard. */
const subscriber = Effect.fnUntraced(function* (name: string) {
  const heard = yield* Queue.unbounded<string>()
  const listening = Consumer.make(Alert, { group: name, concurrency: 1 }).pipe(
    Consumer.process(({ text }, { gap }) =>
      Effect.gen(function* () {
        if (gap !== undefined) yield* Console.log(`${name}: ${gap.missed} alerts expired before I came back`)
        yield* Console.log(`${name}: ${text}`)
        yield* Queue.offer(heard, text)
      })
    ),
    Consumer.layer
  )
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  yield* Scope.provide(Layer.build(listening), scope)
  return {
    hears: (text: string) =>
      Effect.repeat(Queue.take(heard), { until: (one) => one === text }).pipe(Effect.timeout("10 seconds")),
    leave: Effect.andThen(Scope.close(scope, Exit.void), Console.log(`${name} leaves`))
  }
})

const alert = (text: string) => Producer.publish(Alert, { text })

Effect.gen(function* () {
  const desk = yield* subscriber("desk")
  yield* Effect.forEach(["disk is filling", "disk is full", "database is read-only"], alert)
  yield* desk.hears("database is read-only")

  yield* Console.log("the pager comes late")
  const pager = yield* subscriber("pager")
  yield* pager.hears("database is read-only")

  yield* desk.leave
  yield* Effect.forEach(["disk has room", "database is back"], alert)
  yield* pager.hears("database is back")
  yield* Console.log(`nobody is at the desk for longer than an alert lives (${ttl})`)
  yield* Effect.sleep("2100 millis")
  yield* alert("all is well")
  const back = yield* subscriber("desk")
  yield* Effect.all([back.hears("all is well"), pager.hears("all is well")])
}).pipe(
  Effect.scoped,
  Effect.provide(Alerts),
  // Who starts and stops is in the story already.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
