import { spawn } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Duration, Effect, Layer, References, Schema } from "effect"
import { Consumer, Producer, Settlement, Topic, Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import * as Fixture from "./Fixture.ts"
import { redis, storing } from "./Patterns.ts"

describe("hooks for dead letters", () => {
  it.live("a lost state of the group loses no letter, and few claims are kept whatever a hook does", () =>
    Effect.gen(function* () {
      const { groupKey, join, publish, redis, settle, take, transport } = yield* Fixture.make()
      const receiver = yield* join()
      const claim = (more: Partial<Transport.DeadLetterClaim> = {}) => {
        assert(transport.claimDeadLetters !== undefined)
        const lease = Duration.minutes(1)
        return transport.claimDeadLetters({
          topic: "t",
          group: "g",
          handled: [],
          held: [],
          limit: 1000,
          lease,
          from: undefined,
          ...more
        })
      }
      const die = Effect.fnUntraced(function* (...[first = "", ...rest]: ReadonlyArray<string>) {
        yield* publish(first, ...rest)
        yield* settle(receiver, yield* take(receiver, rest.length + 1), Settlement.deadLetter("Broken", "cause"))
      })
      const { position } = yield* claim()
      yield* die("a")
      yield* Effect.promise(() => redis.del(groupKey("state")))
      const found = yield* claim({ from: position })
      assert.deepStrictEqual(
        found.letters.map(({ body, id, reason }) => [body, id === "", reason]),
        [["a", false, "Broken"]]
      )
      yield* die(...Array.from({ length: 300 }, (_, n) => `${n}`))
      const { letters } = yield* claim()
      assert.lengthOf(letters, 255)
      assert.lengthOf((yield* claim()).letters, 0)
      const handled = letters.map(({ entry }) => entry)
      assert.lengthOf((yield* claim({ handled })).letters, 45)
      // Large ones come a few at a time.
      yield* die(...Array.from({ length: 4 }, () => "x".repeat(400_000)))
      assert.lengthOf((yield* claim()).letters, 3)
      assert.lengthOf((yield* claim()).letters, 1)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  for (const [name, layer] of Object.entries({ streams: storing.RedisStreams, lists: storing.RedisLists })) {
    it.live(`${name}: one that another consumer gives up is run at once`, () =>
      Effect.gen(function* () {
        const Numbers = Topic.make("t", { payload: Schema.Int })
        const begun = yield* Deferred.make<void>()
        const died = yield* Deferred.make<string>()
        const member = { group: "g", lease: "5 minutes" } as const
        const hooked = Consumer.make(Numbers, { ...member, concurrency: 1, prefetch: 0, shutdown: "10 millis" }).pipe(
          Consumer.process(() => Effect.andThen(Deferred.succeed(begun, undefined), Effect.never)),
          Consumer.onDeadLetter(({ body }) => Deferred.succeed(died, String(body)))
        )
        yield* Layer.build(Consumer.layer(hooked))
        yield* Producer.publish(Numbers, 1)
        yield* Deferred.await(begun)
        const other = Consumer.make(Numbers, member).pipe(
          Consumer.process(() => Effect.fail("Broken" as const)),
          Consumer.orElse(Consumer.deadLetter("Broken"))
        )
        yield* Layer.build(Consumer.layer(other))
        yield* Producer.publish(Numbers, 2)
        assert.strictEqual(yield* Effect.timeout(Deferred.await(died), "20 seconds"), "2")
      }).pipe(
        Effect.scoped,
        // Without a notification, the next heartbeat would tell.
        Effect.provide(
          layer({ pollInterval: "1 minute" }).pipe(Layer.provide(redis), Layer.provide(RedisServer.layer()))
        ),
        Effect.provideService(References.MinimumLogLevel, "None")
      )
    )
  }

  it.live("what a process had in its hook when it was killed is run by another one, and nothing else", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const layer = RedisStreams.layer().pipe(Layer.provideMerge(IoRedis.layer({ url })))
      const worker = yield* Effect.acquireRelease(
        Effect.sync(() => {
          const path = new URL("dead-letter-hooks-worker.ts", import.meta.url).pathname
          return spawn(process.execPath, [path, url], { stdio: ["ignore", "pipe", "inherit"] })
        }),
        (worker) => Effect.sync(() => worker.kill("SIGKILL"))
      )
      let begun = ""
      worker.stdout.on("data", (chunk) => (begun += String(chunk)))
      const Numbers = Topic.make("t", { payload: Schema.Int })
      yield* Effect.gen(function* () {
        const { inspector } = yield* Transport.AtLeastOnce
        const living = Effect.map(inspector.describe("t"), ({ groups }) => groups[0]?.consumers.length ?? 0)
        yield* Fixture.becomes("the worker has joined", living, 1)
        yield* Producer.publishAll(Numbers, [1, 2, 3])
        yield* Fixture.becomes(
          "its hooks run",
          Effect.sync(() => begun.trim().split("\n").sort()),
          ["1", "2", "3"]
        )
        worker.kill("SIGKILL")
        const again: Array<string> = []
        const consumer = Consumer.make(Numbers, { group: "g", lease: "500 millis" }).pipe(
          Consumer.process(() => Effect.void),
          Consumer.onDeadLetter(({ body, reason }) => Effect.sync(() => again.push(`${body} ${reason}`)))
        )
        yield* Fixture.becomes(
          "another has run them",
          Effect.sync(() => again.toSorted()),
          ["2 Refused", "3 Refused"]
        ).pipe(Effect.provide(Consumer.layer(consumer)))
      }).pipe(Effect.provide(layer))
    }).pipe(
      Effect.scoped,
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provide(RedisServer.layer())
    )
  )
})
