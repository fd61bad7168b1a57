import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Effect, Layer, Schema } from "effect"
import { DeadLetters, Inspector, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisInspector } from "waybill/redis"

const Order = Topic.make("orders", { payload: Schema.String })

describe("names that no group can have", () => {
  it.effect("case B13: a redrive and a discard are refused, and do not find nothing", () =>
    Effect.gen(function* () {
      for (const name of ["", "g\ud800"]) {
        for (const pass of [DeadLetters.redrive, DeadLetters.discard]) {
          const { reason } = yield* Effect.flip(pass(Order, name))
          assert.deepInclude({ ...reason }, { _tag: "InvalidName", kind: "group", name })
        }
      }
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.live("case B13: an inspector of every pattern refuses them too", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const layer = RedisInspector.layer().pipe(Layer.provide(IoRedis.layer({ url })))
      const inspector = Context.get(yield* Layer.build(layer), Inspector.Inspector)
      for (const topic of ["", "t\udc00"]) {
        const { reason } = yield* Effect.flip(inspector.describe(topic))
        assert.deepInclude({ ...reason }, { _tag: "InvalidName", kind: "topic", name: topic })
      }
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})
