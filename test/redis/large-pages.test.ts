/**
 * Messages and dead letters that are large, many, and at the end of a slow line: they are read, sent back and deleted page by
 * page, and the connection that consumers share lives on.
 */
import { assert, layer } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Effect, Layer, Option, References, Schema, Stream } from "effect"
import { DeadLetters, Inspector, Log, Topic } from "waybill"
import { IoRedis, RedisInspector } from "waybill/redis"
import { run } from "../cli/Terminal.ts"
import { person, storing } from "../faults/Storing.ts"
import { becomes, client } from "./Fixture.ts"

const size = 200_000
const count = 600
const patterns = ["streams", "lists", "exactly-once", "keyspace", "pubsub"] as const

/** Looked at through an inspector, without its transport. */
const Large = { ...Topic.make("t", { payload: Schema.String }), on: Topic.byName("t").on }

/** A topic of the pattern with so many dead letters, and a line to it that carries 20 MB a second. */
const fixture = Effect.fnUntraced(function* (pattern: string, letters: number) {
  const server = yield* RedisServer.make()
  const redis = yield* client(server.url)
  const body = JSON.stringify("x".repeat(size))
  yield* Effect.promise(async () => {
    await redis.sadd("waybill:topics", "t")
    await redis.hset("{waybill:t}:meta", "pattern", pattern, "wire", "1")
    await redis.sadd("{waybill:t}:groups", "g")
    if (pattern === "streams") await redis.xgroup("CREATE", "{waybill:t}:stream", "g", "0", "MKSTREAM")
    const head = ["reason", "Declined", "cause", "", "attempts", "1", "fence", "1"]
    for (let i = 0; i < letters; i++) {
      const id = `${1000 + i}-0`
      const more = ["id", `m-${i}`, "at", "1", "origin", id, "consumer", "c"]
      await redis.xadd("{waybill:t}:group:g:dead", id, ...head, ...more, "payload", body)
    }
  })
  const line = yield* FaultProxy.make(server.port)
  yield* line.carry({ bytesPerSecond: 20_000_000 })
  const context = yield* Layer.build(
    RedisInspector.layer().pipe(Layer.provideMerge(IoRedis.layer({ url: line.url })))
  ).pipe(Effect.provideService(References.MinimumLogLevel, "None"))
  return { redis, line, context, body, direct: server.url }
})

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("large pages", (it) => {
  it.effect(
    "case B6: 600 dead letters of 200 kB at the end of a slow line are counted, begun and sent back",
    () =>
      Effect.gen(function* () {
        const { context, redis } = yield* fixture("streams", count)
        const connected = Effect.map(
          Effect.promise(() => redis.info("stats")),
          (text) => /total_connections_received:(\d+)/.exec(text)?.[1]
        )
        yield* Effect.gen(function* () {
          const first = yield* Stream.runCollect(Stream.take(DeadLetters.stream(Large, "g"), 1))
          assert.deepStrictEqual(
            first.map(({ id }) => id),
            ["m-0"]
          )
          const before = yield* connected
          const plan = yield* DeadLetters.redrive(Large, "g", { dryRun: true })
          assert.deepStrictEqual(plan, { examined: count, selected: count, done: 0 })
          const report = yield* DeadLetters.redrive(Large, "g")
          assert.deepStrictEqual(report, { examined: count, selected: count, done: count })
          assert.strictEqual(yield* connected, before, "no connection was lost")
        }).pipe(Effect.provideContext(context))
        const left = yield* Effect.promise(async () => [
          await redis.xlen("{waybill:t}:group:g:dead"),
          await redis.xlen("{waybill:t}:group:g:retry")
        ])
        assert.deepStrictEqual(left, [0, count])
      }).pipe(Effect.scoped),
    300_000
  )

  it.effect(
    "case B6: no page is much larger than a megabyte, on any pattern and of any list, nor what one step sends back",
    () =>
      Effect.gen(function* () {
        for (const pattern of patterns) {
          const { body, context, redis } = yield* fixture(pattern, 30)
          const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
          const all = Effect.fnUntraced(function* <A extends { readonly id: string; readonly body: unknown }>(
            read: (page: Inspector.Page) => Effect.Effect<ReadonlyArray<A>, unknown>,
            positionOf: (one: A) => string
          ) {
            const ids: Array<string> = []
            for (let after = Option.none<string>(); ;) {
              const page = yield* read({ after, limit: 500 })
              const last = page.at(-1)
              if (last === undefined) return ids
              assert.isAtMost(page.length, 6, pattern)
              for (const one of page) {
                assert.strictEqual(one.body, body)
                ids.push(one.id)
              }
              after = Option.some(positionOf(last))
            }
          })
          const expected = Array.from({ length: 30 }, (_, i) => `m-${i}`)
          const letters = yield* all(
            (page) => inspector.deadLetters("t", "g", page),
            ({ entry }) => entry
          )
          assert.deepStrictEqual(letters, expected, pattern)
          const entries = expected.map((_, i) => `${1000 + i}-0`)
          yield* Effect.promise(() => redis.config("RESETSTAT"))
          // Sent back they are kept by those that subscribe, and nobody does.
          assert.strictEqual(yield* inspector.redrive("t", "g", entries), pattern === "pubsub" ? 0 : 30, pattern)
          const stats = yield* Effect.promise(() => redis.info("commandstats"))
          assert.isAtLeast(Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1]), 5, pattern)
          if (pattern === "pubsub") continue
          const waiting = yield* all(
            (page) => inspector.waiting("t", "g", page),
            ({ position }) => position
          )
          assert.deepStrictEqual(waiting, expected, pattern)
        }
      }).pipe(Effect.scoped),
    300_000
  )

  it.effect(
    "case B6: what is stored is read in pages of a megabyte, forwards and backwards, as a log and by the command",
    () =>
      Effect.gen(function* () {
        for (const pattern of ["streams", "lists", "exactly-once", "keyspace"] as const) {
          const { context, direct, line, redis } = yield* fixture(pattern, 0)
          const numbered = Array.from({ length: 20 }, (_, i) => `${i}`.padStart(size, "x"))
          const ended = yield* run(["publish", "t"], {
            url: direct,
            stdin: numbered.map((text) => `${JSON.stringify(text)}\n`).join("")
          })
          assert.strictEqual(ended.code, 0, ended.err)
          const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
          const texts = (entries: ReadonlyArray<{ readonly body: unknown }>) =>
            entries.map(({ body }) => JSON.parse(String(body)) as string)
          for (const page of [{ after: Option.none() }, { before: Option.none() }]) {
            const some = yield* inspector.messages("t", { limit: 500, ...page })
            assert.isAtMost(some.length, 6)
            assert.deepStrictEqual(
              texts(some),
              page.before ? numbered.slice(-some.length) : numbered.slice(0, some.length)
            )
          }
          const read = yield* Effect.all([
            Log.first(Large, { limit: 15 }),
            Log.last(Large, { limit: 15 }),
            Log.last(Large, { limit: 1000 }),
            Stream.runCollect(Log.stream(Large))
          ]).pipe(Effect.provideContext(context))
          assert.deepStrictEqual(
            read.map(texts),
            [numbered.slice(0, 15), numbered.slice(-15), numbered, numbered],
            pattern
          )
          if (pattern === "streams") {
            yield* Effect.promise(() => redis.xreadgroup("GROUP", "g", "c", "STREAMS", "{waybill:t}:stream", ">"))
            const some = yield* inspector.pending("t", "g", { after: Option.none(), limit: 500 })
            assert.deepStrictEqual(texts(some), numbered.slice(0, 6))
          }
          const tail = yield* run(["tail", "t", "-n", "12", "--json"], { url: line.url })
          const bodies = tail.out.split("\n").flatMap((text) => (text === "" ? [] : [JSON.parse(text)]))
          assert.deepStrictEqual(texts(bodies), numbered.slice(-12), pattern)
        }
      }).pipe(Effect.scoped),
    300_000
  )

  it.effect.each(storing)(
    "case B6: large messages that died with their consumer become dead letters a few megabytes at a time, %s",
    (pattern) =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make()
        const line = yield* FaultProxy.make(server.port)
        const [one, two] = [yield* person(pattern, line.url), yield* person(pattern, server.url)]
        const large = 30
        const terms = { concurrency: large, maxDeliveries: 1 }
        for (let i = 0; i < large; i++) yield* two.publish("x".repeat(400_000))
        let begun = 0
        yield* one.consume(
          () =>
            Effect.andThen(
              Effect.sync(() => begun++),
              Effect.never
            ),
          terms
        )
        yield* becomes(
          "all have begun",
          Effect.sync(() => begun),
          large
        )
        yield* line.blackhole
        yield* two.consume(() => Effect.void, terms)
        yield* becomes("all are dead letters", Effect.orDie(two.left), [0, large])
        const told = () => two.events.filter((event) => event._tag === "Settled").length
        yield* becomes("all are told", Effect.sync(told), large)
        const steps = two.events.filter((event) => event._tag === "Claimed")
        assert.isAtLeast(steps.length, 3)
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    60_000
  )
})
