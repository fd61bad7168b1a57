/**
 * Subscribers of the keyspace pattern in bad weather: each has to hear everything that has not expired, in order, without
 * a hole and without a repetition, whatever the connections do. The numbers are those of the fault matrix.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Duration, Effect, Exit, Fiber, Logger, Random, Scope } from "effect"
import { Redis } from "ioredis"
import { Producer, Transport } from "waybill"
import { becomes } from "../redis/Fixture.ts"
import { make, settle } from "../redis/KeyspaceFixture.ts"
import * as Fixture from "./Fixture.ts"
import { Job } from "./Jobs.ts"
import * as Member from "./Member.ts"
import { keyspaceKeys } from "./Pattern.ts"
import { ask, drawing, many, settled } from "./Verdict.ts"

/** What differs between what was sent and what was heard. */
const differences = (sent: ReadonlyArray<string>, heard: ReadonlyArray<string>) => {
  const heardOnce = [...new Set(heard)]
  const known = new Set(heard)
  return {
    missing: sent.filter((body) => !known.has(body)),
    repeated: heard.length - heardOnce.length,
    inOrder: JSON.stringify(heardOnce) === JSON.stringify(sent.filter((body) => known.has(body)))
  }
}
const none = { missing: [], repeated: 0, inOrder: true }

const play = <A, E>(test: Effect.Effect<A, E, RedisServer.RedisServer | Scope.Scope>) =>
  test.pipe(Effect.scoped, Effect.provide(RedisServer.layer()), Effect.provide(Logger.layer([])))

/** Somebody who hears: what it has heard so far, and how it goes away and comes back. */
interface Subscriber {
  readonly heard: ReadonlyArray<string>
  readonly restart: Effect.Effect<void>
}

