/**
 * What is lost is told: how many messages, and between which. Everything that was published either arrives once, or lies
 * in a gap, whatever happens to the connection. A naive subscriber, which subscribes again and says nothing, is held to
 * the same, and fails.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Layer, Random, References, type Scope } from "effect"
import { Redis } from "ioredis"
import { type Gap, type Lifecycle, Settlement, Transport } from "waybill"
import { IoRedis, RedisPubSub } from "waybill/redis"
import * as Port from "../../packages/testing/src/Port.ts"
import { becomes, client, outgoing } from "./Fixture.ts"

/** What a subscriber was told, in order: a body, or a gap in front of the next one. */
type Told = string | Gap.Gap

const servers = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

const build = (url: string, options?: RedisPubSub.Options) =>
  Effect.map(Layer.build(RedisPubSub.layer(options).pipe(Layer.provideMerge(IoRedis.layer({ url })))), (context) =>
    Context.get(context, Transport.AtMostOnce)
  )

/** A publisher beside the faults, and a subscriber behind the proxy that notes what it is told. */
const fixture = Effect.fnUntraced(function* (options?: RedisPubSub.Options) {
  const server = yield* RedisServer.RedisServer
  const proxy = yield* FaultProxy.FaultProxy
  // Forty megabytes take their time on a slow machine.
  const publisher = yield* build(server.url, { publishTimeout: "1 minute" })
  const subscriber = yield* build(proxy.url, options)
  const told: Array<Told> = []
  const events: Array<Lifecycle.Event> = []
  yield* subscriber.lifecycle.listen((event) => events.push(event))
  const receiver = yield* subscriber.receive({
    topic: "t",
    group: "g",
    start: "latest",
    lease: Duration.seconds(10),
    maxDeliveries: 5,
    shutdown: Duration.seconds(1)
  })
  let witnessed = 0
  const witness = yield* subscriber.receive({
    topic: "t",
    group: "witness",
    start: "latest",
    lease: Duration.seconds(10),
    maxDeliveries: 5,
    shutdown: Duration.seconds(1)
  })
  yield* Effect.forkScoped(
    Effect.forever(
      Effect.map(witness.take(100), (taken) => {
        // What it was too slow for it has heard of, too.
        for (const { gap } of taken) witnessed += 1 + (gap?.missed ?? 0)
      })
    )
  )
  const listen = Effect.forkScoped(
    Effect.forever(
      Effect.flatMap(receiver.take(100), (deliveries) => {
        for (const { body, gap } of deliveries) {
          if (gap !== undefined) told.push(gap)
          told.push(String(body))
        }
        const [first, ...rest] = deliveries.map((delivery) => [delivery, Settlement.ack] as const)
        return receiver.settle([first!, ...rest])
      })
    )
  )
  const ids: Array<string> = []
  const publish = (...bodies: ReadonlyArray<string>) =>
    Effect.forEach(
      bodies,
      (body) => Effect.map(publisher.publish("t", [outgoing(body)]), ([receipt]) => ids.push(receipt!.id)),
      { discard: true }
    )
  const gaps = () => told.filter((one): one is Gap.Gap => typeof one !== "string")
  const heard = () => told.filter((one) => typeof one === "string")
  return {
    witnessed: Effect.sync(() => witnessed),
    server,
    proxy,
    receiver,
    listen,
    publish,
    told,
    gaps,
    heard,
    events,
    ids
  }
})

/**
 * The oracle: numbered from 0, everything arrives in order and once, or lies in a gap that says how many it were. A gap that
 * says it cannot tell may hold nothing that had a number.
 */
const complaints = (told: ReadonlyArray<Told>, published: number): ReadonlyArray<string> => {
  const found: Array<string> = []
  let next = 0
  let missed = 0
  for (const one of told) {
    if (typeof one !== "string") {
      missed += one.missed ?? 0
      continue
    }
    const number = Number(one)
    if (number < next) found.push(`${number} came again`)
    else if (number - next !== missed)
      found.push(`in front of ${number}: ${number - next} are missing, ${missed} were told`)
    next = number + 1
    missed = 0
  }
  if (next !== published) found.push(`${published - next} at the end`)
  return found
}

const quietly = Effect.provideService(References.MinimumLogLevel, "None")

const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => String(from + i))

