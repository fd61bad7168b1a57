/** What a process holds of messages is bounded in bytes, whatever the size of those before them. */
import { execFile } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Effect, Layer, References } from "effect"
import { Inspector, type Message, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"
import { outgoing } from "./Fixture.ts"

const patterns = {
  streams: RedisStreams.layer({ prefix: "streams" }),
  lists: RedisLists.layer({ prefix: "lists" }),
  "exactly-once": RedisExactlyOnce.layer({ prefix: "exactly-once" }),
  keyspace: RedisKeyspace.layer({ prefix: "keyspace", notifications: "enable" })
}

const tiny = 5_000
const large = 270

/** A consumer in a process with a small heap; answers how many messages it has handled. */
const consume = (pattern: string, url: string) =>
  Effect.callback<string>((resume) => {
    const worker = new URL("large-messages-worker.ts", import.meta.url).pathname
    execFile(
      process.execPath,
      ["--max-old-space-size=190", worker, pattern, url, String(tiny + large)],
      (error, stdout, stderr) =>
        resume(Effect.succeed(error === null ? stdout : `${error.message}${stderr.slice(-2000)}`))
    )
  })

describe("large messages behind tiny ones", () => {
  it.live.each(sampled("large messages", Object.entries(patterns), 2))(
    "case B7, E37: a heap of 190 MB survives them, %s",
    ([pattern, layer]) =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const context = yield* Layer.build(layer.pipe(Layer.provideMerge(IoRedis.layer({ url }))))
        const transport = Context.get(context, Transport.AtMostOnce)
        const publish = Effect.fnUntraced(function* (count: number, size: number, at: number) {
          const batch = (some: number): [Message.Outgoing, ...Array<Message.Outgoing>] => {
            const one = outgoing({ body: JSON.stringify("x".repeat(size)) })
            return [one, ...Array.from({ length: some - 1 }, () => one)]
          }
          for (let left = count; left > 0; left -= at) yield* transport.publish("t", batch(Math.min(at, left)))
        })
        yield* publish(tiny, 1, 500)
        yield* publish(large, 900_000, 4)
        assert.strictEqual(yield* consume(pattern, url), String(tiny + large))
        const inspector = Context.get(context, Inspector.Inspector)
        const { groups } = yield* inspector.describe("t")
        assert.deepInclude(groups[0], { lag: 0, pending: 0, waiting: 0 })
      }).pipe(
        Effect.scoped,
        Effect.provide(RedisServer.layer()),
        Effect.provideService(References.MinimumLogLevel, "None")
      ),
    180_000
  )
})