/** A season of bad weather between a publisher at the server and a subscriber behind a proxy; answers all that was sent. */
const season = Effect.fnUntraced(function* (
  name: string,
  publish: (bodies: readonly [string, ...ReadonlyArray<string>]) => Effect.Effect<unknown, unknown>,
  subscribe: (proxy: FaultProxy.FaultProxy["Service"]) => Effect.Effect<Subscriber, unknown, Scope.Scope>,
  redis: Redis,
  patience: number
) {
  const server = yield* RedisServer.RedisServer
  const proxy = yield* FaultProxy.make(server.port)
  const draw = yield* drawing(name)
  const sent: Array<string> = []
  const send = (count: number) => {
    const bodies = Array.from({ length: count }, (_, i) => `m${sent.length + i}`)
    sent.push(...bodies)
    return publish(bodies as [string, ...Array<string>]) // count is from 1
  }
  // It comes late.
  yield* send(300)
  const subscriber = yield* subscribe(proxy)
  const caughtUp = Effect.gen(function* () {
    const last = sent.at(-1) ?? ""
    // Somebody who has missed it would be waited for in vain.
    for (let left = patience / 20; left > 0 && !subscriber.heard.includes(last); left--) yield* Effect.sleep(20)
  })
  const faults = {
    calm: Effect.void,
    reset: proxy.reset,
    "lost request": proxy.resetBefore("EVALSHA"),
    "lost reply": proxy.dropReply("EVALSHA"),
    "cut reply": Effect.flatMap(draw(Random.nextIntBetween(1, 3000)), (bytes) => proxy.cutAfter(bytes, "replies")),
    "black hole": Effect.andThen(proxy.blackhole, Effect.andThen(Effect.sleep(30), proxy.pass)),
    "E14 CLIENT KILL TYPE pubsub": ask(() => redis.call("CLIENT", "KILL", "TYPE", "pubsub")),
    "E14 CLIENT KILL TYPE normal": ask(() => redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")),
    restart: Effect.andThen(
      caughtUp,
      Effect.suspend(() => subscriber.restart)
    )
  }
  const names = Object.keys(faults) as Array<keyof typeof faults> // these are its keys
  for (let round = 0; round < 60; round++) {
    const fault = names[yield* draw(Random.nextIntBetween(0, names.length))] ?? "calm"
    yield* send(yield* draw(Random.nextIntBetween(1, 20)))
    yield* faults[fault]
    yield* send(yield* draw(Random.nextIntBetween(1, 20)))
    yield* Effect.sleep(yield* draw(Random.nextIntBetween(0, 40)))
  }
  yield* caughtUp
  // A connection that was lost at the end is made again, and what comes then is heard by everybody.
  yield* Effect.sleep(300)
  yield* send(1)
  yield* caughtUp
  return differences(sent, subscriber.heard)
})

describe("subscribers in bad weather", () => {
  it.live(
    "E33 a late subscriber hears everything in order and then what is new, through cuts, kills and restarts",
    () =>
      play(
        Effect.gen(function* () {
          const fixture = yield* make()
          const result = yield* season(
            "keyspace",
            ([first, ...others]) => fixture.publish(first, ...others),
            Effect.fnUntraced(function* (proxy) {
              const program = yield* fixture.another({ url: proxy.url })
              const heard: Array<string> = []
              const start = Effect.gen(function* () {
                const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
                const receiver = yield* Effect.retry(Scope.provide(program.join(), scope), { times: 20 })
                const fiber = yield* Effect.forkDetach(
                  Effect.forever(
                    Effect.uninterruptibleMask((restore) =>
                      restore(receiver.take(64)).pipe(
                        Effect.flatMap((deliveries) => {
                          heard.push(...deliveries.map(({ body }) => String(body)))
                          return Effect.retry(settle(receiver, deliveries), { times: 100 })
                        }),
                        // The transport is away; the next take waits for it.
                        Effect.ignore
                      )
                    )
                  )
                )
                return { fiber, scope }
              })
              let present = yield* start
              const end = Effect.suspend(() =>
                Effect.andThen(Fiber.interrupt(present.fiber), Scope.close(present.scope, Exit.void))
              )
              yield* Effect.addFinalizer(() => end)
              const scope = yield* Scope.Scope
              const restart = Effect.gen(function* () {
                yield* end
                present = yield* Scope.provide(Effect.orDie(start), scope)
              })
              return { heard, restart }
            }),
            fixture.redis,
            60_000
          )
          assert.deepStrictEqual(result, none)
        })
      ),
    120_000
  )

  it.live(
    "who only scans, listens and reads does not: it misses messages, and the same check finds it",
    () =>
      play(
        Effect.gen(function* () {
          const { redis } = yield* make()
          yield* ask(() => redis.config("SET", "notify-keyspace-events", "KEA"))
          const result = yield* season(
            "naive keyspace",
            (bodies) =>
              Effect.forEach(bodies, (body) => ask(() => redis.set(`pubsub:alerts:${body}`, body, "EX", 3600))),
            Effect.fnUntraced(function* (proxy) {
              const heard: Array<string> = []
              const start = async () => {
                const listener = new Redis(proxy.url)
                const reader = new Redis(proxy.url)
                for (const client of [listener, reader]) client.on("error", () => {})
                const read = async (key: string) => {
                  const body = await reader.get(key).catch(() => null)
                  if (body !== null) heard.push(body)
                }
                await listener.psubscribe("__keyevent@0__:set").catch(() => {})
                listener.on("pmessage", (_pattern, _channel, key) => {
                  if (key.startsWith("pubsub:alerts:")) void read(key)
                })
                return { listener, reader, read }
              }
              let present = yield* Effect.promise(start)
              const keys = yield* ask(() => redis.keys("pubsub:alerts:*"))
              yield* Effect.promise(() => Promise.all(keys.map(present.read)))
              const end = Effect.sync(() => {
                present.listener.disconnect()
                present.reader.disconnect()
              })
              yield* Effect.addFinalizer(() => end)
              return {
                heard,
                restart: Effect.andThen(
                  end,
                  Effect.promise(async () => {
                    present = await start()
                  })
                )
              }
            }),
            redis,
            200
          )
          assert.isNotEmpty(result.missing)
        })
      ),
    120_000
  )

  it.live("E14 a subscription that was killed is made again, and what was published meanwhile is heard", () =>
    play(
      Effect.gen(function* () {
        const { events, join, publish, redis } = yield* make({ pollInterval: "1 hour" })
        const receiver = yield* join({ lease: Duration.hours(1) })
        for (const body of ["a", "b", "c"]) {
          const back = events.length
          const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
          yield* ask(() => redis.call("CLIENT", "KILL", "TYPE", "pubsub"))
          yield* publish(body)
          const [delivery] = yield* Fiber.join(fiber)
          assert.strictEqual(delivery.body, body)
          yield* settle(receiver, [delivery])
          const again = Effect.sync(() =>
            events.slice(back).some((event) => event._tag === "Reconnected" && event.role === "subscriber:pattern")
          )
          yield* becomes("the subscription is back", again, true)
        }
      })
    )
  )

  it.live("E9 a server that stands still: publishing fails in time, and what it did is done once", () =>
    play(
      Effect.gen(function* () {
        const { join, publish, server } = yield* make({ publishTimeout: "4 seconds" })
        const receiver = yield* join()
        const fiber = yield* Effect.forkChild(receiver.take(10), { startImmediately: true })
        yield* server.pause
        const { reason } = yield* Effect.flip(publish({ body: "a", id: "a" }))
        assert.deepInclude(reason, { _tag: "Disconnected", ambiguous: true })
        yield* server.resume
        yield* publish({ body: "a", id: "a" }, { body: "b", id: "b" })
        const heard = [...(yield* Fiber.join(fiber))]
        while (heard.length < 2) heard.push(...(yield* receiver.take(10)))
        assert.deepStrictEqual(
          heard.map(({ body }) => body),
          ["a", "b"]
        )
        assert.deepStrictEqual(yield* settle(receiver, heard), ["Settled", "Settled"])
      })
    )
  )

  it.live.each(["FLUSHALL", "meta", "numbers", "groups", "group:g:consumers", "group:g:position"])(
    "E17 %s is lost while somebody waits: the work goes on",
    (lost) =>
      play(
        Effect.gen(function* () {
          const { events, join, key, publish, redis } = yield* make({ pollInterval: "50 millis" })
          const receiver = yield* join({ lease: Duration.seconds(1) })
          yield* publish("before")
          yield* settle(receiver, yield* receiver.take(1))
          const fiber = yield* Effect.forkChild(receiver.take(1), { startImmediately: true })
          yield* lost === "FLUSHALL" ? ask(() => redis.flushall()) : ask(() => redis.del(key(lost)))
          if (lost === "FLUSHALL" || lost === "groups") {
            const told = Effect.sync(() => events.some(({ _tag }) => _tag === "GroupRecreated"))
            yield* becomes("told", told, true)
          }
          yield* publish("after")
          let [delivery] = yield* Fiber.join(fiber)
          // A group that does not know where it was begins at the front.
          if (delivery.body === "before") {
            assert.strictEqual(lost, "group:g:position")
            yield* settle(receiver, [delivery])
            ;[delivery] = yield* receiver.take(1)
          }
          assert.strictEqual(delivery.body, "after")
          assert.deepStrictEqual(yield* settle(receiver, [delivery]), ["Settled"])
        })
      )
  )

  it.live("E25 a key of twenty megabytes that somebody wrote arrives whole, and holds up nobody for good", () =>
    play(
      Effect.gen(function* () {
        const { join, key, publish, redis } = yield* make()
        const receiver = yield* join()
        const large = Buffer.alloc(20 * 1024 * 1024, "waybill ")
        yield* ask(() => redis.set(key("message:large"), large, "EX", 60))
        const [delivery] = yield* receiver.take(1)
        assert.isTrue(Buffer.from(delivery.body).equals(large))
        yield* settle(receiver, [delivery])
        yield* publish("small")
        assert.strictEqual((yield* receiver.take(1))[0].body, "small")
      })
    )
  )
})

describe("others who write into the topic, keyspace", () => {
  const reasonOf = (error: unknown): Transport.Reason => {
    if (error instanceof Transport.TransportError) return error.reason
    throw error
  }

  it.live("E20 WRONGTYPE of any key before the start: the consumer fails and names it, and writes nothing", () =>
    Effect.gen(function* () {
      const { redis, server } = yield* Fixture.make
      for (const [name, key] of Object.entries(keyspaceKeys)) {
        yield* ask(() => redis.flushall())
        // Numbers are a text.
        yield* ask<unknown>(() => (name === "numbers" ? redis.sadd(key, "mine") : redis.set(key, "mine")))
        const member = yield* Member.join(`member-${name}`, server.url, {}, "keyspace")
        assert.deepInclude(reasonOf(yield* member.fails), { _tag: "WrongKeyType", key })
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
        yield* member.leave
      }
    }).pipe(Fixture.run({ pattern: "keyspace" }))
  )

  it.live("E20 WRONGTYPE of any key that a publisher writes: it fails and names it, and writes nothing", () =>
    Effect.gen(function* () {
      const { redis } = yield* Fixture.make
      for (const name of ["meta", "numbers", "delayed", "delayedBodies"] as const) {
        yield* ask(() => redis.flushall())
        const key = keyspaceKeys[name]
        yield* ask<unknown>(() => (name === "numbers" ? redis.sadd(key, "mine") : redis.set(key, "mine")))
        const error = yield* Effect.flip(Producer.publish(Job, { act: "work" }, { id: "one", delay: "1 hour" }))
        assert.deepInclude(reasonOf(error), { _tag: "WrongKeyType", key })
        assert.deepStrictEqual(yield* ask(() => redis.keys("*")), [key])
      }
    }).pipe(Fixture.run({ pattern: "keyspace" }))
  )

  it.live("E24 whatever they write becomes a message, or a dead letter with what arrived, and the loop goes on", () =>
    Effect.gen(function* () {
      const { workers, join, publish, redis, server, verdict } = yield* Fixture.make
      const member = yield* join(server.url)
      const wrong: ReadonlyArray<string | Buffer> = [
        "{not json",
        '{"act":"dance"}',
        "",
        Buffer.from([0xff, 0xfe, 0x00, 0x80, 0x7b]),
        "waybill:1 oops\n{}",
        'waybill:1 {"headers":{"a":1}}\n{"act":"work"}',
        "[".repeat(50_000)
      ]
      for (const [i, body] of [...wrong, '{"act":"work"}'].entries()) {
        yield* ask(() => redis.set(keyspaceKeys.meta.replace(/meta$/, `message:theirs-${i}`), body, "EX", 60))
      }
      yield* member.happens("Settled", wrong.length + 1)
      yield* publish(many("after", 20, { act: "work" }))
      yield* settled(redis)
      for (const { fact } of member.recorder.events) {
        if (fact._tag !== "Settled" || fact.id.startsWith("after-")) continue
        workers.recorder.record({ _tag: "Published", id: fact.id })
      }
      const { letters, report } = yield* verdict()
      const bytes = (body: unknown) => Buffer.from(body as string).toString("base64")
      assert.sameMembers(
        letters.map(({ body }) => bytes(body)),
        wrong.map(bytes)
      )
      assert.isTrue(letters.every(({ reason }) => reason === "DecodeFailure"))
      assert.strictEqual(report.counts.acknowledged, 21)
    }).pipe(Fixture.run({ pattern: "keyspace" }))
  )
})