/** Publishes 1,000 messages while `hurt` is done to the subscriber at some moment, then some more until they are heard. */
const published = 1000
const through = Effect.fnUntraced(function* (
  { heard, publish }: Pick<Effect.Success<ReturnType<typeof fixture>>, "heard" | "publish">,
  hurt: Effect.Effect<unknown, unknown, Scope.Scope>
) {
  const seed = yield* Random.nextIntBetween(100, 900)
  yield* publish(...numbers(0, seed))
  yield* Effect.all([hurt, publish(...numbers(seed, published))], { concurrency: 2, discard: true })
  let count = published
  while (!heard().includes(String(count - 1))) {
    yield* publish(String(count++))
    yield* Effect.sleep("20 millis")
  }
  return { count, seed }
})

describe("RedisPubSub tells what is missing", () => {
  for (const [name, hurt] of [
    ["the connection is reset", (s: Effect.Success<ReturnType<typeof fixture>>) => s.proxy.reset],
    [
      "CLIENT KILL TYPE pubsub",
      (s: Effect.Success<ReturnType<typeof fixture>>) =>
        Effect.scoped(
          Effect.flatMap(client(s.server.url), (redis) =>
            Effect.promise(() => redis.call("CLIENT", "KILL", "TYPE", "pubsub"))
          )
        )
    ],
    [
      "the connection is cut in the middle of a message",
      (s: Effect.Success<ReturnType<typeof fixture>>) => Effect.flatten(s.proxy.cutAfter(5000, "replies"))
    ]
  ] as const) {
    it.live(`when ${name} during 1,000 publishes (E14)`, () =>
      Effect.gen(function* () {
        const s = yield* fixture()
        yield* s.listen
        const { count, seed } = yield* through(s, hurt(s))
        assert.deepStrictEqual(complaints(s.told, count), [], `cut near ${seed}`)
        assert.isAtLeast(s.gaps().length, 1)
        const lost = s.gaps().find(({ missed }) => missed !== undefined)
        if (lost !== undefined) {
          const after = s.ids.indexOf(lost.after ?? "")
          assert.deepStrictEqual(
            { before: s.ids.indexOf(lost.before), reason: lost.reason },
            { before: after + 1 + (lost.missed ?? 0), reason: "disconnected" }
          )
        }
        assert.deepStrictEqual(
          s.events.flatMap((event) => (event._tag === "Gap" && event.group === "g" ? [event.gap] : [])),
          s.gaps()
        )
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
    )
  }

  it.live("when its line is cut off for longer than anybody waits, and recovers (E11, E13)", () =>
    Effect.gen(function* () {
      const s = yield* fixture()
      yield* s.listen
      const gone = () => s.events.some((event) => event._tag === "Disconnected" && event.role.startsWith("subscriber"))
      // Whoever waits for the system to notice waits for many minutes.
      const cutOff = s.proxy.blackhole.pipe(
        Effect.andThen(becomes("noticed", Effect.sync(gone), true)),
        Effect.andThen(s.proxy.pass)
      )
      const { count } = yield* through(s, cutOff)
      assert.deepStrictEqual(complaints(s.told, count), [])
      assert.isAtLeast(s.gaps().length, 1)
    }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )

  for (const [name, line] of Object.entries({
    late: { latency: "10 millis", jitter: "20 millis" },
    slowly: { bytesPerSecond: 200_000 },
    "byte by byte": { fragment: 1 }
  } satisfies Record<string, FaultProxy.Line>)) {
    it.live(`nothing when its line carries ${name} (E12)`, () =>
      Effect.gen(function* () {
        const s = yield* fixture()
        yield* s.listen
        yield* s.proxy.carry(line)
        const bodies = Array.from({ length: 200 }, (_, i) => `${i} ü漢😀 \r\n$5\r\n`)
        yield* s.publish(...bodies)
        yield* becomes("all of them", Effect.sync(s.heard), bodies)
        assert.deepStrictEqual(s.gaps(), [])
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
    )
  }

  it.live(
    "after a reconnect there is exactly one gap, before anything else, even if nothing shows what was missed",
    () =>
      Effect.gen(function* () {
        const s = yield* fixture()
        yield* s.listen
        yield* s.publish("0")
        yield* becomes("the first", Effect.sync(s.heard), ["0"])
        const reconnected = () => s.events.some(({ _tag }) => _tag === "Reconnected")
        yield* s.proxy.reset
        yield* becomes("reconnecting", Effect.sync(reconnected), true)
        yield* Effect.scoped(
          Effect.flatMap(client(s.server.url), (redis) =>
            Effect.promise(async () => {
              while ((await redis.publish("{waybill:t}:channel", "1")) === 0);
              await redis.publish("{waybill:t}:channel", "2")
            })
          )
        )
        yield* becomes("the others", Effect.sync(s.heard), ["0", "1", "2"])
        assert.deepStrictEqual(
          s.told.map((one) => (typeof one === "string" ? one : one.missed)),
          ["0", undefined, "1", "2"]
        )
        assert.strictEqual(s.gaps()[0]?.after, s.ids[0])
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )

  it.live("when the server is restarted, and when it stood still for a while (E8, E9)", () =>
    Effect.gen(function* () {
      const s = yield* fixture()
      yield* s.listen
      yield* s.publish(...numbers(0, 10))
      yield* becomes(
        "ten",
        Effect.sync(() => s.heard().length),
        10
      )
      yield* s.server.pause
      yield* Effect.sleep("200 millis")
      yield* s.server.resume
      yield* s.publish(...numbers(10, 20))
      yield* becomes(
        "twenty",
        Effect.sync(() => s.heard().length),
        20
      )
      assert.deepStrictEqual(s.gaps(), [], "nothing was lost")
      yield* s.server.kill
      yield* s.server.start
      yield* s.publish("20", "21")
      let count = 22
      while (!s.heard().includes(String(count - 1))) {
        yield* s.publish(String(count++))
        yield* Effect.sleep("20 millis")
      }
      assert.deepStrictEqual(complaints(s.told, count), [])
      assert.strictEqual(s.gaps().length, 1)
    }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )

  it.live("nothing when FLUSHALL takes away all that the store knew of it, and it is known again (E17)", () =>
    Effect.gen(function* () {
      const s = yield* fixture()
      yield* s.listen
      const redis = yield* client(s.server.url)
      const groups = Effect.promise(async () => (await redis.smembers("{waybill:t}:groups")).toSorted())
      const topics = Effect.promise(() => redis.smembers("waybill:topics"))
      yield* s.publish("0")
      yield* becomes("the first", Effect.sync(s.heard), ["0"])
      yield* Effect.promise(() => redis.flushall())
      yield* s.publish("1")
      yield* becomes("the second", Effect.sync(s.heard), ["0", "1"])
      assert.deepStrictEqual(s.gaps(), [])
      yield* becomes("the groups", groups, ["g", "witness"])
      yield* becomes("the topic", topics, ["t"])
    }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )

  for (const [name, hurt] of [
    [
      "the server takes no more connections for a while",
      (s: Effect.Success<ReturnType<typeof fixture>>, redis: Redis) =>
        Effect.gen(function* () {
          const [, most = ""] = yield* Effect.promise(() => redis.config("GET", "maxclients") as Promise<Array<string>>)
          yield* Effect.promise(() => redis.config("SET", "maxclients", "1"))
          yield* s.proxy.reset
          // Longer than it takes to try more than once.
          yield* Effect.sleep("300 millis")
          yield* Effect.promise(() => redis.config("SET", "maxclients", most))
        })
    ],
    [
      "the server moves to another port",
      (s: Effect.Success<ReturnType<typeof fixture>>, redis: Redis) =>
        Effect.gen(function* () {
          const port = yield* Port.reserve
          yield* Effect.promise(() => redis.config("SET", "port", port))
          yield* s.proxy.redirect(port)
        })
    ]
  ] as const) {
    it.live(`when ${name} (E36, E40)`, () =>
      Effect.gen(function* () {
        const s = yield* fixture()
        yield* s.listen
        const redis = yield* client(s.server.url)
        const { count } = yield* through(s, hurt(s, redis))
        assert.deepStrictEqual(complaints(s.told, count), [])
        assert.isAtLeast(s.gaps().length, 1)
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
    )
  }

  for (const kind of ["ALL", "WRITE"]) {
    it.live(`nothing when the server is paused, CLIENT PAUSE ${kind} (E15)`, () =>
      Effect.gen(function* () {
        const s = yield* fixture()
        yield* s.listen
        const redis = yield* client(s.server.url)
        yield* s.publish(...numbers(0, 10))
        yield* Effect.promise(() => redis.call("CLIENT", "PAUSE", "1000", kind))
        yield* s.publish(...numbers(10, 20))
        yield* becomes("all of them", Effect.sync(s.heard), numbers(0, 20))
        assert.deepStrictEqual(s.gaps(), [])
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
    )
  }

  it.live("when a message is so large that the server drops the subscriber (E25)", () =>
    Effect.gen(function* () {
      const s = yield* fixture()
      yield* s.listen
      yield* s.publish("0")
      yield* becomes("the first", Effect.sync(s.heard), ["0"])
      yield* s.publish("x".repeat(40 * 1024 * 1024))
      let count = 2
      while (!s.heard().includes(String(count - 1))) {
        yield* s.publish(String(count++))
        yield* Effect.sleep("20 millis")
      }
      assert.deepStrictEqual(complaints(s.told, count), [])
      assert.isAtLeast(s.gaps()[0]?.missed ?? 0, 1)
    }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )

  it.live("a naive subscriber that subscribes again by itself fails the same check", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.RedisServer
      const redis = yield* client(server.url)
      const told: Array<Told> = []
      const naive = yield* Effect.acquireRelease(
        Effect.sync(() => new Redis(server.url)),
        (naive) => Effect.sync(() => naive.disconnect())
      )
      naive.on("error", () => {})
      naive.on("message", (_, message) => void told.push(message))
      yield* Effect.promise(() => naive.subscribe("t"))
      let count = 0
      const say = Effect.promise(() => redis.publish("t", String(count++)))
      for (let i = 0; i < 100; i++) yield* say
      yield* Effect.promise(() => redis.call("CLIENT", "KILL", "TYPE", "pubsub"))
      for (let i = 0; i < 10; i++) yield* say
      while (!told.includes(String(count - 1))) yield* Effect.andThen(say, Effect.sleep("5 millis"))
      assert.isNotEmpty(complaints(told, count))
    }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )
})

describe("RedisPubSub with a consumer that is too slow", () => {
  for (const [overflow, kept, missed, between] of [
    ["drop-oldest", ["6", "7", "8", "9"], 6, [undefined, 6]],
    ["drop-newest", ["0", "1", "2", "3", "10"], 6, [3, 10]]
  ] as const) {
    it.live(`${overflow}: what is dropped is a gap (E37)`, () =>
      Effect.gen(function* () {
        const s = yield* fixture({ buffer: 4, overflow })
        for (const number of numbers(0, 10)) yield* s.publish(number)
        // A second receiver of the same connection has heard all ten: so has the first.
        yield* becomes("all of them", s.witnessed, 10)
        yield* s.listen
        yield* becomes(
          "what was kept",
          Effect.sync(() => s.heard().length),
          4
        )
        if (overflow === "drop-newest") yield* s.publish("10")
        yield* becomes("what was kept", Effect.sync(s.heard), [...kept])
        const [gap, ...others] = s.gaps()
        assert.deepStrictEqual(others, [])
        assert.deepStrictEqual(gap, {
          missed,
          after: between[0] === undefined ? undefined : s.ids[between[0]],
          before: s.ids[between[1]]!,
          reason: "overflow"
        })
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
    )
  }

  for (const [overflow, kept, missed] of [
    ["drop-oldest", [6, 7, 8, 9], 6],
    ["drop-newest", [0, 1, 2, 3, 10], 6]
  ] as const) {
    it.live(`case B7, E37: ${overflow}: what finds bufferBytes full is told as a gap`, () =>
      Effect.gen(function* () {
        const s = yield* fixture({ bufferBytes: 4400, overflow })
        const large = (n: number) => `${n} `.padEnd(1000, "x")
        for (let n = 0; n < 10; n++) {
          yield* s.publish(large(n))
          // A witness has the same buffer, and empties it.
          yield* becomes("all of them", s.witnessed, n + 1)
        }
        yield* s.listen
        yield* becomes(
          "what was kept",
          Effect.sync(() => s.heard().length),
          4
        )
        if (overflow === "drop-newest") yield* s.publish(large(10))
        yield* becomes(
          "what was kept",
          Effect.sync(() => s.heard().map((body) => Number.parseInt(body))),
          [...kept]
        )
        assert.deepStrictEqual(
          s.gaps().map(({ missed, reason }) => [missed, reason]),
          [[missed, "overflow"]]
        )
      }).pipe(Effect.scoped, quietly, Effect.provide(servers))
    )
  }

  it.live("fail: the consumer fails, and says why", () =>
    Effect.gen(function* () {
      const s = yield* fixture({ buffer: 4, overflow: "fail" })
      yield* s.publish(...numbers(0, 10))
      const failure = yield* Effect.flip(Effect.forever(Effect.andThen(Effect.sleep("20 millis"), s.receiver.take(1))))
      assert.strictEqual(failure.reason._tag, "Overflow")
    }).pipe(Effect.scoped, quietly, Effect.provide(servers))
  )
})
