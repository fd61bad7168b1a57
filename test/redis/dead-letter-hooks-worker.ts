/** A consumer whose messages die, in a process that is killed while its hook runs. It says when a hook begins. */
import { Effect, Layer, References, Schema } from "effect"
import { Consumer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"

const [url = ""] = process.argv.slice(2)

const consumer = Consumer.make(Topic.make("t", { payload: Schema.Int }), { group: "g", lease: "500 millis" }).pipe(
  Consumer.process(() => Effect.fail("no")),
  Consumer.orElse(Consumer.deadLetter("Refused")),
  Consumer.onDeadLetter(({ body }) =>
    Effect.andThen(
      Effect.sync(() => process.stdout.write(`${body}\n`)),
      body === "1" ? Effect.void : Effect.never
    )
  ),
  Consumer.run,
  Effect.provide(RedisStreams.layer().pipe(Layer.provide(IoRedis.layer({ url }))))
)

await Effect.runPromise(Effect.provideService(consumer, References.MinimumLogLevel, "None"))
