/** Handles so many messages of a pattern, 200 at a time, and says how many it has. */
import { Deferred, Effect, Layer, References, Schema } from "effect"
import { Consumer, Topic } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"

const [pattern = "", url = "", count = "0"] = process.argv.slice(2)

const layers = {
  streams: RedisStreams.layer({ prefix: "streams" }),
  lists: RedisLists.layer({ prefix: "lists" }),
  "exactly-once": RedisExactlyOnce.layer({ prefix: "exactly-once" }),
  keyspace: RedisKeyspace.layer({ prefix: "keyspace", notifications: "enable" })
}

const layer = layers[pattern as keyof typeof layers].pipe(Layer.provide(IoRedis.layer({ url })))

const program = Effect.gen(function* () {
  const done = yield* Deferred.make<void>()
  let handled = 0
  const consumer = Consumer.make(Topic.make("t", { payload: Schema.String }), { group: "g", concurrency: 200 }).pipe(
    Consumer.process((body) =>
      Effect.andThen(
        body.length > 1 ? Effect.sleep("20 millis") : Effect.void,
        Effect.suspend(() => (++handled === Number(count) ? Deferred.succeed(done, undefined) : Effect.void))
      )
    ),
    Consumer.run
  )
  yield* Effect.raceFirst(consumer, Deferred.await(done)).pipe(Effect.provide(layer))
  process.stdout.write(String(handled))
})

await Effect.runPromise(Effect.provideService(program, References.MinimumLogLevel, "None"))
