/** A program that shares a server leaves none of its own keys there, and all those of others. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { temporaryKeys } from "@waybill/testing/temporaryKeys"
import { Effect, Layer, Schema } from "effect"
import { Producer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { client } from "../redis/Fixture.ts"

const Note = Topic.make("notes", { payload: Schema.String })

describe("temporaryKeys", () => {
  it.live("deletes the keys of its prefixes, which are no patterns, and no others", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const redis = yield* client(url)
      // Each contains the first prefix.
      const others = ["run", "{run}", "my-run:x", "{my-run:notes}:stream", "runs:topics", "{runs:notes}:meta"]
      for (const key of others) yield* Effect.promise(() => redis.set(key, "theirs"))
      const connection = IoRedis.layer({ url })
      for (const prefix of ["run", "r[u]n*"]) {
        yield* Producer.publish(Note, "mine").pipe(
          Effect.provide(
            RedisStreams.layer({ prefix }).pipe(
              Layer.provide(temporaryKeys("absent", prefix)),
              Layer.provide(connection)
            )
          )
        )
        assert.sameMembers(yield* Effect.promise(() => redis.keys("*")), others, prefix)
      }
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})
