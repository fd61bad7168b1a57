/** Removing a topic on every pattern: the keys that go with it, and events that come in between. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Array, Context, Duration, Effect, Exit, Layer, Option, Random, References, Scope } from "effect"
import { Inspector, Settlement, Transport } from "waybill"
import { IoRedis, RedisInspector, RedisStreams } from "waybill/redis"
import { client, outgoing } from "./Fixture.ts"
import { all, type Services, storing } from "./Patterns.ts"

/** A name with a colon has other keys than one without. */
const group = "a:b"
const lease = Duration.seconds(10)

/**
 * A pattern under a prefix of its own; an inspector like that of the command, and a plain client beside it. What `between` has
 * in it is done once, in front of the script that removes or of the command of this name.
 */
const fixture = Effect.fnUntraced(
  function* (pattern: (options: { readonly prefix: string }) => Layer.Layer<Services, never, IoRedis.IoRedis>) {
    const { url } = yield* RedisServer.RedisServer
    const prefix = `removal${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
    const redis = yield* client(url)
    const connected = yield* Layer.build(IoRedis.layer({ url }))
    const context = yield* Layer.build(Layer.provide(pattern({ prefix }), Layer.succeedContext(connected)))
    const transport = Context.get(context, Transport.AtMostOnce)
    const between = new Map<string, Effect.Effect<unknown, unknown>>()
    const before = (step: string) =>
      Effect.suspend(() => {
        const something = between.get(step)
        between.delete(step)
        return something === undefined ? Effect.void : Effect.orDie(something)
      })
    const io = Context.get(connected, IoRedis.IoRedis)
    const { commands } = io
    const hooked = Layer.succeed(IoRedis.IoRedis, {
      ...io,
      commands: {
        ...commands,
        run: (command, ...rest) => Effect.andThen(before(command), commands.run(command, ...rest)),
        eval: (script, keys, args, options) =>
          Effect.andThen(
            script.name.endsWith("/remove") ? before("script") : Effect.void,
            commands.eval(script, keys, args, options)
          )
      }
    })
    const inspector = Context.get(
      yield* Layer.build(Layer.provide(RedisInspector.layer({ prefix }), hooked)),
      Inspector.Inspector
    )
    /** The obstacle, or that it was removed. */
    const found = inspector.remove("t").pipe(
      Effect.as("removed"),
      Effect.catchReason("TransportError", "TopicInUse", ({ found, group }) =>
        Effect.succeed(group === undefined ? found : `${found} of ${group}`)
      )
    )
    const receive = (options: Partial<Transport.Subscription> = {}) =>
      transport.receive({
        topic: "t",
        group,
        start: "earliest",
        lease,
        maxDeliveries: 5,
        shutdown: Duration.seconds(1),
        ...options
      })
    /** A receiver, and how it leaves. */
    const visitor = Effect.fnUntraced(function* (options?: Partial<Transport.Subscription>) {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
      return { receiver: yield* Scope.provide(receive(options), scope), leave: Scope.close(scope, Exit.void) }
    })
    const tag = `{${prefix}:t}`
    /** The keys of the topic that do not expire by themselves. */
    const lasting = Effect.promise(async () => {
      const keys = await redis.keys(`*${prefix}*`)
      const left: Array<string> = []
      for (const key of keys) if ((await redis.pttl(key)) === -1) left.push(key.replace(tag, ""))
      return left.toSorted()
    })
    return { between, found, inspector, lasting, prefix, redis, tag, transport, visitor }
  },
  Effect.provideService(References.MinimumLogLevel, "None")
)

const publish = (transport: Transport.Transport, body: string, delay?: Duration.Duration) =>
  transport.publish("t", [
    outgoing({ body, ...(delay === undefined ? { id: body } : { due: { _tag: "After", delay } }) })
  ])

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("case B15: removing a topic", (it) => {
  it.effect.each(Object.entries(storing))(
    "%s: only keys that expire by themselves and the records stay, also when a dead consumer leaves late",
    ([, pattern]) =>
      Effect.gen(function* () {
        const { found, inspector, lasting, redis, tag, transport, visitor } = yield* fixture(pattern)
        const { leave, receiver } = yield* visitor()
        yield* publish(transport, "a")
        yield* publish(transport, "b")
        yield* publish(transport, "c", Duration.millis(1))
        // One is retried, one dies and comes back, and one comes late.
        const seen = new Map<string, number>()
        while (seen.size < 3 || seen.get("a") !== 2 || seen.get("b") !== 2) {
          for (const delivery of yield* receiver.take(10)) {
            const body = String(delivery.body)
            const times = (seen.get(body) ?? 0) + 1
            seen.set(body, times)
            const first = times === 1
            yield* receiver.settle([
              [
                delivery,
                first && body === "a"
                  ? Settlement.retry(Duration.millis(1), "again")
                  : first && body === "b"
                    ? Settlement.deadLetter("Broken", "cause")
                    : Settlement.ack
              ]
            ])
            if (!first || body !== "b") continue
            const letters = yield* inspector.deadLetters("t", group, { after: Option.none(), limit: 10 })
            yield* inspector.redrive(
              "t",
              group,
              letters.map(({ entry }) => entry)
            )
          }
        }
        // One that dies with nothing in its hands.
        const late = yield* visitor({ lease: Duration.millis(200) })
        yield* freeze(late.receiver)
        yield* leave
        // Its heartbeat has to run out.
        while ((yield* inspector.describe("t")).groups.some(({ consumers }) => consumers.length > 0)) {
          yield* Effect.sleep(10)
        }
        yield* Effect.promise(() => redis.hset(`${tag}:data:total`, "sum", 1))
        const before = yield* lasting
        assert.includeMembers(before, [":meta", ":groups", `:group::a%3Ab:state`, ":data:total"])
        yield* inspector.pause("t", group)
        assert.strictEqual(yield* found, "removed")
        yield* late.leave
        assert.deepStrictEqual(yield* lasting, [":data:total"])
      }).pipe(Effect.scoped)
  )

  it.effect.each(Object.entries(storing))(
    "%s: nothing is left of a retired group, whatever it held, also when a dead consumer leaves late",
    ([, pattern]) =>
      Effect.gen(function* () {
        const { inspector, lasting, transport, visitor } = yield* fixture(pattern)
        const late = yield* visitor({ lease: Duration.millis(200) })
        for (const body of ["dead", "back", "again", "held", "new"]) yield* publish(transport, body)
        let taken = 0
        while (taken < 4) {
          for (const delivery of yield* late.receiver.take(4 - taken)) {
            taken++
            const body = String(delivery.body)
            if (body === "held") continue
            const settlement =
              body === "dead"
                ? Settlement.deadLetter("Broken", "cause")
                : body === "back"
                  ? Settlement.release
                  : Settlement.retry(Duration.hours(1), "later")
            yield* late.receiver.settle([[delivery, settlement]])
          }
        }
        yield* freeze(late.receiver)
        while ((yield* inspector.describe("t")).groups.some(({ consumers }) => consumers.length > 0)) {
          yield* Effect.sleep(10)
        }
        assert.isTrue((yield* lasting).some((key) => key.startsWith(":group:")))
        yield* inspector.retire("t", group)
        yield* late.leave
        assert.deepStrictEqual(
          (yield* lasting).filter((key) => key.startsWith(":group")),
          []
        )
      }).pipe(Effect.scoped)
  )

  it.effect.each(Object.entries(storing))(
    "%s: what comes in between keeps the topic, or makes it anew",
    ([, pattern]) =>
      Effect.gen(function* () {
        const { between, found, inspector, redis, tag, transport, visitor } = yield* fixture(pattern)
        const state = `${tag}:group::a%3Ab`
        const empty = Effect.gen(function* () {
          const { leave, receiver } = yield* visitor()
          yield* publish(transport, `m${yield* Random.nextIntBetween(0, 2 ** 40)}`)
          yield* receiver.settle(Array.map(yield* receiver.take(1), (delivery) => [delivery, Settlement.ack] as const))
          yield* leave
        })

        yield* empty
        between.set("script", publish(transport, "one"))
        assert.strictEqual(yield* found, `messages of ${group}`)
        const one = yield* visitor()
        const held = yield* one.receiver.take(1)
        assert.strictEqual(yield* found, `pending of ${group}`)
        yield* one.receiver.settle(Array.map(held, (delivery) => [delivery, Settlement.ack] as const))
        yield* one.leave

        // A consumer, and what it holds, that the caller has not seen; it died at once.
        between.set(
          "script",
          Effect.promise(() =>
            redis.pipeline().zadd(`${state}:consumers`, 1, "ghost").sadd(`${state}:processing:ghost`, "1-1").exec()
          )
        )
        assert.strictEqual(yield* found, pattern === storing.RedisStreams ? "removed" : `consumers of ${group}`)
        yield* Effect.promise(() => redis.del(`${state}:consumers`, `${state}:processing:ghost`))

        yield* empty
        between.set(
          "script",
          Effect.promise(() => redis.sadd(`${tag}:groups`, "other"))
        )
        assert.strictEqual(yield* found, "consumers of other")
        yield* Effect.promise(() => redis.srem(`${tag}:groups`, "other"))

        between.set("srem", publish(transport, "two"))
        assert.strictEqual(yield* found, "removed")
        assert.include(yield* inspector.topics, "t")
        assert.strictEqual(yield* found, "messages")
      }).pipe(Effect.scoped)
  )

  it.effect.each(Object.entries(all))(
    "%s: a heartbeat counts until it runs out, what a clock that went back has left of one does not",
    ([, pattern]) =>
      Effect.gen(function* () {
        const { found, redis, tag, visitor } = yield* fixture(pattern)
        const { leave } = yield* visitor()
        yield* leave
        const keys = `${tag}:group::a%3Ab`
        const beat = (millis: number) =>
          Effect.promise(() => redis.zadd(`${keys}:consumers`, Date.now() + millis, "ghost"))
        const note = (millis: number) => Effect.promise(() => redis.hset(`${keys}:state`, "lease:ghost", millis))
        yield* beat(60_000)
        assert.strictEqual(yield* found, `consumers of ${group}`)
        yield* note(90_000)
        assert.strictEqual(yield* found, `consumers of ${group}`)
        yield* note(1000)
        assert.strictEqual(yield* found, "removed")
      }).pipe(Effect.scoped)
  )

  it.effect("streams: groups of other programs and entries that were deleted one by one are looked at exactly", () =>
    Effect.gen(function* () {
      const { found, inspector, lasting, redis, tag } = yield* fixture(RedisStreams.layer)
      const stream = `${tag}:stream`
      yield* Effect.promise(async () => {
        await redis.xgroup("CREATE", stream, "theirs", "0", "MKSTREAM")
        for (let i = 1; i <= 4; i++) await redis.xadd(stream, `${i}-0`, "payload", "p")
      })
      assert.strictEqual(yield* found, "messages of theirs")
      // The server is told that the group has read everything, and it has not.
      const lie = (stream: string) =>
        Effect.promise(() => redis.xgroup("SETID", stream, "theirs", "3-0", "ENTRIESREAD", "4"))
      yield* lie(stream)
      assert.strictEqual((yield* inspector.describe("t")).groups[0]?.lag, 0)
      assert.strictEqual(yield* found, "messages of theirs")
      yield* Effect.promise(() => redis.xdel(stream, "2-0"))
      assert.strictEqual(yield* found, "messages of theirs")
      yield* Effect.promise(() => redis.xreadgroup("GROUP", "theirs", "c", "STREAMS", stream, ">"))
      assert.strictEqual(yield* found, "pending of theirs")
      yield* Effect.promise(() => redis.xack(stream, "theirs", "4-0"))
      // A group that is registered and is not there would begin with what is stored.
      yield* Effect.promise(() => redis.sadd(`${tag}:groups`, "lost"))
      assert.strictEqual(yield* found, "messages of lost")
      yield* Effect.promise(() => redis.srem(`${tag}:groups`, "lost"))
      const retry = `${tag}:group:theirs:retry`
      yield* Effect.promise(async () => {
        for (let i = 1; i <= 4; i++) await redis.xadd(retry, `${i}-0`, "payload", "p")
      })
      assert.strictEqual(yield* found, "waiting of theirs")
      yield* Effect.promise(() => redis.xgroup("CREATE", retry, "theirs", "0"))
      yield* lie(retry)
      assert.strictEqual((yield* inspector.describe("t")).groups[0]?.waiting, 0)
      assert.strictEqual(yield* found, "waiting of theirs")
      yield* Effect.promise(() => redis.del(retry))
      // What is left of messages that are settled goes too.
      const left = ["released", "waiting-bodies"].map((name) => `${tag}:group:theirs:${name}`)
      for (const key of left) yield* Effect.promise(() => redis.hset(key, "field", "1"))
      assert.strictEqual((yield* inspector.describe("t")).depth, 3)
      assert.strictEqual(yield* found, "removed")
      assert.deepStrictEqual(yield* lasting, [])
    }).pipe(Effect.scoped)
  )

  it.effect("keyspace: messages that have expired in thousands are passed", () =>
    Effect.gen(function* () {
      const { found, inspector, redis, tag } = yield* fixture(storing.RedisKeyspace)
      yield* Effect.promise(() =>
        redis
          .pipeline()
          .hset(`${tag}:meta`, "pattern", "keyspace", "wire", "1")
          .set(`${tag}:numbers`, "0 1 9000")
          .exec()
      )
      assert.isAbove((yield* inspector.describe("t")).depth, 0)
      yield* Effect.promise(() => redis.set(`${tag}:message:#9000`, "0last", "PX", 60_000))
      assert.strictEqual(yield* found, "messages")
      yield* Effect.promise(() => redis.del(`${tag}:message:#9000`))
      assert.strictEqual(yield* found, "removed")
    }).pipe(Effect.scoped)
  )

  it.effect("a foreign value is named, and nothing is gone", () =>
    Effect.gen(function* () {
      for (const [pattern, key] of [
        [storing.RedisStreams, "delayed-bodies"],
        [storing.RedisLists, "group::a%3Ab:marks"]
      ] as const) {
        const { found, inspector, lasting, redis, tag, visitor } = yield* fixture(pattern)
        const { leave } = yield* visitor()
        yield* leave
        yield* Effect.promise(() => redis.set(`${tag}:${key}`, "theirs"))
        const before = yield* lasting
        const { reason } = yield* Effect.flip(inspector.remove("t"))
        assert.deepInclude({ ...reason }, { _tag: "WrongKeyType", key: `${tag}:${key}` })
        assert.deepStrictEqual(yield* lasting, before)
        yield* Effect.promise(() => redis.del(`${tag}:${key}`))
        assert.strictEqual(yield* found, "removed")
      }
    }).pipe(Effect.scoped)
  )

  it.effect.each(Object.entries(all))(
    "%s: the line of docs/permissions.md, +unlink and +srem are enough, and without them nothing is gone",
    ([name, pattern]) =>
      Effect.gen(function* () {
        const { lasting, prefix, redis, visitor } = yield* fixture(pattern)
        const { url } = yield* RedisServer.RedisServer
        const { leave } = yield* visitor()
        yield* leave
        const page = readFileSync(join(import.meta.dirname, "../../docs/permissions.md"), "utf8")
        const [, line = ""] = new RegExp(`## ${name}\\n[^#]*?ACL SETUSER \\S+ ([^\`]+)\`\`\``).exec(page) ?? []
        const user = (...rights: ReadonlyArray<string>) =>
          Effect.gen(function* () {
            const words = line
              .trim()
              .replaceAll(/shop(?=[:*])/g, prefix)
              .split(" ")
            yield* Effect.promise(() => redis.call("ACL", "SETUSER", name, "reset", ...words, ...rights))
            const { host } = new URL(url)
            const connected = IoRedis.layer({ url: `redis://${name}:secret@${host}` })
            return Context.get(
              yield* Layer.build(Layer.provide(RedisInspector.layer({ prefix }), connected)),
              Inspector.Inspector
            )
          })
        const before = yield* lasting
        const { reason } = yield* Effect.flip((yield* user("-unlink")).remove("t"))
        assert.deepInclude({ ...reason }, { _tag: "NotPermitted", command: "unlink" })
        assert.deepStrictEqual(yield* lasting, before)
        const permitted = yield* user("+unlink", "+srem", "+xgroup|destroy")
        yield* permitted.retire("t", group)
        assert.isFalse((yield* lasting).some((key) => key.startsWith(":group")))
        yield* (yield* user("+unlink", "+srem")).remove("t")
        assert.deepStrictEqual(yield* lasting, [])
      }).pipe(Effect.scoped)
  )
})
